//! What the host does next: a call to make, or a wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use tokenward_core::{self as core, Exchange, Failure, Header, Now, Reply, Step};

use crate::decision::{object, pairs};
use crate::life::{Own, aside, caught};
use crate::text::push;

/// The time that Python gives, or that of now.
pub(crate) type Moment = Option<(f64, f64)>;

pub(crate) fn moment(now: Moment) -> Now {
    let Some((wall, monotonic)) = now else { return Now::read() };
    let duration = |seconds: f64| {
        let micros = (seconds * 1e6).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within what is exact")]
        if (0.0..9e15).contains(&micros) {
            std::time::Duration::from_micros(micros as u64)
        } else {
            std::time::Duration::try_from_secs_f64(seconds).unwrap_or(std::time::Duration::MAX)
        }
    };
    Now::new(duration(wall), duration(monotonic))
}

/// Who answers for a defect: the introspector that a step is of, and whether its request was HEAD.
#[derive(Clone)]
pub(crate) struct Of {
    pub(crate) introspector: core::Introspector,
    pub(crate) head: bool,
}

impl Of {
    /// Calls; a panic is denied with `internal`.
    pub(crate) fn guarded(&self, call: impl FnOnce() -> Step) -> Step {
        caught(call).unwrap_or_else(|| Step::Done(self.introspector.internal(self.head)))
    }
}

/// A step as the object that says it.
pub(crate) fn step_object(py: Python<'_>, step: Step, of: Of) -> PyResult<Py<PyAny>> {
    Ok(match step {
        Step::Done(decision) => return object(py, decision),
        Step::Introspect(exchange) => Py::new(py, Introspect(Held::new(exchange, of)))?.into_any(),
        Step::Wait(wait) => Py::new(py, Wait { held: Held::new(wait, of), call: Mutex::default() })?.into_any(),
    })
}

/// A step until it is used, and who answers for it.
struct Held<T> {
    step: Mutex<Option<Own<(T, Of)>>>,
    closed: AtomicBool,
}

impl<T: Send> Held<T> {
    fn new(step: T, of: Of) -> Self {
        Self { step: Mutex::new(Some(Own::new((step, of)))), closed: AtomicBool::new(false) }
    }

    /// Takes it, as all but the first may not.
    fn take(&self) -> PyResult<(T, Of)> {
        let held = self.step.lock().unwrap_or_else(PoisonError::into_inner).take();
        held.and_then(Own::take).ok_or_else(used)
    }

    fn look<R>(&self, with: impl FnOnce(&T) -> R) -> PyResult<R> {
        let held = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let (step, _) = held.as_ref().and_then(Own::get).ok_or_else(used)?;
        Ok(with(step))
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let held = self.step.lock().unwrap_or_else(PoisonError::into_inner).take();
        // After the lock: those who wait for the same answer are called.
        drop(held);
    }
}

fn used() -> PyErr {
    PyRuntimeError::new_err("this step was used or closed already, or belongs to the process before a fork")
}

/// One call to the introspection endpoint, to be made by the host.
///
/// A context manager: a step that is not used by its end is given up, which has denied the request; those who wait for the same
/// answer are looked after.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Introspect(Held<Exchange>);

#[pymethods]
impl Introspect {
    /// `POST`.
    #[getter]
    fn method(&self) -> PyResult<&'static str> {
        self.0.look(|exchange| exchange.outbound().method())
    }

    /// The endpoint's URL. Its query counts as a secret.
    #[getter]
    fn url(&self) -> PyResult<String> {
        self.0.look(|exchange| exchange.outbound().url().to_owned())
    }

    /// The header fields but for `Host` and `Content-Length`, which are the transport's. They hold secrets.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.0.look(|exchange| pairs(py, exchange.outbound().headers()))?
    }

    /// The form. It holds the token.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.0.look(|exchange| PyBytes::new(py, exchange.outbound().body().as_bytes()))
    }

    /// How long the call may take, in seconds, from connecting to the last byte of the answer: what was left when this step was made.
    #[getter]
    fn time_left(&self) -> PyResult<f64> {
        self.0.look(|exchange| exchange.outbound().time_left().as_secs_f64())
    }

    /// Whether the attempt before failed with `connect` or `closed`: this one goes over a new connection, no kept one.
    #[getter]
    fn is_retry(&self) -> PyResult<bool> {
        self.0.look(|exchange| exchange.outbound().is_retry())
    }

    /// What is left of it now, by this machine's clock, in seconds; 0 if it is over.
    fn remaining(&self) -> PyResult<f64> {
        self.0.look(|exchange| {
            let left = exchange.deadline().saturating_sub(Now::read().monotonic());
            left.min(exchange.outbound().time_left()).as_secs_f64()
        })
    }

    /// Hands over the answer: its status, its header lines, and its body, read to the end or to one byte beyond `limits.reply_bytes`.
    #[pyo3(signature = (status, headers, body, *, now=None))]
    fn reply(
        &self,
        py: Python<'_>,
        status: u16,
        headers: &Bound<'_, PyAny>,
        body: &[u8],
        now: Moment,
    ) -> PyResult<Py<PyAny>> {
        let mut text = Vec::new();
        let mut spans = Vec::new();
        for pair in headers.try_iter()? {
            let pair = pair?;
            let start = text.len();
            push(&mut text, &pair.get_item(0)?)?;
            let middle = text.len();
            push(&mut text, &pair.get_item(1)?)?;
            spans.push((start, middle, text.len()));
        }
        let headers: Vec<Header<'_>> = spans
            .iter()
            .map(|&(start, middle, end)| Header {
                name: text.get(start..middle).unwrap_or_default(),
                value: text.get(middle..end).unwrap_or_default(),
            })
            .collect();
        let (exchange, of) = self.0.take()?;
        let reply = Reply::Response { status, headers: &headers, body };
        let step = of.guarded(|| exchange.resume(reply, moment(now)));
        step_object(py, step, of)
    }

    /// Says how the call failed: `connect`, `dns`, `tls`, `closed`, `timed_out`, `protocol`, `too_long` or `cut_off`.
    #[pyo3(signature = (failure, *, now=None))]
    fn fail(&self, py: Python<'_>, failure: &str, now: Moment) -> PyResult<Py<PyAny>> {
        let failure = Failure::from_name(failure).ok_or_else(|| {
            let known: Vec<&str> = Failure::ALL.iter().map(|failure| failure.name()).collect();
            PyValueError::new_err(format!("a failure is one of {}", known.join(", ")))
        })?;
        let (exchange, of) = self.0.take()?;
        let step = of.guarded(|| exchange.resume(Reply::Failed(failure), moment(now)));
        step_object(py, step, of)
    }

    /// Says that there is no room to make the call: all who wait for this answer are refused as `overloaded`.
    #[pyo3(signature = (*, now=None))]
    fn decline(&self, py: Python<'_>, now: Moment) -> PyResult<Py<PyAny>> {
        let (exchange, of) = self.0.take()?;
        let step = of.guarded(|| exchange.decline(moment(now)));
        step_object(py, step, of)
    }

    /// Makes the call with the introspector's own connections, within what is left of the request's time. Blocks without the
    /// interpreter.
    fn send(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (exchange, of) = self.0.take()?;
        let step = py.detach(|| of.guarded(|| exchange.send()));
        step_object(py, step, of)
    }

    /// Gives the step up.
    fn close(&self) {
        self.0.close();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __repr__(&self) -> &'static str {
        if self.0.look(|_| ()).is_ok() { "<tokenward.Introspect>" } else { "<tokenward.Introspect used>" }
    }
}

/// A wait for an answer that another request asked for.
///
/// A context manager, like `Introspect`.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Wait {
    held: Held<core::Wait>,
    /// What is called when the wait is over, where the garbage collector can see it.
    call: Mutex<Slot>,
}

type Slot = Arc<Mutex<Option<Py<PyAny>>>>;

#[pymethods]
impl Wait {
    /// Until when this wait may last, in seconds on the monotonic clock that `begin` was given.
    #[getter]
    fn deadline(&self) -> PyResult<f64> {
        self.held.look(|wait| wait.deadline().as_secs_f64())
    }

    /// How long that is from now, by this machine's clock, in seconds; 0 if it is over.
    fn remaining(&self) -> PyResult<f64> {
        self.held.look(|wait| wait.deadline().saturating_sub(Now::read().monotonic()).as_secs_f64())
    }

    /// Registers what is called when the wait can be resumed with profit: once, with `True`; with `False` if the wait ends
    /// first. It may be called at once and from any thread, and must neither block nor use this step: it tells the one who
    /// does. A second takes the place of the first.
    fn on_ready(&self, call: Py<PyAny>) -> PyResult<()> {
        let slot = Slot::new(Mutex::new(Some(call)));
        // Taken out meanwhile: nothing that is called may find a lock of ours.
        let held = self.held.step.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(own) = held else { return Err(used()) };
        let Some((wait, _)) = own.get() else { return Err(used()) };
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&slot);
        wait.on_ready(move |ready| {
            // The garbage collector may have taken it.
            let Some(call) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
            // At the end of the interpreter nobody waits.
            let _ = Python::try_attach(|py| {
                aside(py, || {
                    if let Err(error) = call.call1(py, (ready,)) {
                        error.write_unraisable(py, Some(call.bind(py)));
                    }
                    drop(call);
                });
            });
        });
        *self.held.step.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
        // By another thread, meanwhile.
        if self.held.closed.load(Ordering::SeqCst) {
            self.held.close();
        }
        Ok(())
    }

    /// Goes on: a decision if there is an answer or the time is over, a call to make if the asker went away, and a wait again if it
    /// was early.
    #[pyo3(signature = (*, now=None))]
    fn resume(&self, py: Python<'_>, now: Moment) -> PyResult<Py<PyAny>> {
        let (wait, of) = self.held.take()?;
        let step = of.guarded(|| wait.resume(moment(now)));
        step_object(py, step, of)
    }

    /// Blocks without the interpreter until the wait can be resumed or its deadline comes, and resumes it.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (wait, of) = self.held.take()?;
        let step = py.detach(|| of.guarded(|| wait.block()));
        step_object(py, step, of)
    }

    /// Gives the step up.
    fn close(&self) {
        self.held.close();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __repr__(&self) -> &'static str {
        if self.held.look(|_| ()).is_ok() { "<tokenward.Wait>" } else { "<tokenward.Wait used>" }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A lock that is held belongs to who uses this object: it is no garbage.
        let Ok(slot) = self.call.try_lock() else { return Ok(()) };
        let Ok(call) = slot.try_lock() else { return Ok(()) };
        call.iter().try_for_each(|call| visit.call(call))
    }

    fn __clear__(&self) {
        let slot = Arc::clone(&self.call.lock().unwrap_or_else(PoisonError::into_inner));
        let call = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(call);
    }
}
