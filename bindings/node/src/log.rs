//! Log lines, kept until JavaScript has come back from the call that made them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use napi_derive::napi;
use parking_lot::Mutex;
use tokenward_core::{Level, Log, Record};

use crate::steps::Events;

/// JavaScript takes lines after every call. More than this is nobody's to read.
const KEPT: usize = 1024;

/// One log line. Nothing in it comes raw from a client or the authorization server, and no secret is in it; a token appears as
/// the first 8 hex digits of its SHA-256.
#[napi(object, object_from_js = false)]
pub struct LogLine {
    /// `error`, `warn`, `info` or `debug`.
    #[napi(ts_type = "'error' | 'warn' | 'info' | 'debug'")]
    pub level: &'static str,
    /// The reason to deny that the line is about, or `null`.
    #[napi(ts_type = "Reason | null")]
    pub reason: Option<&'static str>,
    /// Fixed words; for a warning about the configuration, what is probably not meant.
    pub message: String,
    /// What is particular about it, such as `status`, `failure`, `elapsed_ms`, `suppressed`, `token`, `setting`.
    #[napi(ts_type = "Record<string, string>")]
    pub fields: std::collections::HashMap<String, String>,
    /// The whole line.
    pub text: String,
}

#[derive(Default)]
pub(crate) struct Lines(Mutex<VecDeque<LogLine>>);

impl Lines {
    pub(crate) fn take(&self) -> Vec<LogLine> {
        std::mem::take(&mut *self.0.lock()).into()
    }
}

/// Where the core's lines go.
pub(crate) struct Sink {
    pub(crate) lines: Arc<Lines>,
    pub(crate) events: Arc<Events>,
    /// The least urgent level that is wanted, 0 for `error` to 3 for `debug`.
    pub(crate) most: Arc<AtomicU8>,
}

impl Log for Sink {
    fn log(&self, record: &Record<'_>) {
        let line = LogLine {
            level: record.level.name(),
            reason: record.reason.map(tokenward_core::Reason::name),
            message: record.message.to_owned(),
            fields: record.fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            text: record.to_string(),
        };
        let mut lines = self.lines.0.lock();
        if lines.len() < KEPT {
            lines.push_back(line);
        }
        drop(lines);
        self.events.happened();
    }

    fn is_enabled(&self, level: Level) -> bool {
        let urgency = match level {
            Level::Error => 0,
            Level::Warn => 1,
            Level::Info => 2,
            Level::Debug => 3,
        };
        urgency <= self.most.load(Ordering::Relaxed)
    }
}
