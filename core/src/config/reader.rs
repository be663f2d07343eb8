//! Reading fields of a document, each with its type and range.

use std::ops::RangeInclusive;

use super::Profile;
use super::node::{Member, Node, Value};
use super::report::Report;
use super::secret::{Secret, Sources};

/// Reads a document's fields into typed values and reports whatever is not what it should be.
pub(crate) struct Reader<'r> {
    pub(crate) profile: Profile,
    pub(crate) report: Report,
    pub(crate) sources: &'r dyn Sources,
}

impl Reader<'_> {
    pub(crate) fn is_kong(&self) -> bool {
        self.profile == Profile::Kong
    }

    /// The members of an object, each once. In profile `kong`, `null` means not given.
    pub(crate) fn members<'n>(&mut self, node: &'n Node, path: &str) -> Vec<&'n Member> {
        let Value::Object(members) = &node.value else {
            // What stands there may be a secret in the wrong place.
            self.report.wrong_secret(path, node, "an object");
            return Vec::new();
        };
        let mut once = Vec::with_capacity(members.len());
        for member in members {
            if member.repeated {
                self.report.error(&join(path, &member.name), "is given twice");
            } else if !(self.is_kong() && member.node.value == Value::Null) {
                once.push(member);
            }
        }
        once
    }

    pub(crate) fn boolean(&mut self, node: &Node, path: &str, value: &mut bool) {
        match node.value {
            Value::Bool(given) => *value = given,
            _ => self.report.wrong(path, node, "true or false"),
        }
    }

    /// An integer in a range.
    pub(crate) fn integer(&mut self, node: &Node, path: &str, range: RangeInclusive<u64>, unit: &str, value: &mut u64) {
        let given = match node.value {
            Value::Integer(given) => u64::try_from(given).ok().filter(|given| range.contains(given)),
            _ => None,
        };
        match given {
            Some(given) => *value = given,
            None => self.report.wrong(path, node, &format!("an integer{unit}{}", bounds(&range))),
        }
    }

    /// The same, as a size in memory.
    pub(crate) fn size(&mut self, node: &Node, path: &str, least: u64, value: &mut usize) {
        let mut given = *value as u64;
        self.integer(node, path, least..=u64::MAX, "", &mut given);
        *value = usize::try_from(given).unwrap_or(usize::MAX);
    }

    /// A number of seconds, fractions allowed, as microseconds.
    pub(crate) fn seconds(&mut self, node: &Node, path: &str, range: RangeInclusive<f64>) -> Option<i64> {
        let seconds = number(node).filter(|seconds| range.contains(seconds));
        if seconds.is_none() {
            let most = if range.end().is_finite() { format!(" to {}", range.end()) } else { " or more".to_owned() };
            self.report.wrong(path, node, &format!("a number of seconds, {}{most}", range.start()));
        }
        seconds.map(microseconds)
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node, path: &str, allowed: &str) -> Option<&'n str> {
        let text = node.text();
        if text.is_none() {
            self.report.wrong(path, node, allowed);
        }
        text
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, node: &Node, path: &str, words: &[(&str, T)], value: &mut T) {
        match node.text().and_then(|text| words.iter().find(|(word, _)| *word == text)) {
            Some((_, meaning)) => *value = *meaning,
            None => self.report.wrong(path, node, &one_of(words.iter().map(|(word, _)| *word))),
        }
    }

    /// An array, each element with its path.
    pub(crate) fn elements<'n>(&mut self, node: &'n Node, path: &str, of: &str) -> Option<Vec<(String, &'n Node)>> {
        let Value::Array(elements) = &node.value else {
            self.report.wrong(path, node, &format!("an array of {of}"));
            return None;
        };
        Some(elements.iter().enumerate().map(|(at, element)| (format!("{path}[{at}]"), element)).collect())
    }

    /// An array of strings that are not empty, at least one.
    pub(crate) fn strings(&mut self, node: &Node, path: &str) -> Option<Vec<Box<str>>> {
        const ALLOWED: &str = "a string that is not empty";
        let elements = self.elements(node, path, "strings, at least one")?;
        if elements.is_empty() {
            self.report.error(path, "found an empty array, allowed is an array of strings, at least one");
            return None;
        }
        let mut strings = Vec::with_capacity(elements.len());
        for (path, element) in elements {
            match element.text() {
                Some(text) if !text.is_empty() => strings.push(text.into()),
                _ => self.report.wrong(&path, element, ALLOWED),
            }
        }
        Some(strings)
    }

    /// A secret: its text, or a reference to a variable or a file.
    pub(crate) fn secret(&mut self, node: &Node, path: &str) -> Option<Secret> {
        const ALLOWED: &str = "a string, {\"env\": NAME} or {\"file\": PATH}";
        let found = match &node.value {
            Value::String(text) => match self.sources.reference(text) {
                Some(referred) => referred.map(Secret::new),
                None => Ok(Secret::new(text.as_str())),
            },
            Value::Object(members) => match members.as_slice() {
                [Member { name, node, .. }] if name == "env" && node.text().is_some() => {
                    self.sources.env(node.text().unwrap_or_default()).map(Secret::new)
                }
                [Member { name, node, .. }] if name == "file" && node.text().is_some() => {
                    self.sources.file(node.text().unwrap_or_default()).and_then(secret_from_file)
                }
                [Member { name, node, .. }] if name == "env" || name == "file" => {
                    self.report.wrong_secret(&join(path, name), node, "a string");
                    return None;
                }
                _ => {
                    self.report.wrong_secret(path, node, ALLOWED);
                    return None;
                }
            },
            _ => {
                self.report.wrong_secret(path, node, ALLOWED);
                return None;
            }
        };
        match found.and_then(legal_secret) {
            Ok(secret) => Some(secret),
            Err(problem) => {
                self.report.error(path, problem);
                None
            }
        }
    }

    /// A string that is no secret, but may be a reference.
    pub(crate) fn referred(&mut self, node: &Node, path: &str, allowed: &str) -> Option<String> {
        let text = self.text(node, path, allowed)?;
        match self.sources.reference(text) {
            None => Some(text.to_owned()),
            Some(Ok(text)) => Some(text),
            Some(Err(problem)) => {
                self.report.error(path, problem);
                None
            }
        }
    }
}

fn secret_from_file(bytes: Vec<u8>) -> Result<Secret, String> {
    let bytes = zeroize::Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(Secret::new(text))
}

fn legal_secret(secret: Secret) -> Result<Secret, String> {
    if secret.expose().is_empty() {
        Err("is empty".to_owned())
    } else if secret.expose().contains(['\r', '\n', '\0']) {
        Err("holds a line end or a NUL".to_owned())
    } else {
        Ok(secret)
    }
}

/// The path of a member.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub(crate) fn one_of<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn number(node: &Node) -> Option<f64> {
    match node.value {
        #[allow(clippy::cast_precision_loss, reason = "durations of more than 2^53 seconds are not measured exactly")]
        Value::Integer(number) => Some(number as f64),
        Value::Float(number) => Some(number),
        _ => None,
    }
}

/// Microseconds; what is shorter but not nothing is one.
#[allow(clippy::cast_possible_truncation, reason = "saturation is what is wanted")]
pub(crate) fn microseconds(seconds: f64) -> i64 {
    if seconds > 0.0 { ((seconds * 1e6) as i64).max(1) } else { 0 }
}

fn bounds(range: &RangeInclusive<u64>) -> String {
    if *range.end() == u64::MAX {
        format!(", {} or more", range.start())
    } else {
        format!(", {} to {}", range.start(), range.end())
    }
}
