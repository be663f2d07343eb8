//! Decisions: what the upstream is told, or what the client is answered.

use std::cell::{OnceCell, RefCell};
use std::ffi::c_char;
use std::ptr;

use smallvec::SmallVec;
use tokenward_core::{Allow, Decision, Deny, Identity, Shared, Source};

use crate::guard::{Out, Outcome, borrow, guard, guard_or, optional};
use crate::introspector::{tokenward_consumer, tokenward_introspector, tokenward_policy};
use crate::result::tokenward_result;
use crate::text::{Call, first, tokenward_header, tokenward_str};

/// What becomes of a request: it goes on with exact edits, or the client gets an exact answer.
pub struct tokenward_decision {
    pub(crate) core: Decision,
    /// Made when C first looks: a decision that is only asked for its outcome costs nothing more.
    views: OnceCell<Box<Views>>,
}

/// The name to remove of most requests.
struct Names([tokenward_str; 1]);

// SAFETY: the text is the program's own, and nothing changes.
unsafe impl Sync for Names {}

static CREDENTIAL: Names = Names([tokenward_str { data: c"Authorization".as_ptr(), len: 13 }]);

/// What C looks at.
#[derive(Default)]
struct Views {
    set: OnceCell<SmallVec<[tokenward_header; 16]>>,
    remove: OnceCell<SmallVec<[tokenward_str; 4]>>,
    answer: OnceCell<SmallVec<[tokenward_header; 4]>>,
    /// Texts of claims that had to be written anew, each once.
    texts: RefCell<Vec<Box<str>>>,
}

/// Where the answer behind a decision came from.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tokenward_decided_by {
    /// Nobody was asked.
    TOKENWARD_SOURCE_NONE = 0,
    /// This request asked the endpoint.
    TOKENWARD_SOURCE_ENDPOINT = 1,
    /// The answer was remembered.
    TOKENWARD_SOURCE_CACHE = 2,
    /// Another request asked, and this one waited.
    TOKENWARD_SOURCE_WAITING = 3,
}

/// Who is behind a request.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tokenward_identity {
    /// Nobody was asked for: a preflight request; or the request is denied.
    TOKENWARD_IDENTITY_NONE = 0,
    /// The token is good and no consumer matches it.
    TOKENWARD_IDENTITY_UNMATCHED = 1,
    /// The token's consumer.
    TOKENWARD_IDENTITY_CONSUMER = 2,
    /// The consumer that stands in where authentication failed.
    TOKENWARD_IDENTITY_ANONYMOUS = 3,
}

/// Whether the request goes on. Where it does not, the client gets the refusal and the upstream nothing.
///
/// decision: the decision; NULL is none, and does not go on.
///
/// Returns: whether it goes on.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_is_allow(decision: *const tokenward_decision) -> bool {
    // SAFETY: the header's rule for handles.
    guard_or(false, || unsafe { optional(decision) }.is_some_and(|decision| decision.core.is_allow()))
}

/// Where the answer behind a decision came from.
///
/// decision: the decision; NULL came from nowhere.
///
/// Returns: the source.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_source(decision: *const tokenward_decision) -> tokenward_decided_by {
    guard_or(tokenward_decided_by::TOKENWARD_SOURCE_NONE, || {
        // SAFETY: the header's rule for handles.
        let decision = unsafe { optional(decision) };
        source_of(decision.map(|decision| &decision.core))
    })
}

/// Who is behind a request that goes on.
///
/// decision: the decision; behind NULL and behind a refusal is nobody.
///
/// Returns: the kind of identity; the consumer is `tokenward_decision_consumer`.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_identity(decision: *const tokenward_decision) -> tokenward_identity {
    guard_or(tokenward_identity::TOKENWARD_IDENTITY_NONE, || {
        // SAFETY: the header's rules for handles.
        let allow = unsafe { allow(decision) };
        allow.map_or(tokenward_identity::TOKENWARD_IDENTITY_NONE, |(_, allow)| identity_of(allow.identity()))
    })
}

/// The consumer behind a request that goes on, matched or anonymous.
///
/// decision: the decision.
///
/// Returns: the consumer, which lives as long as the decision; NULL if there is none.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_consumer(decision: *const tokenward_decision) -> *const tokenward_consumer {
    guard_or(ptr::null(), || {
        // SAFETY: the header's rule for handles.
        match unsafe { allow(decision) }.map(|(_, allow)| allow.identity().consumer()) {
            Ok(Some(consumer)) => tokenward_consumer::of(consumer),
            _ => ptr::null(),
        }
    })
}

/// Names to remove from the upstream request: every header line and trailer of each, case ignored. Before `tokenward_decision_set`.
/// The host drops what the client's `Connection` header names before that.
///
/// decision: the decision.
/// names: where the array goes; it lives as long as the decision.
/// count: how many there are.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_remove(
    decision: *const tokenward_decision,
    names: *mut *const tokenward_str,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((decision, allow), names, count) = unsafe { (allow(decision)?, Out::new(names)?, Out::new(count)?) };
        let all = decision.names_to_remove(allow);
        names.set(first(all));
        count.set(all.len());
        Ok(())
    })
}

/// Header lines to add to the upstream request, after the removals. A name can come more than once.
///
/// decision: the decision.
/// headers: where the array goes; it lives as long as the decision.
/// count: how many there are.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_set(
    decision: *const tokenward_decision,
    headers: *mut *const tokenward_header,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((decision, allow), headers, count) = unsafe { (allow(decision)?, Out::new(headers)?, Out::new(count)?) };
        let all = decision.lines_to_set(allow);
        headers.set(first(all));
        count.set(all.len());
        Ok(())
    })
}

/// A number that decisions have in common whose identity, claims and lines of `tokenward_decision_set` are the same because they were
/// computed once. It is never used again in the process: what a host makes of them it may keep under the number.
///
/// decision: the decision.
///
/// Returns: the number; 0 where there is nothing to share, for a refusal, and for NULL.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_shared(decision: *const tokenward_decision) -> u64 {
    // SAFETY: the header's rule for handles.
    guard_or(0, || unsafe { allow(decision) }.ok().and_then(|(_, allow)| allow.shared()).map_or(0, Shared::number))
}

/// What becomes of a request that goes on with no more than its header lines changed, which is what most do: for hosts that keep what they
/// made of the lines to set under their number.
///
/// decision: the decision.
/// shared: where the number goes; as `tokenward_decision_shared`.
/// names: where the array of names to remove goes, as `tokenward_decision_remove`; it lives as long as the decision.
/// count: how many there are.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal, and where the target, the body or the answer change, too;
/// TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_headers_alone(
    decision: *const tokenward_decision,
    shared: *mut u64,
    names: *mut *const tokenward_str,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((decision, allow), shared, names, count) =
            unsafe { (allow(decision)?, Out::new(shared)?, Out::new(names)?, Out::new(count)?) };
        if !changes_headers_alone(allow) {
            return Err(tokenward_result::TOKENWARD_ABSENT);
        }
        let all = decision.names_to_remove(allow);
        shared.set(allow.shared().map_or(0, Shared::number));
        names.set(first(all));
        count.set(all.len());
        Ok(())
    })
}

/// The request target for the upstream, where the credential was taken out of it.
///
/// decision: the decision.
/// target: where the target goes; it lives as long as the decision.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where the client's own stays, and for a refusal; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_target(
    decision: *const tokenward_decision,
    target: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((_, allow), target) = unsafe { (allow(decision)?, Out::new(target)?) };
        target.set(tokenward_str::of(allow.target().ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

/// The body for the upstream, where the credential was taken out of it; its length is the new `Content-Length`.
///
/// decision: the decision.
/// body: where the body goes; it lives as long as the decision.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where the client's own stays, and for a refusal; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_body(
    decision: *const tokenward_decision,
    body: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((_, allow), body) = unsafe { (allow(decision)?, Out::new(body)?) };
        body.set(tokenward_str::of(allow.body().ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

/// Header lines to add to every 2xx answer that the client gets from the upstream.
///
/// decision: the decision.
/// headers: where the array goes; it lives as long as the decision.
/// count: how many there are; often none.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT for a refusal; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_response_headers(
    decision: *const tokenward_decision,
    headers: *mut *const tokenward_header,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((decision, allow), headers, count) = unsafe { (allow(decision)?, Out::new(headers)?, Out::new(count)?) };
        let all = decision.answer_lines(allow.response_headers());
        headers.set(first(all));
        count.set(all.len());
        Ok(())
    })
}

/// When the token expires, if the authorization server says so.
///
/// decision: the decision.
/// expires_us: where the moment goes, in microseconds since 1970-01-01 00:00 UTC.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where nothing is said, and for a refusal; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_expires_us(
    decision: *const tokenward_decision,
    expires_us: *mut i64,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((_, allow), expires_us) = unsafe { (allow(decision)?, Out::new(expires_us)?) };
        expires_us.set(allow.expires().ok_or(tokenward_result::TOKENWARD_ABSENT)?.microseconds());
        Ok(())
    })
}

/// A claim as JSON text, as the authorization server wrote it: `"alice"`, `20`, `["a","b"]`.
///
/// decision: the decision.
/// name, name_len: the claim's name.
/// json: where the text goes; it lives as long as the decision.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such claim, and for a refusal; or what is wrong with an argument.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_claim(
    decision: *const tokenward_decision,
    name: *const c_char,
    name_len: usize,
    json: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, strings and outputs.
        let ((_, allow), call, json) = unsafe { (allow(decision)?, Call::new(), Out::new(json)?) };
        let name = call.text(name, name_len)?;
        let value = allow.claims().and_then(|claims| claims.value(name));
        json.set(tokenward_str::of(value.ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

/// A claim that is a JSON string, as text: without quotes, and with escapes resolved. It may hold any character, NUL included.
///
/// decision: the decision.
/// name, name_len: the claim's name.
/// text: where the text goes, in UTF-8; it lives as long as the decision.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such claim or it is no string, and for a refusal; or what is wrong with an
/// argument.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_claim_text(
    decision: *const tokenward_decision,
    name: *const c_char,
    name_len: usize,
    text: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, strings and outputs.
        let ((decision, allow), call, text) = unsafe { (allow(decision)?, Call::new(), Out::new(text)?) };
        let name = call.text(name, name_len)?;
        let value = allow.claims().and_then(|claims| claims.text(name)).ok_or(tokenward_result::TOKENWARD_ABSENT)?;
        text.set(match value {
            std::borrow::Cow::Borrowed(borrowed) => tokenward_str::of(borrowed),
            std::borrow::Cow::Owned(owned) => decision.keep(owned),
        });
        Ok(())
    })
}

/// The value at a JSON Pointer (RFC 6901) as JSON text: `/realm_access/roles/0`. The empty pointer is all claims as one object.
///
/// decision: the decision.
/// pointer, pointer_len: the pointer.
/// json: where the text goes; it lives as long as the decision.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such value, and for a refusal; or what is wrong with an argument.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_claim_at(
    decision: *const tokenward_decision,
    pointer: *const c_char,
    pointer_len: usize,
    json: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, strings and outputs.
        let ((_, allow), call, json) = unsafe { (allow(decision)?, Call::new(), Out::new(json)?) };
        let pointer = call.text(pointer, pointer_len)?;
        let value = allow.claims().and_then(|claims| claims.pointer(pointer));
        json.set(tokenward_str::of(value.ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

/// A claim as one header value, encoded as that of `X-Credential-*` would be under a policy: for logs and templates, and safe in a
/// header. An array that the policy sends as several lines is compact JSON here.
///
/// decision: the decision.
/// introspector: the introspector.
/// policy: the policy of the request, or NULL for the configuration's own.
/// name, name_len: the claim's name.
/// value: where the value goes; it lives as long as the decision.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where there is no such claim, it counts as absent or is over `limits.header_bytes`, and for a
/// refusal; or what is wrong with an argument.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_claim_value(
    decision: *const tokenward_decision,
    introspector: *const tokenward_introspector,
    policy: *const tokenward_policy,
    name: *const c_char,
    name_len: usize,
    value: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, strings and outputs.
        let (found, introspector, policy, call, value) =
            unsafe { (allow(decision), borrow(introspector)?, optional(policy), Call::new(), Out::new(value)?) };
        let (decision, allow) = found?;
        let name = call.text(name, name_len)?;
        let policy = policy.map(|policy| &policy.core);
        let text = allow.claims().and_then(|claims| introspector.core.claim_value(policy, claims, name));
        value.set(decision.keep(text.ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

/// Why a request is denied.
///
/// decision: the decision; NULL is TOKENWARD_REASON_INTERNAL.
///
/// Returns: a number of `tokenward_reason`; 0 where the request goes on.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_reason(decision: *const tokenward_decision) -> u32 {
    guard_or(1599, || {
        // SAFETY: the header's rule for handles.
        match unsafe { optional(decision) }.map(|decision| &decision.core) {
            Some(Decision::Allow(_)) => 0,
            Some(Decision::Deny(deny)) => u32::from(deny.reason().number()),
            None => 1599,
        }
    })
}

/// The status of a refusal.
///
/// decision: the decision; NULL is 500.
///
/// Returns: 400 to 503; 0 where the request goes on.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_status(decision: *const tokenward_decision) -> u32 {
    guard_or(500, || {
        // SAFETY: the header's rule for handles.
        match unsafe { optional(decision) }.map(|decision| &decision.core) {
            Some(Decision::Allow(_)) => 0,
            Some(Decision::Deny(deny)) => u32::from(deny.status()),
            None => 500,
        }
    })
}

/// The header lines of a refusal, in order, but for `Content-Length`, which is the host's.
///
/// decision: the decision.
/// headers: where the array goes; it lives as long as the decision.
/// count: how many there are.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where the request goes on; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_refusal_headers(
    decision: *const tokenward_decision,
    headers: *mut *const tokenward_header,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((decision, deny), headers, count) = unsafe { (deny(decision)?, Out::new(headers)?, Out::new(count)?) };
        let all = decision.answer_lines(deny.headers());
        headers.set(first(all));
        count.set(all.len());
        Ok(())
    })
}

/// The body of a refusal.
///
/// decision: the decision.
/// body: where the body goes; it lives as long as the process.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT for HEAD, and where the request goes on; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_refusal_body(
    decision: *const tokenward_decision,
    body: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let ((_, deny), body) = unsafe { (deny(decision)?, Out::new(body)?) };
        body.set(tokenward_str::of(deny.body().ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

pub(crate) fn source_of(decision: Option<&Decision>) -> tokenward_decided_by {
    match decision.map(Decision::source) {
        None | Some(Source::None) => tokenward_decided_by::TOKENWARD_SOURCE_NONE,
        Some(Source::Endpoint) => tokenward_decided_by::TOKENWARD_SOURCE_ENDPOINT,
        Some(Source::Cache) => tokenward_decided_by::TOKENWARD_SOURCE_CACHE,
        Some(Source::Waiting) => tokenward_decided_by::TOKENWARD_SOURCE_WAITING,
    }
}

pub(crate) fn identity_of(identity: &Identity) -> tokenward_identity {
    match identity {
        Identity::None => tokenward_identity::TOKENWARD_IDENTITY_NONE,
        Identity::Unmatched => tokenward_identity::TOKENWARD_IDENTITY_UNMATCHED,
        Identity::Consumer(_) => tokenward_identity::TOKENWARD_IDENTITY_CONSUMER,
        Identity::Anonymous(_) => tokenward_identity::TOKENWARD_IDENTITY_ANONYMOUS,
    }
}

/// Whether the target, the body and the answer stay as they are.
pub(crate) fn changes_headers_alone(allow: &Allow) -> bool {
    allow.target().is_none() && allow.body().is_none() && allow.response_headers().next().is_none()
}

impl tokenward_decision {
    #[inline]
    pub(crate) fn new(core: Decision) -> Self {
        Self { core, views: OnceCell::new() }
    }

    /// Made when C first looks.
    pub(crate) fn lines_to_set(&self, allow: &Allow) -> &[tokenward_header] {
        self.views()
            .set
            .get_or_init(|| allow.edits().set().map(|(name, value)| tokenward_header::of(name, value)).collect())
    }

    /// Likewise. The credential alone, which is what most requests have, takes no memory.
    #[inline(always)]
    pub(crate) fn names_to_remove(&self, allow: &Allow) -> &[tokenward_str] {
        if allow.edits().removes_credential_alone() {
            return &CREDENTIAL.0;
        }
        if allow.edits().remove().next().is_none() {
            return &[];
        }
        self.views().remove.get_or_init(|| allow.edits().remove().map(tokenward_str::of).collect())
    }

    /// Likewise: those of an allow, or of a refusal.
    pub(crate) fn answer_lines<'a>(&self, lines: impl Iterator<Item = (&'a str, &'a str)>) -> &[tokenward_header] {
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return &[];
        }
        self.views().answer.get_or_init(|| lines.map(|(name, value)| tokenward_header::of(name, value)).collect())
    }

    fn views(&self) -> &Views {
        self.views.get_or_init(Box::default)
    }

    /// Text that lives as long as this decision: the same array for the same text, so that looking again takes no more memory.
    fn keep(&self, text: String) -> tokenward_str {
        let mut texts = self.views().texts.borrow_mut();
        let at = texts.iter().position(|known| **known == *text).unwrap_or_else(|| {
            texts.push(text.into_boxed_str());
            texts.len() - 1
        });
        // The heap does not move with the vector.
        tokenward_str::of(texts.get(at).map_or("", |text| &**text))
    }
}

/// # Safety
/// As [`borrow`].
unsafe fn allow<'a>(decision: *const tokenward_decision) -> Outcome<(&'a tokenward_decision, &'a Allow)> {
    // SAFETY: the caller's promise.
    let decision = unsafe { borrow(decision) }?;
    match &decision.core {
        Decision::Allow(allow) => Ok((decision, allow)),
        Decision::Deny(_) => Err(tokenward_result::TOKENWARD_ABSENT),
    }
}

/// # Safety
/// As [`borrow`].
unsafe fn deny<'a>(decision: *const tokenward_decision) -> Outcome<(&'a tokenward_decision, &'a Deny)> {
    // SAFETY: the caller's promise.
    let decision = unsafe { borrow(decision) }?;
    match &decision.core {
        Decision::Allow(_) => Err(tokenward_result::TOKENWARD_ABSENT),
        Decision::Deny(deny) => Ok((decision, deny)),
    }
}
