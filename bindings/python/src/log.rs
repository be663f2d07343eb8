//! Log lines for Python's `logging`, and warnings on their way to `warnings`.

use std::cell::RefCell;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokenward_core::{Level, Log, Record};

use crate::life::aside;

thread_local! {
    /// Warnings about a configuration that is being read by this thread, which go to `warnings` instead of the log.
    static WARNINGS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The logger `tokenward`.
pub(crate) struct PythonLog(Py<PyAny>);

impl PythonLog {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let logger = py.import("logging")?.call_method1("getLogger", ("tokenward",))?;
        Ok(Self(logger.unbind()))
    }

    fn write(&self, py: Python<'_>, record: &Record<'_>) -> PyResult<()> {
        let fields = PyDict::new(py);
        for (key, value) in record.fields {
            fields.set_item(key, value)?;
        }
        let extra = PyDict::new(py);
        extra.set_item("reason", record.reason.map(|reason| reason.name()))?;
        extra.set_item("fields", fields)?;
        let options = PyDict::new(py);
        options.set_item("extra", extra)?;
        let arguments = (number(record.level), "%s", record.to_string());
        self.0.bind(py).call_method("log", arguments, Some(&options))?;
        Ok(())
    }
}

impl Log for PythonLog {
    fn log(&self, record: &Record<'_>) {
        if record.level == Level::Warn && record.reason.is_none() {
            let taken = WARNINGS.with_borrow_mut(|warnings| {
                warnings.as_mut().map(|warnings| warnings.push(record.message.to_owned())).is_some()
            });
            if taken {
                return;
            }
        }
        // At the end of the interpreter there is nowhere to log to.
        let _ = Python::try_attach(|py| {
            aside(py, || {
                if let Err(error) = self.write(py, record) {
                    error.write_unraisable(py, Some(self.0.bind(py)));
                }
            });
        });
    }

    fn is_enabled(&self, level: Level) -> bool {
        Python::try_attach(|py| {
            aside(py, || {
                let asked = self.0.bind(py).call_method1(intern!(py, "isEnabledFor"), (number(level),));
                asked.and_then(|enabled| enabled.is_truthy()).unwrap_or(false)
            })
        })
        .unwrap_or(false)
    }
}

fn number(level: Level) -> u8 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug => 10,
    }
}

/// Calls, and gives what was warned of on the way beside the result.
pub(crate) fn collecting<R>(call: impl FnOnce() -> R) -> (R, Vec<String>) {
    let before = WARNINGS.replace(Some(Vec::new()));
    let result = call();
    let warnings = WARNINGS.replace(before).unwrap_or_default();
    (result, warnings)
}
