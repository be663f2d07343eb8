//! A hit in one call: from an ASGI scope to the scope that the application gets.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use smallvec::SmallVec;
use tokenward_core::{self as core, Decision, Header, Now};

use crate::decision::{Allow, Deny, User};
use crate::introspector::{Introspector, Started};
use crate::kept::{BYTES, Kept, Made};
use crate::step::step_object;

/// The header lines, each a pair of bytes that nobody changes.
type Lines<'py> = SmallVec<[Bound<'py, PyTuple>; 32]>;

/// Their names and values.
type Pairs<'a, 'py> = SmallVec<[(Borrowed<'a, 'py, PyBytes>, Borrowed<'a, 'py, PyBytes>); 16]>;

/// The same for the core.
type Fields<'a> = SmallVec<[Header<'a>; 16]>;

// What is read goes where the caller has the room: to give a `SmallVec` copies all of its room.

fn read_lines<'py>(scope: &Bound<'py, PyDict>, into: &mut Lines<'py>) -> PyResult<()> {
    let headers = required(scope, intern!(scope.py(), "headers"))?;
    match headers.cast::<PyList>() {
        Ok(list) => {
            for at in 0..list.len() {
                into.push(line(list.get_item(at)?)?);
            }
        }
        Err(_) => {
            for item in headers.try_iter()? {
                into.push(line(item?)?);
            }
        }
    }
    Ok(())
}

fn line(item: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyTuple>> {
    match item.cast_into_exact::<PyTuple>() {
        Ok(pair) => Ok(pair),
        // A list, which might change.
        Err(other) => {
            let item = other.into_inner();
            PyTuple::new(item.py(), item.try_iter()?.collect::<PyResult<Vec<_>>>()?)
        }
    }
}

fn read_pairs<'a, 'py>(lines: &'a [Bound<'py, PyTuple>], into: &mut Pairs<'a, 'py>) -> PyResult<()> {
    for line in lines {
        if line.len() != 2 {
            return Err(no_pair());
        }
        into.push((bytes(line.get_borrowed_item(0)?)?, bytes(line.get_borrowed_item(1)?)?));
    }
    Ok(())
}

fn bytes<'a, 'py>(item: Borrowed<'a, 'py, PyAny>) -> PyResult<Borrowed<'a, 'py, PyBytes>> {
    // The exact type is told without a call.
    item.cast_exact::<PyBytes>().or_else(|_| item.cast::<PyBytes>()).map_err(|_| no_pair())
}

#[cold]
fn no_pair() -> PyErr {
    PyTypeError::new_err("headers of a scope are pairs of bytes")
}

fn read_fields<'a>(pairs: &'a [(Borrowed<'_, '_, PyBytes>, Borrowed<'_, '_, PyBytes>)], into: &mut Fields<'a>) {
    for (name, value) in pairs {
        into.push(Header { name: name.as_bytes(), value: value.as_bytes() });
    }
}

fn required<'py>(scope: &Bound<'py, PyDict>, key: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    scope.get_item(key)?.ok_or_else(|| PyValueError::new_err(format!("the scope has no `{key}`")))
}

/// Path and query as the client sent them. A server that does not give the raw path leaves nothing but to encode the decoded one.
fn target<'a>(
    scope: &Bound<'_, PyDict>,
    raw: Option<&'a Bound<'_, PyAny>>,
    query: Option<&'a Bound<'_, PyAny>>,
    into: &'a mut SmallVec<[u8; 256]>,
) -> PyResult<&'a [u8]> {
    let py = scope.py();
    let query = query.map(|query| query.cast::<PyBytes>()).transpose()?.map_or(&[][..], |query| query.as_bytes());
    match raw.and_then(|raw| raw.cast::<PyBytes>().ok()) {
        Some(raw) => {
            let raw = raw.as_bytes();
            // Some servers leave the query there.
            let path = raw.split(|&byte| byte == b'?').next().unwrap_or_default();
            if path.len() == raw.len() && query.is_empty() {
                return Ok(raw);
            }
            into.extend_from_slice(path);
        }
        None => {
            let path = required(scope, intern!(py, "path"))?;
            let quote = py.import(intern!(py, "urllib.parse"))?.getattr(intern!(py, "quote"))?;
            let quoted = quote.call1((path, "/:@!$&'()*+,;=-._~"))?;
            into.extend_from_slice(quoted.cast::<PyString>()?.to_str()?.as_bytes());
        }
    }
    if !query.is_empty() {
        into.push(b'?');
        into.extend_from_slice(query);
    }
    Ok(into)
}

/// What a scope turned out to be at its beginning.
pub(crate) enum Begun<'py> {
    /// An allow that asks for nothing else: the scope that the application gets.
    Passed(Bound<'py, PyDict>),
    /// The body is needed.
    Body,
    /// A decision or step.
    Step(Bound<'py, PyAny>),
}

impl<'py> Begun<'py> {
    /// As Python has it: a scope, none, or a decision or step.
    pub(crate) fn object(self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Self::Passed(scope) => scope.into_any(),
            Self::Body => py.None().into_bound(py),
            Self::Step(step) => step,
        }
    }
}

/// Begins to decide about a scope.
pub(crate) fn begin<'py>(
    introspector: &Introspector,
    scope: &Bound<'py, PyDict>,
    policy: Option<&core::Policy>,
    body: Option<&Bound<'py, PyBytes>>,
) -> PyResult<Begun<'py>> {
    let py = scope.py();
    let mut lines = Lines::new();
    read_lines(scope, &mut lines)?;
    let raw = scope.get_item(intern!(py, "raw_path"))?;
    let query = scope.get_item(intern!(py, "query_string"))?;
    let method = scope.get_item(intern!(py, "method"))?;
    let method = match &method {
        Some(method) => method.cast::<PyString>()?.to_str()?,
        None => "GET", // the handshake of a websocket
    };
    let head = method == "HEAD";
    let mut removed = Places::new();
    let started = {
        let (mut pairs, mut headers) = (Pairs::new(), Fields::new());
        read_pairs(&lines, &mut pairs)?;
        read_fields(&pairs, &mut headers);
        let mut joined = SmallVec::new();
        let target = target(scope, raw.as_ref(), query.as_ref(), &mut joined)?;
        let request = core::Request::new(method, target).headers(&headers);
        let started = match body {
            Some(body) => introspector.started(py, &request.body(body.as_bytes()), head, policy, Now::read())?,
            None => match introspector.started_without_body(py, &request, head, policy, Now::read())? {
                Some(started) => started,
                None => return Ok(Begun::Body),
            },
        };
        if let Started::Done(Decision::Allow(allow)) = &started {
            find_removed(allow, &headers, &mut removed);
        }
        started
    };
    Ok(match started {
        Started::Done(Decision::Allow(allow)) => {
            let plain = allow.body().is_none() && allow.response_headers().next().is_none();
            let allow = Bound::new(py, Allow::of(allow, scope, body))?;
            if !plain {
                return Ok(Begun::Step(allow.into_any()));
            }
            take_out(&mut lines, &removed);
            Begun::Passed(passed(scope, &allow, &mut lines, Some(introspector.kept()))?)
        }
        Started::Done(Decision::Deny(deny)) => Begun::Step(Bound::new(py, Deny(deny))?.into_any()),
        Started::Under(step, of) => Begun::Step(step_object(py, step, of)?.into_bound(py)),
    })
}

/// Places of header lines, in order.
type Places = SmallVec<[usize; 8]>;

/// How the client framed its body, which is another one now: both kinds at once would be two bodies to two readers.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// Which lines an allow takes out.
fn find_removed(allow: &core::Allow, headers: &[Header<'_>], into: &mut Places) {
    let mut names: SmallVec<[&[u8]; 8]> = SmallVec::new();
    for name in allow.edits().remove() {
        names.push(name);
    }
    if allow.body().is_some() {
        names.extend(FRAMING);
    }
    for (at, header) in headers.iter().enumerate() {
        for name in &names {
            if name.eq_ignore_ascii_case(header.name) {
                into.push(at);
                break;
            }
        }
    }
}

fn take_out(lines: &mut Lines<'_>, places: &[usize]) {
    // From the end, so that places before stay what they are.
    for &at in places.iter().rev() {
        lines.remove(at);
    }
}

/// The scope that the application gets; `lines` are those of the client that are left.
fn passed<'py>(
    scope: &Bound<'py, PyDict>,
    allow: &Bound<'py, Allow>,
    lines: &mut Lines<'py>,
    kept: Option<&Kept>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = scope.py();
    let decided = &allow.get().allow;
    let new = scope.copy()?;
    let make = || made(py, decided);
    let made = match (decided.shared(), kept) {
        (Some(shared), Some(kept)) if shared.claims().map_or(0, |claims| claims.json().len()) <= BYTES => {
            kept.get_or_make(shared.number(), make)?
        }
        _ => Arc::new(make()?),
    };
    for line in &made.lines {
        lines.push(line.bind(py).clone());
    }
    if let Some(body) = decided.body() {
        let length = body.len().to_string();
        lines.push((PyBytes::new(py, b"content-length"), PyBytes::new(py, length.as_bytes())).into_pyobject(py)?);
    }
    new.set_item(intern!(py, "headers"), PyList::new(py, lines.drain(..))?)?;
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
    let user = made.user.bind(py);
    new.set_item(intern!(py, "user"), user)?;
    new.set_item(intern!(py, "auth"), user)?;
    Ok(new)
}

/// The lines that an allow sets, their names in lower case, as ASGI has them, and who calls.
fn made(py: Python<'_>, allow: &core::Allow) -> PyResult<Made> {
    let lines = allow.edits().set().map(|(name, value)| {
        let name = PyBytes::new(py, name.to_ascii_lowercase().as_bytes());
        Ok((name, PyBytes::new(py, value.as_bytes())).into_pyobject(py)?.unbind())
    });
    Ok(Made { lines: lines.collect::<PyResult<_>>()?, user: Py::new(py, User::new(allow.shared().cloned()))? })
}

/// A scope whose headers hold nothing that only Tokenward may set, for what passes without a decision.
fn stripped<'py>(scope: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let py = scope.py();
    let (mut lines, mut managed) = (Lines::new(), Places::new());
    read_lines(scope, &mut lines)?;
    {
        let mut pairs = Pairs::new();
        read_pairs(&lines, &mut pairs)?;
        let is_managed = |name: &Bound<'_, PyBytes>| core::is_managed(name.as_bytes());
        managed.extend(pairs.iter().enumerate().filter(|(_, (name, _))| is_managed(name)).map(|(at, _)| at));
    }
    take_out(&mut lines, &managed);
    let new = scope.copy()?;
    new.set_item(intern!(py, "headers"), PyList::new(py, lines)?)?;
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
    let (mut lines, mut removed) = (Lines::new(), Places::new());
    read_lines(scope, &mut lines)?;
    {
        let (mut pairs, mut headers) = (Pairs::new(), Fields::new());
        read_pairs(&lines, &mut pairs)?;
        read_fields(&pairs, &mut headers);
        find_removed(&decided.allow, &headers, &mut removed);
    }
    take_out(&mut lines, &removed);
    passed(scope, &allow, &mut lines, None)
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
    Ok(Some(match begin(introspector.get(), scope.bind(py), Some(&policy.get().0), Some(&body))? {
        Begun::Passed(scope) => return Ok(scope.get_item(intern!(py, "tokenward"))?.map(Bound::unbind)),
        begun => begun.object(py).unbind(),
    }))
}
