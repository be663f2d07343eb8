//! What every entry goes through: no unwinding, no NULL.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::result::tokenward_result;

/// What an entry does; an error is what it answers.
pub(crate) type Outcome<T = ()> = Result<T, tokenward_result>;

/// Runs a fallible entry.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Outcome) -> tokenward_result {
    guard_or(tokenward_result::TOKENWARD_PANIC, || match body() {
        Ok(()) => tokenward_result::TOKENWARD_OK,
        Err(result) => result,
    })
}

/// Runs an entry that cannot fail but by a defect of ours.
#[inline]
pub(crate) fn guard_or<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    match caught(body) {
        Ok(value) => value,
        Err(Panicked) => fallback,
    }
}

/// A panic, caught.
pub(crate) struct Panicked;

/// Runs anything, and tells whether it panicked.
#[inline]
pub(crate) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, Panicked> {
    // What a panic leaves half done is behind locks that are not poisoned, or is given up by the caller.
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        // The payload's own destructor may panic, too.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        Panicked
    })
}

/// A reference for the time of a call.
///
/// # Safety
/// If not NULL, `pointer` points to a live `T` that is not changed by others during `'a`.
#[inline]
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T) -> Outcome<&'a T> {
    // SAFETY: the caller's promise; NULL is refused.
    unsafe { pointer.as_ref() }.ok_or(tokenward_result::TOKENWARD_NULL_POINTER)
}

/// The same where NULL means "none".
///
/// # Safety
/// As [`borrow`].
#[inline]
pub(crate) unsafe fn optional<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }
}

/// Where a result goes: checked before anything is done, written once at the end.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// If not NULL, `pointer` can be written to until the call ends.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T) -> Outcome<Self> {
        if pointer.is_null() { Err(tokenward_result::TOKENWARD_NULL_POINTER) } else { Ok(Self(pointer)) }
    }

    #[inline]
    pub(crate) fn set(self, value: T) {
        // SAFETY: not NULL and writable, by `new`. What is there is C's and has no destructor.
        unsafe { self.0.write(value) }
    }
}

impl Out<u8> {
    /// The first bytes of a struct that may be larger here than for the caller.
    #[inline]
    pub(crate) fn copy<T: crate::sized::Grows>(self, value: &T, size: usize) {
        // SAFETY: writable by `new`'s promise for as many bytes as the caller said, and no more than there are are read.
        unsafe {
            std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast::<u8>(), self.0, size.min(size_of::<T>()))
        }
    }
}

/// Gives an object to C. It comes back through [`take`].
pub(crate) fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Takes an object back from C and drops it. NULL is nothing.
///
/// # Safety
/// `pointer` is NULL or from [`give`], and was not taken before.
pub(crate) unsafe fn take<T>(pointer: *mut T) {
    if !pointer.is_null() {
        guard_or((), || {
            // SAFETY: the caller's promise.
            drop(unsafe { Box::from_raw(pointer) });
        });
    }
}

/// Makes the core's part of the next calls about steps panic: for the tests of what becomes of the steps.
#[cfg(feature = "testing")]
pub(crate) mod testing {
    use std::sync::atomic::{AtomicU32, Ordering};

    /// How often.
    pub(crate) static PANICS: AtomicU32 = AtomicU32::new(0);

    #[allow(clippy::panic, reason = "it is what this is for")]
    pub(crate) fn panic_if_wanted() {
        let one_less = PANICS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if one_less.is_ok() {
            std::panic::panic_any("a step is tried");
        }
    }
}
