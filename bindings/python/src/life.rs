//! One introspector per process: after a fork, the child begins anew.
//!
//! What a child inherits may be held by threads that it has not: locks, connections, questions under way. It leaves all of that
//! alone, unread and unfreed, and builds its own from the same configuration.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use once_cell::race::OnceBox;
use pyo3::prelude::*;
use tokenward_core::{BuildError, Config, Consumers, Introspector};

use crate::log::{PythonLog, collecting};

/// How many forks this process is away from the one that loaded the module.
static FORKS: AtomicU32 = AtomicU32::new(0);

#[pyfunction]
pub(crate) fn _after_fork_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// What belongs to the process that made it.
pub(crate) struct Own<T> {
    value: Option<T>,
    forks: u32,
}

impl<T> Own<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value), forks: forks() }
    }

    /// It, if it is this process's own.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.forks == forks())
    }

    pub(crate) fn take(mut self) -> Option<T> {
        let value = self.value.take();
        if self.forks == forks() {
            return value;
        }
        std::mem::forget(value);
        None
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.forks != forks() {
            std::mem::forget(self.value.take());
        }
    }
}

/// An introspector, and what is needed to build it again.
pub(crate) struct Lives {
    first: Life,
    config: ArcSwap<Config>,
    consumers: ArcSwap<Consumers>,
}

/// Of one process, and those of the processes that it forked, which are built when they are asked for.
struct Life {
    introspector: Own<Introspector>,
    /// Without a lock: the thread that would hold it may not be in this process.
    next: OnceBox<Life>,
}

impl Life {
    fn new(introspector: Introspector) -> Self {
        Self { introspector: Own::new(introspector), next: OnceBox::new() }
    }
}

impl Lives {
    pub(crate) fn new(py: Python<'_>, config: Config, consumers: Consumers) -> PyResult<Self> {
        let introspector = build(py, config.clone(), consumers.clone())?;
        Ok(Self {
            first: Life::new(introspector),
            config: ArcSwap::from_pointee(config),
            consumers: ArcSwap::from_pointee(consumers),
        })
    }

    /// Calls with the introspector of this process.
    pub(crate) fn with<R>(&self, py: Python<'_>, call: impl FnOnce(&Introspector) -> R) -> PyResult<R> {
        Ok(call(self.now(py)?))
    }

    /// The introspector of this process.
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<&Introspector> {
        let mut life = &self.first;
        loop {
            if let Some(introspector) = life.introspector.get() {
                return Ok(introspector);
            }
            life = match life.next.get() {
                Some(next) => next,
                None => {
                    let config = Config::clone(&self.config.load());
                    let consumers = Consumers::clone(&self.consumers.load());
                    let fresh = Box::new(Life::new(build(py, config, consumers)?));
                    // Another thread may have been faster: then its is everybody's.
                    life.next.get_or_init(|| fresh)
                }
            };
        }
    }

    pub(crate) fn consumers(&self) -> Consumers {
        Consumers::clone(&self.consumers.load())
    }

    pub(crate) fn replace_consumers(&self, py: Python<'_>, consumers: Consumers) -> PyResult<()> {
        self.consumers.store(Arc::new(consumers.clone()));
        self.with(py, |introspector| collecting(|| introspector.replace_consumers(consumers)))?;
        Ok(())
    }

    pub(crate) fn replace_config(&self, py: Python<'_>, config: Config) -> PyResult<()> {
        let replaced = self.with(py, |introspector| collecting(|| introspector.replace_config(config.clone())).0)?;
        replaced.map_err(|error| crate::config::raise_build(&error))?;
        self.config.store(Arc::new(config));
        Ok(())
    }
}

/// Warnings are the caller's to give.
fn build(py: Python<'_>, config: Config, consumers: Consumers) -> PyResult<Introspector> {
    let log = PythonLog::new(py)?;
    let built: Result<Introspector, BuildError> =
        collecting(|| Introspector::builder(config, consumers).log(log).build()).0;
    built.map_err(|error| crate::config::raise_build(&error))
}

/// Calls Python from where an exception may be on its way already: steps are dropped, and wake others, while frames unwind. To call
/// with an exception set is undefined; it goes on afterwards.
pub(crate) fn aside<R>(py: Python<'_>, call: impl FnOnce() -> R) -> R {
    let raised = PyErr::take(py);
    let result = call();
    if let Some(raised) = raised {
        raised.restore(py);
    }
    result
}

/// Calls; none if it panicked.
pub(crate) fn caught<R>(call: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
