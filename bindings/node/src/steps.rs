//! Steps that are not done, by number, and what happened to those that wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napi::{Error, Result, Status};
use parking_lot::Mutex;
use tokenward_core::{Exchange, Wait};

pub(crate) enum Parked {
    Exchange(Exchange),
    Wait(Wait),
}

/// What JavaScript has to look at after a call.
#[derive(Default)]
pub(crate) struct Events {
    any: AtomicBool,
    woken: Mutex<Vec<(u32, bool)>>,
}

impl Events {
    pub(crate) fn happened(&self) {
        self.any.store(true, Ordering::Release);
    }

    /// Whether something has happened that was not taken.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Waits that can go on (`true`) or have ended, in order.
    pub(crate) fn take(&self) -> Vec<(u32, bool)> {
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut self.woken.lock())
    }

    fn wake(&self, number: u32, ready: bool) {
        self.woken.lock().push((number, ready));
        self.happened();
    }
}

#[derive(Default)]
pub(crate) struct Steps {
    parked: HashMap<u32, Parked>,
    next: u32,
    events: Arc<Events>,
}

impl Steps {
    pub(crate) fn new(events: &Arc<Events>) -> Self {
        Self { events: Arc::clone(events), ..Self::default() }
    }

    /// Keeps a step and gives its number. Numbers are used again only after four thousand million others.
    pub(crate) fn park(&mut self, step: Parked) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            if !self.parked.contains_key(&self.next) {
                break;
            }
        }
        let number = self.next;
        if let Parked::Wait(wait) = &step {
            let events = Arc::clone(&self.events);
            wait.on_ready(move |ready| events.wake(number, ready));
        }
        self.parked.insert(number, step);
        number
    }

    /// Takes a step out; whoever called drops it or goes on with it, outside of any borrow.
    pub(crate) fn take(&mut self, number: u32) -> Option<Parked> {
        let step = self.parked.remove(&number);
        if self.parked.is_empty() && self.parked.capacity() > 1024 {
            self.parked.shrink_to(64);
        }
        step
    }

    pub(crate) fn look(&self, number: u32) -> Option<&Parked> {
        self.parked.get(&number)
    }

    pub(crate) fn len(&self) -> usize {
        self.parked.len()
    }
}

/// The error of a step that is not there, or stands elsewhere.
pub(crate) fn used() -> Error {
    Error::new(Status::GenericFailure, "the step was used already")
}

pub(crate) fn exchange(step: Option<Parked>) -> Result<Exchange> {
    match step {
        Some(Parked::Exchange(exchange)) => Ok(exchange),
        _ => Err(used()),
    }
}

pub(crate) fn wait(step: Option<Parked>) -> Result<Wait> {
    match step {
        Some(Parked::Wait(wait)) => Ok(wait),
        _ => Err(used()),
    }
}
