//! Configuration and consumers as Python gives them, and what is wrong with them as Python raises it.

use std::ffi::CString;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyMapping, PyString};
use tokenward_core::{BuildError, ConfigError, Consumers, Document};

/// A class of `tokenward._errors`.
fn class<'py>(py: Python<'py>, cell: &'static PyOnceLock<Py<PyAny>>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let class = cell.get_or_try_init(py, || Ok::<_, PyErr>(py.import("tokenward._errors")?.getattr(name)?.unbind()))?;
    Ok(class.bind(py).clone())
}

/// `tokenward.ConfigError` with all problems.
pub(crate) fn raise(py: Python<'_>, error: &ConfigError) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let problems: Vec<(&str, &str)> =
        error.problems().iter().map(|problem| (problem.path(), problem.message())).collect();
    let made = class(py, &CLASS, "ConfigError").and_then(|class| class.call1((problems,)));
    made.map_or_else(|error| error, PyErr::from_value)
}

pub(crate) fn raise_build(error: &BuildError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// Warns by `warnings`, at the line that called.
pub(crate) fn warn(py: Python<'_>, messages: &[String]) -> PyResult<()> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if messages.is_empty() {
        return Ok(());
    }
    let class = class(py, &CLASS, "ConfigWarning")?;
    for message in messages {
        // Messages quote what a document says, which may hold a NUL.
        let text = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
        PyErr::warn(py, &class, &text, 2)?;
    }
    Ok(())
}

/// A document from a mapping, from JSON text, or from a file.
pub(crate) fn document(py: Python<'_>, config: &Bound<'_, PyAny>) -> PyResult<Document> {
    let loaded = if let Ok(text) = config.cast::<PyString>() {
        let text = text.to_str()?;
        let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
        // A file with a million consumers takes seconds.
        py.detach(|| if is_json { Document::from_text(text) } else { Document::from_file(text) })
    } else if config.cast::<PyMapping>().is_ok() {
        let text = dumped(config)?;
        py.detach(|| Document::from_text(&text))
    } else if config.hasattr("__fspath__")? {
        let path = py.import("os")?.call_method1("fspath", (config,))?;
        let path = path.cast::<PyString>()?.to_str()?;
        py.detach(|| Document::from_file(path))
    } else {
        return Err(PyTypeError::new_err("a configuration is a mapping, JSON text, or a path"));
    };
    loaded.map_err(|error| raise(py, &error))
}

/// Consumers from an iterable of mappings, or from JSON text.
pub(crate) fn consumers(py: Python<'_>, consumers: &Bound<'_, PyAny>) -> PyResult<Consumers> {
    let read = match consumers.cast::<PyString>() {
        Ok(text) => {
            let text = text.to_str()?;
            py.detach(|| Consumers::from_json(text))
        }
        Err(_) => {
            let list = py.import("builtins")?.getattr("list")?.call1((consumers,))?;
            let text = dumped(&list)?;
            py.detach(|| Consumers::from_json(&text))
        }
    };
    read.map_err(|error| raise(py, &error))
}

/// A value as JSON.
pub(crate) fn dumped(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = value.py();
    let options = PyDict::new(py);
    let value = match value.cast::<PyMapping>() {
        Ok(mapping) if !value.is_instance_of::<PyDict>() => {
            py.import("builtins")?.getattr("dict")?.call1((mapping,))?
        }
        _ => value.clone(),
    };
    // As it is: an escape would make two surrogates of what is one character in a message.
    options.set_item("ensure_ascii", false)?;
    py.import("json")?.call_method("dumps", (value,), Some(&options))?.extract()
}
