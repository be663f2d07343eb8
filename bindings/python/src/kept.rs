//! Header lines and callers as Python objects, kept for tokens that come again.
//!
//! A hit sets the same lines as the hit before, and making three objects of each is most of what it costs. A bounded number of
//! them is kept beside the core's cache, found by the number that hits share; a place is taken by whoever came last.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::decision::User;

/// About 2 KiB each as a rule.
const PLACES: usize = 2048;

/// Of claims: lines of larger ones are made again each time, since this stands beside what `cache.max_bytes` bounds. At most 2048 callers
/// with claims of this size, and their lines.
pub(crate) const BYTES: usize = 8192;

type Place = Mutex<Option<(u64, Arc<Made>)>>;

/// Of every hit of an answer and policy alike. Nobody can change any of it.
pub(crate) struct Made {
    /// The lines that are set.
    pub(crate) lines: Box<[Py<PyTuple>]>,
    /// Who calls.
    pub(crate) user: Py<User>,
}

pub(crate) struct Kept(Box<[Place]>);

impl Kept {
    pub(crate) fn new() -> Self {
        Self((0..PLACES).map(|_| Place::default()).collect())
    }

    /// What was kept for it, or what is made now.
    pub(crate) fn get_or_make(&self, shared: u64, make: impl FnOnce() -> PyResult<Made>) -> PyResult<Arc<Made>> {
        let place = self.place(shared);
        if let Some(place) = place
            && let Some(held) = held(place)
            && let Some((known, made)) = &*held
            && *known == shared
        {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(make()?);
        if let Some(mut held) = place.and_then(held) {
            let old = held.replace((shared, Arc::clone(&made)));
            drop(held);
            drop(old); // outside of the lock
        }
        Ok(made)
    }

    fn place(&self, shared: u64) -> Option<&Place> {
        // Numbers that follow each other lie side by side.
        self.0.get(usize::try_from(shared % PLACES as u64).unwrap_or(0))
    }
}

/// Nobody waits for a place: where threads run without the interpreter's lock, the one that held it may not be in this process.
fn held<T>(place: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match place.try_lock() {
        Ok(held) => Some(held),
        Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
