//! What hosts show of an allow in logs and templates.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, not a part of the core")]

use std::time::Duration;

use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Step};

const JSON: &[Header<'_>] = &[Header { name: b"content-type", value: b"application/json" }];

fn introspector(fields: &str) -> Introspector {
    let config = format!(r#"{{"introspection_url": "https://as.example/", "authorization_value": "x"{fields}}}"#);
    Introspector::builder(Config::from_json(&config).unwrap(), Consumers::none()).build().unwrap()
}

#[test]
fn a_claim_is_shown_as_its_header_would_be() {
    let introspector = introspector("");
    let comma = introspector.policy(r#"{"array_format": "comma", "header_encoding": "utf8"}"#).unwrap();
    let repeat = introspector.policy(r#"{"array_format": "repeat"}"#).unwrap();
    let now = Now::new(Duration::from_secs(1000), Duration::from_secs(1));
    let headers = [Header::new("Authorization", "Bearer abc")];
    let Step::Introspect(exchange) = introspector.begin(&Request::new("GET", "/").headers(&headers), now) else {
        panic!("nobody is asked")
    };
    let long = "x".repeat(9000);
    let body = format!(
        r#"{{"active": true, "name": "Zo\u00eb", "n": 1e3, "all": true, "roles": ["a", "b"], "o": {{"a": 1}}, "none": null,
            "line": "a\r\nb", "long": "{long}"}}"#
    );
    let reply = Reply::Response { status: 200, headers: JSON, body: body.as_bytes() };
    let Step::Done(Decision::Allow(allow)) = exchange.resume(reply, now) else { panic!("denied") };
    let claims = allow.claims().unwrap();
    for (policy, name, expected) in [
        (None, "name", Some("UTF-8''Zo%C3%AB")),
        (Some(&comma), "name", Some("Zoë")),
        (None, "n", Some("1000")),
        (None, "all", Some("true")),
        (None, "roles", Some(r#"["a","b"]"#)),
        (Some(&comma), "roles", Some("a, b")),
        (Some(&repeat), "roles", Some(r#"["a","b"]"#)),
        (None, "o", Some(r#"{"a":1}"#)),
        (Some(&comma), "line", Some("UTF-8''a%0D%0Ab")),
        (None, "none", None),
        (None, "long", None),
        (None, "absent", None),
    ] {
        assert_eq!(introspector.claim_value(policy, claims, name).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_token_is_shown_by_its_fingerprint_where_it_would_be_read() {
    let introspector = introspector("");
    let query = introspector.policy(r#"{"token_from": ["query"]}"#).unwrap();
    let headers = [Header::new("Authorization", "Bearer abc")];
    let malformed = [Header::new("Authorization", "Bearer a\"b")];
    let request = Request::new("GET", "/?access_token=abc");
    assert_eq!(introspector.fingerprint(None, &request.headers(&headers)).as_deref(), Some("ba7816bf"));
    assert_eq!(introspector.fingerprint(Some(&query), &request).as_deref(), Some("ba7816bf"));
    assert_eq!(introspector.fingerprint(None, &request), None);
    assert_eq!(introspector.fingerprint(None, &request.headers(&malformed)), None);
}
