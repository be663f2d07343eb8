//! A second reading of JSON: slow, and plain enough to be right by looking at it. serde_json says whether a text is JSON at all;
//! where its members stand, and whether one comes twice, is looked up by hand.

use std::collections::HashSet;

use serde_json::Value;

/// A member of an object: its name's text, quotes included, and its value's.
pub type Member<'a> = (&'a str, &'a str);

/// Whether a text is one JSON document, whatever is in it.
#[must_use]
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The members of an object. The text must be JSON.
#[must_use]
pub fn members(object: &str) -> Option<Vec<Member<'_>>> {
    let inner = object.trim_matches(WHITE).strip_prefix('{')?.strip_suffix('}')?;
    let mut members = Vec::new();
    for part in split(inner) {
        let colon = end_of_string(part);
        let value = part[colon..].trim_start_matches(WHITE).strip_prefix(':').expect("a colon");
        members.push((&part[..colon], value.trim_matches(WHITE)));
    }
    Some(members)
}

/// The elements of an array. The text must be JSON.
#[must_use]
pub fn elements(array: &str) -> Option<Vec<&str>> {
    let inner = array.trim_matches(WHITE).strip_prefix('[')?.strip_suffix(']')?;
    Some(split(inner))
}

/// A string's text; none if it is no string, or one that is no text (a lone surrogate).
#[must_use]
pub fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// Whether this is JSON whose values are in range and text, and in which no member comes twice. `depth`: how deep it may be nested.
#[must_use]
pub fn is_strict(json: &str, depth: usize) -> bool {
    if let Some(members) = members(json) {
        let mut names = HashSet::new();
        return depth > 0
            && members.iter().all(|(name, value)| {
                string(name).is_some_and(|name| names.insert(name)) && is_strict(value, depth - 1)
            });
    }
    if let Some(elements) = elements(json) {
        return depth > 0 && elements.iter().all(|element| is_strict(element, depth - 1));
    }
    // serde_json rounds to infinity what rounds to the largest double.
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number { is_integer(json) || json.parse().is_ok_and(f64::is_finite) } else { is_scalar(json) }
}

fn is_scalar(json: &str) -> bool {
    serde_json::from_str::<Value>(json).is_ok()
}

/// Whether a number has neither fraction nor exponent: it may have any size.
#[must_use]
pub fn is_integer(json: &str) -> bool {
    let digits = json.strip_prefix('-').unwrap_or(json);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Parts between commas that are in no string, array or object.
fn split(text: &str) -> Vec<&str> {
    let text = text.trim_matches(WHITE);
    let (mut parts, mut start, mut depth, mut at) = (Vec::new(), 0, 0_usize, 0);
    if text.is_empty() {
        return parts;
    }
    while at < text.len() {
        match text.as_bytes()[at] {
            b'"' => {
                at += end_of_string(&text[at..]);
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[start..at].trim_matches(WHITE));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(text[start..].trim_matches(WHITE));
    parts
}

/// Where the string ends that a text begins with.
fn end_of_string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}
