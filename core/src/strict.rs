//! What JSON's syntax leaves open and a reply must not do (RFC 8259 §4, §6, §8.2): name a member twice, be nested too deep, hold a
//! number that no double holds, or escapes that are no text.

use std::borrow::Cow;

use crate::claims::{has_duplicates, split_string, string};

/// How many arrays and objects may be within each other. The value of a top-level member stands at level 1 already.
const DEPTH: usize = 127;

/// Whether the value of a top-level member, whose syntax is settled, does none of that. One pass, whatever is nested in it.
///
/// Its own, and not a visitor of serde_json: that refuses integers beyond a double's range, which are kept by their digits, and takes
/// members of certain names for values of its own.
pub(crate) fn is_strict(value: &str) -> bool {
    match value.as_bytes().first() {
        Some(b'"') if !value.contains('\\') => true,
        Some(b'"' | b'[' | b'{') => walk(value),
        Some(b't' | b'f' | b'n') => true,
        _ => is_in_range(value),
    }
}

fn walk(value: &str) -> bool {
    // Of each array or object that is open: the names of its members so far, none for an array.
    let mut open: Vec<Option<Vec<Cow<'_, str>>>> = Vec::new();
    let mut is_name = false;
    let mut rest = value;
    while let Some(first) = rest.bytes().next() {
        let mut length = 1;
        match first {
            b'"' => {
                let (literal, _) = split_string(rest);
                let Some(text) = string(literal) else { return false };
                if is_name && let Some(Some(names)) = open.last_mut() {
                    names.push(text);
                }
                length = literal.len();
            }
            b'[' | b'{' if open.len() == DEPTH => return false,
            b'[' | b'{' => {
                is_name = first == b'{';
                open.push(is_name.then(Vec::new));
            }
            b']' | b'}' => {
                if let Some(Some(mut names)) = open.pop()
                    && has_duplicates(&mut names)
                {
                    return false;
                }
            }
            b':' => is_name = false,
            b',' => is_name = matches!(open.last(), Some(Some(_))),
            b'-' | b'0'..=b'9' => {
                length = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                if !rest.get(..length).is_some_and(is_in_range) {
                    return false;
                }
            }
            _ => {} // white space, and what is left of a word
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    true
}

/// An integer may have any size, another number what a double holds.
fn is_in_range(number: &str) -> bool {
    !number.contains(['.', 'e', 'E']) || number.parse().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_looked_at() {
        for value in [
            r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]}"#,
            r#"[ "a" , "a", {"a" : "a", "b":["a"] } , {} , [] ]"#,
            r#"{"a":"\"a\":1,\"a\":2"}"#,
            r#""\ud83d\ude00""#,
            "[-0, 0.5e3, 1e308]",
            "[true,false,null]",
        ] {
            assert!(is_strict(value), "{value}");
        }
        for value in [
            r#"{"a":1,"a":1}"#,
            r#"[[{"a":{"b":1,"\u0062":2}}]]"#,
            r#"{"a":{},"b":[],"a":1}"#,
            r#"["\ud800"]"#,
            r#"{"\udc00":1}"#,
            r#""\ud800""#,
            "[1e400]",
            r#"{"a":-1e400}"#,
            "1e400",
        ] {
            assert!(!is_strict(value), "{value}");
        }
    }

    #[test]
    fn an_integer_may_have_any_size_at_any_depth() {
        let digits = "9".repeat(400);
        for value in [digits.clone(), format!("[{digits}]"), format!(r#"{{"a":[-{digits} ,1]}}"#)] {
            assert!(is_strict(&value));
        }
    }
}
