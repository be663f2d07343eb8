//! What `tokenward.asgi.TokenwardMiddleware` is made of: a hit goes from the server to the application in one call, without a frame of
//! Python's or a coroutine in between. Everything else is the subclass's, in Python.

use std::sync::OnceLock;

use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyString, PyTuple};

use crate::asgi::{Begun, begin};
use crate::introspector::{Introspector, Policy};

/// Decides about every ASGI scope before the application sees it.
#[pyclass(frozen, subclass, module = "tokenward._tokenward")]
pub(crate) struct AsgiGate(OnceLock<Parts>);

struct Parts {
    app: Py<PyAny>,
    introspector: Py<Introspector>,
    policy: Option<Py<Policy>>,
    /// Exact paths, and beginnings of paths, that may be excluded.
    exact: Py<PyFrozenSet>,
    below: Vec<String>,
}

#[pymethods]
impl AsgiGate {
    /// The arguments are those of the subclass's `__init__`.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self(OnceLock::new())
    }

    /// Sets it up, once. `exact` and `below` say which paths may be excluded: they are asked about at `_beside`.
    fn _set_up(
        &self,
        app: Py<PyAny>,
        introspector: Py<Introspector>,
        policy: Option<Py<Policy>>,
        exact: Py<PyFrozenSet>,
        below: Vec<String>,
    ) -> PyResult<()> {
        let parts = Parts { app, introspector, policy, exact, below };
        self.0.set(parts).map_err(|_| PyRuntimeError::new_err("this middleware was set up before"))
    }

    /// What lies behind it.
    #[getter]
    fn app(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.parts()?.app.clone_ref(py))
    }

    /// What decides.
    #[getter]
    fn introspector(&self, py: Python<'_>) -> PyResult<Py<Introspector>> {
        Ok(self.parts()?.introspector.clone_ref(py))
    }

    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        scope: &Bound<'py, PyAny>,
        receive: &Bound<'py, PyAny>,
        send: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let parts = slf.get().parts()?;
        let decidable = match scope.cast::<PyDict>() {
            Ok(scope) if is_request(scope)? && !parts.may_be_excluded(scope)? => scope,
            _ => return slf.call_method1(intern!(py, "_beside"), (scope, receive, send)),
        };
        let policy = parts.policy.as_ref().map(|policy| &policy.get().0);
        let outcome = match begin(parts.introspector.get(), decidable, policy, None) {
            // What the application gives is what the server awaits: nothing of ours stays on the way of its answer.
            Ok(Begun::Passed(passed)) => return parts.app.bind(py).call1((passed, receive, send)),
            Ok(begun) => begun.object(py),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                slf.call_method1(intern!(py, "_failed"), (scope, error.into_value(py)))?
            }
            Err(error) => return Err(error),
        };
        slf.call_method1(intern!(py, "_go_on"), (scope, receive, send, outcome))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(parts) = self.0.get() else { return Ok(()) };
        visit.call(&parts.app)?;
        visit.call(&parts.introspector)
    }
}

impl AsgiGate {
    fn parts(&self) -> PyResult<&Parts> {
        self.0.get().ok_or_else(|| PyRuntimeError::new_err("this middleware was not set up"))
    }
}

impl Parts {
    fn may_be_excluded(&self, scope: &Bound<'_, PyDict>) -> PyResult<bool> {
        let py = scope.py();
        let exact = self.exact.bind(py);
        if exact.is_empty() && self.below.is_empty() {
            return Ok(false);
        }
        let Some(path) = scope.get_item(intern!(py, "path"))? else { return Ok(true) };
        let Ok(path) = path.cast::<PyString>() else { return Ok(true) };
        if exact.contains(path)? {
            return Ok(true);
        }
        // A lone surrogate is no text for Rust.
        Ok(path.to_str().map_or(true, |path| self.below.iter().any(|below| path.starts_with(below.as_str()))))
    }
}

/// Whether it is a request or the handshake of a websocket.
fn is_request(scope: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = scope.py();
    let Some(kind) = scope.get_item(intern!(py, "type"))? else { return Ok(false) };
    if kind.is(intern!(py, "http")) {
        return Ok(true);
    }
    Ok(kind.cast::<PyString>().is_ok_and(|kind| kind == "http" || kind == "websocket"))
}
