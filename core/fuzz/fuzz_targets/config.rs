//! Arbitrary configurations, Kong files, policies and consumers. What is refused is refused the same way twice, in words without
//! control characters and without a secret; what is accepted is good for a legal HTTP request (SPEC 1, 4.1), whatever it says.
//!
//! Input: a byte that chooses what the text is read as, and the text.

#![no_main]

use std::collections::HashSet;
use std::fmt::Debug;
use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokenward_core::{
    Config, ConfigError, Consumers, Decision, Document, Header, Introspector, Loader, Outbound, Problem, Reply,
    Request, Step,
};
use tokenward_core_fuzz::{Input, json, now};
use url::Url;

/// What every variable of the environment holds.
const FROM_ENVIRONMENT: &str = "Basic from-the-environment";

/// What is in the secrets of vectors and dictionary.
const MARK: &str = "cnM6";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let what = input.byte() % 8;
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    // Configurations name files, and some of these never end. What looks like what is looked for would be found.
    if ["dev", "proc", "sys", "tmp", "fd", "from-the-env"].iter().any(|word| text.contains(word)) {
        return;
    }
    let secrets = secrets(text);
    match what {
        0 | 1 => {
            if let Ok(config) = twice(|| Config::from_json(text), &secrets) {
                try_out(&config, &Consumers::none(), text, &secrets);
            }
        }
        2..=5 => {
            if let Ok(document) = twice(|| load(text), &secrets) {
                try_out(document.config(), document.consumers(), text, &secrets);
                same_as_yaml(text, &document);
            }
        }
        6 => {
            let config = Config::from_json(r#"{"introspection_url":"https://a","authorization_value":"x"}"#);
            let config = config.expect("a configuration");
            let introspector = Introspector::builder(config, Consumers::none()).build().expect("an introspector");
            let _ = twice(|| introspector.policy(text), &secrets);
        }
        _ => {
            if let Ok(consumers) = twice(|| Consumers::from_json(text), &secrets) {
                are_told_apart(&consumers);
            }
        }
    }
});

fn load(text: &str) -> Result<Document, ConfigError> {
    Loader::new().environment(|_| Some(FROM_ENVIRONMENT.to_owned())).text(text)
}

fn twice<T: Debug>(read: impl Fn() -> Result<T, ConfigError>, secrets: &[String]) -> Result<T, ConfigError> {
    let (first, second) = (read(), read());
    match (&first, &second) {
        (Err(first), Err(second)) => {
            assert!(!first.problems().is_empty());
            assert_eq!(first.problems(), second.problems(), "the same problems each time");
            for problem in first.problems() {
                is_printable(problem, secrets);
            }
        }
        (Ok(first), Ok(_)) => is_silent(&format!("{first:?}"), secrets),
        _ => panic!("{first:?} and then {second:?}"),
    }
    first
}

fn is_printable(problem: &Problem, secrets: &[String]) {
    let text = problem.to_string();
    assert!(!text.chars().any(char::is_control), "a problem can be logged: {text:?}");
    assert!(text.len() < 2000, "a problem is no longer than it must be: {} bytes", text.len());
    is_silent(&text, secrets);
}

fn is_silent(text: &str, secrets: &[String]) {
    assert!(!text.contains(FROM_ENVIRONMENT), "{text}");
    for secret in secrets {
        assert!(!text.contains(secret.as_str()), "a secret is shown: {text}");
    }
}

/// Texts of secret fields that stand once in the document.
fn secrets(text: &str) -> Vec<String> {
    fn collect(value: &Value, secret: bool, found: &mut Vec<String>) {
        match value {
            Value::String(text) if secret => found.push(text.clone()),
            Value::Object(members) => {
                for (name, value) in members {
                    let is = ["authorization_value", "client_secret"].contains(&name.as_str());
                    let all = ["custom_introspection_headers", "introspection_params"].contains(&name.as_str());
                    let nested = secret && !matches!(name.as_str(), "env" | "file");
                    if all && let Value::Object(members) = value {
                        members
                            .values()
                            .filter(|value| value.is_string())
                            .for_each(|value| collect(value, true, found));
                    } else {
                        collect(value, is || nested, found);
                    }
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| collect(element, false, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(document) = serde_json::from_str(text) {
        collect(&document, false, &mut found);
    }
    // With a mark that no message has, and no reference, which an error names.
    let is_marked = |secret: &String| secret.contains(MARK) && !secret.contains("vault") && !secret.contains("env");
    found.retain(|secret| secret.len() >= 12 && text.matches(secret.as_str()).count() == 1 && is_marked(secret));
    found
}

/// Asks, and is answered.
fn try_out(config: &Config, consumers: &Consumers, text: &str, secrets: &[String]) {
    for warning in config.warnings_with(consumers) {
        is_printable(&warning, secrets);
    }
    are_told_apart(consumers);
    let introspector = Introspector::builder(config.clone(), consumers.clone()).build().expect("an introspector");
    let headers = [Header::new("authorization", "Bearer a+/=")];
    let request = Request::new("GET", "/p\u{e4}th?q").headers(&headers);
    let mut step = introspector.begin(&request, now());
    if let Step::Introspect(exchange) = step {
        is_legal(exchange.outbound(), text);
        let headers = [Header::new("content-type", "application/json")];
        let body = br#"{"active":true,"username":"alice","scope":"a b","aud":["x"],"exp":17000000000}"#;
        step = exchange.resume(Reply::Response { status: 200, headers: &headers, body }, now());
    }
    match step {
        Step::Done(Decision::Allow(allow)) => {
            for (name, value) in allow.edits().set() {
                is_field(name, value, true);
            }
        }
        Step::Done(Decision::Deny(deny)) => {
            for (name, value) in deny.headers() {
                is_field(name, &value, false);
            }
            assert!(deny.body().is_none_or(json::is_json));
        }
        step => panic!("no decision: {step:?}"),
    }
}

/// SPEC 1.1 and 4.1.
fn is_legal(call: &Outbound, text: &str) {
    let url = Url::parse(call.url()).expect("a URL");
    let host = url.host_str().expect("a host");
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let allowed = text.contains("allow_insecure_http") || text.contains("kong") || text.contains("_format_version");
    // A name may be written with escapes.
    let allowed = allowed || text.contains("\\u") || text.contains("\\x") || text.contains("\\U");
    assert!(url.scheme() == "https" || (url.scheme() == "http" && (is_loopback || allowed)), "{url}");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
    let mut names = Vec::new();
    for (name, value) in call.headers() {
        is_field(name, value, false);
        names.push(name.to_ascii_lowercase());
    }
    for name in ["content-type", "accept", "accept-encoding"] {
        assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name}");
    }
    for name in ["host", "content-length", "connection", "transfer-encoding", "expect", "te", "trailer", "upgrade"] {
        assert!(!names.iter().any(|known| known == name), "{name}");
    }
    assert!(names.iter().filter(|name| *name == "authorization").count() <= 1);
    assert!(call.body().bytes().all(|byte| byte.is_ascii_graphic()), "a form");
    let form: Vec<_> = url::form_urlencoded::parse(call.body().as_bytes()).collect();
    assert_eq!(form.first().map(|(name, value)| (&**name, &**value)), Some(("token", "a+/=")));
    assert_eq!(form.iter().filter(|(name, _)| name == "token").count(), 1, "one token");
    assert!(!call.time_left().is_zero());
}

/// RFC 9110 5.1 and 5.5.
fn is_field(name: &str, value: &str, may_be_text: bool) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    assert!(!name.is_empty() && name.bytes().all(is_token), "{name:?}");
    let legal = |byte| matches!(byte, b' '..=b'~' | b'\t') || byte >= 0x80;
    assert!(value.bytes().all(legal), "{value:?}");
    assert!(!may_be_text || value.trim_matches([' ', '\t']) == value, "{value:?}");
}

/// SPEC 7: each part is its consumer's alone.
fn are_told_apart(consumers: &Consumers) {
    let mut ids = HashSet::new();
    let mut usernames = HashSet::new();
    let mut custom_ids = HashSet::new();
    for consumer in consumers.iter() {
        assert!(!consumer.id().is_empty() && ids.insert(consumer.id().to_owned()));
        assert!(consumer.username().is_some() || consumer.custom_id().is_some());
        assert!(consumer.username().is_none_or(|name| !name.is_empty() && usernames.insert(name.to_owned())));
        assert!(consumer.custom_id().is_none_or(|id| !id.is_empty() && custom_ids.insert(id.to_owned())));
    }
}

/// JSON is YAML: a Kong file that is accepted as both is the same.
fn same_as_yaml(text: &str, document: &Document) {
    if !text.trim_start().starts_with('{') {
        return;
    }
    let Ok(yaml) = load(&format!("---\n{text}")) else { return };
    let parts = |document: &Document| {
        let consumers: Vec<_> = document.consumers().iter().map(|consumer| format!("{consumer:?}")).collect();
        (document.config().introspection_url().to_owned(), document.config().timeout(), consumers)
    };
    assert_eq!(parts(&yaml), parts(document));
}
