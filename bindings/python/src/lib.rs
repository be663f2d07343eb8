//! The extension module behind the Python package `tokenward`: the core's types as Python classes.
//!
//! Rules stay in the core. What is here turns Python's values into requests and replies, and decisions into Python's values;
//! `authenticate_async`, the middleware and the transports are Python, in `python/tokenward/`.
//!
//! What blocks is done detached from the interpreter. No lock of the core is held while Python runs, so a thread that holds one never
//! waits for another that has the interpreter.

mod asgi;
mod config;
mod decision;
mod gate;
mod introspector;
mod kept;
mod life;
mod log;
mod request;
mod step;
mod text;
mod wsgi;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// Whether only Tokenward may set this header: `X-Anonymous-Consumer`, and whatever begins with `X-Consumer-` or
/// `X-Credential-`; case ignored, `_` and `.` read as `-`.
#[pyfunction]
fn is_managed(name: &Bound<'_, PyAny>) -> PyResult<bool> {
    let mut buffer = Vec::new();
    text::push(&mut buffer, name)?;
    Ok(tokenward_core::is_managed(&buffer))
}

/// Every reason to deny: name and number, for the enum in Python to be held against.
#[pyfunction]
fn _reasons() -> Vec<(&'static str, u16)> {
    tokenward_core::Reason::ALL.iter().map(|reason| (reason.name(), reason.number())).collect()
}

/// Classes and interned names are of the interpreter that made them, and are looked for by all.
fn refuse_sub_interpreters() -> PyResult<()> {
    #[allow(unsafe_code, reason = "pyo3 has no safe call for it")]
    // SAFETY: attached, so there is a current interpreter, and it has an id.
    let id = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    if id == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "tokenward works in the main interpreter alone, not in subinterpreters (mod_wsgi: WSGIApplicationGroup %{GLOBAL})",
    ))
}

#[pymodule(gil_used = false)]
fn _tokenward(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Before anything is made.
    refuse_sub_interpreters()?;
    module.add_class::<decision::Allow>()?;
    module.add_class::<decision::Consumer>()?;
    module.add_class::<decision::Deny>()?;
    module.add_class::<decision::Identity>()?;
    module.add_class::<decision::User>()?;
    module.add_class::<gate::AsgiGate>()?;
    module.add_class::<introspector::Introspector>()?;
    module.add_class::<introspector::Policy>()?;
    module.add_class::<request::Request>()?;
    module.add_class::<step::Introspect>()?;
    module.add_class::<step::Wait>()?;
    module.add_function(wrap_pyfunction!(asgi::_asgi_again, module)?)?;
    module.add_function(wrap_pyfunction!(asgi::_asgi_scope, module)?)?;
    module.add_function(wrap_pyfunction!(asgi::_asgi_stripped, module)?)?;
    module.add_function(wrap_pyfunction!(life::_after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(wsgi::_wsgi_apply, module)?)?;
    module.add_function(wrap_pyfunction!(wsgi::_wsgi_strip, module)?)?;
    module.add_function(wrap_pyfunction!(_reasons, module)?)?;
    module.add_function(wrap_pyfunction!(is_managed, module)?)
}
