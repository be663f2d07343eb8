//! Structs that grow: those that a host fills in and that begin with `struct_size`.
//!
//! A host compiled against an older header of this major version gives a shorter struct. It is read with zeros in the fields that its
//! header did not have, and zero in a field always means what was the case before the field came. A size that is none of a header of
//! this major version is refused: the struct was not set up, or is of a newer header than this library's, which
//! `tokenward_abi_check` would have said.

use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr;

use crate::guard::Outcome;
use crate::result::tokenward_result;

/// A struct whose first field is `struct_size`.
///
/// # Safety
/// `repr(C)`; the first field is a `usize`; zero bytes are a valid value; fields are added at the end alone.
pub(crate) unsafe trait Grows: Copy {
    /// Its size in each header of this major version that changed it, the oldest first. With a field added, `size_of::<Self>()` comes
    /// after the size before, which is `offset_of!(Self, the_new_field)` where no padding precedes it.
    const SIZES: &'static [usize];
}

/// What a host gave.
pub(crate) enum Given<'a, T> {
    /// By a header as new as this library.
    Ours(&'a T),
    /// By an older one, completed.
    Older(T),
}

impl<T> Deref for Given<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::Ours(ours) => ours,
            Self::Older(older) => older,
        }
    }
}

/// Looks at a struct that a host filled in.
///
/// # Safety
/// If not NULL, `given` points to a `struct_size` and as many bytes as that says, if it is one of [`Grows::SIZES`], unchanged during `'a`.
#[inline]
pub(crate) unsafe fn sized<'a, T: Grows>(given: *const T) -> Outcome<Given<'a, T>> {
    if given.is_null() {
        return Err(tokenward_result::TOKENWARD_NULL_POINTER);
    }
    if !given.is_aligned() {
        return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT);
    }
    // SAFETY: the caller's promise, and the trait's: the size comes first.
    let size = unsafe { given.cast::<usize>().read() };
    if size == size_of::<T>() + GROWN {
        // SAFETY: the caller's promise; it is as large as ours.
        return Ok(Given::Ours(unsafe { &*given }));
    }
    if !T::SIZES.contains(&size) {
        return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT);
    }
    let mut older = MaybeUninit::<T>::zeroed();
    // SAFETY: so many bytes are there, by the caller's promise, and no size is larger than the last; zeros are valid for the rest, by
    // the trait's promise.
    Ok(Given::Older(unsafe {
        ptr::copy_nonoverlapping(given.cast::<u8>(), older.as_mut_ptr().cast::<u8>(), size.min(size_of::<T>()));
        older.assume_init()
    }))
}

/// By how many bytes every struct is larger than its header says: in the library of tomorrow, for the tests of what a host of today
/// makes of it.
const GROWN: usize = if cfg!(feature = "testing_next") { 16 } else { 0 };

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics fails")]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct First {
        struct_size: usize,
        number: u32,
        flag: u32,
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Third {
        struct_size: usize,
        number: u32,
        flag: u32,
        second: usize,
        third: [usize; 2],
    }

    // SAFETY: as the trait asks for.
    unsafe impl Grows for Third {
        const SIZES: &'static [usize] =
            &[std::mem::offset_of!(Self, second), std::mem::offset_of!(Self, third), size_of::<Self>()];
    }

    #[test]
    fn an_older_struct_is_read_with_zeros_in_what_it_does_not_know() {
        // What lies behind it in the host's memory is not read.
        let host = [First { struct_size: size_of::<First>(), number: 7, flag: 8 }; 3];
        // SAFETY: it says how large it is.
        let given = unsafe { sized(host.as_ptr().cast::<Third>()) }.ok().unwrap();
        assert!(matches!(given, Given::Older(_)));
        assert_eq!((given.number, given.flag, given.second, given.third), (7, 8, 0, [0, 0]));
    }

    #[test]
    fn the_size_in_between_keeps_what_it_has() {
        let host =
            Third { struct_size: std::mem::offset_of!(Third, third), number: 1, flag: 2, second: 3, third: [4, 5] };
        // SAFETY: it says how large it is.
        let given = unsafe { sized(&host) }.ok().unwrap();
        assert_eq!((given.number, given.second, given.third), (1, 3, [0, 0]));
    }

    #[test]
    fn ours_is_looked_at_in_place() {
        let host = Third { struct_size: size_of::<Third>() + GROWN, number: 1, flag: 2, second: 3, third: [4, 5] };
        // SAFETY: it says how large it is.
        let given = unsafe { sized(&host) }.ok().unwrap();
        assert!(matches!(given, Given::Ours(same) if ptr::eq(same, &host)));
    }

    #[test]
    fn other_sizes_are_refused() {
        let ours = size_of::<Third>();
        for struct_size in [0, 1, 8, 15, 17, 23, 25, ours - 1, ours + GROWN + 1, ours + GROWN + 8, usize::MAX] {
            let host = Third { struct_size, number: 1, flag: 2, second: 3, third: [4, 5] };
            // SAFETY: the size is read alone.
            let refused = unsafe { sized(&host) }.err();
            assert_eq!(refused, Some(tokenward_result::TOKENWARD_INVALID_ARGUMENT), "{struct_size}");
        }
    }
}
