//! What functions answer, errors with their reasons, and versions.

use std::ffi::{CStr, c_char};

use tokenward_core::{BuildError, ConfigError, Problem, Reason};

use crate::guard::{Out, Outcome, borrow, give, guard, guard_or, take};
use crate::text::tokenward_str;

/// What a fallible function answers. Outputs are written with TOKENWARD_OK alone. New numbers may be added; none is reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tokenward_result {
    /// Done.
    TOKENWARD_OK = 0,
    /// There is none: no such claim, no rewritten target, nothing in the queue. No fault.
    TOKENWARD_ABSENT = 1,
    /// A pointer that is needed is NULL.
    TOKENWARD_NULL_POINTER = 2,
    /// A number, length, index or `struct_size` that cannot be.
    TOKENWARD_INVALID_ARGUMENT = 3,
    /// Text that is not UTF-8 where it has to be.
    TOKENWARD_NOT_UTF8 = 4,
    /// A configuration, policy or directory of consumers that is refused; the error says everything that is wrong with it.
    TOKENWARD_INVALID_CONFIG = 5,
    /// The system gave no randomness, or certificate authorities could not be used; the error says which.
    TOKENWARD_SYSTEM = 6,
    /// The step was used already: it holds its decision, or a call about it is under way.
    TOKENWARD_ALREADY_USED = 7,
    /// The step stands at something else: a reply to a wait, or a wait where a call is to be made.
    TOKENWARD_WRONG_STEP = 8,
    /// A callback freed the step during the call. It does not exist any more.
    TOKENWARD_FREED = 9,
    /// The program was compiled for another ABI than this library's.
    TOKENWARD_ABI_MISMATCH = 10,
    /// A defect of Tokenward, caught at the boundary. Free the handle and deny the request; a step holds such a refusal by itself.
    TOKENWARD_PANIC = 11,
}

/// Why a request was denied: the numbers of `tokenward_decision_reason`. New ones may be added; none is reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tokenward_reason {
    /// No access token was presented.
    TOKENWARD_REASON_TOKEN_MISSING = 1100,
    /// The token is not where or what RFC 6750 says, or was given more than once.
    TOKENWARD_REASON_REQUEST_MALFORMED = 1101,
    /// The authorization server says that the token is not active.
    TOKENWARD_REASON_TOKEN_INACTIVE = 1200,
    /// The answer's `exp` is over.
    TOKENWARD_REASON_TOKEN_EXPIRED = 1201,
    /// The answer's `nbf` is still to come.
    TOKENWARD_REASON_TOKEN_NOT_YET_VALID = 1202,
    /// The token is for another audience, of another issuer, bound to a key, or no access token.
    TOKENWARD_REASON_TOKEN_NOT_USABLE = 1203,
    /// None of the alternatives of `require.scopes` is granted.
    TOKENWARD_REASON_INSUFFICIENT_SCOPE = 1300,
    /// `require.consumer` is set and no consumer matches.
    TOKENWARD_REASON_CONSUMER_UNKNOWN = 1301,
    /// The endpoint could not be connected to.
    TOKENWARD_REASON_ENDPOINT_UNREACHABLE = 1400,
    /// The endpoint did not answer within `timeout`.
    TOKENWARD_REASON_ENDPOINT_TIMED_OUT = 1401,
    /// The endpoint answered 429, 500, 502, 503 or 504.
    TOKENWARD_REASON_ENDPOINT_UNAVAILABLE = 1402,
    /// `limits.concurrent_introspections` are under way.
    TOKENWARD_REASON_OVERLOADED = 1403,
    /// The endpoint answered with another status than 200.
    TOKENWARD_REASON_ENDPOINT_REFUSED = 1410,
    /// The endpoint's answer is no introspection response.
    TOKENWARD_REASON_REPLY_MALFORMED = 1411,
    /// `anonymous` names no consumer.
    TOKENWARD_REASON_ANONYMOUS_CONSUMER_MISSING = 1500,
    /// A defect of Tokenward or its host.
    TOKENWARD_REASON_INTERNAL = 1599,
}

/// The ABI that a header describes: major number times 65536, plus minor number. Give it to `tokenward_abi_check`.
pub const TOKENWARD_ABI_VERSION: u32 = 1 << 16;

/// Whether a program that was compiled with this header can use this library: the major numbers are equal, and the library's minor
/// number is at least the header's. A host checks this once, before anything else.
///
/// version: TOKENWARD_ABI_VERSION of the header.
///
/// Returns: TOKENWARD_OK or TOKENWARD_ABI_MISMATCH.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn tokenward_abi_check(version: u32) -> tokenward_result {
    let (major, minor) = (version >> 16, version & 0xffff);
    let ours = (OURS >> 16, OURS & 0xffff);
    if major == ours.0 && minor <= ours.1 {
        tokenward_result::TOKENWARD_OK
    } else {
        tokenward_result::TOKENWARD_ABI_MISMATCH
    }
}

/// The ABI of this library.
///
/// Returns: as TOKENWARD_ABI_VERSION.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn tokenward_abi_version() -> u32 {
    OURS
}

/// That of this library. A test builds one of a minor version more.
const OURS: u32 = TOKENWARD_ABI_VERSION + cfg!(feature = "testing_next") as u32;

/// The version of this library: `0.1.0`.
///
/// Returns: a string that ends with NUL and lives as long as the process.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn tokenward_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// The name of a result: `TOKENWARD_NULL_POINTER`, for messages.
///
/// result: a number of `tokenward_result`; another one has the name `unknown`.
///
/// Returns: a string that ends with NUL and lives as long as the process.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn tokenward_result_name(result: u32) -> *const c_char {
    let name = match result {
        0 => c"TOKENWARD_OK",
        1 => c"TOKENWARD_ABSENT",
        2 => c"TOKENWARD_NULL_POINTER",
        3 => c"TOKENWARD_INVALID_ARGUMENT",
        4 => c"TOKENWARD_NOT_UTF8",
        5 => c"TOKENWARD_INVALID_CONFIG",
        6 => c"TOKENWARD_SYSTEM",
        7 => c"TOKENWARD_ALREADY_USED",
        8 => c"TOKENWARD_WRONG_STEP",
        9 => c"TOKENWARD_FREED",
        10 => c"TOKENWARD_ABI_MISMATCH",
        11 => c"TOKENWARD_PANIC",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// The name of a reason, as in logs and metrics: `token_missing`.
///
/// reason: a number of `tokenward_reason`.
/// name: where the name goes; it lives as long as the process.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for another number.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_reason_name(reason: u32, name: *mut tokenward_str) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rule for outputs.
        let name = unsafe { Out::new(name) }?;
        name.set(tokenward_str::of(reason_of(reason)?.name()));
        Ok(())
    })
}

pub(crate) fn reason_of(number: u32) -> Outcome<Reason> {
    let found = Reason::ALL.into_iter().find(|reason| u32::from(reason.number()) == number);
    found.ok_or(tokenward_result::TOKENWARD_INVALID_ARGUMENT)
}

/// One thing that is wrong with a configuration, or allowed but probably not meant. Frozen. No secret is in it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_problem {
    /// The place in the document: `cache.negative_ttl`; empty for the document itself.
    pub path: tokenward_str,
    /// What was found there and what is allowed.
    pub message: tokenward_str,
}

impl tokenward_problem {
    pub(crate) fn of(problem: &Problem) -> Self {
        Self { path: tokenward_str::of(problem.path()), message: tokenward_str::of(problem.message()) }
    }
}

/// Why something was refused: at least one problem, in the order of the document.
pub struct tokenward_error {
    problems: Box<[Problem]>,
    message: String,
}

impl tokenward_error {
    pub(crate) fn of_config(error: &ConfigError) -> Self {
        Self { problems: error.problems().into(), message: error.to_string() }
    }

    pub(crate) fn of_build(error: &BuildError) -> Self {
        Self { problems: Box::default(), message: error.to_string() }
    }
}

/// Where an error goes, if the caller wants it.
pub(crate) struct ErrorOut(*mut *mut tokenward_error);

impl ErrorOut {
    /// # Safety
    /// If not NULL, `pointer` can be written to until the call ends.
    pub(crate) unsafe fn new(pointer: *mut *mut tokenward_error) -> Self {
        Self(pointer)
    }

    fn put(self, error: tokenward_error) {
        if !self.0.is_null() {
            // SAFETY: writable by `new`'s promise.
            unsafe { self.0.write(give(error)) }
        }
    }

    pub(crate) fn config<T>(self, result: Result<T, ConfigError>) -> Outcome<T> {
        result.map_err(|error| {
            self.put(tokenward_error::of_config(&error));
            tokenward_result::TOKENWARD_INVALID_CONFIG
        })
    }

    pub(crate) fn build<T>(self, result: Result<T, BuildError>) -> Outcome<T> {
        result.map_err(|error| {
            self.put(tokenward_error::of_build(&error));
            tokenward_result::TOKENWARD_SYSTEM
        })
    }
}

/// Everything that is wrong, one problem a line.
///
/// error: the error.
/// message: where the text goes; it lives as long as the error.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_error_message(
    error: *const tokenward_error,
    message: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (error, message) = unsafe { (borrow(error)?, Out::new(message)?) };
        message.set(tokenward_str::of(&error.message));
        Ok(())
    })
}

/// How many problems an error holds: none with TOKENWARD_SYSTEM.
///
/// error: the error; NULL has none.
///
/// Returns: the number.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_error_count(error: *const tokenward_error) -> usize {
    // SAFETY: the header's rules for handles.
    guard_or(0, || unsafe { borrow(error) }.map_or(0, |error| error.problems.len()))
}

/// One problem of an error.
///
/// error: the error.
/// index: from 0, below `tokenward_error_count`.
/// problem: where it goes; its text lives as long as the error.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT beyond the last.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_error_at(
    error: *const tokenward_error,
    index: usize,
    problem: *mut tokenward_problem,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (error, problem) = unsafe { (borrow(error)?, Out::new(problem)?) };
        let found = error.problems.get(index).ok_or(tokenward_result::TOKENWARD_INVALID_ARGUMENT)?;
        problem.set(tokenward_problem::of(found));
        Ok(())
    })
}

/// Frees an error.
///
/// error: the error, or NULL.
///
/// Threads: any, while no other uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_error_free(error: *mut tokenward_error) {
    // SAFETY: the header's rule for freeing.
    unsafe { take(error) }
}

/// Panics inside the boundary: for the tests of it.
#[cfg(feature = "testing")]
#[unsafe(no_mangle)]
#[allow(clippy::panic, reason = "it is what this is for")]
pub extern "C" fn tokenward_testing_panic() -> tokenward_result {
    guard(|| std::panic::panic_any("the boundary is tried"))
}

/// Panics inside the core's part of that many calls about steps, one for each: for the tests of what becomes of them.
#[cfg(feature = "testing")]
#[unsafe(no_mangle)]
pub extern "C" fn tokenward_testing_panic_next(times: u32) {
    crate::guard::testing::PANICS.store(times, std::sync::atomic::Ordering::Relaxed);
}
