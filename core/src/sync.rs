//! Locks and flags: parking_lot's and std's, or loom's, which try every order (`tests/run loom`).

#[cfg(not(all(loom, test)))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(all(loom, test)))]
pub(crate) use std::sync::atomic::AtomicBool;

#[cfg(all(loom, test))]
pub(crate) use loom::sync::atomic::AtomicBool;

/// Loom's, with parking_lot's surface.
#[cfg(all(loom, test))]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(all(loom, test))]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
