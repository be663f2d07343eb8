//! A request that begins, and what its host needs to know at once, in one call.

use std::ptr;

use tokenward_core::{Decision, Shared};

use crate::decision::{changes_headers_alone, identity_of, tokenward_decision, tokenward_identity};
use crate::guard::{Out, borrow, guard, optional};
use crate::introspector::{tokenward_introspector, tokenward_policy};
use crate::request::{tokenward_request, tokenward_time};
use crate::result::tokenward_result;
use crate::sized::{Grows, sized};
use crate::step::{begin, tokenward_step};
use crate::text::{Call, first, tokenward_str};

/// What a host needs to know of nearly every request that began. What there is none of is 0 or NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_brief {
    /// How much was written: what was asked for.
    pub struct_size: usize,
    /// The step; free it with `tokenward_step_free`.
    pub step: *mut tokenward_step,
    /// As `tokenward_step_decision`; NULL: the step stands at a call or a wait, and there is nothing more to know yet.
    pub decision: *const tokenward_decision,
    /// 1 if the request goes on, else 0.
    pub allow: u32,
    /// 1 if it goes on with no more than its header lines changed, as `tokenward_decision_headers_alone` says, else 0.
    pub headers_alone: u32,
    /// A number of `tokenward_identity`.
    pub identity: u32,
    /// Nothing.
    pub reserved: u32,
    /// As `tokenward_decision_shared`.
    pub shared: u64,
    /// As `tokenward_decision_remove`.
    pub remove: *const tokenward_str,
    /// How many there are.
    pub remove_len: usize,
}

// SAFETY: `repr(C)`, the size first, and numbers and pointers.
unsafe impl Grows for tokenward_brief {
    const SIZES: &'static [usize] = &[size_of::<Self>()];
}

/// Begins to decide about a request, as `tokenward_begin` does, and says with it what a host needs to know of most decisions: for hosts to
/// which each call costs something.
///
/// introspector: the introspector.
/// policy: a further policy, or NULL for the configuration's own.
/// request: what the client sent; read during the call.
/// now: the time of now.
/// brief: where it goes; what it points to but for the step lives as long as the step.
/// size: `sizeof(tokenward_brief)`: as much is written.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a size of no header up to this library's, or what else is wrong with an argument;
/// the request is then denied by the host.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_begin_brief(
    introspector: *const tokenward_introspector,
    policy: *const tokenward_policy,
    request: *const tokenward_request,
    now: *const tokenward_time,
    brief: *mut tokenward_brief,
    size: usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, structs, strings and outputs.
        let (introspector, policy, request, now, out, call) = unsafe {
            (
                borrow(introspector)?,
                optional(policy),
                sized(request)?,
                borrow(now)?.now(),
                Out::new(brief.cast::<u8>())?,
                Call::new(),
            )
        };
        if !tokenward_brief::SIZES.contains(&size) || !brief.is_aligned() {
            return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT);
        }
        let step = begin(introspector, policy, &request, now, call)?;
        let mut made = tokenward_brief {
            struct_size: size,
            step,
            decision: ptr::null(),
            allow: 0,
            headers_alone: 0,
            identity: tokenward_identity::TOKENWARD_IDENTITY_NONE as u32,
            reserved: 0,
            shared: 0,
            remove: ptr::null(),
            remove_len: 0,
        };
        // SAFETY: it was made right now, and nobody else has it yet.
        if let Some(decision) = unsafe { borrow(step) }?.decision() {
            made.decision = ptr::from_ref(decision);
            if let Decision::Allow(allow) = &decision.core {
                made.allow = 1;
                made.headers_alone = changes_headers_alone(allow).into();
                made.identity = identity_of(allow.identity()) as u32;
                made.shared = allow.shared().map_or(0, Shared::number);
                let names = decision.names_to_remove(allow);
                (made.remove, made.remove_len) = (first(names), names.len());
            }
        }
        out.copy(&made, size);
        Ok(())
    })
}
