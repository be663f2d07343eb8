//! Views of what the client sent, and of what the authorization server answered. They are read during a call and not kept.

use std::time::Duration;

use tokenward_core::{Failure, Now, Reply, Request, is_managed};

use crate::guard::{Out, Outcome, borrow, guard, guard_or, optional};
use crate::introspector::{tokenward_introspector, tokenward_policy};
use crate::result::tokenward_result;
use crate::sized::{Grows, sized};
use crate::text::{Call, Few, Many, tokenward_header, tokenward_str};

/// A moment on two clocks, in microseconds. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_time {
    /// Since 1970-01-01 00:00 UTC (CLOCK_REALTIME).
    pub wall_us: u64,
    /// Since any fixed moment of the process (CLOCK_MONOTONIC).
    pub monotonic_us: u64,
}

/// A request as the client sent it. Set all of it to zero, then `struct_size` to `sizeof(tokenward_request)`, then what there is.
/// It grows at the end only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_request {
    /// `sizeof(tokenward_request)`.
    pub struct_size: usize,
    /// `GET`
    pub method: tokenward_str,
    /// The request target as received, not decoded: `/path?query`, absolute form, `*`, or the `:path` of HTTP/2.
    pub target: tokenward_str,
    /// Every header line, in the order received, without pseudo-headers.
    pub headers: *const tokenward_header,
    /// How many there are.
    pub headers_len: usize,
    /// Names of the trailer fields, as far as they are known. Those that come later: `tokenward_is_managed`.
    pub trailers: *const tokenward_str,
    /// How many there are.
    pub trailers_len: usize,
    /// The body, if it was read because `tokenward_needs_body` asked for it; else `data` is NULL. Of a body longer than
    /// `tokenward_body_bytes`, one byte more than that, or all of it: it is then not searched.
    pub body: tokenward_str,
}

// SAFETY: `repr(C)`, the size first, and numbers and pointers.
unsafe impl Grows for tokenward_request {
    const SIZES: &'static [usize] = &[size_of::<Self>()];
}

/// How the call to the introspection endpoint went. Set all of it to zero, then `struct_size` to `sizeof(tokenward_reply)`, then either
/// `failure` or the rest. It grows at the end only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_reply {
    /// `sizeof(tokenward_reply)`.
    pub struct_size: usize,
    /// A number of `tokenward_failure`: why there is no complete answer; the rest is then not looked at.
    pub failure: u32,
    /// The status code, 100 to 999.
    pub status: u32,
    /// Every header line.
    pub headers: *const tokenward_header,
    /// How many there are.
    pub headers_len: usize,
    /// The whole body.
    pub body: tokenward_str,
}

// SAFETY: `repr(C)`, the size first, and numbers and pointers.
unsafe impl Grows for tokenward_reply {
    const SIZES: &'static [usize] = &[size_of::<Self>()];
}

/// How a call can fail.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tokenward_failure {
    /// It did not: there is an answer.
    TOKENWARD_FAILURE_NONE = 0,
    /// No connection could be made.
    TOKENWARD_FAILURE_CONNECT = 1,
    /// The endpoint's name could not be resolved.
    TOKENWARD_FAILURE_DNS = 2,
    /// TLS could not be established, or the certificate was not accepted.
    TOKENWARD_FAILURE_TLS = 3,
    /// The connection ended before the answer's header section was complete.
    TOKENWARD_FAILURE_CLOSED = 4,
    /// The time ran out.
    TOKENWARD_FAILURE_TIMED_OUT = 5,
    /// The answer was no HTTP.
    TOKENWARD_FAILURE_PROTOCOL = 6,
    /// The answer was longer than `limits.reply_bytes`.
    TOKENWARD_FAILURE_TOO_LONG = 7,
    /// The connection ended within the answer's body.
    TOKENWARD_FAILURE_CUT_OFF = 8,
}

/// Whether only Tokenward may set a header of this name. A host takes such trailers of the client's out that come after `tokenward_begin`.
///
/// name, name_len: the name, in any case; one that cannot be read counts as managed.
///
/// Returns: whether it is managed.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_is_managed(name: *const std::ffi::c_char, name_len: usize) -> bool {
    guard_or(true, || {
        // SAFETY: the header's rule for strings passed in.
        let call = unsafe { Call::new() };
        call.slice(name.cast(), name_len).map_or(true, is_managed)
    })
}

/// Whether little of a request counts under a policy: of its header lines those alone whose names begin with `Authorization`, `X-Consumer-`,
/// `X-Credential-` or `X-Anonymous-Consumer`, case ignored and `_` and `.` read as `-`; its trailers; and its target if that has a `?`. A
/// host may then leave out all other lines, and give `/` for another target: every decision is the same. This holds until
/// `tokenward_introspector_replace_config`.
///
/// introspector: the introspector; NULL: all of a request counts.
/// policy: the policy of the request, or NULL for the configuration's own.
/// method, method_len: the request's method.
///
/// Returns: whether little of it counts.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_is_lean(
    introspector: *const tokenward_introspector,
    policy: *const tokenward_policy,
    method: *const std::ffi::c_char,
    method_len: usize,
) -> bool {
    guard_or(false, || {
        // SAFETY: the header's rules for handles and strings.
        let (introspector, policy, call) = unsafe { (optional(introspector), optional(policy), Call::new()) };
        let (Some(introspector), Ok(method)) = (introspector, call.slice(method.cast(), method_len)) else {
            return false;
        };
        introspector.core.is_lean(policy.map(|policy| &policy.core), method)
    })
}

/// The first 8 hex digits of the SHA-256 of the token that a request presents: the form in which log lines name it. Too short to tell
/// tokens apart for certain.
///
/// introspector: the introspector.
/// policy: the policy of the request, or NULL for the configuration's own.
/// request: what the client sent; read during the call.
/// digits: where the digits go: 8 bytes, without a NUL.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT if no well-formed token is presented; or what is wrong with an argument.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_fingerprint(
    introspector: *const tokenward_introspector,
    policy: *const tokenward_policy,
    request: *const tokenward_request,
    digits: *mut std::ffi::c_char,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, structs, strings and outputs.
        let (introspector, policy, request, digits, call) = unsafe {
            (borrow(introspector)?, optional(policy), sized(request)?, Out::new(digits.cast::<[u8; 8]>())?, Call::new())
        };
        let policy = policy.map(|policy| &policy.core);
        let found = request.read(call, |request| introspector.core.fingerprint(policy, request))?;
        let found = found.and_then(|text| <[u8; 8]>::try_from(text.as_bytes()).ok());
        digits.set(found.ok_or(tokenward_result::TOKENWARD_ABSENT)?);
        Ok(())
    })
}

impl tokenward_time {
    pub(crate) fn now(&self) -> Now {
        Now::new(Duration::from_micros(self.wall_us), Duration::from_micros(self.monotonic_us))
    }
}

impl tokenward_request {
    /// Lets the core see it.
    #[inline]
    pub(crate) fn read<'a, R>(&self, call: Call<'a>, then: impl FnOnce(&Request<'_>) -> R) -> Outcome<R> {
        let method = call.bytes(self.method)?;
        let target = call.bytes(self.target)?;
        let body = call.bytes(self.body)?;
        let headers = call.slice(self.headers, self.headers_len)?;
        let mut few = Few::new();
        let mut many = Many::default();
        let (headers, trailers) = if headers.len() <= Few::MOST && self.trailers_len == 0 {
            (few.read(call, headers)?, [].as_slice())
        } else {
            many.read(call, headers, call.slice(self.trailers, self.trailers_len)?)?
        };
        let mut request = Request::new(method, target).headers(headers).trailers(trailers);
        if !self.body.data.is_null() {
            request = request.body(body);
        }
        Ok(then(&request))
    }

    pub(crate) fn is_head(&self, call: Call<'_>) -> bool {
        call.bytes(self.method) == Ok(b"HEAD")
    }
}

impl tokenward_reply {
    /// Lets the core see it.
    pub(crate) fn read<'a, R>(&self, call: Call<'a>, then: impl FnOnce(Reply<'_>) -> R) -> Outcome<R> {
        let failure = match self.failure {
            0 => None,
            1 => Some(Failure::Connect),
            2 => Some(Failure::Dns),
            3 => Some(Failure::Tls),
            4 => Some(Failure::Closed),
            5 => Some(Failure::TimedOut),
            6 => Some(Failure::Protocol),
            7 => Some(Failure::TooLong),
            8 => Some(Failure::CutOff),
            _ => return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT),
        };
        if let Some(failure) = failure {
            return Ok(then(Reply::Failed(failure)));
        }
        let status = u16::try_from(self.status).ok().filter(|status| (100..1000).contains(status));
        let status = status.ok_or(tokenward_result::TOKENWARD_INVALID_ARGUMENT)?;
        let mut many = Many::default();
        let (headers, _) = many.read(call, call.slice(self.headers, self.headers_len)?, &[])?;
        let body = call.bytes(self.body)?;
        Ok(then(Reply::Response { status, headers, body }))
    }
}
