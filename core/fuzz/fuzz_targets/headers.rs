//! Claims and consumers of any text as header values: what is set is a legal field value (RFC 9110 5.5), and RFC 8187 decodes back.
//!
//! Input: a byte that chooses how values are written, one that says what the rest is: text, JSON, or a consumer's parts.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokenward_core::{Allow, Config, Consumers, Decision, Header, Introspector, Reply, Request, Step};
use tokenward_core_fuzz::{Input, json as reading, now};

const MARK: &str = "UTF-8''";

struct Subject {
    format: &'static str,
    utf8: bool,
    limit: usize,
    introspector: Introspector,
}

static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let mut subjects = Vec::new();
    for format in ["json", "comma", "repeat"] {
        for (utf8, limit) in [(false, 8192), (true, 8192), (false, 12), (true, 12)] {
            let config = json!({
                "introspection_url": "https://as.example/introspect",
                "authorization_value": "Basic cnM6c2VjcmV0",
                "array_format": format,
                "header_encoding": if utf8 { "utf8" } else { "rfc8187" },
                "custom_claims_forward": ["c", "/nested/d"],
                "limits": { "header_bytes": limit },
                "cache": { "enabled": false },
            });
            let config = Config::from_json(&config.to_string()).expect("a configuration");
            let introspector = Introspector::builder(config, Consumers::none()).build().expect("an introspector");
            subjects.push(Subject { format, utf8, limit, introspector });
        }
    }
    subjects
});

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let subject = &SUBJECTS[input.below(SUBJECTS.len())];
    let what = input.byte() % 4;
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    match what {
        0 => subject.consumer(text),
        1 => subject.json(text),
        _ => subject.text(text),
    }
});

impl Subject {
    /// The same value as a claim that is always forwarded, one that is by choice, and one that is nested.
    fn text(&self, text: &str) {
        self.check(&json!(text).to_string());
    }

    fn json(&self, text: &str) {
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        if reading::is_json(text) && reading::is_strict(text, 120) {
            self.check(text);
        }
    }

    fn check(&self, value: &str) {
        let reply = format!(r#"{{"active":true,"sub":{value},"c":{value},"nested":{{"d":{value}}}}}"#);
        let allow = self.allow(&reply);
        let expected = self.lines(value);
        for name in ["X-Credential-Sub", "X-Credential-c", "X-Credential-nested-d"] {
            assert_eq!(self.set(&allow, name), expected, "{name}");
        }
        let claims = allow.claims().expect("claims");
        let shown = self.introspector.claim_value(None, claims, "c");
        if self.format != "repeat" || !value.starts_with('[') {
            assert_eq!(shown.as_deref(), expected.first().map(String::as_str));
        } else {
            assert_eq!(shown, Some(compact(value)).filter(|text| text.len() <= self.limit));
        }
    }

    fn consumer(&self, text: &str) {
        let mut parts = text.splitn(3, '\n');
        let mut part = || parts.next().unwrap_or_default();
        let (id, username, custom_id) = (part(), part(), part());
        let consumers = json!([{ "id": id, "username": username, "custom_id": custom_id }]).to_string();
        let Ok(consumers) = Consumers::from_json(&consumers) else { return };
        self.introspector.replace_consumers(consumers);
        let allow = self.allow(&json!({ "active": true, "username": username }).to_string());
        for (name, text) in
            [("X-Consumer-ID", id), ("X-Consumer-Username", username), ("X-Consumer-Custom-ID", custom_id)]
        {
            assert_eq!(self.set(&allow, name), self.encoded(text).into_iter().collect::<Vec<_>>(), "{name}");
        }
    }

    fn allow(&self, reply: &str) -> Allow {
        let authorization = [Header::new("Authorization", "Bearer a")];
        let headers = [Header::new("Content-Type", "application/json")];
        let request = Request::new("GET", "/").headers(&authorization);
        let Step::Introspect(exchange) = self.introspector.begin(&request, now()) else { panic!("no call to make") };
        let reply = Reply::Response { status: 200, headers: &headers, body: reply.as_bytes() };
        match exchange.resume(reply, now()) {
            Step::Done(Decision::Allow(allow)) => allow,
            step => panic!("no allow: {step:?}"),
        }
    }

    /// The lines of a name; every line is looked at.
    fn set(&self, allow: &Allow, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, value) in allow.edits().set() {
            assert!(tokenward_core::is_managed(name.as_bytes()), "{name}");
            let legal = |byte| matches!(byte, 0x20..=0x7e) || (byte >= 0x80 && self.utf8);
            assert!(value.bytes().all(legal), "a legal field value: {value:?}");
            assert!(!value.is_empty() && value.trim_matches([' ', '\t']) == value, "no outer white space: {value:?}");
            assert!(value.len() <= self.limit, "within the limit");
            if name == wanted {
                lines.push(value.to_owned());
            }
        }
        lines
    }

    /// SPEC 8.3.
    fn lines(&self, json: &str) -> Vec<String> {
        if let Some(elements) = reading::elements(json) {
            let scalars = !elements.is_empty() && elements.iter().all(|element| !element.starts_with(['[', '{']));
            if self.format == "repeat" && scalars {
                return elements.into_iter().filter_map(|element| self.scalar(element)).collect();
            }
            let texts: Option<Vec<String>> = elements.iter().map(|element| reading::string(element)).collect();
            let plain = |text: &String| !text.is_empty() && !text.contains(',') && is_plain(text);
            let texts = texts.filter(|texts| self.format == "comma" && !texts.is_empty() && texts.iter().all(plain));
            let value = texts.map_or_else(|| compact(json), |texts| texts.join(", "));
            return Some(value).filter(|value| value.len() <= self.limit).into_iter().collect();
        }
        if json.starts_with('{') {
            return Some(compact(json)).filter(|value| value.len() <= self.limit).into_iter().collect();
        }
        self.scalar(json).into_iter().collect()
    }

    fn scalar(&self, json: &str) -> Option<String> {
        match serde_json::from_str::<Value>(json) {
            Ok(Value::Null) => None,
            Ok(Value::String(text)) => self.encoded(&text),
            Ok(Value::Bool(is)) => Some(is.to_string()).filter(|text| text.len() <= self.limit),
            _ if reading::is_integer(json) => Some(json.to_owned()).filter(|text| text.len() <= self.limit),
            _ => {
                let number: f64 = json.parse().expect("a number");
                let text = shortest(number);
                assert_eq!(text.parse(), Ok(number));
                Some(text).filter(|text| text.len() <= self.limit)
            }
        }
    }

    fn encoded(&self, text: &str) -> Option<String> {
        let outer = text.starts_with(' ') || text.ends_with(' ') || text.starts_with(MARK);
        let control = text.chars().any(|c| c < ' ' || c == '\u{7f}');
        let raw = if self.utf8 { !outer && !control } else { is_plain(text) };
        let value = if raw {
            text.to_owned()
        } else {
            let mut value = MARK.to_owned();
            for byte in text.bytes() {
                if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                    value.push(byte.into());
                } else {
                    value.push_str(&format!("%{byte:02X}"));
                }
            }
            assert_eq!(percent_decode_str(&value[MARK.len()..]).decode_utf8().as_deref(), Ok(text));
            value
        };
        Some(value).filter(|value| !value.is_empty() && value.len() <= self.limit)
    }
}

fn is_plain(text: &str) -> bool {
    let outer = text.starts_with(' ') || text.ends_with(' ') || text.starts_with(MARK);
    !outer && text.chars().all(|c| (' '..='~').contains(&c))
}

/// The digits of the shortest form with an exponent, without it.
fn shortest(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let point = 1 + exponent;
    let length = i32::try_from(digits.len()).expect("few digits");
    let zeros = |count: i32| "0".repeat(usize::try_from(count).expect("not negative"));
    let text = if point <= 0 {
        format!("{sign}0.{}{digits}", zeros(-point))
    } else if point >= length {
        format!("{sign}{digits}{}", zeros(point - length))
    } else {
        let (whole, fraction) = digits.split_at(usize::try_from(point).expect("positive"));
        format!("{sign}{whole}.{fraction}")
    };
    if number == 0.0 { format!("{sign}0") } else { text }
}

/// JSON again, member by member, in visible ASCII.
fn compact(json: &str) -> String {
    if let Some(members) = reading::members(json) {
        let member = |(name, value): &(&str, &str)| format!("{}:{}", compact(name), compact(value));
        return format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","));
    }
    if let Some(elements) = reading::elements(json) {
        return format!("[{}]", elements.into_iter().map(compact).collect::<Vec<_>>().join(","));
    }
    match reading::string(json) {
        None => json.to_owned(),
        Some(text) => {
            let mut written = String::from("\"");
            for unit in text.encode_utf16() {
                match char::from_u32(unit.into()).filter(|c| (' '..='~').contains(c)) {
                    Some(c @ ('"' | '\\')) => written.extend(['\\', c]),
                    Some(c) => written.push(c),
                    None => written.push_str(&format!("\\u{unit:04x}")),
                }
            }
            written.push('"');
            written
        }
    }
}
