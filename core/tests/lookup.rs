//! A decision at once or none, and what decisions share.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, not a part of the core")]

use std::time::Duration;

use tokenward_core::{Allow, Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Source, Step};

const CONFIG: &str = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA=="}"#;

fn introspector() -> Introspector {
    Introspector::builder(Config::from_json(CONFIG).unwrap(), Consumers::none()).build().unwrap()
}

fn now() -> Now {
    Now::new(Duration::from_secs(1000), Duration::from_secs(1000))
}

fn with<R>(token: &str, then: impl FnOnce(&Request<'_>) -> R) -> R {
    let value = format!("Bearer {token}");
    then(&Request::new("GET", "/").headers(&[Header::new("Authorization", &value)]))
}

fn learn(introspector: &Introspector, token: &str) -> Allow {
    let Step::Introspect(exchange) = with(token, |request| introspector.begin(request, now())) else { panic!("known") };
    let headers = [Header::new("content-type", "application/json")];
    let reply = Reply::Response { status: 200, headers: &headers, body: br#"{"active":true}"# };
    allowed(exchange.resume(reply, now()))
}

fn allowed(step: Step) -> Allow {
    match step {
        Step::Done(Decision::Allow(allow)) => allow,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_lookup_that_finds_nothing_begins_and_counts_nothing() {
    let introspector = introspector();
    assert!(with("abc", |request| introspector.lookup(request, now())).is_none());
    let snapshot = introspector.snapshot();
    assert_eq!((snapshot.misses, snapshot.introspections, snapshot.in_flight), (0, 0, 0));
    let refused = introspector.lookup(&Request::new("GET", "/"), now());
    assert!(matches!(refused, Some(Decision::Deny(_))));
}

#[test]
fn a_lookup_finds_what_is_remembered_by_whichever_policy() {
    let introspector = introspector();
    let _ = learn(&introspector, "abc");
    let found = with("abc", |request| introspector.lookup(request, now())).unwrap();
    assert!(found.is_allow() && found.source() == Source::Cache);
    let policy = introspector.policy(r#"{"require": {"scopes": ["admin"]}}"#).unwrap();
    let found = with("abc", |request| introspector.lookup_with(&policy, request, now())).unwrap();
    assert!(!found.is_allow());
    assert_eq!(introspector.snapshot().hits, 2);
}

#[test]
fn what_is_shared_has_one_number_and_what_is_not_another() {
    let introspector = introspector();
    let first = learn(&introspector, "abc");
    let hit = || match with("abc", |request| introspector.lookup(request, now())) {
        Some(Decision::Allow(allow)) => allow.shared().map(tokenward_core::Shared::number),
        other => panic!("{other:?}"),
    };
    assert!(first.shared().is_some() && hit() == hit());
    assert_ne!(learn(&introspector, "def").shared().map(tokenward_core::Shared::number), hit());
    let before = hit();
    introspector.replace_consumers(Consumers::from_json(r#"[{"username": "alice"}]"#).unwrap());
    assert_ne!(hit(), before, "the lines to set may be others");
    introspector.forget("abc");
    assert_ne!(learn(&introspector, "abc").shared().map(tokenward_core::Shared::number), before);
}
