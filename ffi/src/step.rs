//! Steps: what the host does next about one request.

use std::cell::{Cell, OnceCell};
use std::ffi::c_void;
use std::mem::replace;
use std::ptr;
use std::sync::Arc;

use tokenward_core::{Decision, Exchange, Introspector, Now, Step, Wait};

use crate::decision::tokenward_decision;
use crate::guard::{Out, Outcome, Panicked, borrow, caught, guard, guard_or, optional};
use crate::introspector::{tokenward_introspector, tokenward_policy};
use crate::ready::{Current, ReadyTags, Waker};
use crate::request::{tokenward_reply, tokenward_request, tokenward_time};
use crate::result::tokenward_result;
use crate::room;
use crate::sized::sized;
use crate::text::{Call, first, tokenward_header, tokenward_str};

/// Where one request stands: a call to make, a wait, or the decision. Used by one thread at a time; it may move between threads.
pub struct tokenward_step {
    state: State,
    /// A call about it is under way: callbacks that come back to it may look, and free it.
    busy: Cell<bool>,
    /// Freed by a callback during a call about it, which does it at its end.
    doomed: Cell<bool>,
    /// Who is told that the wait it stands at can go on.
    registration: Cell<Option<Current>>,
    /// None for a decision, which needs nothing of its introspector any more.
    origin: Option<Origin>,
}

#[allow(clippy::large_enum_variant, reason = "a decision is what most steps are from the beginning")]
enum State {
    Outbound(tokenward_outbound),
    Wait(tokenward_wait),
    Decision(tokenward_decision),
    /// The core has it, for the time of a call.
    Away,
}

/// What a step needs of its introspector.
struct Origin {
    core: Introspector,
    tags: Arc<ReadyTags>,
    head: bool,
}

/// The call that the host makes: the form goes to the URL, no redirect is followed, and nothing of it is logged.
pub struct tokenward_outbound {
    exchange: Exchange,
    headers: OnceCell<Box<[tokenward_header]>>,
}

/// Another request makes the call already.
pub struct tokenward_wait {
    wait: Wait,
}

/// Told that a wait can go on (`ready`), or that it ended before that. It may run inside `tokenward_step_on_ready` itself, and on
/// whichever thread replied to, resumed or freed another step, or authenticated. Callbacks are never nested: what becomes due while one of
/// a thread runs (this one or a log function) runs there after it, before the call that it ran inside of ends. `userdata` lives until it has
/// run, whatever became of the step. It may call Tokenward, but not free the
/// introspector, policy or document that the call was given which it runs inside of, nor block; steps it may free. It must not unwind (no
/// exception, no longjmp). A host whose threads share a step keeps them apart itself, this function included.
pub type tokenward_ready_fn = Option<unsafe extern "C" fn(userdata: *mut c_void, ready: bool)>;

/// Begins to decide about a request.
///
/// introspector: the introspector.
/// policy: a further policy, or NULL for the configuration's own.
/// request: what the client sent; read during the call.
/// now: the time of now.
/// step: where the step goes; free it with `tokenward_step_free`.
///
/// Returns: TOKENWARD_OK, or what is wrong with an argument; the request is then denied by the host.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_begin(
    introspector: *const tokenward_introspector,
    policy: *const tokenward_policy,
    request: *const tokenward_request,
    now: *const tokenward_time,
    step: *mut *mut tokenward_step,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, structs, strings and outputs.
        let (introspector, policy, request, now, step, call) = unsafe {
            (borrow(introspector)?, optional(policy), sized(request)?, borrow(now)?.now(), Out::new(step)?, Call::new())
        };
        step.set(begin(introspector, policy, &request, now, call)?);
        Ok(())
    })
}

/// Whether the body is needed to decide. A host reads and hands over a body only then, up to `tokenward_body_bytes`.
///
/// introspector: the introspector.
/// policy: a further policy, or NULL for the configuration's own.
/// request: what the client sent, so far; read during the call.
/// needed: where the answer goes.
///
/// Returns: TOKENWARD_OK, or what is wrong with an argument.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_needs_body(
    introspector: *const tokenward_introspector,
    policy: *const tokenward_policy,
    request: *const tokenward_request,
    needed: *mut bool,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, structs, strings and outputs.
        let (introspector, policy, request, needed, call) =
            unsafe { (borrow(introspector)?, optional(policy), sized(request)?, Out::new(needed)?, Call::new()) };
        needed.set(request.read(call, |request| match policy {
            None => introspector.core.needs_body(request),
            Some(policy) => introspector.core.needs_body_with(&policy.core, request),
        })?);
        Ok(())
    })
}

/// Decides about a request, asking the authorization server where needed: for hosts without an event loop. Blocks for as long as
/// `timeout` says at most. In the shared library alone; `libtokenward.a` is without it.
///
/// introspector: the introspector. Any number of threads share it and its connections.
/// policy: a further policy, or NULL for the configuration's own.
/// request: what the client sent; read during the call.
/// step: where the step goes, which holds its decision; free it with `tokenward_step_free`.
///
/// Returns: TOKENWARD_OK, or what is wrong with an argument; the request is then denied by the host.
///
/// Threads: any, also at once.
#[cfg(feature = "client")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_authenticate(
    introspector: *const tokenward_introspector,
    policy: *const tokenward_policy,
    request: *const tokenward_request,
    step: *mut *mut tokenward_step,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, structs, strings and outputs.
        let (introspector, policy, request, step, call) =
            unsafe { (borrow(introspector)?, optional(policy), sized(request)?, Out::new(step)?, Call::new()) };
        let decision = request.read(call, |request| match policy {
            None => introspector.core.authenticate(request),
            Some(policy) => introspector.core.authenticate_with(&policy.core, request),
        })?;
        step.set(tokenward_step::give(Step::Done(decision), None));
        Ok(())
    })
}

/// The refusal for a defect of the host's own: `internal`, 500. For a host that cannot go on with a request.
///
/// introspector: the introspector.
/// head: whether the request is HEAD.
/// step: where the step goes, which holds the refusal; free it with `tokenward_step_free`.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_internal(
    introspector: *const tokenward_introspector,
    head: bool,
    step: *mut *mut tokenward_step,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (introspector, step) = unsafe { (borrow(introspector)?, Out::new(step)?) };
        step.set(tokenward_step::give(Step::Done(introspector.core.internal(head)), None));
        Ok(())
    })
}

/// The call to make, if the step stands there. Of this, `tokenward_step_wait` and `tokenward_step_decision`, exactly one is not NULL, but
/// inside of a callback that runs during a reply to this very step, its resumption or its freeing: there it stands at none.
///
/// step: the step.
///
/// Returns: the call, which lives until the step is replied to or freed; or NULL.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_outbound(step: *const tokenward_step) -> *const tokenward_outbound {
    // SAFETY: the header's rule for handles.
    guard_or(ptr::null(), || match unsafe { optional(step) }.map(|step| &step.state) {
        Some(State::Outbound(outbound)) => ptr::from_ref(outbound),
        _ => ptr::null(),
    })
}

/// The wait, if the step stands there. Park the request; resume the step when it is woken or the wait's deadline comes.
///
/// step: the step.
///
/// Returns: the wait, which lives until the step is resumed or freed; or NULL.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_wait(step: *const tokenward_step) -> *const tokenward_wait {
    // SAFETY: the header's rule for handles.
    guard_or(ptr::null(), || match unsafe { optional(step) }.map(|step| &step.state) {
        Some(State::Wait(wait)) => ptr::from_ref(wait),
        _ => ptr::null(),
    })
}

/// The decision, if there is one.
///
/// step: the step.
///
/// Returns: the decision, which lives as long as the step; or NULL.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_decision(step: *const tokenward_step) -> *const tokenward_decision {
    guard_or(ptr::null(), || {
        // SAFETY: the header's rule for handles.
        let step = unsafe { optional(step) };
        step.and_then(tokenward_step::decision).map_or(ptr::null(), ptr::from_ref)
    })
}

/// Hands over how the call went. The step goes on: to its decision, or to another call after a failed connection. Callbacks of waits that
/// wanted the same answer run inside of it.
///
/// step: a step that stands at a call. With an argument that is refused, it stays there.
/// reply: the answer or the failure; read during the call.
/// now: the time of now.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ALREADY_USED, TOKENWARD_WRONG_STEP; TOKENWARD_FREED if a callback freed the step;
/// TOKENWARD_PANIC, the step then holds a refusal; or what is wrong with an argument.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_reply(
    step: *mut tokenward_step,
    reply: *const tokenward_reply,
    now: *const tokenward_time,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, structs and strings.
        let (reply, now, call) = unsafe { (sized(reply)?, borrow(now)?.now(), Call::new()) };
        reply.read(call, |reply| {
            // SAFETY: the header's rule for handles.
            let State::Outbound(outbound) = (unsafe { seize(step, |state| matches!(state, State::Outbound(_))) })?
            else {
                // INVARIANT: `seize` gives what was asked for.
                return Err(tokenward_result::TOKENWARD_WRONG_STEP);
            };
            let next = core_work(|| outbound.exchange.resume(reply, now));
            // SAFETY: as above; the step was marked busy, so that it still exists.
            unsafe { proceed(step, next.map(Some)) }
        })?
    })
}

/// Goes on after a wait: to a decision if there is an answer or the time is over, to a call if the asker went away, and to a wait again
/// if it is resumed early. Resume it in any case when its deadline comes. A wait that it comes to wants a function or tag as the first did:
/// the one registered before stays if it is the same wait, and giving another is always right.
///
/// step: a step that stands at a wait.
/// now: the time of now.
///
/// Returns: as `tokenward_step_reply`.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_resume(
    step: *mut tokenward_step,
    now: *const tokenward_time,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rule for structs.
        let now: Now = unsafe { borrow(now) }?.now();
        // SAFETY: the header's rule for handles.
        let State::Wait(wait) = (unsafe { seize(step, |state| matches!(state, State::Wait(_))) })? else {
            // INVARIANT: `seize` gives what was asked for.
            return Err(tokenward_result::TOKENWARD_WRONG_STEP);
        };
        // SAFETY: the step is busy and exists; nobody else reads this cell meanwhile.
        let registration = unsafe { &(*step).registration };
        let kept = registration.take().inspect(Current::take_back);
        let next = core_work(|| wait.wait.resume(now));
        // With another wait than before, this is a registration that nothing comes of.
        if matches!(next, Ok(Step::Wait(_))) {
            registration.set(kept);
        }
        // SAFETY: as above; the step was marked busy, so that it still exists.
        unsafe { proceed(step, next.map(Some)) }
    })
}

/// Registers what is called when a wait can be resumed with profit: exactly once, with `true`; with `false` if the wait ends first (the
/// step was resumed or freed, or another function or tag took this one's place). That is where `userdata` is released. It may be called
/// before this function returns.
///
/// step: a step that stands at a wait.
/// ready: the function.
/// userdata: what it is called with.
///
/// Returns: TOKENWARD_OK; TOKENWARD_FREED if a callback freed the step, and TOKENWARD_PANIC, the step then holds a refusal: the function was
/// called with those. With all others it is never called: TOKENWARD_ALREADY_USED, TOKENWARD_WRONG_STEP, TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_on_ready(
    step: *mut tokenward_step,
    ready: tokenward_ready_fn,
    userdata: *mut c_void,
) -> tokenward_result {
    guard(|| {
        let function = ready.ok_or(tokenward_result::TOKENWARD_NULL_POINTER)?;
        // SAFETY: the header's rule for handles.
        unsafe { register(step, |_| Some(Waker::function(function, userdata))) }
    })
}

/// Registers a tag instead of a function: when the wait can be resumed with profit, `tokenward_next_ready` gives the tag, once. For hosts
/// that cannot be called back. A wait that ends first gives none, and takes back a tag that nobody has asked for yet.
///
/// step: a step that stands at a wait.
/// tag: any number.
///
/// Returns: as `tokenward_step_on_ready`.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_set_tag(step: *mut tokenward_step, tag: u64) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rule for handles.
        unsafe { register(step, |origin| Some(Waker::tag(&origin?.tags, tag))) }
    })
}

/// Frees a step. One without a decision has denied its request; whoever waits for the same answer is looked after, so that callbacks may
/// run. A callback may free the step that it is called about.
///
/// step: the step, or NULL.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_step_free(step: *mut tokenward_step) {
    if step.is_null() {
        return;
    }
    guard_or((), || {
        // SAFETY: the header's rule for freeing: the step is alive, and this thread's alone. Looked at alone: a call about it may be
        // under way further up on this stack.
        let seen = unsafe { &*step };
        if seen.busy.get() {
            // That call frees it.
            seen.doomed.set(true);
            return;
        }
        if !matches!(seen.state, State::Decision(_)) {
            seen.busy.set(true);
            // First: nobody is told of a wait that is given up.
            drop(seen.registration.take());
            // SAFETY: as above; no call is under way.
            let state = replace(unsafe { &mut (*step).state }, State::Away);
            // Callbacks run here and may come back to this step: it still exists, and is busy.
            let _ = caught(|| drop(state));
        }
        // SAFETY: as above; it came from `give`.
        unsafe { room::take_back(step) };
    });
}

/// `POST`.
///
/// outbound: the call.
/// method: where it goes; it lives as long as the process.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_outbound_method(
    outbound: *const tokenward_outbound,
    method: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (outbound, method) = unsafe { (borrow(outbound)?, Out::new(method)?) };
        method.set(tokenward_str::of(outbound.exchange.outbound().method()));
        Ok(())
    })
}

/// The endpoint's URL. Its query counts as a secret.
///
/// outbound: the call.
/// url: where it goes; it lives as long as the call.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_outbound_url(
    outbound: *const tokenward_outbound,
    url: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (outbound, url) = unsafe { (borrow(outbound)?, Out::new(url)?) };
        url.set(tokenward_str::of(outbound.exchange.outbound().url()));
        Ok(())
    })
}

/// The header lines, but for `Host` and `Content-Length`, which are the transport's. They hold credentials.
///
/// outbound: the call.
/// headers: where the array goes; it lives as long as the call.
/// count: how many there are.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_outbound_headers(
    outbound: *const tokenward_outbound,
    headers: *mut *const tokenward_header,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (outbound, headers, count) = unsafe { (borrow(outbound)?, Out::new(headers)?, Out::new(count)?) };
        let lines = || outbound.exchange.outbound().headers().map(|(name, value)| tokenward_header::of(name, value));
        let all = outbound.headers.get_or_init(|| lines().collect());
        headers.set(first(all));
        count.set(all.len());
        Ok(())
    })
}

/// The form. It holds the token.
///
/// outbound: the call.
/// body: where it goes; it lives as long as the call.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_outbound_body(
    outbound: *const tokenward_outbound,
    body: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (outbound, body) = unsafe { (borrow(outbound)?, Out::new(body)?) };
        body.set(tokenward_str::of(outbound.exchange.outbound().body()));
        Ok(())
    })
}

/// How long the call may take, from connecting to the last byte of the answer; then it is TOKENWARD_FAILURE_TIMED_OUT.
///
/// outbound: the call; NULL reads as 0.
///
/// Returns: microseconds from when the step came to this call.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_outbound_time_left_us(outbound: *const tokenward_outbound) -> u64 {
    guard_or(0, || {
        // SAFETY: the header's rule for handles.
        let left = unsafe { optional(outbound) }.map(|outbound| outbound.exchange.outbound().time_left());
        left.map_or(0, |left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX))
    })
}

/// The same as a moment.
///
/// outbound: the call; NULL reads as 0.
///
/// Returns: microseconds on the monotonic clock of `tokenward_time`.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_outbound_deadline_us(outbound: *const tokenward_outbound) -> u64 {
    guard_or(0, || {
        // SAFETY: the header's rule for handles.
        let deadline = unsafe { optional(outbound) }.map(|outbound| outbound.exchange.deadline());
        deadline.map_or(0, |deadline| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX))
    })
}

/// Until when a wait may last. The host resumes the step then, woken or not.
///
/// wait: the wait; NULL reads as 0.
///
/// Returns: microseconds on the monotonic clock of `tokenward_time`.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_wait_deadline_us(wait: *const tokenward_wait) -> u64 {
    guard_or(0, || {
        // SAFETY: the header's rule for handles.
        let deadline = unsafe { optional(wait) }.map(|wait| wait.wait.deadline());
        deadline.map_or(0, |deadline| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX))
    })
}

/// A step for a request that begins.
#[inline(always)]
pub(crate) fn begin(
    introspector: &tokenward_introspector,
    policy: Option<&tokenward_policy>,
    request: &tokenward_request,
    now: Now,
    call: Call<'_>,
) -> Outcome<*mut tokenward_step> {
    let origin = || Origin {
        core: introspector.core.clone(),
        tags: Arc::clone(&introspector.tags),
        head: request.is_head(call),
    };
    request.read(call, |request| {
        let begun = match policy {
            None => introspector.core.begin(request, now),
            Some(policy) => introspector.core.begin_with(&policy.core, request, now),
        };
        let origin = if matches!(begun, Step::Done(_)) { None } else { Some(origin()) };
        tokenward_step::give(begun, origin)
    })
}

impl tokenward_step {
    /// The decision, if it stands there.
    #[inline]
    pub(crate) fn decision(&self) -> Option<&tokenward_decision> {
        match &self.state {
            State::Decision(decision) => Some(decision),
            _ => None,
        }
    }

    #[inline(always)]
    fn give(step: Step, origin: Option<Origin>) -> *mut Self {
        room::give(Self {
            state: step.into(),
            busy: Cell::new(false),
            doomed: Cell::new(false),
            registration: Cell::new(None),
            origin,
        })
    }
}

#[cfg(test)]
impl tokenward_step {
    pub(crate) fn for_test() -> *mut Self {
        Self::give(Step::Done(Decision::internal(false)), None)
    }
}

impl From<Step> for State {
    #[inline]
    fn from(step: Step) -> Self {
        match step {
            Step::Done(decision) => Self::Decision(tokenward_decision::new(decision)),
            Step::Introspect(exchange) => Self::Outbound(tokenward_outbound { exchange, headers: OnceCell::new() }),
            Step::Wait(wait) => Self::Wait(tokenward_wait { wait }),
        }
    }
}

/// Marks a step busy if it stands at what is expected, and else leaves it as it is.
///
/// # Safety
/// If not NULL, `step` is alive, and this thread's alone.
unsafe fn mark(step: *mut tokenward_step, expected: impl FnOnce(&State) -> bool) -> Outcome {
    // SAFETY: the caller's promise. Looked at alone, and no reference outlives this function: callbacks use the same pointer.
    let seen = unsafe { borrow(step) }?;
    if seen.busy.get() {
        return Err(tokenward_result::TOKENWARD_ALREADY_USED);
    }
    if expected(&seen.state) {
        seen.busy.set(true);
        return Ok(());
    }
    Err(match seen.state {
        State::Away | State::Decision(_) => tokenward_result::TOKENWARD_ALREADY_USED,
        State::Outbound(_) | State::Wait(_) => tokenward_result::TOKENWARD_WRONG_STEP,
    })
}

/// Takes what a step stands at, and marks the step busy. The step is left as it is if it stands at something else.
///
/// # Safety
/// As [`mark`].
unsafe fn seize(step: *mut tokenward_step, expected: impl FnOnce(&State) -> bool) -> Outcome<State> {
    // SAFETY: the caller's promise.
    unsafe { mark(step, expected) }?;
    // SAFETY: as above; nothing else holds a reference to the state of a step that was not busy.
    Ok(replace(unsafe { &mut (*step).state }, State::Away))
}

/// Registers who is told that the step's wait can go on. The wait stays where it is, for callbacks to look at.
///
/// # Safety
/// As [`mark`].
unsafe fn register(
    step: *mut tokenward_step,
    registration: impl FnOnce(Option<&Origin>) -> Option<(Waker, Current)>,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { mark(step, |state| matches!(state, State::Wait(_))) }?;
    // SAFETY: as above. While a step is busy it exists, and nothing of it changes but its cells.
    let seen = unsafe { &*step };
    let (Some((waker, current)), State::Wait(wait)) = (registration(seen.origin.as_ref()), &seen.state) else {
        // INVARIANT: a step that waits has an origin.
        seen.busy.set(false);
        return Err(tokenward_result::TOKENWARD_WRONG_STEP);
    };
    let once = waker.once();
    let registered = core_work(|| wait.wait.on_ready(move |ready| once.call(ready)));
    // The one before is taken back.
    drop(seen.registration.replace(Some(current)));
    // SAFETY: the caller's promise; the step was marked busy, so that it still exists.
    let result = unsafe { proceed(step, registered.map(|()| None)) };
    waker.registered(result.is_ok());
    result
}

/// What the core does with a seized step.
fn core_work<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    caught(|| {
        #[cfg(feature = "testing")]
        crate::guard::testing::panic_if_wanted();
        work()
    })
}

/// Ends a call about a busy step: gives it what it stands at next, if that is something else; a refusal, if the core panicked. Frees it,
/// if a callback wanted that.
///
/// # Safety
/// `step` was marked by this thread.
unsafe fn proceed(step: *mut tokenward_step, next: Result<Option<Step>, Panicked>) -> Outcome {
    let (next, result) = match next {
        Ok(next) => (next, Ok(())),
        Err(Panicked) => {
            // SAFETY: the caller's promise: while a step is busy, it is alive, and nobody changes its origin.
            let refusal = refusal(unsafe { &(*step).origin }.as_ref());
            (Some(Step::Done(refusal)), Err(tokenward_result::TOKENWARD_PANIC))
        }
    };
    if let Some(next) = next {
        // SAFETY: the caller's promise; callbacks only look at a busy step, and none is under way here.
        let before = replace(unsafe { &mut (*step).state }, next.into());
        if matches!(before, State::Wait(_)) {
            // After a panic; its function is called now, and may free the step.
            // SAFETY: as above.
            drop(unsafe { &(*step).registration }.take());
        }
        let _ = caught(|| drop(before));
    }
    // SAFETY: the caller's promise. Looked at alone.
    let seen = unsafe { &*step };
    if seen.doomed.get() {
        drop(seen.registration.take());
        // SAFETY: the caller's promise; nobody looks at it any more.
        let state = replace(unsafe { &mut (*step).state }, State::Away);
        // Further callbacks may run here, and find the step busy.
        let _ = caught(|| drop(state));
        // SAFETY: the host freed it, and `tokenward_step_free` left that to us.
        unsafe { room::take_back(step) };
        return Err(tokenward_result::TOKENWARD_FREED);
    }
    let is_decided = matches!(seen.state, State::Decision(_));
    // SAFETY: as above; no callback is under way.
    let origin = if is_decided { unsafe { &mut (*step).origin }.take() } else { None };
    // SAFETY: as above.
    unsafe { &*step }.busy.set(false);
    // It may be the last of the introspector, whose log is released then: a callback, which may free the step.
    let _ = caught(|| drop(origin));
    result
}

/// For a request whose step met a defect; a second one while it is counted does not keep it from being refused.
fn refusal(origin: Option<&Origin>) -> Decision {
    let head = origin.is_some_and(|origin| origin.head);
    let counted = origin.map(|origin| core_work(|| origin.core.internal(head)));
    match counted {
        Some(Ok(refusal)) => refusal,
        _ => Decision::internal(head),
    }
}

const _: () = {
    const fn moves<T: Send>() {}
    moves::<Exchange>();
    moves::<Wait>();
    moves::<Step>();
};
