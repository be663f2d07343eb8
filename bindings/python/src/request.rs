//! What the client sent.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use smallvec::SmallVec;
use tokenward_core::Header;

use crate::text::push;

/// A request: its method, its target as received, every header line.
///
/// Text is `bytes`, or `str` of characters up to U+00FF. `headers` is an iterable of pairs or a mapping. `trailers` are names. The
/// body is given only where `Introspector.needs_body` asks for it.
#[pyclass(frozen, module = "tokenward")]
pub(crate) struct Request {
    /// Everything, one after the other.
    text: Vec<u8>,
    method: Span,
    target: Span,
    headers: SmallVec<[(Span, Span); 16]>,
    trailers: SmallVec<[Span; 0]>,
    body: Option<Span>,
}

#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

fn add(text: &mut Vec<u8>, value: &Bound<'_, PyAny>) -> PyResult<Span> {
    let start = text.len();
    push(text, value)?;
    Ok(Span { start, end: text.len() })
}

#[pymethods]
impl Request {
    #[new]
    #[pyo3(signature = (method, target, headers=None, *, trailers=None, body=None))]
    fn new(
        method: &Bound<'_, PyAny>,
        target: &Bound<'_, PyAny>,
        headers: Option<&Bound<'_, PyAny>>,
        trailers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut text = Vec::with_capacity(512);
        let mut request = Self {
            method: add(&mut text, method)?,
            target: add(&mut text, target)?,
            text,
            headers: SmallVec::new(),
            trailers: SmallVec::new(),
            body: None,
        };
        match headers {
            None => {}
            Some(headers) => match headers.cast::<PyList>() {
                Ok(list) => list.iter().try_for_each(|pair| request.header(&pair))?,
                Err(_) if headers.is_instance_of::<PyDict>() || headers.hasattr("items")? => {
                    let items = headers.call_method0("items")?;
                    items.try_iter()?.try_for_each(|pair| request.header(&pair?))?;
                }
                Err(_) => headers.try_iter()?.try_for_each(|pair| request.header(&pair?))?,
            },
        }
        if let Some(trailers) = trailers {
            for name in trailers.try_iter()? {
                let name = add(&mut request.text, &name?)?;
                request.trailers.push(name);
            }
        }
        if let Some(body) = body {
            request.body = Some(add(&mut request.text, body)?);
        }
        Ok(request)
    }

    /// The method.
    #[getter]
    fn method(&self) -> String {
        self.method.of(&self.text).escape_ascii().to_string()
    }

    fn __repr__(&self) -> String {
        format!("<tokenward.Request {} with {} headers>", self.method(), self.headers.len())
    }
}

impl Request {
    fn header(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        let (name, value) = match pair.cast::<PyTuple>() {
            Ok(tuple) if tuple.len() == 2 => (tuple.get_item(0)?, tuple.get_item(1)?),
            _ if pair.len().is_ok_and(|len| len == 2) => (pair.get_item(0)?, pair.get_item(1)?),
            _ => return Err(PyTypeError::new_err("headers are pairs of name and value")),
        };
        let line = (add(&mut self.text, &name)?, add(&mut self.text, &value)?);
        self.headers.push(line);
        Ok(())
    }

    /// The core's view of it.
    pub(crate) fn view<R>(&self, with: impl FnOnce(&tokenward_core::Request<'_>) -> R) -> R {
        let text = &*self.text;
        let headers: SmallVec<[Header<'_>; 16]> =
            self.headers.iter().map(|(name, value)| Header { name: name.of(text), value: value.of(text) }).collect();
        let trailers: SmallVec<[&[u8]; 4]> = self.trailers.iter().map(|name| name.of(text)).collect();
        let mut request = tokenward_core::Request::new(self.method.of(text), self.target.of(text))
            .headers(&headers)
            .trailers(&trailers);
        if let Some(body) = self.body {
            request = request.body(body.of(text));
        }
        with(&request)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method.of(&self.text) == b"HEAD"
    }
}
