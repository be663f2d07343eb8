//! Everything that is wrong with a document, said at once.

use std::fmt;

use super::node::{Node, Value};

/// One thing that is wrong with a configuration, or allowed but probably not meant.
///
/// Shown as `path: message`. Messages never hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: Box<str>,
    message: Box<str>,
}

impl Problem {
    /// The place in the document: `cache.negative_ttl`, `require.scopes[0]`; empty for the document itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What was found there and what is allowed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the document" } else { &self.path };
        write!(f, "`{path}`: {}", self.message)
    }
}

/// A configuration that cannot be used: all of its errors, in the order of the document, what is missing last.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    problems: Box<[Problem]>,
}

impl ConfigError {
    pub(crate) fn one(path: &str, message: impl Into<String>) -> Self {
        let mut report = Report::default();
        report.error(path, message);
        Self { problems: report.errors.into() }
    }

    /// The errors, at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Collects errors and warnings while a document is read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    errors: Vec<Problem>,
    missing: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Report {
    pub(crate) fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(problem(path, message));
    }

    /// An error about something that does not stand in the document: these come last.
    pub(crate) fn missing(&mut self, path: &str, message: impl Into<String>) {
        self.missing.push(problem(path, message));
    }

    pub(crate) fn warn(&mut self, path: &str, message: impl Into<String>) {
        self.warnings.push(problem(path, message));
    }

    /// Says what was found and what is allowed.
    pub(crate) fn wrong(&mut self, path: &str, node: &Node, allowed: &str) {
        self.error(path, format!("found {}, allowed is {allowed}", shown(&node.value)));
    }

    /// The same for a field that holds a secret: only the kind is said.
    pub(crate) fn wrong_secret(&mut self, path: &str, node: &Node, allowed: &str) {
        self.error(path, format!("found {}, allowed is {allowed}", node.value.kind()));
    }

    pub(crate) fn unknown(&mut self, path: &str, name: &str, known: &[&str]) {
        let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let name = clipped(name);
        self.error(
            path,
            match nearest {
                Some(nearest) => format!("unknown field {name}, the nearest known one is `{nearest}`"),
                None => format!("unknown field {name}"),
            },
        );
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.len() + self.missing.len()
    }

    /// The warnings, if there is no error.
    pub(crate) fn finish(mut self) -> Result<Vec<Problem>, ConfigError> {
        self.errors.append(&mut self.missing);
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(ConfigError { problems: self.errors.into() }) }
    }
}

fn problem(path: &str, message: impl Into<String>) -> Problem {
    // Names in a path are the document's own: no control character of theirs may reach a terminal.
    let path: String = path.chars().flat_map(char::escape_debug).take(256).collect();
    Problem { path: path.into(), message: message.into().into() }
}

/// A value that is no secret, short and on one line.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(value) => format!("`{value}`"),
        Value::Integer(value) => format!("`{value}`"),
        Value::Float(value) => format!("`{value}`"),
        Value::String(text) => clipped(text),
        other => other.kind().to_owned(),
    }
}

pub(crate) fn clipped(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}
