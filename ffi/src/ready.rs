//! Who is told that a wait can go on: a function of the host's, or a tag that it asks for.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
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
struct Tag(Arc<Registration>);

struct Registration {
    tags: Arc<ReadyTags>,
    place: u64,
    tag: u64,
    /// Changed under the lock of `ready` alone.
    ended: AtomicBool,
}

impl Tag {
    fn new(tags: &Arc<ReadyTags>, tag: u64) -> Self {
        let place = tags.next.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Registration { tags: Arc::clone(tags), place, tag, ended: AtomicBool::new(false) }))
    }

    /// The step is resumed already: nobody has to be told.
    fn take_back(&self) {
        self.0.tags.ready.lock().remove(&self.0.place);
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

/// Runs a callback of the host's, unless one runs on this thread already: then it is left for `later`, once that has returned. So they
/// are never nested, and any number of them fits on the stack.
fn one_after_the_other(telling: Arc<Telling>, ready: bool) {
    let mut telling = Some(telling);
    // On a thread that is about to end there is no queue any more.
    let _ = LATER.try_with(|later| telling = telling.take().and_then(|telling| queued(later, telling, ready)));
    if let Some(telling) = telling {
        telling.call(ready);
        run_later();
    }
}

/// Runs a callback that cannot wait for its turn, a line's, and those that came meanwhile after it.
pub(crate) fn at_once(callback: impl FnOnce()) {
    let is_outermost = LATER.try_with(|later| {
        let before = later.take();
        let is_outermost = before.is_none();
        later.set(Some(before.unwrap_or_default()));
        is_outermost
    });
    callback();
    if is_outermost == Ok(true) {
        run_later();
    }
}

type Later = VecDeque<(Arc<Telling>, bool)>;

thread_local! {
    /// What came while a callback of the host's runs on this thread; none if none does.
    static LATER: Cell<Option<Later>> = const { Cell::new(None) };
}

/// Queues it if a callback runs; otherwise one is about to, and it is given back.
fn queued(later: &Cell<Option<Later>>, telling: Arc<Telling>, ready: bool) -> Option<Arc<Telling>> {
    match later.take() {
        Some(mut queue) => {
            queue.push_back((telling, ready));
            later.set(Some(queue));
            None
        }
        None => {
            later.set(Some(Later::new()));
            Some(telling)
        }
    }
}

fn run_later() {
    let next = |later: &Cell<Option<Later>>| {
        let mut queue = later.take()?;
        // With none left, no callback runs any more.
        let next = queue.pop_front()?;
        later.set(Some(queue));
        Some(next)
    };
    while let Ok(Some((telling, ready))) = LATER.try_with(next) {
        telling.call(ready);
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
    /// The wait has ended, or another registration took this one's place: a call that is still to be made says so.
    gone: AtomicBool,
}

/// What a step that waits holds of its registration. Dropping it ends that.
pub(crate) struct Current {
    telling: Arc<Telling>,
    tag: Option<Tag>,
}

impl Current {
    /// The step is resumed already: nobody has to be told.
    pub(crate) fn take_back(&self) {
        if let Some(tag) = &self.tag {
            tag.take_back();
        }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        self.telling.gone.store(true, Ordering::Release);
    }
}

/// It is being registered: an answer that comes now is kept until that is done, so that the host hears of it when the step is whole.
const REGISTERING: u8 = 0;
const REGISTERED: u8 = 1;
const EARLY_READY: u8 = 2;
const EARLY_GONE: u8 = 3;

impl Waker {
    /// With what the step holds of it.
    pub(crate) fn function(
        function: unsafe extern "C" fn(userdata: *mut c_void, ready: bool),
        userdata: *mut c_void,
    ) -> (Self, Current) {
        Self::new(Target::Function { function, userdata }, None)
    }

    /// With what the step holds of it.
    pub(crate) fn tag(tags: &Arc<ReadyTags>, tag: u64) -> (Self, Current) {
        let tag = Tag::new(tags, tag);
        Self::new(Target::Tag(Arc::clone(&tag.0)), Some(tag))
    }

    fn new(target: Target, tag: Option<Tag>) -> (Self, Current) {
        let (stage, gone) = (AtomicU8::new(REGISTERING), AtomicBool::new(false));
        let telling = Arc::new(Telling { target, stage, gone });
        (Self(Arc::clone(&telling)), Current { telling, tag })
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
    fn answer(self: &Arc<Self>, ready: bool) {
        let early = if ready { EARLY_READY } else { EARLY_GONE };
        if self.stage.compare_exchange(REGISTERING, early, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.tell(ready);
        }
    }

    fn tell(self: &Arc<Self>, ready: bool) {
        match &self.target {
            Target::Function { .. } => one_after_the_other(Arc::clone(self), ready),
            Target::Tag(registration) if ready => registration.wake(),
            Target::Tag(_) => {}
        }
    }

    fn call(&self, ready: bool) {
        if let Target::Function { function, userdata } = self.target {
            let ready = ready && !self.gone.load(Ordering::Acquire);
            // SAFETY: the host's function with the host's argument, once: by `Once`.
            unsafe { function(userdata, ready) }
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
