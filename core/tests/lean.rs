//! What a host may leave out of a request without any decision being another.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test, not a part of the core")]

use std::time::Duration;

use tokenward_core::{
    Config, Consumers, Decision, Header, Introspector, Now, Policy, Reply, Request, Step, counted_headers, is_managed,
};

const ENDPOINT: &str = r#""introspection_url": "https://as.example/", "authorization_value": "Basic eA==""#;

fn now() -> Now {
    Now::new(Duration::from_secs(1000), Duration::from_secs(1000))
}

/// Of an xorshift: the same choices each time.
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    /// A name that counts, or nearly does, or is of another kind.
    fn name(&mut self) -> Vec<u8> {
        const OTHERS: [&str; 9] = [
            "Content-Type",
            "Content-Encoding",
            "Content-Length",
            "Origin",
            "Access-Control-Request-Method",
            "Transfer-Encoding",
            "Accept",
            "X-Correlation-Id",
            "Proxy-Authorization",
        ];
        let mut name = match self.below(3) {
            0 => self.of(&OTHERS).as_bytes().to_vec(),
            _ => self.of(&counted_headers().collect::<Vec<_>>()).as_bytes().to_vec(),
        };
        if self.below(3) == 0 {
            name.extend_from_slice(self.of(&["ID", "x", "-", "_", ".scope", "s"]).as_bytes());
        }
        for byte in &mut name {
            match self.below(24) {
                0..8 => *byte = byte.to_ascii_uppercase(),
                8 if *byte == b'-' => *byte = b'_',
                9..12 if *byte == b'-' => *byte = b'.',
                12 => *byte = u8::try_from(self.below(256)).unwrap(),
                _ => {}
            }
        }
        if self.below(20) == 0 {
            name.truncate(self.below(14));
        }
        name
    }

    fn header(&mut self) -> (Vec<u8>, Vec<u8>) {
        const CREDENTIALS: [&str; 7] =
            ["Bearer good", "bearer  good", "Bearer bad", "Bearer new", "Bearer ?", "Basic good", "token good"];
        const VALUES: [&str; 6] =
            ["application/x-www-form-urlencoded", "application/json", "gzip", "17", "Bearer good", ""];
        let (name, value) = match self.below(3) {
            0 => (b"Authorization".to_vec(), self.of(&CREDENTIALS)),
            _ => (self.name(), self.of(&VALUES)),
        };
        (name, value.into())
    }
}

fn introspector(fields: &str) -> Introspector {
    let config = Config::from_json(&format!("{{{ENDPOINT}{fields}}}")).unwrap();
    let consumers = Consumers::from_json(r#"[{"id": "1", "username": "alice"}]"#).unwrap();
    let introspector = Introspector::builder(config, consumers).build().unwrap();
    let policy = introspector.policy(r#"{"token_from": ["header"]}"#).unwrap();
    for (token, body) in
        [("good", r#"{"active":true,"username":"alice","scope":"read"}"#), ("bad", r#"{"active":false}"#)]
    {
        let value = format!("Bearer {token}");
        let headers = [Header::new("Authorization", &value)];
        let request = Request::new("GET", "/").headers(&headers);
        let Step::Introspect(exchange) = introspector.begin_with(&policy, &request, now()) else {
            panic!("{token} is known")
        };
        let headers = [Header::new("Content-Type", "application/json")];
        let _ = exchange.resume(Reply::Response { status: 200, headers: &headers, body: body.as_bytes() }, now());
    }
    introspector
}

/// Everything that a host does after a decision.
fn shown(decision: Option<Decision>) -> String {
    match decision {
        None => "somebody is asked".to_owned(),
        Some(Decision::Deny(deny)) => {
            format!("{:?} {:?} {:?}", deny.reason(), deny.headers().collect::<Vec<_>>(), deny.body())
        }
        Some(Decision::Allow(allow)) => {
            let removed: Vec<String> = allow.edits().remove().map(|name| name.escape_ascii().to_string()).collect();
            format!(
                "{:?} {:?} {:?} {removed:?} {:?} {:?} {:?}",
                allow.identity(),
                allow.edits().set().collect::<Vec<_>>(),
                allow.source(),
                allow.target().map(|target| target.escape_ascii().to_string()),
                allow.body(),
                allow.response_headers().collect::<Vec<_>>(),
            )
        }
    }
}

fn counts(name: &[u8]) -> bool {
    let folded: Vec<u8> =
        name.iter().map(|byte| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() }).collect();
    counted_headers().any(|counted| folded.starts_with(counted.as_bytes()))
}

#[test]
fn what_does_not_count_changes_no_decision_about_a_lean_request() {
    const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"];
    const TARGETS: [&str; 9] = [
        "/",
        "/orders",
        "/access_token=good/and/more",
        "/?access_token=good",
        "/orders?a&access%5Ftoken=new&b",
        "http://host/orders",
        "http://host?access_token=bad",
        "*",
        "host:443",
    ];
    let mut choices = Choices(0x2545_f491_4f6c_dd1d);
    let (mut lean, mut whole) = (0, 0);
    for fields in [
        "",
        r#", "token_from": ["header", "query"], "run_on_preflight": false"#,
        r#", "token_from": ["query", "body"], "hide_credentials": false"#,
        r#", "profile": "kong", "anonymous": "1""#,
    ] {
        let introspector = introspector(fields);
        let other = introspector.policy(r#"{"token_from": ["body", "header"], "run_on_preflight": false}"#).unwrap();
        for _ in 0..20_000 {
            let lines: Vec<_> = (0..choices.below(5)).map(|_| choices.header()).collect();
            let (method, target) = (choices.of(&METHODS), choices.of(&TARGETS));
            let policy: Option<&Policy> = if choices.below(3) == 0 { Some(&other) } else { None };
            if !introspector.is_lean(policy, method.as_bytes()) {
                whole += 1;
                continue;
            }
            lean += 1;
            let all: Vec<_> = lines.iter().map(|(name, value)| Header::new(name, value)).collect();
            let few: Vec<_> = all.iter().copied().filter(|header| counts(header.name)).collect();
            let short = if target.contains('?') { target } else { "/" };
            let decide = |target: &str, headers: &[Header<'_>]| {
                let request = Request::new(method, target).headers(headers);
                shown(match policy {
                    None => introspector.lookup(&request, now()),
                    Some(policy) => introspector.lookup_with(policy, &request, now()),
                })
            };
            assert_eq!(decide(target, &all), decide(short, &few), "{method} {target} {all:?}");
            assert!(policy.is_some() || !introspector.needs_body(&Request::new(method, target).headers(&all)));
        }
    }
    assert!(lean > 40_000 && whole > 10_000, "{lean} {whole}");
}

#[test]
fn every_name_that_only_tokenward_sets_counts() {
    let mut choices = Choices(0x9e37_79b9_7f4a_7c15);
    let mut managed = 0;
    for _ in 0..200_000 {
        let name = choices.name();
        if is_managed(&name) || name.eq_ignore_ascii_case(b"authorization") {
            managed += 1;
            assert!(counts(&name), "{}", name.escape_ascii());
        }
    }
    assert!(managed > 10_000, "{managed}");
}

#[test]
fn nothing_is_left_out_where_path_body_or_preflight_count() {
    let lean = |fields: &str, method: &str| {
        let config = Config::from_json(&format!("{{{ENDPOINT}{fields}}}")).unwrap();
        let introspector = Introspector::builder(config, Consumers::none()).build().unwrap();
        introspector.is_lean(None, method.as_bytes())
    };
    assert!(lean("", "GET") && lean("", "POST") && lean("", "OPTIONS"));
    assert!(!lean("", "CONNECT"));
    assert!(!lean(r#", "introspect_request": true"#, "GET"));
    let body = r#", "token_from": ["body"]"#;
    assert!(lean(body, "GET") && lean(body, "DELETE"));
    assert!(!lean(body, "POST") && !lean(body, "PUT") && !lean(body, "PATCH"));
    assert!(!lean(r#", "run_on_preflight": false"#, "OPTIONS"));
}

#[test]
fn a_replaced_configuration_says_anew_what_counts() {
    let introspector = introspector("");
    assert!(introspector.is_lean(None, b"GET"));
    let config = Config::from_json(&format!(r#"{{{ENDPOINT}, "introspect_request": true}}"#)).unwrap();
    let policy = introspector.policy("{}").unwrap();
    introspector.replace_config(config).unwrap();
    assert!(!introspector.is_lean(None, b"GET") && !introspector.is_lean(Some(&policy), b"GET"));
}
