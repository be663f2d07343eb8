//! Where steps live. A thread keeps the memory of a few that are over for those to come: to ask the allocator costs a hit more than
//! making its step does.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;

use crate::step::tokenward_step;

/// How many a thread keeps: about 10 kB.
const KEPT: u32 = 32;

/// Room for one step. The step comes first, so that a pointer to one is a pointer to the other.
#[repr(C)]
struct Room {
    step: MaybeUninit<tokenward_step>,
    next: Option<Box<Room>>,
    /// How many there are from here on; 0 while a step lives here.
    count: u32,
}

thread_local! {
    static FREE: Cell<Option<Box<Room>>> = const { Cell::new(None) };
}

/// Gives a step to C. It comes back through [`take_back`].
#[inline(always)]
pub(crate) fn give(step: tokenward_step) -> *mut tokenward_step {
    let mut room = kept().unwrap_or_else(empty);
    room.step.write(step);
    Box::into_raw(room).cast()
}

/// Drops a step that C gives back.
///
/// # Safety
/// `step` is from [`give`], was not taken back before, and nobody looks at it any more.
#[inline]
pub(crate) unsafe fn take_back(step: *mut tokenward_step) {
    // A host that frees a step twice, which it must not, would have two requests get it, and one of them the other's decision. As long
    // as its memory is kept it shows.
    // SAFETY: the caller's promise: it is the first field of a room. Where the promise is broken so, the room is there all the same.
    if unsafe { (*step.cast::<Room>()).count } != 0 {
        return;
    }
    // SAFETY: the caller's promise. It is not looked at again, also if this panics: its memory is lost then.
    unsafe { ptr::drop_in_place(step) };
    // SAFETY: the caller's promise: it is the first field of a room that was in a box.
    let room = unsafe { Box::from_raw(step.cast::<Room>()) };
    // On a thread that is about to end there is nowhere to keep it.
    let _ = FREE.try_with(|free| keep(free, room));
}

fn keep(free: &Cell<Option<Box<Room>>>, mut room: Box<Room>) {
    // What tests under a sanitizer are to find is a step that is used after its end, and not the next one in its place.
    if cfg!(feature = "testing") {
        return;
    }
    let next = free.take();
    let count = next.as_ref().map_or(0, |next| next.count);
    if count < KEPT {
        room.count = count + 1;
        room.next = next;
        free.set(Some(room));
    } else {
        free.set(next);
    }
}

fn kept() -> Option<Box<Room>> {
    FREE.try_with(|free| {
        let mut room = free.take()?;
        free.set(room.next.take());
        room.count = 0;
        Some(room)
    })
    .ok()?
}

#[cold]
fn empty() -> Box<Room> {
    Box::new(Room { step: MaybeUninit::uninit(), next: None, count: 0 })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    use std::thread;

    use super::*;

    fn rooms() -> u32 {
        FREE.with(|free| {
            let room = free.take();
            let count = room.as_ref().map_or(0, |room| room.count);
            free.set(room);
            count
        })
    }

    #[test]
    fn a_thread_keeps_the_memory_of_few_steps_and_uses_it_again() {
        let steps: Vec<_> = (0..KEPT + 3).map(|_| tokenward_step::for_test()).collect();
        assert_eq!(rooms(), 0);
        let last = steps.last().copied();
        for step in steps {
            // SAFETY: it was given, and nobody looks at it.
            unsafe { take_back(step) };
        }
        if cfg!(feature = "testing") {
            assert_eq!(rooms(), 0);
            return;
        }
        assert_eq!(rooms(), KEPT);
        let again = tokenward_step::for_test();
        assert_eq!(rooms(), KEPT - 1);
        assert_ne!(Some(again), last, "the last ones were given to the allocator");
        // SAFETY: as above.
        unsafe { take_back(again) };
        assert_eq!(rooms(), KEPT);
    }

    #[test]
    fn a_step_that_a_host_frees_twice_is_given_to_one_request() {
        // There is nothing to see where its memory is not kept.
        if cfg!(feature = "testing") {
            return;
        }
        let step = tokenward_step::for_test();
        for _ in 0..2 {
            // SAFETY: the second time is what must not be: the room is kept, so that it is there.
            unsafe { take_back(step) };
        }
        let (again, another) = (tokenward_step::for_test(), tokenward_step::for_test());
        assert_eq!(again, step);
        assert_ne!(another, step);
        for step in [again, another] {
            // SAFETY: it was given, and nobody looks at it.
            unsafe { take_back(step) };
        }
    }

    #[test]
    fn a_step_is_freed_on_another_thread_and_while_a_thread_ends() {
        /// What a host keeps for a thread: a step.
        struct Last(Cell<*mut tokenward_step>);

        impl Drop for Last {
            fn drop(&mut self) {
                ENDED.fetch_add(1, Ordering::Relaxed);
                if FREE.try_with(|_| ()).is_err() {
                    WITHOUT_ROOMS.fetch_add(1, Ordering::Relaxed);
                }
                let another = tokenward_step::for_test();
                for step in [self.0.get(), another] {
                    // SAFETY: it was given, and nobody looks at it.
                    unsafe { take_back(step) };
                }
            }
        }

        static ENDED: AtomicU32 = AtomicU32::new(0);
        static WITHOUT_ROOMS: AtomicU32 = AtomicU32::new(0);
        thread_local! {
            static LAST: Last = const { Last(Cell::new(ptr::null_mut())) };
        }

        // What a thread touches first is dropped last, though nobody promises that: either way comes first once.
        for is_first in [true, false] {
            let [own, other] = [(); 2].map(|()| AtomicPtr::new(tokenward_step::for_test()));
            let thread = thread::spawn(move || {
                if is_first {
                    LAST.with(|last| last.0.set(own.load(Ordering::Relaxed)));
                }
                // SAFETY: as above; it is this thread's now.
                unsafe { take_back(other.into_inner()) };
                let kept = rooms();
                LAST.with(|last| last.0.set(own.load(Ordering::Relaxed)));
                kept
            });
            let expected = if cfg!(feature = "testing") { 0 } else { 1 };
            assert_eq!(thread.join().ok(), Some(expected), "its memory is the other thread's");
        }
        assert_eq!(ENDED.load(Ordering::Relaxed), 2);
        assert_eq!(WITHOUT_ROOMS.load(Ordering::Relaxed), 1, "one of them came when there was nowhere to keep it");
    }
}
