//! A decision at one look: for hosts to which each call costs something.

use std::ptr;

use tokenward_core::Decision;

use crate::decision::{identity_of, source_of, tokenward_decision, tokenward_identity};
use crate::guard::{Out, borrow, guard};
use crate::result::tokenward_result;
use crate::sized::Grows;
use crate::text::{first, tokenward_header, tokenward_str};

/// What a host needs of a decision about every request. What there is none of is 0 or NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_summary {
    /// How much was written: what was asked for.
    pub struct_size: usize,
    /// 1 if the request goes on, else 0.
    pub allow: u32,
    /// A number of `tokenward_decided_by`.
    pub source: u32,
    /// A number of `tokenward_identity`.
    pub identity: u32,
    /// A number of `tokenward_reason`; 0 where the request goes on.
    pub reason: u32,
    /// The status of a refusal; 0 where the request goes on.
    pub status: u32,
    /// Nothing.
    pub reserved: u32,
    /// As `tokenward_decision_remove`.
    pub remove: *const tokenward_str,
    /// How many there are.
    pub remove_len: usize,
    /// As `tokenward_decision_set`.
    pub set: *const tokenward_header,
    /// How many there are.
    pub set_len: usize,
    /// As `tokenward_decision_response_headers`, or `tokenward_decision_refusal_headers`.
    pub headers: *const tokenward_header,
    /// How many there are.
    pub headers_len: usize,
    /// As `tokenward_decision_target`; `data` NULL: the client's own stays.
    pub target: tokenward_str,
    /// As `tokenward_decision_body`, where `data` NULL is the client's own; or `tokenward_decision_refusal_body`.
    pub body: tokenward_str,
    /// The consumer's id; `data` NULL: there is no consumer.
    pub consumer_id: tokenward_str,
    /// The consumer's username; `data` NULL: it has none.
    pub consumer_username: tokenward_str,
    /// The consumer's id in the host's own terms; `data` NULL: it has none.
    pub consumer_custom_id: tokenward_str,
}

// SAFETY: `repr(C)`, the size first, and numbers and pointers.
unsafe impl Grows for tokenward_summary {
    const SIZES: &'static [usize] = &[size_of::<Self>()];
}

/// All that a host needs of a decision about every request, in one call.
///
/// decision: the decision.
/// summary: where it goes; what it points to lives as long as the decision.
/// size: `sizeof(tokenward_summary)`: as much is written.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a size of no header up to this library's; TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_decision_summary(
    decision: *const tokenward_decision,
    summary: *mut tokenward_summary,
    size: usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (seen, out) = unsafe { (borrow(decision)?, Out::new(summary.cast::<u8>())?) };
        if !tokenward_summary::SIZES.contains(&size) || !summary.is_aligned() {
            return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT);
        }
        const NONE: tokenward_str = tokenward_str { data: ptr::null(), len: 0 };
        let text = |text: Option<&str>| text.map_or(NONE, tokenward_str::of);
        let mut made = tokenward_summary {
            struct_size: size,
            allow: 0,
            source: source_of(Some(&seen.core)) as u32,
            identity: tokenward_identity::TOKENWARD_IDENTITY_NONE as u32,
            reason: 0,
            status: 0,
            reserved: 0,
            remove: ptr::null(),
            remove_len: 0,
            set: ptr::null(),
            set_len: 0,
            headers: ptr::null(),
            headers_len: 0,
            target: NONE,
            body: NONE,
            consumer_id: NONE,
            consumer_username: NONE,
            consumer_custom_id: NONE,
        };
        match &seen.core {
            Decision::Allow(allow) => {
                made.allow = 1;
                made.identity = identity_of(allow.identity()) as u32;
                let (set, remove) = (seen.lines_to_set(allow), seen.names_to_remove(allow));
                (made.set, made.set_len) = (first(set), set.len());
                (made.remove, made.remove_len) = (first(remove), remove.len());
                made.target = allow.target().map_or(NONE, tokenward_str::of);
                made.body = allow.body().map_or(NONE, tokenward_str::of);
                if allow.response_headers().next().is_some() {
                    let answer = seen.answer_lines(allow.response_headers());
                    (made.headers, made.headers_len) = (first(answer), answer.len());
                }
                if let Some(consumer) = allow.identity().consumer() {
                    made.consumer_id = tokenward_str::of(consumer.id());
                    made.consumer_username = text(consumer.username());
                    made.consumer_custom_id = text(consumer.custom_id());
                }
            }
            Decision::Deny(deny) => {
                made.reason = deny.reason().number().into();
                made.status = deny.status().into();
                let answer = seen.answer_lines(deny.headers());
                (made.headers, made.headers_len) = (first(answer), answer.len());
                made.body = deny.body().map_or(NONE, tokenward_str::of);
            }
        }
        out.copy(&made, size);
        Ok(())
    })
}
