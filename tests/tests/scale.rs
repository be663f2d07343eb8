//! What must stay small and quick however much comes. Meant for a release build (`tests/run` makes one); a debug build does a
//! hundredth of it.

use std::time::{Duration, Instant};

use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Source, Step};

const SCALE: u64 = if cfg!(debug_assertions) { 100 } else { 1 };

fn introspector(more: &str) -> Introspector {
    let config = format!(
        r#"{{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "ttl": 1000000{more}}}"#
    );
    Introspector::builder(Config::from_json(&config).unwrap(), Consumers::none()).build().unwrap()
}

fn decide(introspector: &Introspector, token: &str, now: Now, body: &str) -> Decision {
    let value = format!("Bearer {token}");
    let headers = [Header::new("Authorization", &value)];
    match introspector.begin(&Request::new("GET", "/").headers(&headers), now) {
        Step::Done(decision) => decision,
        Step::Wait(_) => panic!("nobody else asks"),
        Step::Introspect(exchange) => {
            let headers = [Header::new("content-type", "application/json")];
            let reply = Reply::Response { status: 200, headers: &headers, body: body.as_bytes() };
            match exchange.resume(reply, now) {
                Step::Done(decision) => decision,
                step => panic!("{step:?}"),
            }
        }
    }
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ten_million_junk_tokens_leave_memory_flat_and_a_hot_token_cached() {
    let introspector = introspector("");
    let now = |n: u64| Now::new(Duration::from_micros(1_000_000_000 + n), Duration::from_micros(n));
    assert!(decide(&introspector, "hot", now(0), r#"{"active":true}"#).is_allow());
    let all = 10_000_000 / SCALE;
    let mut after_a_tenth = 0;
    for n in 0..all {
        // Some junk is answered "inactive", some with an answer that is kept.
        let body = if n % 4 == 0 { r#"{"active":true,"sub":"junk"}"# } else { r#"{"active":false}"# };
        let _ = decide(&introspector, &format!("junk-{n:016x}"), now(n), body);
        if n % 1000 == 0 {
            let Decision::Allow(allow) = decide(&introspector, "hot", now(n), "") else { panic!("denied after {n}") };
            assert_eq!(allow.source(), Source::Cache, "asked again after {n}");
        }
        if n == all / 10 {
            after_a_tenth = resident();
        }
    }
    let snapshot = introspector.snapshot();
    assert!(snapshot.entries <= 100_000 && snapshot.negative_entries <= 10_000 && snapshot.bytes <= 134_217_728);
    let at_the_end = resident();
    println!("resident: {after_a_tenth} KiB after a tenth, {at_the_end} KiB at the end");
    let allowed = if SCALE == 1 { after_a_tenth + after_a_tenth / 20 + 4096 } else { 512 * 1024 };
    assert!(at_the_end <= allowed, "grew from {after_a_tenth} KiB to {at_the_end} KiB");
}

#[test]
fn requests_with_very_many_parts_are_read_in_time_proportional_to_them() {
    // Quadratic reading of these would take minutes.
    let introspector = introspector(r#", "token_from": ["header", "query", "body"]"#);
    let now = Now::new(Duration::from_secs(1), Duration::from_secs(1));
    let before = Instant::now();
    let query = format!("/?{}", "access_token=&".repeat(200_000));
    let _ = introspector.begin(&Request::new("GET", &query), now);
    let form = [Header::new("content-type", "application/x-www-form-urlencoded")];
    let body = "%61ccess_token=x&".repeat(60_000);
    let _ = introspector.begin(&Request::new("POST", "/").headers(&form).body(body.as_bytes()), now);
    let members: String = (0..60_000).map(|n| format!("\"m{n}\":{n},")).collect();
    let reply = format!("{{{members}\"active\":true}}");
    assert!(decide(&introspector, "many", now, &reply).is_allow());
    let members: String = (0..60_000).map(|_| "\"access_token\":1,").collect();
    let body = format!("{{{members}\"a\":1}}");
    let json = [Header::new("content-type", "application/json")];
    let kong = Config::from_json(
        r#"{"profile": "kong", "introspection_url": "https://as.example/", "authorization_value": "x", "anonymous": "a"}"#,
    )
    .unwrap();
    let consumers = Consumers::from_json(r#"[{"id": "a", "username": "a"}]"#).unwrap();
    let kong = Introspector::builder(kong, consumers).build().unwrap();
    let Step::Done(Decision::Allow(allow)) =
        kong.begin(&Request::new("POST", "/").headers(&json).body(body.as_bytes()), now)
    else {
        panic!()
    };
    assert_eq!(allow.body(), Some(&b"{\"a\":1}"[..]));
    let names: Vec<String> = (0..5000).map(|n| format!("X-Consumer-{n}")).collect();
    let headers: Vec<Header<'_>> = names.iter().map(|name| Header::new(name, "x")).collect();
    let _ = introspector.begin(&Request::new("GET", "/").headers(&headers), now);
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
}
