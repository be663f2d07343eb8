//! Header lines and callers as Python objects, kept for tokens that come again.
//!
//! A hit sets the same lines as the hit before, and making three objects of each is most of what it costs. A bounded number of
//! them is kept beside the core's cache, found by the number that hits share; a place is taken by whoever came last.

use std::sync::{Arc, Mutex, PoisonError};

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
            && let Some((known, made)) = &*place.lock().unwrap_or_else(PoisonError::into_inner)
            && *known == shared
        {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(make()?);
        if let Some(place) = place {
            let new = Some((shared, Arc::clone(&made)));
            let old = std::mem::replace(&mut *place.lock().unwrap_or_else(PoisonError::into_inner), new);
            drop(old); // outside of the lock
        }
        Ok(made)
    }

    fn place(&self, shared: u64) -> Option<&Place> {
        // Numbers that follow each other lie side by side.
        self.0.get(usize::try_from(shared % PLACES as u64).unwrap_or(0))
    }
}
