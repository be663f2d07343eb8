//! Who is told that a wait can go on: a function of the host's, or a tag that it asks for.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Tags of waits that can go on, until a host asks for them. There is at most one for each step that waits.
#[derive(Default)]
pub(crate) struct ReadyTags {
    /// By the order in which they were set.
    ready: Mutex<BTreeMap<u64, u64>>,
    next: AtomicU64,
}

impl ReadyTags {
    pub(crate) fn next(&self) -> Option<u64> {
        self.ready.lock().pop_first().map(|(_, tag)| tag)
    }
}

/// One registration of a tag. Dropping it takes the tag back: the wait has ended.
pub(crate) struct Tag(Arc<Registration>);

struct Registration {
    tags: Arc<ReadyTags>,
    place: u64,
    tag: u64,
    /// Changed under the lock of `ready` alone.
    ended: AtomicBool,
}

impl Tag {
    pub(crate) fn new(tags: &Arc<ReadyTags>, tag: u64) -> Self {
        let place = tags.next.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Registration { tags: Arc::clone(tags), place, tag, ended: AtomicBool::new(false) }))
    }

    /// The step is resumed already: nobody has to be told.
    pub(crate) fn take_back(&self) {
        self.0.tags.ready.lock().remove(&self.0.place);
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker::new(Target::Tag(Arc::clone(&self.0)))
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        let mut ready = self.0.tags.ready.lock();
        // A wake-up that is under way on another thread comes to nothing.
        self.0.ended.store(true, Ordering::Relaxed);
        ready.remove(&self.0.place);
    }
}

impl Registration {
    fn wake(&self) {
        let mut ready = self.tags.ready.lock();
        if !self.ended.load(Ordering::Relaxed) {
            ready.insert(self.place, self.tag);
        }
    }
}

enum Target {
    Function { function: unsafe extern "C" fn(userdata: *mut c_void, ready: bool), userdata: *mut c_void },
    Tag(Arc<Registration>),
}

// SAFETY: the header says that the function is called on any thread, and its userdata goes with it.
unsafe impl Send for Target {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for Target {}

/// Tells the host once.
pub(crate) struct Waker(Arc<Telling>);

struct Telling {
    target: Target,
    stage: AtomicU8,
}

/// It is being registered: an answer that comes now is kept until that is done, so that the host hears of it when the step is whole.
const REGISTERING: u8 = 0;
const REGISTERED: u8 = 1;
const EARLY_READY: u8 = 2;
const EARLY_GONE: u8 = 3;

impl Waker {
    pub(crate) fn function(
        function: unsafe extern "C" fn(userdata: *mut c_void, ready: bool),
        userdata: *mut c_void,
    ) -> Self {
        Self::new(Target::Function { function, userdata })
    }

    fn new(target: Target) -> Self {
        Self(Arc::new(Telling { target, stage: AtomicU8::new(REGISTERING) }))
    }

    /// What the core calls.
    pub(crate) fn once(&self) -> Once {
        Once(Arc::clone(&self.0))
    }

    /// The last that is done of a registration: the host may use the step from here on, on any thread. `alive`: it still waits.
    pub(crate) fn registered(self, alive: bool) {
        let Telling { stage, .. } = &*self.0;
        match stage.compare_exchange(REGISTERING, REGISTERED, Ordering::AcqRel, Ordering::Acquire) {
            Err(EARLY_READY) => self.0.tell(alive),
            Err(EARLY_GONE) => self.0.tell(false),
            _ => {}
        }
    }
}

impl Telling {
    fn answer(&self, ready: bool) {
        let early = if ready { EARLY_READY } else { EARLY_GONE };
        if self.stage.compare_exchange(REGISTERING, early, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.tell(ready);
        }
    }

    fn tell(&self, ready: bool) {
        match &self.target {
            // SAFETY: the host's function with the host's argument, once: by `Once`.
            Target::Function { function, userdata } => unsafe { function(*userdata, ready) },
            Target::Tag(registration) if ready => registration.wake(),
            Target::Tag(_) => {}
        }
    }
}

/// Tells `false` if it is dropped without a call.
pub(crate) struct Once(Arc<Telling>);

impl Once {
    pub(crate) fn call(self, ready: bool) {
        self.0.answer(ready);
        // Not dropped, for that would tell once more; its count is given back.
        // SAFETY: the Arc is read once, and its owner is forgotten.
        drop(unsafe { ptr::read(&ManuallyDrop::new(self).0) });
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.0.answer(false);
    }
}
