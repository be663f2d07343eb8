//! The functions that every request calls: strings in, a number out.
//!
//! Most requests call `glance`, with what counts of them: the value of their only `Authorization` line, and the target if it has a `?`. The
//! rest goes by `decide`, whole.
//!
//! In: the request as one text, its parts divided by NUL (name and value of each header, names of trailers, method, target); a number that says how many headers there are (16 bits), what is wanted (4) and the policy (12); and where there are
//! any, how many trailers, the body and the time. A NUL within a part makes the count wrong: JavaScript then divides by U+0100, which no part can hold.
//!
//! Out: a whole number below 2^53. Its low bits say what the step is; for an allow, what is above them is the number under which
//! JavaScript keeps what it made of identity, claims and lines to set ([`Allow::shared`](tokenward_core::Allow::shared)).

use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use napi::{Error, Result, Status, check_status, sys};
use smallvec::SmallVec;
use tokenward_core::{Decision, Header, Introspector, Now, Policy, Request, Source, Step};

use crate::introspector::Port;

/// What the number says, from its low end. `lib/port.js` has the same.
pub(crate) mod code {
    pub(crate) const NOTHING: u64 = 0;
    pub(crate) const ALLOW: u64 = 1;
    pub(crate) const DENY: u64 = 2;
    pub(crate) const INTROSPECT: u64 = 3;
    pub(crate) const WAIT: u64 = 4;
    pub(crate) const NEEDS_BODY: u64 = 5;
    /// More counts than what was given: the whole request is wanted.
    pub(crate) const WHOLE: u64 = 6;
    /// Two bits above those: where the answer came from.
    pub(crate) const SOURCE: u32 = 3;
    /// `Authorization` is removed.
    pub(crate) const HIDES: u64 = 1 << 5;
    /// There is more to know about this request alone: managed names, a target, a body, headers of the response.
    pub(crate) const MORE: u64 = 1 << 6;
    /// Something happened beside the request that JavaScript has to look at.
    pub(crate) const EVENTS: u64 = 1 << 7;
    /// Above that: the number that is shared.
    pub(crate) const SHARED: u32 = 8;
}

/// What is wanted.
mod want {
    /// A decision at once or nothing.
    pub(super) const LOOKUP: u32 = 0;
    /// A step.
    pub(super) const BEGIN: u32 = 1;
    /// To know whether the body is needed.
    pub(super) const BODY: u32 = 2;
    /// Added to the others: stop if the body is needed.
    pub(super) const ASK_FOR_BODY: u32 = 4;
    /// Added to the others: the parts are divided by what is no byte.
    pub(super) const DIVIDED: u32 = 8;
}

/// Methods that have a number for `glance`: their places here. `lib/port.js` has the same.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What `glance` is told by its number, from the low end: the method (3 bits), whether to begin, the policy (12 bits).
mod told {
    pub(super) const METHOD: u32 = 7;
    pub(super) const BEGIN: u32 = 8;
    pub(super) const POLICY: u32 = 4;
}

const ARGUMENTS: usize = 8;

/// The function for whole requests, bound to an introspector.
pub(crate) fn whole(env: sys::napi_env, port: &Rc<Port>) -> Result<sys::napi_value> {
    function(env, port, decide)
}

/// The function for what counts of lean requests, bound to an introspector.
pub(crate) fn lean(env: sys::napi_env, port: &Rc<Port>) -> Result<sys::napi_value> {
    function(env, port, glance)
}

type Callback = unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;

fn function(env: sys::napi_env, port: &Rc<Port>, callback: Callback) -> Result<sys::napi_value> {
    let data = Rc::into_raw(Rc::clone(port)).cast_mut().cast::<c_void>();
    let mut function = ptr::null_mut();
    // SAFETY: the running call's `env`; the data lives until the finalizer below.
    let made = unsafe { sys::napi_create_function(env, c"decide".as_ptr(), 6, Some(callback), data, &mut function) };
    // SAFETY: as above; from here on the finalizer owns the data.
    let owned = made == sys::Status::napi_ok
        && unsafe { sys::napi_add_finalizer(env, function, data, Some(release), ptr::null_mut(), ptr::null_mut()) }
            == sys::Status::napi_ok;
    if !owned {
        // SAFETY: made above and given to nobody. The function, if there is one, is never called.
        drop(unsafe { Rc::from_raw(data.cast::<Port>()) });
        return Err(Error::new(Status::GenericFailure, "the function cannot be made"));
    }
    Ok(function)
}

unsafe extern "C" fn release(_env: sys::napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: made by `function`, and finalizers run once. The function cannot be called any more.
    let port = unsafe { Rc::from_raw(data.cast::<Port>()) };
    caught(|| {
        drop(port);
        Ok(0)
    })
    .unwrap_or_default();
}

unsafe extern "C" fn decide(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: the engine's `env` and `info`.
    unsafe { answer::<ARGUMENTS>(env, info, |port, values| run(env, port, values)) }
}

unsafe extern "C" fn glance(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    // SAFETY: the engine's `env` and `info`.
    unsafe { answer::<5>(env, info, |port, values| run_lean(env, port, values)) }
}

/// # Safety
/// `env` and `info` are the engine's, of a call to what `function` has made.
#[inline]
unsafe fn answer<const ARGUMENTS: usize>(
    env: sys::napi_env,
    info: sys::napi_callback_info,
    run: impl FnOnce(&Port, &[sys::napi_value]) -> Result<u64>,
) -> sys::napi_value {
    let result = caught(|| {
        let mut values = [ptr::null_mut(); ARGUMENTS];
        let mut count = ARGUMENTS;
        let mut data = ptr::null_mut();
        // SAFETY: the caller's promise; there is room for as many values.
        check_status!(unsafe {
            sys::napi_get_cb_info(env, info, &mut count, values.as_mut_ptr(), ptr::null_mut(), &mut data)
        })?;
        // SAFETY: `function` gave it, and it lives as long as the function.
        let port = unsafe { &*data.cast::<Port>() };
        run(port, values.get(..count).unwrap_or(&values))
    });
    let mut number = ptr::null_mut();
    match result {
        // SAFETY: the engine's `env`.
        Ok(code) => unsafe {
            sys::napi_create_double(env, code as f64, &mut number);
        },
        // SAFETY: as above.
        Err(error) => unsafe { throw(env, &error) },
    }
    number
}

/// # Safety
/// `env` is that of the running call.
#[cold]
unsafe fn throw(env: sys::napi_env, error: &Error) {
    let message = error.reason.as_bytes();
    let code = c"ERR_TOKENWARD_REQUEST".as_ptr();
    let (mut text, mut name, mut thrown) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: the caller's promise; both texts are read during the call.
    unsafe {
        sys::napi_create_string_utf8(env, message.as_ptr().cast(), message.len() as isize, &mut text);
        sys::napi_create_string_utf8(env, code, 21, &mut name);
        sys::napi_create_type_error(env, name, text, &mut thrown);
        sys::napi_throw(env, thrown);
    }
}

/// # Safety
/// The values are those of the running call.
#[inline]
unsafe fn run_lean(env: sys::napi_env, port: &Port, values: &[sys::napi_value]) -> Result<u64> {
    let [credential, what, rest @ ..] = values else {
        return Err(Error::new(Status::InvalidArg, "an argument is missing"));
    };
    let mut told = 0;
    // SAFETY: the caller's promise.
    check_status!(unsafe { sys::napi_get_value_uint32(env, *what, &mut told) })?;
    let number = told >> told::POLICY;
    let policies = port.policies.borrow();
    let (policy, methods) = match number {
        0 => (None, port.lean.get()),
        number => {
            let known = policies.get(&number);
            let known = known.ok_or_else(|| Error::new(Status::InvalidArg, "there is no such policy"))?;
            (Some(&known.policy), known.lean)
        }
    };
    let method = told & told::METHOD;
    let name = METHODS.get(method as usize).filter(|_| methods & 1 << method != 0);
    let Some(name) = name else { return Ok(code::WHOLE) };
    let now = match rest {
        // SAFETY: the caller's promise.
        [_, wall, mono] => unsafe { Now::new(seconds(env, *wall)?, seconds(env, *mono)?) },
        _ => Now::read(),
    };
    let mut scratch = port.scratch.try_borrow_mut().map_err(|_| Error::from_status(Status::GenericFailure))?;
    let mut target_scratch;
    // SAFETY: the caller's promise.
    let value = unsafe { scratch.read_bytes(env, *credential)? };
    let target = match rest.first() {
        None => b"/".as_slice(),
        Some(&target) => {
            target_scratch = port.target.try_borrow_mut().map_err(|_| Error::from_status(Status::GenericFailure))?;
            // SAFETY: the caller's promise.
            unsafe { target_scratch.read_bytes(env, target)? }
        }
    };
    let headers = [Header { name: b"Authorization", value }];
    let request = Request::new(*name, target).headers(&headers);
    let core = &port.core;
    let step = match (told & told::BEGIN != 0, policy) {
        (true, None) => core.begin(&request, now),
        (true, Some(policy)) => core.begin_with(policy, &request, now),
        (false, policy) => {
            let found = match policy {
                None => core.lookup(&request, now),
                Some(policy) => core.lookup_with(policy, &request, now),
            };
            match found {
                Some(decision) => Step::Done(decision),
                None => return Ok(code::NOTHING | port.events()),
            }
        }
    };
    Ok(port.keep(step))
}

/// # Safety
/// The values are those of the running call.
#[inline]
unsafe fn run(env: sys::napi_env, port: &Port, values: &[sys::napi_value]) -> Result<u64> {
    let value =
        |at: usize| values.get(at).copied().ok_or_else(|| Error::new(Status::InvalidArg, "an argument is missing"));
    let number = |at: usize| -> Result<u32> {
        let mut number = 0;
        // SAFETY: the caller's promise.
        check_status!(unsafe { sys::napi_get_value_uint32(env, value(at)?, &mut number) })?;
        Ok(number)
    };
    // One number: every value that crosses costs.
    let what = number(1)?;
    let (headers, want, policy) = ((what & 0xffff) as usize, what >> 16 & 15, what >> 20);
    let trailers = if values.len() > 2 { number(2)? as usize } else { 0 };
    let body = match values.get(3) {
        // SAFETY: the caller's promise.
        Some(&value) => unsafe { bytes(env, value)? },
        None => None,
    };
    let now = if values.len() > 5 {
        // SAFETY: the caller's promise.
        unsafe { Now::new(seconds(env, value(4)?)?, seconds(env, value(5)?)?) }
    } else {
        Now::read()
    };

    let mut scratch = port.scratch.try_borrow_mut().map_err(|_| Error::from_status(Status::GenericFailure))?;
    // SAFETY: the caller's promise.
    let (text, dividers) = unsafe { scratch.read(env, value(0)?)? };
    let is_divided = want & want::DIVIDED != 0;
    if !is_divided && !dividers.is_empty() {
        return Err(Error::new(Status::InvalidArg, "a character of the request is not a byte"));
    }
    let ends = if !is_divided { Ends::Nul(memchr::memchr_iter(0, text)) } else { Ends::Divider(dividers.iter()) };
    let mut parts = Parts { text, ends, at: Some(0) };
    let mut lines: SmallVec<[Header<'_>; 24]> = SmallVec::new();
    for _ in 0..headers {
        let (name, value) = (parts.next()?, parts.next()?);
        // Pseudo-headers of HTTP/2 are no header fields.
        if !name.starts_with(b":") {
            lines.push(Header { name, value });
        }
    }
    let mut names: SmallVec<[&[u8]; 4]> = SmallVec::new();
    for _ in 0..trailers {
        names.push(parts.next()?);
    }
    let (method, target) = (parts.next()?, parts.next()?);
    if parts.at.is_some() {
        return Err(parts.wrong());
    }

    let mut request = Request::new(method, target).headers(&lines).trailers(&names);
    let policies = port.policies.borrow();
    let policy = match policy {
        0 => None,
        number => {
            let known = policies.get(&number);
            Some(&known.ok_or_else(|| Error::new(Status::InvalidArg, "there is no such policy"))?.policy)
        }
    };
    let core = &port.core;
    match body {
        Some(body) => request = request.body(body),
        None if want & (want::BODY | want::ASK_FOR_BODY) != 0 => {
            let needed = match policy {
                None => core.needs_body(&request),
                Some(policy) => core.needs_body_with(policy, &request),
            };
            if needed {
                return Ok(code::NEEDS_BODY);
            }
        }
        None => {}
    }
    let step = match (want & 3, policy) {
        (want::BEGIN, None) => core.begin(&request, now),
        (want::BEGIN, Some(policy)) => core.begin_with(policy, &request, now),
        (want::LOOKUP, policy) => {
            let found = match policy {
                None => core.lookup(&request, now),
                Some(policy) => core.lookup_with(policy, &request, now),
            };
            match found {
                Some(decision) => Step::Done(decision),
                None => return Ok(code::NOTHING | port.events()),
            }
        }
        _ => return Ok(code::NOTHING),
    };
    Ok(port.keep(step))
}

impl Port {
    /// The methods, by bits, of those requests of which little counts under a policy.
    pub(crate) fn lean_methods(core: &Introspector, policy: Option<&Policy>) -> u32 {
        let lean = METHODS.iter().enumerate().filter(|(_, method)| core.is_lean(policy, method.as_bytes()));
        lean.fold(0, |bits, (number, _)| bits | 1 << number)
    }

    /// Keeps what a step is for the questions that follow, and gives its number.
    #[inline]
    pub(crate) fn keep(&self, step: Step) -> u64 {
        let mut current = self.current.borrow_mut();
        let code = match step {
            Step::Done(decision) => {
                let code = described(&decision);
                current.decision = Some(decision);
                code
            }
            Step::Introspect(exchange) => {
                current.step = self.steps.borrow_mut().park(crate::steps::Parked::Exchange(exchange));
                code::INTROSPECT
            }
            Step::Wait(wait) => {
                current.step = self.steps.borrow_mut().park(crate::steps::Parked::Wait(wait));
                code::WAIT
            }
        };
        code | self.events()
    }

    #[inline]
    fn events(&self) -> u64 {
        if self.events.any() { code::EVENTS } else { 0 }
    }
}

#[inline]
fn described(decision: &Decision) -> u64 {
    let source = match decision.source() {
        Source::None => 0,
        Source::Cache => 1,
        Source::Endpoint => 2,
        Source::Waiting => 3,
    } << code::SOURCE;
    let Decision::Allow(allow) = decision else { return code::DENY | source };
    let mut removed = allow.edits().remove().peekable();
    let hides = if removed.next_if(|name| *name == b"Authorization").is_some() { code::HIDES } else { 0 };
    let more = removed.peek().is_some()
        || allow.target().is_some()
        || allow.body().is_some()
        || allow.response_headers().next().is_some();
    let more = if more { code::MORE } else { 0 };
    code::ALLOW | source | hides | more | (allow.shared().map_or(0, tokenward_core::Shared::number) << code::SHARED)
}

/// Where parts end: at a NUL, or where a part holds one, at what is no byte.
enum Ends<'t> {
    Nul(memchr::Memchr<'t>),
    Divider(std::slice::Iter<'t, usize>),
}

/// Parts of a text.
struct Parts<'t> {
    text: &'t [u8],
    ends: Ends<'t>,
    /// Where the next one begins; none behind the last.
    at: Option<usize>,
}

impl<'t> Parts<'t> {
    #[inline]
    fn next(&mut self) -> Result<&'t [u8]> {
        let Some(at) = self.at else { return Err(self.wrong()) };
        let end = match &mut self.ends {
            Ends::Nul(ends) => ends.next(),
            Ends::Divider(ends) => ends.next().copied(),
        };
        self.at = end.map(|end| end + 1);
        self.text.get(at..end.unwrap_or(self.text.len())).ok_or_else(|| self.wrong())
    }

    #[cold]
    fn wrong(&self) -> Error {
        Error::new(Status::InvalidArg, "a NUL is in the request")
    }
}

/// The bytes of a typed array, for the time of this call; none if it is `undefined` or `null`.
///
/// # Safety
/// The value is one of the running call. What is made of it is not used once JavaScript runs again.
unsafe fn bytes<'a>(env: sys::napi_env, value: sys::napi_value) -> Result<Option<&'a [u8]>> {
    let mut kind = 0;
    // SAFETY: the caller's promise.
    check_status!(unsafe { sys::napi_typeof(env, value, &mut kind) })?;
    if kind == sys::ValueType::napi_undefined || kind == sys::ValueType::napi_null {
        return Ok(None);
    }
    let (mut data, mut length) = (ptr::null_mut(), 0);
    // SAFETY: as above.
    let status = unsafe { sys::napi_get_buffer_info(env, value, &mut data, &mut length) };
    if status != sys::Status::napi_ok {
        return Err(Error::new(Status::InvalidArg, "the body is no Buffer and no Uint8Array"));
    }
    if length == 0 {
        return Ok(Some(&[]));
    }
    // SAFETY: the engine says that so many bytes are there. Nothing of JavaScript runs until the caller is done with them.
    Ok(Some(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) }))
}

/// # Safety
/// The value is one of the running call.
pub(crate) unsafe fn seconds(env: sys::napi_env, value: sys::napi_value) -> Result<Duration> {
    let mut seconds = 0.0;
    // SAFETY: the caller's promise.
    check_status!(unsafe { sys::napi_get_value_double(env, value, &mut seconds) })?;
    Ok(duration(seconds))
}

/// To the microsecond; what is no number, or before the clock's beginning, is its beginning: nothing is fresh there for long.
pub(crate) fn duration(seconds: f64) -> Duration {
    let micros = (seconds * 1e6).round();
    if micros < 9e15 {
        Duration::from_micros(micros as u64)
    } else {
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Runs what the engine has called: no panic goes on into it.
#[inline]
fn caught(body: impl FnOnce() -> Result<u64>) -> Result<u64> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) => {
            // The payload's own destructor may panic, too.
            if let Err(again) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(again);
            }
            Err(Error::new(Status::GenericFailure, "an unexpected error occurred"))
        }
    }
}
