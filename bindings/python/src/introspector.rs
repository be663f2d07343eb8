//! The introspector as Python has it.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokenward_core::{self as core, Now, Step};

use crate::decision::{Consumer, object};
use crate::kept::Kept;
use crate::life::{Lives, caught};
use crate::log::collecting;
use crate::request::Request;
use crate::step::{Moment, Of, moment, step_object};
use crate::{asgi, config, text, wsgi};

/// A further policy over the same cache and flights, made by `Introspector.policy`.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Policy(pub(crate) core::Policy);

#[pymethods]
impl Policy {
    fn __repr__(&self) -> &'static str {
        "<tokenward.Policy>"
    }
}

/// Decides about requests: one endpoint, its caches, its flights, and a directory of consumers. Works from any number of threads
/// at once.
#[pyclass(frozen, subclass, weakref, dict, module = "tokenward._tokenward")]
pub(crate) struct Introspector {
    lives: Lives,
    kept: Kept,
}

#[pymethods]
impl Introspector {
    #[new]
    #[pyo3(signature = (config, consumers=None))]
    fn new(py: Python<'_>, config: &Bound<'_, PyAny>, consumers: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (config, mut directory) = config::document(py, config)?.into_parts();
        if let Some(consumers) = consumers {
            directory = config::consumers(py, consumers)?;
        }
        warn(py, &config, &directory)?;
        Ok(Self { lives: Lives::new(py, config, directory)?, kept: Kept::new() })
    }

    /// Decides without asking anybody: from what is remembered, or where no answer is needed. `None`, and nothing is counted or
    /// begun, where somebody has to be asked.
    #[pyo3(signature = (request, policy=None, *, now=None))]
    fn lookup(
        &self,
        py: Python<'_>,
        request: &Bound<'_, Request>,
        policy: Option<&Bound<'_, Policy>>,
        now: Moment,
    ) -> PyResult<Option<Py<PyAny>>> {
        let request = request.get();
        let decision = self.lives.with(py, |introspector| {
            let looked = caught(|| {
                request.view(|view| match policy {
                    None => introspector.lookup(view, moment(now)),
                    Some(policy) => introspector.lookup_with(&policy.get().0, view, moment(now)),
                })
            });
            looked.unwrap_or_else(|| Some(introspector.internal(request.is_head())))
        })?;
        decision.map(|decision| object(py, decision)).transpose()
    }

    /// Begins to decide about a request: gives a decision, a call to make, or a wait. Never blocks.
    #[pyo3(signature = (request, policy=None, *, now=None))]
    fn begin(
        &self,
        py: Python<'_>,
        request: &Bound<'_, Request>,
        policy: Option<&Bound<'_, Policy>>,
        now: Moment,
    ) -> PyResult<Py<PyAny>> {
        let request = request.get();
        let policy = policy.map(|one| &one.get().0);
        match request.view(|view| self.started(py, view, request.is_head(), policy, moment(now)))? {
            Started::Done(decision) => object(py, decision),
            Started::Under(step, of) => step_object(py, step, of),
        }
    }

    /// Decides about a request, asking the authorization server where needed, with connections of its own. Blocks for as long as
    /// `timeout` says at most, without the interpreter.
    #[pyo3(signature = (request, policy=None))]
    fn authenticate(
        &self,
        py: Python<'_>,
        request: &Bound<'_, Request>,
        policy: Option<&Bound<'_, Policy>>,
    ) -> PyResult<Py<PyAny>> {
        let request = request.get();
        let policy = policy.map(|one| &one.get().0);
        match request.view(|view| self.started(py, view, request.is_head(), policy, Now::read()))? {
            Started::Done(decision) => object(py, decision),
            Started::Under(step, of) => {
                let step = py.detach(|| finished(step, &of));
                step_object(py, step, of)
            }
        }
    }

    /// Whether the body is needed to decide. A host reads and hands over a body only then, up to `body_bytes`.
    #[pyo3(signature = (request, policy=None))]
    fn needs_body(
        &self,
        py: Python<'_>,
        request: &Bound<'_, Request>,
        policy: Option<&Bound<'_, Policy>>,
    ) -> PyResult<bool> {
        self.lives.with(py, |introspector| {
            request.get().view(|view| match policy {
                None => introspector.needs_body(view),
                Some(policy) => introspector.needs_body_with(&policy.get().0, view),
            })
        })
    }

    /// How much of a request's body is read at most, in bytes.
    #[getter]
    fn body_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.lives.with(py, core::Introspector::body_bytes)
    }

    /// How much of the endpoint's reply is read at most, in bytes.
    #[getter]
    fn reply_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.lives.with(py, |introspector| introspector.config().reply_bytes())
    }

    /// How many introspections may be under way.
    #[getter]
    fn concurrent_introspections(&self, py: Python<'_>) -> PyResult<usize> {
        self.lives.with(py, |introspector| introspector.config().concurrent_introspections())
    }

    /// How long an idle connection to the endpoint is kept, in seconds.
    #[getter]
    fn keepalive(&self, py: Python<'_>) -> PyResult<f64> {
        self.lives.with(py, |introspector| introspector.config().keepalive().as_secs_f64())
    }

    /// How long one request may spend on introspection, in seconds.
    #[getter]
    fn timeout(&self, py: Python<'_>) -> PyResult<f64> {
        self.lives.with(py, |introspector| introspector.config().timeout().as_secs_f64())
    }

    /// The file of certificate authorities for the endpoint; `None` for those of the system.
    #[getter]
    fn tls_roots(&self, py: Python<'_>) -> PyResult<Option<std::path::PathBuf>> {
        self.lives.with(py, |introspector| match introspector.config().tls_roots() {
            core::TlsRoots::File { path, .. } => Some(path.clone()),
            _ => None,
        })
    }

    /// A further policy over the same cache and flights, from a mapping (or JSON text) of policy settings. Settings that it does not
    /// give are those of the document's own policy; `require` is given as a whole.
    fn policy(&self, py: Python<'_>, settings: &Bound<'_, PyAny>) -> PyResult<Policy> {
        let json = match settings.cast::<pyo3::types::PyString>() {
            Ok(text) => text.to_str()?.to_owned(),
            Err(_) => config::dumped(settings)?,
        };
        let (policy, warnings) = self.lives.with(py, |introspector| collecting(|| introspector.policy(&json)))?;
        let policy = policy.map_err(|error| config::raise(py, &error))?;
        config::warn(py, &warnings)?;
        Ok(Policy(policy))
    }

    /// The consumers of now.
    #[getter]
    fn consumers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.lives.consumers().iter().map(Consumer::new).collect::<Vec<_>>())
    }

    /// Replaces the directory of consumers at once, for every decision from now on.
    fn replace_consumers(&self, py: Python<'_>, consumers: &Bound<'_, PyAny>) -> PyResult<()> {
        let directory = config::consumers(py, consumers)?;
        warn(py, &self.lives.with(py, core::Introspector::config)?, &directory)?;
        self.lives.replace_consumers(py, directory)
    }

    /// Replaces the configuration, and the consumers if some are given or the document has some. Cached answers are kept if URL,
    /// credentials, parameters, headers, hint and `introspect_request` are the same. Policies made before stay as they are.
    #[pyo3(signature = (config, consumers=None))]
    fn replace_config(
        &self,
        py: Python<'_>,
        config: &Bound<'_, PyAny>,
        consumers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (config, directory) = config::document(py, config)?.into_parts();
        let directory = match consumers {
            Some(consumers) => Some(config::consumers(py, consumers)?),
            None if directory.is_empty() => None,
            None => Some(directory),
        };
        warn(py, &config, &directory.clone().unwrap_or_else(|| self.lives.consumers()))?;
        self.lives.replace_config(py, config)?;
        directory.map_or(Ok(()), |directory| self.lives.replace_consumers(py, directory))
    }

    /// Forgets what is remembered about a token, for every method and path; tells whether there was something.
    fn forget(&self, py: Python<'_>, token: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut buffer = Vec::new();
        text::push(&mut buffer, token)?;
        // What is no text is no token, and never was remembered.
        let Ok(token) = String::from_utf8(buffer) else { return Ok(false) };
        self.lives.with(py, |introspector| introspector.forget(&token))
    }

    /// Forgets everything.
    fn forget_all(&self, py: Python<'_>) -> PyResult<()> {
        self.lives.with(py, core::Introspector::forget_all)
    }

    /// The counters of now.
    fn _counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = self.lives.with(py, core::Introspector::snapshot)?;
        let counters = PyDict::new(py);
        for (name, value) in [
            ("hits", snapshot.hits),
            ("negative_hits", snapshot.negative_hits),
            ("misses", snapshot.misses),
            ("waits", snapshot.waits),
            ("introspections", snapshot.introspections),
            ("values_left_out", snapshot.values_left_out),
            ("bodies_not_searched", snapshot.bodies_not_searched),
            ("evictions", snapshot.evictions),
            ("allowed", snapshot.allowed),
            ("entries", snapshot.entries as u64),
            ("negative_entries", snapshot.negative_entries as u64),
            ("bytes", snapshot.bytes as u64),
            ("in_flight", snapshot.in_flight as u64),
        ] {
            counters.set_item(name, value)?;
        }
        let denied = PyDict::new(py);
        for (reason, count) in &snapshot.denied {
            denied.set_item(reason.number(), count)?;
        }
        counters.set_item("denied", denied)?;
        counters.set_item("latency", &snapshot.latency)?;
        counters.set_item("latency_bounds_ms", core::LATENCY_BOUNDS_MS)?;
        counters.set_item("latency_sum", snapshot.latency_sum.as_secs_f64())?;
        Ok(counters)
    }

    /// The counters of now as Prometheus text (exposition format 0.0.4).
    fn metrics(&self, py: Python<'_>) -> PyResult<String> {
        self.lives.with(py, |introspector| introspector.snapshot().prometheus())
    }

    /// The refusal for a defect of the host: what middleware answers where it cannot go on.
    #[pyo3(signature = (*, head=false))]
    fn internal(&self, py: Python<'_>, head: bool) -> PyResult<Py<PyAny>> {
        object(py, self.lives.with(py, |introspector| introspector.internal(head))?)
    }

    /// What the document's own policy requires of a token, as the JSON of the setting `require`.
    fn _require(&self, py: Python<'_>) -> PyResult<String> {
        self.lives.with(py, |introspector| introspector.config().policy().require())
    }

    /// Begins to decide about an ASGI scope. Gives the scope of an allow that asks for nothing else; `None` if the body is needed; else
    /// the decision or step.
    #[pyo3(signature = (scope, policy=None, body=None))]
    fn _asgi<'py>(
        &self,
        scope: &Bound<'py, PyDict>,
        policy: Option<&Bound<'py, Policy>>,
        body: Option<&Bound<'py, PyBytes>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(asgi::begin(self, scope, policy.map(|one| &one.get().0), body)?.object(scope.py()))
    }

    /// Begins to decide about a WSGI environment. `None` if the body is needed.
    #[pyo3(signature = (environ, policy=None, body=None))]
    fn _wsgi(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        policy: Option<&Bound<'_, Policy>>,
        body: Option<&[u8]>,
    ) -> PyResult<Py<PyAny>> {
        wsgi::begin(self, py, environ, policy.map(|one| &one.get().0), body)
    }
}

impl Introspector {
    /// Begins, and gives who answers for a step that is not done.
    pub(crate) fn started(
        &self,
        py: Python<'_>,
        request: &core::Request<'_>,
        head: bool,
        policy: Option<&core::Policy>,
        now: Now,
    ) -> PyResult<Started> {
        let introspector = self.lives.now(py)?;
        let begun = caught(|| match policy {
            None => introspector.begin(request, now),
            Some(policy) => introspector.begin_with(policy, request, now),
        });
        Ok(Started::of(introspector, begun, head))
    }

    /// The same where the body was not read. None if it is needed.
    pub(crate) fn started_without_body(
        &self,
        py: Python<'_>,
        request: &core::Request<'_>,
        head: bool,
        policy: Option<&core::Policy>,
        now: Now,
    ) -> PyResult<Option<Started>> {
        let introspector = self.lives.now(py)?;
        let begun = caught(|| introspector.begin_without_body(policy, request, now));
        Ok(match begun {
            Some(None) => None,
            Some(begun) => Some(Started::of(introspector, begun, head)),
            None => Some(Started::of(introspector, None, head)),
        })
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }
}

/// What a request turned out to be at its beginning.
pub(crate) enum Started {
    Done(core::Decision),
    Under(Step, Of),
}

impl Started {
    /// What has begun; none if it panicked.
    fn of(introspector: &core::Introspector, begun: Option<Step>, head: bool) -> Self {
        match begun {
            Some(Step::Done(decision)) => Self::Done(decision),
            Some(step) => Self::Under(step, Of { introspector: introspector.clone(), head }),
            None => Self::Done(introspector.internal(head)),
        }
    }
}

/// Drives a step to its decision, by blocking.
fn finished(mut step: Step, of: &Of) -> Step {
    loop {
        step = match step {
            Step::Done(_) => return step,
            Step::Introspect(exchange) => of.guarded(|| exchange.send()),
            Step::Wait(wait) => of.guarded(|| wait.block()),
        };
    }
}

fn warn(py: Python<'_>, config: &core::Config, consumers: &core::Consumers) -> PyResult<()> {
    let warnings: Vec<String> = config.warnings_with(consumers).iter().map(ToString::to_string).collect();
    config::warn(py, &warnings)
}
