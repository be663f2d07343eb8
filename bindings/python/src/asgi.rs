//! A hit in one call: from an ASGI scope to the scope that the application gets.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use smallvec::SmallVec;
use tokenward_core::{self as core, Decision, Header, HeaderEdits, Now};

use crate::decision::{Allow, Deny, User};
use crate::introspector::{Introspector, Started};
use crate::kept::{BYTES, Kept};
use crate::step::step_object;

/// The names and values of header lines.
type Lines<'py> = SmallVec<[(Bound<'py, PyBytes>, Bound<'py, PyBytes>); 16]>;

/// The header lines as a list, and what is in them.
fn lines<'py>(scope: &Bound<'py, PyDict>) -> PyResult<(Bound<'py, PyList>, Lines<'py>)> {
    let headers = required(scope, intern!(scope.py(), "headers"))?;
    let list = match headers.cast_into::<PyList>() {
        Ok(list) => list,
        Err(other) => {
            other.into_inner().try_iter()?.collect::<PyResult<Vec<_>>>().and_then(|all| PyList::new(scope.py(), all))?
        }
    };
    let mut lines = Lines::new();
    for at in 0..list.len() {
        lines.push(line(&list.get_item(at)?)?);
    }
    Ok((list, lines))
}

fn line<'py>(item: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let (name, value) = match item.cast::<PyTuple>() {
        Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
        _ if item.len()? == 2 => (item.get_item(0)?, item.get_item(1)?),
        _ => return Err(PyTypeError::new_err("headers of a scope are pairs of bytes")),
    };
    match (name.cast_into::<PyBytes>(), value.cast_into::<PyBytes>()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(PyTypeError::new_err("headers of a scope are pairs of bytes")),
    }
}

fn required<'py>(scope: &Bound<'py, PyDict>, key: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    scope.get_item(key)?.ok_or_else(|| PyValueError::new_err(format!("the scope has no `{key}`")))
}

/// Path and query as the client sent them. A server that does not give the raw path leaves nothing but to encode the decoded one.
fn target(scope: &Bound<'_, PyDict>, into: &mut SmallVec<[u8; 256]>) -> PyResult<()> {
    let py = scope.py();
    let raw = scope.get_item(intern!(py, "raw_path"))?;
    match raw.as_ref().and_then(|raw| raw.cast::<PyBytes>().ok()) {
        // Some servers leave the query there.
        Some(raw) => into.extend_from_slice(raw.as_bytes().split(|&byte| byte == b'?').next().unwrap_or_default()),
        None => {
            let path = required(scope, intern!(py, "path"))?;
            let quote = py.import(intern!(py, "urllib.parse"))?.getattr(intern!(py, "quote"))?;
            let quoted = quote.call1((path, "/:@!$&'()*+,;=-._~"))?;
            into.extend_from_slice(quoted.cast::<PyString>()?.to_str()?.as_bytes());
        }
    }
    if let Some(query) = scope.get_item(intern!(py, "query_string"))? {
        let query = query.cast::<PyBytes>()?;
        if !query.as_bytes().is_empty() {
            into.push(b'?');
            into.extend_from_slice(query.as_bytes());
        }
    }
    Ok(())
}

/// Gives the application's scope for an allow that asks for nothing else, `None` if the body is needed, and otherwise the decision
/// or step.
pub(crate) fn begin(
    introspector: &Introspector,
    py: Python<'_>,
    scope: &Bound<'_, PyDict>,
    policy: Option<&core::Policy>,
    body: Option<&Bound<'_, PyBytes>>,
) -> PyResult<Py<PyAny>> {
    let (list, lines) = lines(scope)?;
    let mut raw = SmallVec::new();
    target(scope, &mut raw)?;
    let method = scope.get_item(intern!(py, "method"))?;
    let method = match &method {
        Some(method) => method.cast::<PyString>()?.to_str()?,
        None => "GET", // the handshake of a websocket
    };
    let started = {
        let headers: SmallVec<[Header<'_>; 16]> =
            lines.iter().map(|(name, value)| Header { name: name.as_bytes(), value: value.as_bytes() }).collect();
        let mut request = core::Request::new(method, raw.as_slice()).headers(&headers);
        match body {
            Some(body) => request = request.body(body.as_bytes()),
            None if introspector.body_is_needed(py, &request, policy)? => return Ok(py.None()),
            None => {}
        }
        introspector.started(py, &request, method == "HEAD", policy, Now::read())?
    };
    match started {
        Started::Done(Decision::Allow(allow)) => {
            let plain = allow.body().is_none() && allow.response_headers().next().is_none();
            let allow = Bound::new(py, Allow::of(allow, scope, body))?;
            if plain {
                Ok(passed(scope, &allow, &list, &lines, Some(introspector.kept()))?.into_any().unbind())
            } else {
                Ok(allow.into_any().unbind())
            }
        }
        Started::Done(Decision::Deny(deny)) => Ok(Py::new(py, Deny(deny))?.into_any()),
        Started::Under(step, of) => step_object(py, step, of),
    }
}

/// The scope that the application gets.
fn passed<'py>(
    scope: &Bound<'py, PyDict>,
    allow: &Bound<'py, Allow>,
    list: &Bound<'py, PyList>,
    lines: &Lines<'py>,
    kept: Option<&Kept>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = scope.py();
    let decided = &allow.get().allow;
    let new = scope.copy()?;
    let length = decided.body().map(<[u8]>::len);
    let make = || Ok((set_lines(py, decided.edits())?, Bound::new(py, User::new(decided.shared().cloned()))?));
    let (set, user) = match (decided.shared(), kept) {
        (Some(shared), Some(kept)) if shared.claims().map_or(0, |claims| claims.json().len()) <= BYTES => {
            kept.get_or_make(py, shared.number(), make)?
        }
        _ => make()?,
    };
    new.set_item(intern!(py, "headers"), edited(list, lines, decided.edits(), &set, length)?)?;
    if let Some(target) = decided.target() {
        let query = target.iter().position(|&byte| byte == b'?').and_then(|at| target.get(at + 1..));
        new.set_item(intern!(py, "query_string"), PyBytes::new(py, query.unwrap_or_default()))?;
        // Where a server leaves the query there, it holds the token too.
        let raw = scope.get_item(intern!(py, "raw_path"))?;
        if raw.is_some_and(|raw| raw.cast::<PyBytes>().is_ok_and(|raw| raw.as_bytes().contains(&b'?'))) {
            new.set_item(intern!(py, "raw_path"), PyBytes::new(py, target))?;
        }
    }
    new.set_item(intern!(py, "tokenward"), allow)?;
    new.set_item(intern!(py, "user"), &user)?;
    new.set_item(intern!(py, "auth"), user)?;
    Ok(new)
}

/// The lines that an allow sets. Names are in lower case, as ASGI has them.
fn set_lines<'py>(py: Python<'py>, edits: HeaderEdits<'_>) -> PyResult<Bound<'py, PyTuple>> {
    let mut lines: SmallVec<[Bound<'py, PyAny>; 16]> = SmallVec::new();
    for (name, value) in edits.set() {
        let mut lower: SmallVec<[u8; 40]> = SmallVec::from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let line = (PyBytes::new(py, &lower), PyBytes::new(py, value.as_bytes()));
        lines.push(line.into_pyobject(py)?.into_any());
    }
    PyTuple::new(py, lines)
}

/// How the client framed its body, which is another one now: both kinds at once would be two bodies to two readers.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

fn edited<'py>(
    list: &Bound<'py, PyList>,
    lines: &Lines<'py>,
    edits: HeaderEdits<'_>,
    set: &Bound<'py, PyTuple>,
    length: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let removed: SmallVec<[&[u8]; 4]> = edits.remove().collect();
    let edited = list.get_slice(0, list.len());
    if edited.len() != lines.len() {
        return Err(PyValueError::new_err("the headers of the scope have changed"));
    }
    // From the end, so that places before stay what they are.
    for (at, (name, _)) in lines.iter().enumerate().rev() {
        let name = name.as_bytes();
        let is_removed = removed.iter().any(|one| one.eq_ignore_ascii_case(name))
            || (length.is_some() && FRAMING.iter().any(|one| name.eq_ignore_ascii_case(one)));
        if is_removed {
            edited.del_item(at)?;
        }
    }
    edited.set_slice(edited.len(), edited.len(), set)?;
    if let Some(length) = length {
        let py = list.py();
        edited.append((PyBytes::new(py, b"content-length"), PyBytes::new(py, length.to_string().as_bytes())))?;
    }
    Ok(edited)
}

/// A scope whose headers hold nothing that only Tokenward may set, for what passes without a decision.
fn stripped<'py>(scope: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let py = scope.py();
    let (_, lines) = lines(scope)?;
    let kept = lines.into_iter().filter(|(name, _)| !core::is_managed(name.as_bytes()));
    let new = scope.copy()?;
    new.set_item(intern!(py, "headers"), PyList::new(py, kept.collect::<Vec<_>>())?)?;
    Ok(new)
}

/// The scope of an allow, for what is decided later.
#[pyfunction]
#[pyo3(signature = (scope, allow, body=None))]
pub(crate) fn _asgi_scope<'py>(
    scope: &Bound<'py, PyDict>,
    allow: &Bound<'py, Allow>,
    body: Option<&Bound<'py, PyBytes>>,
) -> PyResult<Bound<'py, PyDict>> {
    let decided = allow.get();
    // What was decided by a step of its own knows nothing of the scope yet.
    let allow = match decided.origin {
        Some(_) => allow.clone(),
        None => Bound::new(scope.py(), Allow::of(decided.allow.clone(), scope, body))?,
    };
    let (list, lines) = lines(scope)?;
    passed(scope, &allow, &list, &lines, None)
}

/// The scope without what only Tokenward may set.
#[pyfunction]
pub(crate) fn _asgi_stripped<'py>(scope: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    stripped(scope)
}

/// Begins to decide again about the request of an allow, by another policy. None if it was not decided for a scope.
#[pyfunction]
pub(crate) fn _asgi_again(
    py: Python<'_>,
    introspector: &Bound<'_, Introspector>,
    allow: &Bound<'_, Allow>,
    policy: &Bound<'_, crate::introspector::Policy>,
) -> PyResult<Option<Py<PyAny>>> {
    let Some((scope, body)) = &allow.get().origin else { return Ok(None) };
    let body = match body {
        Some(body) => body.bind(py).clone(),
        // Where no body was needed before, none is now.
        None => PyBytes::new(py, b""),
    };
    let step = begin(introspector.get(), py, scope.bind(py), Some(&policy.get().0), Some(&body))?;
    // A scope is an allow here.
    match step.bind(py).cast::<PyDict>() {
        Ok(scope) => Ok(scope.get_item(intern!(py, "tokenward"))?.map(Bound::unbind)),
        Err(_) => Ok(Some(step)),
    }
}
