//! Decisions, and who is behind a request.

use std::fmt::Write as _;
use std::sync::Arc;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tokenward_core as core;

use crate::text::latin1;

/// A consumer of the gateway.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Consumer(Arc<core::Consumer>);

#[pymethods]
impl Consumer {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("id", "username")
    }

    /// Its id, unique in the directory.
    #[getter]
    fn id(&self) -> &str {
        self.0.id()
    }

    /// Its username, unique in the directory.
    #[getter]
    fn username(&self) -> Option<&str> {
        self.0.username()
    }

    /// Its id in the host's own terms, often the OAuth client's id.
    #[getter]
    fn custom_id(&self) -> Option<&str> {
        self.0.custom_id()
    }

    /// Its tags, for the host's use.
    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.tags())
    }

    /// Its groups, for the host's use.
    #[getter]
    fn groups<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.groups())
    }

    fn __repr__(&self) -> String {
        format!("<tokenward.Consumer {}>", self.0.id().escape_debug())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyString::new(py, self.0.id()).hash()
    }
}

impl Consumer {
    pub(crate) fn new(consumer: &Arc<core::Consumer>) -> Self {
        Self(Arc::clone(consumer))
    }
}

/// Who is behind a request.
///
/// `kind` is `consumer` (the token's consumer), `anonymous` (authentication failed, and the policy names a consumer for that),
/// `unmatched` (a good token that no consumer matches), or `none` (a preflight request).
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Identity(core::Identity);

#[pymethods]
impl Identity {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("kind", "consumer")
    }

    /// `consumer`, `anonymous`, `unmatched` or `none`.
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        match self.0 {
            core::Identity::Consumer(_) => intern!(py, "consumer"),
            core::Identity::Anonymous(_) => intern!(py, "anonymous"),
            core::Identity::Unmatched => intern!(py, "unmatched"),
            core::Identity::None => intern!(py, "none"),
        }
    }

    /// The consumer, matched or anonymous.
    #[getter]
    fn consumer(&self) -> Option<Consumer> {
        self.0.consumer().map(Consumer::new)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let mut text = format!("<tokenward.Identity {}", self.kind(py));
        if let Some(consumer) = self.0.consumer() {
            let _ = write!(text, " {}", consumer.id().escape_debug());
        }
        text + ">"
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.kind(py), self.0.consumer().map(|consumer| consumer.id())).into_pyobject(py)?.hash()
    }
}

/// Leave to go on, and what the upstream may be told.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Allow {
    pub(crate) allow: core::Allow,
    claims: PyOnceLock<Py<PyAny>>,
    /// The scope and the body as the client sent them, for further policies; not for Python's eyes, since they hold the credential.
    pub(crate) origin: Option<(Py<PyDict>, Option<Py<PyBytes>>)>,
}

#[pymethods]
impl Allow {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("identity",)
    }

    /// Who is behind the request.
    #[getter]
    fn identity(&self) -> Identity {
        Identity(self.allow.identity().clone())
    }

    /// What the authorization server said about the token, read-only; empty for the anonymous consumer and preflights.
    #[getter]
    pub(crate) fn claims<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static PARSE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let claims = self.claims.get_or_try_init(py, || {
            let parse = PARSE
                .get_or_try_init(py, || Ok::<_, PyErr>(py.import("tokenward._claims")?.getattr("parse")?.unbind()))?;
            let json = self.allow.claims().map_or("{}", core::Claims::json);
            Ok::<_, PyErr>(parse.bind(py).call1((json,))?.unbind())
        })?;
        Ok(claims.bind(py).clone())
    }

    /// Lines to add to the upstream request, in order, after the removals.
    #[getter]
    fn set_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        pairs(py, self.allow.edits().set())
    }

    /// Names to remove from the upstream request, every line of them, case ignored.
    #[getter]
    fn remove_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.allow.edits().remove().map(|name| latin1(py, name)).collect::<Vec<_>>())
    }

    /// The request target for the upstream, where the credential was taken out of the query.
    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.allow.target().map(|target| PyBytes::new(py, target))
    }

    /// The body for the upstream, where the credential was taken out of it; its length is the new `Content-Length`.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.allow.body().map(|body| PyBytes::new(py, body))
    }

    /// Headers that every 2xx answer to the client gets.
    #[getter]
    fn response_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        pairs(py, self.allow.response_headers())
    }

    /// When the token expires, in seconds since 1970, if the authorization server says so.
    #[getter]
    #[allow(clippy::cast_precision_loss, reason = "what Python has for times")]
    fn expires(&self) -> Option<f64> {
        self.allow.expires().map(|date| date.microseconds() as f64 / 1e6)
    }

    /// Where the answer came from: `endpoint`, `cache`, `waiting`, or `none`.
    #[getter]
    fn source<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        source(py, self.allow.source())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let kind = self.identity().__repr__(py);
        format!("<tokenward.Allow {kind} from {}>", self.allow.source().name())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.origin.iter().try_for_each(|(scope, _)| visit.call(scope))
    }
}

impl Allow {
    pub(crate) fn new(allow: core::Allow) -> Self {
        Self { allow, claims: PyOnceLock::new(), origin: None }
    }

    /// An allow that can be held against further policies.
    pub(crate) fn of(allow: core::Allow, scope: &Bound<'_, PyDict>, body: Option<&Bound<'_, PyBytes>>) -> Self {
        let origin = (scope.clone().unbind(), body.map(|body| body.clone().unbind()));
        Self { origin: Some(origin), ..Self::new(allow) }
    }
}

/// The caller, as frameworks that follow Starlette expect it at `request.user` and `request.auth`.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct User(Py<Allow>);

#[pymethods]
impl User {
    /// Whether there was a good token.
    #[getter]
    fn is_authenticated(&self) -> bool {
        matches!(self.0.get().allow.identity(), core::Identity::Consumer(_) | core::Identity::Unmatched)
    }

    /// The consumer's username (else its custom id, else its id); without a consumer, the claim `username` (else `sub`, else
    /// `client_id`); else empty.
    #[getter]
    fn display_name(&self) -> String {
        let allow = &self.0.get().allow;
        if let Some(consumer) = allow.identity().consumer() {
            return consumer.username().or(consumer.custom_id()).unwrap_or(consumer.id()).to_owned();
        }
        let claim = |name| allow.claims()?.text(name).map(|text| text.into_owned());
        claim("username").or_else(|| claim("sub")).or_else(|| claim("client_id")).unwrap_or_default()
    }

    /// The consumer's id; without one, the claim `sub`; else empty.
    #[getter]
    fn identity(&self) -> String {
        let allow = &self.0.get().allow;
        match allow.identity().consumer() {
            Some(consumer) => consumer.id().to_owned(),
            None => {
                allow.claims().and_then(|claims| claims.text("sub")).map_or_else(String::new, |sub| sub.into_owned())
            }
        }
    }

    /// The scopes that the token grants.
    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let claims = self.0.get().claims(py)?;
        py.import(intern!(py, "tokenward._claims"))?.call_method1(intern!(py, "scopes"), (claims,))
    }

    /// The decision.
    #[getter]
    fn allow(&self, py: Python<'_>) -> Py<Allow> {
        self.0.clone_ref(py)
    }

    fn __repr__(&self) -> String {
        format!("<tokenward.User {}>", self.display_name().escape_debug())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

impl User {
    pub(crate) fn new(allow: Py<Allow>) -> Self {
        Self(allow)
    }
}

/// The answer to a client whose request does not go on.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Deny(pub(crate) core::Deny);

#[pymethods]
impl Deny {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("reason", "status")
    }

    /// Why.
    #[getter]
    fn reason<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static REASON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = REASON
            .get_or_try_init(py, || Ok::<_, PyErr>(py.import("tokenward._reason")?.getattr("Reason")?.unbind()))?;
        class.bind(py).call1((self.0.reason().number(),))
    }

    /// The status code.
    #[getter]
    fn status(&self) -> u16 {
        self.0.status()
    }

    /// The header fields, in order.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        pairs(py, self.0.headers())
    }

    /// The body; none for HEAD.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.body().map(|body| PyBytes::new(py, body.as_bytes()))
    }

    /// Where the answer, or its lack, came from.
    #[getter]
    fn source<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        source(py, self.0.source())
    }

    fn __repr__(&self) -> String {
        format!("<tokenward.Deny {} {}>", self.0.status(), self.0.reason())
    }
}

fn source(py: Python<'_>, source: core::Source) -> &Bound<'_, PyString> {
    match source {
        core::Source::Endpoint => intern!(py, "endpoint"),
        core::Source::Cache => intern!(py, "cache"),
        core::Source::Waiting => intern!(py, "waiting"),
        core::Source::None => intern!(py, "none"),
    }
}

pub(crate) fn pairs<'py, 'a>(
    py: Python<'py>,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, pairs.collect::<Vec<_>>())
}

/// A decision as the object that says it.
pub(crate) fn object(py: Python<'_>, decision: core::Decision) -> PyResult<Py<PyAny>> {
    Ok(match decision {
        core::Decision::Allow(allow) => Py::new(py, Allow::new(allow))?.into_any(),
        core::Decision::Deny(deny) => Py::new(py, Deny(deny))?.into_any(),
    })
}
