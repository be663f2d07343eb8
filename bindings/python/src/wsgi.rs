//! WSGI and CGI environments: where `-` and `_` of a header's name are one, and so are all spellings of it.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tokenward_core::{self as core, Decision, Header, Now};

use crate::decision::{Allow, object};
use crate::introspector::{Introspector, Started};
use crate::step::step_object;
use crate::text::{latin1, push};

/// Begins to decide. `None` if the body is needed.
pub(crate) fn begin(
    introspector: &Introspector,
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    policy: Option<&core::Policy>,
    body: Option<&[u8]>,
) -> PyResult<Py<PyAny>> {
    let mut text = Vec::with_capacity(1024);
    let mut spans = Vec::with_capacity(24);
    for (key, value) in environ {
        let Ok(key) = key.cast::<PyString>() else { continue };
        let Some(name) = header_name(key.to_str()?) else { continue };
        let start = text.len();
        text.extend(name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte }));
        let middle = text.len();
        push(&mut text, &value)?;
        spans.push((start, middle, text.len()));
    }
    let start = text.len();
    target(environ, &mut text)?;
    let method = environ.get_item(intern!(py, "REQUEST_METHOD"))?;
    let method = method.ok_or_else(|| PyValueError::new_err("the environment has no REQUEST_METHOD"))?;
    let method = method.cast::<PyString>()?.to_str()?;
    let part = |start, end| text.get(start..end).unwrap_or_default();
    let headers: Vec<Header<'_>> = spans
        .iter()
        .map(|&(start, middle, end)| Header { name: part(start, middle), value: part(middle, end) })
        .collect();
    let request = core::Request::new(method, part(start, text.len())).headers(&headers);
    let (head, now) = (method == "HEAD", Now::read());
    let started = match body {
        Some(body) => introspector.started(py, &request.body(body), head, policy, now)?,
        None => match introspector.started_without_body(py, &request, head, policy, now)? {
            Some(started) => started,
            None => return Ok(py.None()),
        },
    };
    match started {
        Started::Done(Decision::Allow(allow)) => Ok(Py::new(py, Allow::new(allow))?.into_any()),
        Started::Done(decision) => object(py, decision),
        Started::Under(step, of) => step_object(py, step, of),
    }
}

/// The header behind a key, still with `_`.
fn header_name(key: &str) -> Option<&str> {
    match key {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => Some(key),
        _ => key.strip_prefix("HTTP_"),
    }
}

/// Where servers put the target as the client sent it.
const RAW: [&str; 2] = ["RAW_URI", "REQUEST_URI"];

/// The target as received, where the server gives it; else put together from the decoded path.
fn target(environ: &Bound<'_, PyDict>, into: &mut Vec<u8>) -> PyResult<()> {
    let py = environ.py();
    for key in RAW {
        if let Some(raw) = environ.get_item(key)? {
            return push(into, &raw);
        }
    }
    let start = into.len();
    let mut path = Vec::new();
    for key in ["SCRIPT_NAME", "PATH_INFO"] {
        if let Some(part) = environ.get_item(key)? {
            push(&mut path, &part)?;
        }
    }
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"/:@!$&'()*+,;=-._~".contains(&byte) {
            into.push(byte);
        } else {
            into.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    if into.len() == start {
        into.push(b'/');
    }
    if let Some(query) = environ.get_item(intern!(py, "QUERY_STRING"))? {
        let start = into.len();
        into.push(b'?');
        push(into, &query)?;
        if into.len() == start + 1 {
            into.truncate(start);
        }
    }
    Ok(())
}

/// Applies an allow to the environment: removes what it removes, and everything that only Tokenward may set, in whichever spelling;
/// then sets what it sets. Lines of one name are joined, as servers do.
#[pyfunction]
pub(crate) fn _wsgi_apply(environ: &Bound<'_, PyDict>, allow: &Bound<'_, Allow>) -> PyResult<()> {
    let py = environ.py();
    let allow = &allow.get().allow;
    _wsgi_strip(environ)?;
    for name in allow.edits().remove() {
        let key = latin1(py, &key(name));
        if environ.contains(&key)? {
            environ.del_item(&key)?;
        }
    }
    for (name, value) in allow.edits().set() {
        let key = latin1(py, &key(name.as_bytes()));
        let value = latin1(py, value.as_bytes());
        match environ.get_item(&key)? {
            Some(before) => environ.set_item(&key, format!("{before},{value}"))?,
            None => environ.set_item(&key, value)?,
        }
    }
    if let Some(target) = allow.target() {
        let query = target.iter().position(|&byte| byte == b'?').and_then(|at| target.get(at + 1..));
        environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, query.unwrap_or_default()))?;
        for key in RAW {
            if environ.contains(key)? {
                environ.set_item(key, latin1(py, target))?;
            }
        }
    }
    Ok(())
}

/// Removes everything that only Tokenward may set, in whichever spelling.
#[pyfunction]
pub(crate) fn _wsgi_strip(environ: &Bound<'_, PyDict>) -> PyResult<()> {
    for key in environ.keys() {
        let Ok(text) = key.cast::<PyString>() else { continue };
        // A key that is no text of ours cannot be read as a header of ours either.
        let Ok(text) = text.to_str() else { continue };
        if text.strip_prefix("HTTP_").is_some_and(|name| core::is_managed(name.as_bytes())) {
            environ.del_item(&key)?;
        }
    }
    Ok(())
}

/// The key of a header: `HTTP_X_CONSUMER_ID`.
fn key(name: &[u8]) -> Vec<u8> {
    let upper = name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
    b"HTTP_".iter().copied().chain(upper).collect()
}
