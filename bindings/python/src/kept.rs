//! Header lines as Python objects, kept for tokens that come again.
//!
//! A hit sets the same lines as the hit before, and making three objects of each is most of what it costs. A bounded number of
//! them is kept beside the core's cache, found by the number that hits share; a place is taken by whoever came last.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// About 2 KiB each when full.
const PLACES: usize = 2048;

type Place = Mutex<Option<(u64, Py<PyTuple>)>>;

pub(crate) struct Kept(Box<[Place]>);

impl Kept {
    pub(crate) fn new() -> Self {
        Self((0..PLACES).map(|_| Place::default()).collect())
    }

    /// What was kept for it, or what is made now.
    pub(crate) fn get_or_make<'py>(
        &self,
        py: Python<'py>,
        shared: u64,
        make: impl FnOnce() -> PyResult<Bound<'py, PyTuple>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let place = self.place(shared);
        if let Some(place) = place
            && let Some((known, lines)) = &*place.lock().unwrap_or_else(PoisonError::into_inner)
            && *known == shared
        {
            return Ok(lines.bind(py).clone());
        }
        let made = make()?;
        if let Some(place) = place {
            let new = Some((shared, made.clone().unbind()));
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
