//! A directory of a million consumers. Meant for a release build (`tests/run` makes one); a debug build does a hundredth of it.

use std::time::{Duration, Instant};

use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Step};

const SCALE: u64 = if cfg!(debug_assertions) { 100 } else { 1 };

#[test]
fn a_million_consumers_load_in_seconds_and_are_looked_up_at_once() {
    use std::fmt::Write as _;

    let count = 1_000_000 / SCALE;
    let mut json = String::from("[");
    for n in 0..count {
        let comma = if n == 0 { "" } else { "," };
        write!(json, r#"{comma}{{"id":"id-{n}","username":"user-{n}","custom_id":"app-{n}"}}"#).unwrap();
    }
    json.push(']');
    let before = Instant::now();
    let consumers = Consumers::from_json(&json).unwrap();
    let elapsed = before.elapsed();
    println!("{count} consumers in {elapsed:?}");
    assert!(elapsed < Duration::from_secs(30), "a bound far from the usual, for a hang");
    let config = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA=="}"#;
    let introspector = Introspector::builder(Config::from_json(config).unwrap(), Consumers::none()).build().unwrap();
    // In constant time: otherwise this does not end.
    let at = |n: u64| consumers.at(usize::try_from(n).unwrap());
    assert!((0..count).all(|n| at(n).is_some_and(|consumer| consumer.id().ends_with(&format!("-{n}")))));
    assert!(at(count).is_none());
    introspector.replace_consumers(consumers);
    let now = Now::new(Duration::from_secs(1), Duration::from_secs(1));
    for n in [0, count / 2, count - 1] {
        let body = format!(r#"{{"active":true,"username":"user-{n}"}}"#);
        let value = format!("Bearer t{n}");
        let headers = [Header::new("Authorization", &value)];
        let Step::Introspect(exchange) = introspector.begin(&Request::new("GET", "/").headers(&headers), now) else {
            panic!()
        };
        let headers = [Header::new("content-type", "application/json")];
        let reply = Reply::Response { status: 200, headers: &headers, body: body.as_bytes() };
        let Step::Done(Decision::Allow(allow)) = exchange.resume(reply, now) else { panic!() };
        assert_eq!(allow.identity().consumer().unwrap().id(), format!("id-{n}"));
    }
}
