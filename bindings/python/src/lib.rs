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
mod introspector;
mod kept;
mod life;
mod log;
mod request;
mod step;
mod text;
mod wsgi;

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

#[pymodule(gil_used = false)]
mod _tokenward {
    #[pymodule_export]
    use super::asgi::{_asgi_again, _asgi_scope, _asgi_stripped};
    #[pymodule_export]
    use super::decision::{Allow, Consumer, Deny, Identity, User};
    #[pymodule_export]
    use super::introspector::{Introspector, Policy};
    #[pymodule_export]
    use super::life::_after_fork_in_child;
    #[pymodule_export]
    use super::request::Request;
    #[pymodule_export]
    use super::step::{Introspect, Wait};
    #[pymodule_export]
    use super::wsgi::{_wsgi_apply, _wsgi_strip};
    #[pymodule_export]
    use super::{_reasons, is_managed};
}
