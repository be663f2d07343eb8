//! Looking at all that a handle shows, to its last byte.

use std::ffi::c_char;
use std::hint::black_box;
use std::mem::zeroed;
use std::ptr::{null, null_mut};

use tokenward::*;

pub const OK: tokenward_result = tokenward_result::TOKENWARD_OK;
const ABSENT: tokenward_result = tokenward_result::TOKENWARD_ABSENT;

/// Reads every byte, and gives them for as long as the view's handle lives.
pub fn touch<'a>(view: tokenward_str) -> &'a [u8] {
    if view.len == 0 {
        return &[];
    }
    // SAFETY: a view that lives, by the header's rules.
    let bytes = unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), view.len) };
    black_box(bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
    bytes
}

pub fn view(bytes: &[u8]) -> tokenward_str {
    tokenward_str { data: bytes.as_ptr().cast(), len: bytes.len() }
}

/// Text that a function gives; none where it is absent.
pub fn text<'a>(get: impl FnOnce(*mut tokenward_str) -> tokenward_result) -> Option<&'a [u8]> {
    let mut out = tokenward_str { data: null(), len: usize::MAX };
    match get(&mut out) {
        OK => Some(touch(out)),
        other => {
            assert!(other != tokenward_result::TOKENWARD_PANIC);
            assert_eq!(out.len, usize::MAX, "an output is written with OK alone");
            None
        }
    }
}

/// An array that a function gives: how long it is; every element is looked at.
fn array<T: Copy>(
    get: impl FnOnce(*mut *const T, *mut usize) -> tokenward_result,
    look: impl Fn(T),
) -> Option<(*const T, usize)> {
    let (mut first, mut count) = (null(), usize::MAX);
    match get(&mut first, &mut count) {
        OK => {
            // SAFETY: below the count.
            (0..count).for_each(|at| look(unsafe { *first.add(at) }));
            Some((first, count))
        }
        other => {
            assert_eq!((other, count), (ABSENT, usize::MAX));
            None
        }
    }
}

fn header(line: tokenward_header) {
    touch(line.name);
    touch(line.value);
}

/// What is said of a request that began, also where none did: all of it is zero then.
///
/// # Safety
/// Its step is alive, or there is none.
pub unsafe fn brief(brief: &tokenward_brief) {
    // SAFETY: the caller's promise; names are views of the step.
    unsafe {
        assert_eq!(brief.struct_size == 0, brief.step.is_null());
        let decision = tokenward_step_decision(brief.step);
        assert_eq!(brief.decision, decision);
        assert_eq!(brief.allow == 1, tokenward_decision_is_allow(decision));
        assert!(brief.headers_alone <= brief.allow);
        assert_eq!(brief.shared, tokenward_decision_shared(decision));
        for at in 0..brief.remove_len {
            touch(*brief.remove.add(at));
        }
    }
}

/// What a step stands at; `which`: a number that chooses among what is not looked at every time. Of the three, exactly one is there, but while it is `busy`.
pub fn step(step: *const tokenward_step, busy: bool, which: u8) {
    // SAFETY: a live step, on its thread; outputs are written during calls.
    unsafe {
        let outbound = tokenward_step_outbound(step);
        let wait = tokenward_step_wait(step);
        let decision = tokenward_step_decision(step);
        let there = [!outbound.is_null(), !wait.is_null(), !decision.is_null()].into_iter().filter(|is| *is).count();
        assert!(there == 1 || (busy && there == 0), "{there} of three");
        if !outbound.is_null() {
            text(|out| tokenward_outbound_method(outbound, out)).expect("a method");
            text(|out| tokenward_outbound_url(outbound, out)).expect("a URL");
            text(|out| tokenward_outbound_body(outbound, out)).expect("a form");
            array(|first, count| tokenward_outbound_headers(outbound, first, count), header).expect("headers");
            assert!(tokenward_outbound_time_left_us(outbound) <= tokenward_outbound_deadline_us(outbound));
        }
        if !wait.is_null() {
            black_box(tokenward_wait_deadline_us(wait));
        }
        if !decision.is_null() {
            decided(decision, which);
        }
    }
}

/// # Safety
/// A live decision.
unsafe fn decided(decision: *const tokenward_decision, which: u8) {
    // SAFETY: the caller's promise; outputs are written during calls.
    unsafe {
        let mut summary: tokenward_summary = zeroed();
        assert_eq!(tokenward_decision_summary(decision, &mut summary, size_of::<tokenward_summary>()), OK);
        let allow = tokenward_decision_is_allow(decision);
        assert_eq!(summary.allow, u32::from(allow));
        assert_eq!(summary.source, tokenward_decision_source(decision) as u32);
        assert_eq!(summary.identity, tokenward_decision_identity(decision) as u32);
        assert_eq!(
            (summary.reason, summary.status),
            (tokenward_decision_reason(decision), tokenward_decision_status(decision))
        );
        assert_eq!(allow, summary.reason == 0 && summary.status == 0);
        let set = array(|first, count| tokenward_decision_set(decision, first, count), header);
        let remove = array(
            |first, count| tokenward_decision_remove(decision, first, count),
            |name| {
                touch(name);
            },
        );
        let refusal = array(|first, count| tokenward_decision_refusal_headers(decision, first, count), header);
        let response = array(|first, count| tokenward_decision_response_headers(decision, first, count), header);
        assert_eq!([set.is_some(), remove.is_some(), response.is_some(), refusal.is_none()], [allow; 4]);
        assert_eq!(set.unwrap_or((null(), 0)), (summary.set, summary.set_len));
        assert_eq!(remove.unwrap_or((null(), 0)), (summary.remove, summary.remove_len));
        assert_eq!(response.or(refusal), Some((summary.headers, summary.headers_len)));
        let target = text(|out| tokenward_decision_target(decision, out));
        assert_eq!(target.is_some(), !summary.target.data.is_null());
        let body = text(|out| tokenward_decision_body(decision, out));
        let body = body.or_else(|| text(|out| tokenward_decision_refusal_body(decision, out)));
        assert_eq!(body.unwrap_or_default(), touch(summary.body));
        let mut expires = 0;
        black_box(tokenward_decision_expires_us(decision, &mut expires));
        black_box(tokenward_decision_shared(decision));
        // One of them each time, since this is what takes longest.
        let name = ["sub", "exp", "username", "scope", "none"][usize::from(summary.set_len as u8 ^ which) % 5];
        {
            let (data, len) = (name.as_ptr().cast::<c_char>(), name.len());
            let json = text(|out| tokenward_decision_claim(decision, data, len, out));
            let string = text(|out| tokenward_decision_claim_text(decision, data, len, out));
            assert!(string.is_none() || json.is_some_and(|json| json.starts_with(b"\"")));
            assert_eq!(text(|out| tokenward_decision_claim_value(decision, null(), null(), data, len, out)), None);
        }
        let pointer = "/a/0";
        text(|out| tokenward_decision_claim_at(decision, pointer.as_ptr().cast(), pointer.len(), out));
        let consumer = tokenward_decision_consumer(decision);
        if !consumer.is_null() {
            self::consumer(consumer);
        }
        touch(summary.consumer_id);
        touch(summary.consumer_username);
        touch(summary.consumer_custom_id);
    }
}

/// # Safety
/// A live consumer.
pub unsafe fn consumer(consumer: *const tokenward_consumer) {
    // SAFETY: the caller's promise; outputs are written during calls.
    unsafe {
        text(|out| tokenward_consumer_id(consumer, out)).expect("an id");
        text(|out| tokenward_consumer_username(consumer, out));
        text(|out| tokenward_consumer_custom_id(consumer, out));
        for index in 0.. {
            let tag = text(|out| tokenward_consumer_tag_at(consumer, index, out));
            let group = text(|out| tokenward_consumer_group_at(consumer, index, out));
            if tag.is_none() && group.is_none() {
                break;
            }
        }
    }
}

/// # Safety
/// A live line.
pub unsafe fn line(line: *const tokenward_line) {
    // SAFETY: the caller's promise; outputs are written during calls.
    unsafe {
        black_box((tokenward_line_level(line), tokenward_line_reason(line)));
        text(|out| tokenward_line_message(line, out)).expect("a message");
        let whole = text(|out| tokenward_line_text(line, out)).expect("a text");
        assert!(!whole.iter().any(u8::is_ascii_control));
        array(|first, count| tokenward_line_fields(line, first, count), header).expect("fields");
    }
}

/// # Safety
/// A live error.
pub unsafe fn error(error: *mut tokenward_error) {
    // SAFETY: the caller's promise; outputs are written during calls.
    unsafe {
        text(|out| tokenward_error_message(error, out)).expect("a message");
        let count = tokenward_error_count(error);
        for index in 0..=count {
            let mut problem: tokenward_problem = zeroed();
            let result = tokenward_error_at(error, index, &mut problem);
            assert_eq!(result == OK, index < count);
            touch(problem.path);
            touch(problem.message);
        }
        tokenward_error_free(error);
    }
}

/// # Safety
/// A live document.
pub unsafe fn document(document: *mut tokenward_document) {
    // SAFETY: the caller's promise; outputs are written during calls.
    unsafe {
        for index in 0..=tokenward_document_warning_count(document) {
            let mut problem: tokenward_problem = zeroed();
            tokenward_document_warning_at(document, index, &mut problem);
            touch(problem.path);
            touch(problem.message);
        }
        let count = tokenward_document_consumer_count(document);
        for index in 0..count {
            consumer(tokenward_document_consumer_at(document, index));
        }
        assert!(tokenward_document_consumer_at(document, count).is_null());
        text(|out| tokenward_document_introspection_url(document, out)).expect("a URL");
        black_box((
            tokenward_document_keepalive_us(document),
            tokenward_document_timeout_us(document),
            tokenward_document_reply_bytes(document),
            tokenward_document_concurrent_introspections(document),
        ));
    }
}

/// # Safety
/// A live snapshot, freed by this.
pub unsafe fn snapshot(snapshot: *mut tokenward_snapshot) {
    // SAFETY: the caller's promise; outputs are written during calls.
    unsafe {
        let prometheus = text(|out| tokenward_snapshot_prometheus(snapshot, out)).expect("a text");
        let numbers = array(
            |first, count| tokenward_snapshot_numbers(snapshot, first, count),
            |number| {
                black_box(number);
            },
        );
        let (numbers, count) = numbers.expect("numbers");
        let mut again = null_mut();
        assert_eq!(tokenward_snapshot_of_numbers(numbers, count, &mut again), OK);
        assert_eq!(text(|out| tokenward_snapshot_prometheus(again, out)), Some(prometheus));
        tokenward_snapshot_free(snapshot);
        tokenward_snapshot_free(again);
    }
}
