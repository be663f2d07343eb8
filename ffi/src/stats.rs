//! Counters.

use std::cell::OnceCell;

use tokenward_core::{LATENCY_BOUNDS_MS, Snapshot};

use crate::guard::{Out, borrow, give, guard, take};
use crate::introspector::tokenward_introspector;
use crate::result::{reason_of, tokenward_result};
use crate::text::{Call, first, tokenward_str};

/// The counters at a moment.
pub struct tokenward_snapshot {
    core: Snapshot,
    text: OnceCell<String>,
    numbers: OnceCell<Vec<u64>>,
}

/// The counters of a snapshot. All but the last five only grow. New ones may be added.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tokenward_counter {
    /// Requests answered from a remembered positive answer.
    TOKENWARD_COUNTER_HITS = 0,
    /// Requests answered from a remembered `active: false`.
    TOKENWARD_COUNTER_NEGATIVE_HITS = 1,
    /// Requests that started an introspection.
    TOKENWARD_COUNTER_MISSES = 2,
    /// Requests that waited for another's introspection.
    TOKENWARD_COUNTER_WAITS = 3,
    /// Calls that were handed to the host, retries included.
    TOKENWARD_COUNTER_INTROSPECTIONS = 4,
    /// Header values that were over `limits.header_bytes`.
    TOKENWARD_COUNTER_VALUES_LEFT_OUT = 5,
    /// Request bodies that could have held a token and were too long or coded.
    TOKENWARD_COUNTER_BODIES_NOT_SEARCHED = 6,
    /// Requests allowed.
    TOKENWARD_COUNTER_ALLOWED = 7,
    /// Entries pushed out by newer ones, since the cache began.
    TOKENWARD_COUNTER_EVICTIONS = 8,
    /// Positive entries.
    TOKENWARD_COUNTER_ENTRIES = 9,
    /// Negative entries.
    TOKENWARD_COUNTER_NEGATIVE_ENTRIES = 10,
    /// Bytes of both pools.
    TOKENWARD_COUNTER_BYTES = 11,
    /// Introspections under way.
    TOKENWARD_COUNTER_IN_FLIGHT = 12,
}

/// Takes the counters of now.
///
/// introspector: the introspector.
/// snapshot: where the snapshot goes; free it with `tokenward_snapshot_free`.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_new(
    introspector: *const tokenward_introspector,
    snapshot: *mut *mut tokenward_snapshot,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (introspector, snapshot) = unsafe { (borrow(introspector)?, Out::new(snapshot)?) };
        snapshot.set(give(tokenward_snapshot {
            core: introspector.core.snapshot(),
            text: OnceCell::new(),
            numbers: OnceCell::new(),
        }));
        Ok(())
    })
}

/// One counter.
///
/// snapshot: the snapshot.
/// counter: a number of `tokenward_counter`.
/// value: where the value goes.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a number that is none.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_counter(
    snapshot: *const tokenward_snapshot,
    counter: u32,
    value: *mut u64,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (snapshot, value) = unsafe { (borrow(snapshot)?, Out::new(value)?) };
        let core = &snapshot.core;
        value.set(match counter {
            0 => core.hits,
            1 => core.negative_hits,
            2 => core.misses,
            3 => core.waits,
            4 => core.introspections,
            5 => core.values_left_out,
            6 => core.bodies_not_searched,
            7 => core.allowed,
            8 => core.evictions,
            9 => core.entries as u64,
            10 => core.negative_entries as u64,
            11 => core.bytes as u64,
            12 => core.in_flight as u64,
            _ => return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT),
        });
        Ok(())
    })
}

/// How many requests were denied for a reason.
///
/// snapshot: the snapshot.
/// reason: a number of `tokenward_reason`.
/// value: where the number goes.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for a number that is none.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_denied(
    snapshot: *const tokenward_snapshot,
    reason: u32,
    value: *mut u64,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (snapshot, value) = unsafe { (borrow(snapshot)?, Out::new(value)?) };
        value.set(snapshot.core.denied(reason_of(reason)?));
        Ok(())
    })
}

/// How long calls took: one bucket of the histogram.
///
/// snapshot: the snapshot.
/// bucket: from 0, until TOKENWARD_ABSENT.
/// bound_ms: where the bucket's upper bound in milliseconds goes; the last bucket's is UINT64_MAX.
/// value: where the number of calls goes that took no longer, and longer than the bucket before.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT beyond the last.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_latency(
    snapshot: *const tokenward_snapshot,
    bucket: usize,
    bound_ms: *mut u64,
    value: *mut u64,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (snapshot, bound_ms, value) = unsafe { (borrow(snapshot)?, Out::new(bound_ms)?, Out::new(value)?) };
        let count = snapshot.core.latency.get(bucket).ok_or(tokenward_result::TOKENWARD_ABSENT)?;
        bound_ms.set(LATENCY_BOUNDS_MS.get(bucket).copied().unwrap_or(u64::MAX));
        value.set(*count);
        Ok(())
    })
}

/// How many numbers of `tokenward_snapshot_numbers` are gauges: the last ones. All others only grow.
pub const TOKENWARD_SNAPSHOT_GAUGES: usize = 4;

/// The snapshot as numbers, for hosts that add up what several processes counted: their sums, one by one, are the numbers of all
/// processes together, and go to `tokenward_snapshot_of_numbers`. Order and number are those of this version of the library.
///
/// snapshot: the snapshot.
/// numbers: where the array goes; it lives as long as the snapshot.
/// count: how many there are.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_numbers(
    snapshot: *const tokenward_snapshot,
    numbers: *mut *const u64,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (snapshot, numbers, count) = unsafe { (borrow(snapshot)?, Out::new(numbers)?, Out::new(count)?) };
        let all = snapshot.numbers.get_or_init(|| snapshot.core.numbers());
        numbers.set(first(all));
        count.set(all.len());
        Ok(())
    })
}

/// Makes a snapshot of numbers.
///
/// numbers, count: as many as `tokenward_snapshot_numbers` gives.
/// snapshot: where the snapshot goes; free it with `tokenward_snapshot_free`.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT for another number of them; TOKENWARD_NULL_POINTER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_of_numbers(
    numbers: *const u64,
    count: usize,
    snapshot: *mut *mut tokenward_snapshot,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for arrays and outputs.
        let (call, snapshot) = unsafe { (Call::new(), Out::new(snapshot)?) };
        let core = Snapshot::of_numbers(call.slice(numbers, count)?);
        let core = core.ok_or(tokenward_result::TOKENWARD_INVALID_ARGUMENT)?;
        snapshot.set(give(tokenward_snapshot { core, text: OnceCell::new(), numbers: OnceCell::new() }));
        Ok(())
    })
}

/// The counters as Prometheus text (exposition format 0.0.4).
///
/// snapshot: the snapshot.
/// text: where the text goes; it lives as long as the snapshot.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_prometheus(
    snapshot: *const tokenward_snapshot,
    text: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (snapshot, text) = unsafe { (borrow(snapshot)?, Out::new(text)?) };
        text.set(tokenward_str::of(snapshot.text.get_or_init(|| snapshot.core.prometheus())));
        Ok(())
    })
}

/// Frees a snapshot.
///
/// snapshot: the snapshot, or NULL.
///
/// Threads: any, while no other uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_snapshot_free(snapshot: *mut tokenward_snapshot) {
    // SAFETY: the header's rule for freeing.
    unsafe { take(snapshot) }
}
