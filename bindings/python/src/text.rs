//! Python's text and bytes as the bytes of HTTP.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Appends what is `bytes`, or `str` of characters up to U+00FF (a byte each, as WSGI and `http.client` have it).
///
/// Errors hold nothing of the value: it may be a credential.
pub(crate) fn push(buffer: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        buffer.extend_from_slice(bytes.as_bytes());
        return Ok(());
    }
    let Ok(text) = value.cast::<PyString>() else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("text of a request is str or bytes, not {kind}")));
    };
    let not_latin1 =
        || PyValueError::new_err("text of a request has a character beyond U+00FF: give its bytes instead");
    let text = text.to_str().map_err(|_| not_latin1())?;
    if text.is_ascii() {
        buffer.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    for c in text.chars() {
        buffer.push(u8::try_from(c).map_err(|_| not_latin1())?);
    }
    Ok(())
}

/// Bytes as `str`, a character each.
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().copied().map(char::from).collect::<String>()),
    }
}
