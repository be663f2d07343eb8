//! No token and no secret in a log line, a metric, an error or `Debug` output, with each of them where it may stand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokenward_core::{
    Config, Consumers, Document, Failure, Header, Introspector, Loader, Now, Record, Reply, Request, Step,
};

/// Each stands for one thing that must not be seen.
const MARKS: &[&str] = &[
    "AUTHORIZATION-VALUE",
    "CLIENT-SECRET",
    "PARAM-VALUE",
    "HEADER-VALUE",
    "URL-QUERY",
    "ENV-VALUE",
    "HEADER-TOKEN",
    "QUERY-TOKEN",
    "BODY-TOKEN",
    "BASIC-CREDENTIALS",
    "REPLY-CLAIM",
    "REPLY-TEXT",
    "REQUEST-HEADER",
];

#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn add(&self, text: impl std::fmt::Display) {
        use std::fmt::Write as _;
        writeln!(self.0.lock().unwrap(), "{text}").unwrap();
    }

    fn check(&self) {
        let text = self.0.lock().unwrap();
        for mark in MARKS {
            assert!(!text.contains(mark), "{mark} was said:\n{text}");
        }
    }
}

fn now(seconds: u64) -> Now {
    Now::new(Duration::from_secs(seconds), Duration::from_secs(seconds))
}

#[test]
fn everything_that_is_said_while_requests_are_decided() {
    let said = Said::default();
    let config = r#"{
        "introspection_url": "https://as.example/introspect?key=URL-QUERY", "token_from": ["header", "query", "body"],
        "authorization_value": "Basic AUTHORIZATION-VALUE",
        "introspection_params": {"p": "PARAM-VALUE", "e": {"env": "NAME"}},
        "custom_introspection_headers": {"X-Key": "HEADER-VALUE"},
        "custom_claims_forward": ["secret_claim"], "anonymous": "nobody", "anonymous_on": ["unavailable"]
    }"#;
    let (config, consumers) =
        Loader::new().environment(|_| Some("ENV-VALUE".to_owned())).text(config).unwrap().into_parts();
    said.add(format_args!("{config:?} {:?} {:?}", config.policy(), config.warnings_with(&consumers)));
    let sink = said.clone();
    let introspector = Introspector::builder(config, consumers)
        .log(move |record: &Record<'_>| sink.add(format_args!("{record} {record:?}")))
        .build()
        .unwrap();
    let json = [Header::new("Content-Type", "application/json"), Header::new("Set-Cookie", "REPLY-TEXT")];
    let response = |status, body: &'static str| Reply::Response { status, headers: &json, body: body.as_bytes() };
    let outcomes = [
        response(200, r#"{"active":true,"sub":"REPLY-CLAIM","secret_claim":["REPLY-CLAIM"],"exp":2000}"#),
        response(200, r#"{"active":true,"exp":"REPLY-TEXT"}"#),
        response(200, "REPLY-TEXT"),
        response(400, r#"{"error":"unsupported_token_type","error_description":"REPLY-TEXT"}"#),
        response(401, "REPLY-TEXT"),
        response(503, "REPLY-TEXT"),
        Reply::Failed(Failure::Connect),
        Reply::Failed(Failure::TimedOut),
    ];
    let form = [Header::new("Content-Type", "application/x-www-form-urlencoded")];
    let bearer = [Header::new("Authorization", "Bearer HEADER-TOKEN"), Header::new("X-Consumer-ID", "REQUEST-HEADER")];
    let basic = [Header::new("Authorization", "Basic BASIC-CREDENTIALS")];
    let bad = [Header::new("Authorization", "Bearer HEADER-TOKEN,REQUEST-HEADER")];
    let requests = [
        Request::new("GET", "/").headers(&bearer),
        Request::new("GET", "/?access_token=QUERY-TOKEN&a=b"),
        Request::new("POST", "/").headers(&form).body(b"access_token=BODY-TOKEN"),
        Request::new("GET", "/").headers(&basic),
        Request::new("GET", "/").headers(&bad),
        Request::new("GET", "/?access_token=QUERY-TOKEN%zz"),
    ];
    let mut at = 1000;
    for request in &requests {
        for outcome in &outcomes {
            at += 2;
            said.add(format_args!("{request:?} {outcome:?}"));
            let mut steps = vec![introspector.begin(request, now(at)), introspector.begin(request, now(at))];
            while let Some(step) = steps.pop() {
                said.add(format_args!("{step:?}"));
                match step {
                    Step::Introspect(exchange) => {
                        said.add(format_args!("{:?}", exchange.outbound()));
                        steps.insert(0, exchange.resume(*outcome, now(at)));
                    }
                    Step::Wait(wait) => steps.insert(0, wait.resume(now(at))),
                    Step::Done(tokenward_core::Decision::Allow(allow)) => {
                        said.add(format_args!("{:?} {:?} {:?}", allow.claims(), allow.edits(), allow.identity()));
                    }
                    Step::Done(tokenward_core::Decision::Deny(deny)) => {
                        said.add(format_args!("{:?} {:?}", deny.headers().collect::<Vec<_>>(), deny.body()));
                    }
                }
            }
            introspector.forget_all();
        }
    }
    let snapshot = introspector.snapshot();
    said.add(format_args!("{snapshot:?} {} {introspector:?}", snapshot.prometheus()));
    assert!(said.0.lock().unwrap().contains("endpoint_unreachable"), "the log was captured");
    said.check();
}

#[test]
fn everything_that_is_said_about_wrong_configurations() {
    let said = Said::default();
    for config in [
        r#"{"introspection_url": "https://user:CLIENT-SECRET@as.example/?URL-QUERY"}"#,
        r#"{"introspection_url": "ftp://as.example/?URL-QUERY", "authorization_value": ["AUTHORIZATION-VALUE"]}"#,
        r#"{"introspection_url": "http://as.example/?URL-QUERY#x", "authorization_value": "AUTHORIZATION-VALUE\r\n"}"#,
        r#"{"introspection_url": "URL-QUERY", "authorization_value": "AUTHORIZATION-VALUE\u0001"}"#,
        r#"{"client_auth": {"method": "client_secret_basic", "client_secret": {"value": "CLIENT-SECRET"}}}"#,
        r#"{"client_auth": {"method": "client_secret_basic", "client_secret": "CLIENT-SECRET\u0000"}}"#,
        r#"{"client_auth": "CLIENT-SECRET", "introspection_params": "PARAM-VALUE"}"#,
        r#"{"client_auth": ["CLIENT-SECRET"], "introspection_params": {"token": "PARAM-VALUE", "x": ["PARAM-VALUE"]}}"#,
        r#"{"custom_introspection_headers": {"Host": "HEADER-VALUE", "X-A": " HEADER-VALUE", "X B": "HEADER-VALUE"}}"#,
        r#"{"client_secret": "CLIENT-SECRET", "authorization_valeu": "AUTHORIZATION-VALUE"}"#,
        r#"{"authorization_value": "AUTHORIZATION-VALUE" "CLIENT-SECRET"}"#,
        "{\"authorization_value\": \"AUTHORIZATION-VALUE",
        "_format_version: '3.0'\nplugins:\n- name: oauth2-introspection\n  config:\n   authorization_value: AUTHORIZATION-VALUE\n  - broken: CLIENT-SECRET\n",
        "_format_version: '3.0'\nplugins:\n- name: oauth2-introspection\n  config:\n    authorization_value: [AUTHORIZATION-VALUE]\n",
        "_format_version: '3.0'\nplugins:\n- name: oauth2-introspection\n  config:\n    authorization_value: AUTHORIZATION-VALUE ${{ ENV-VALUE\n",
    ] {
        let error = Document::from_text(config).unwrap_err();
        said.add(format_args!("{error} {error:?}"));
        if let Err(error) = Config::from_json(config) {
            said.add(format_args!("{error} {error:?}"));
        }
    }
    said.add(Consumers::from_json(r#"[{"username": "a", "password": "CLIENT-SECRET"}]"#).unwrap_err());
    said.check();
}
