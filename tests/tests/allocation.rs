//! A hit allocates nothing, whatever the request carries along.

use std::time::Duration;

use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Step};

#[test]
fn a_hit_allocates_nothing() {
    let policy =
        r#"{"require": {"scopes": ["read"], "audience": ["api"], "issuer": ["https://as.example"], "consumer": true}}"#;
    let config = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==",
                     "custom_claims_forward": ["roles", "/realm/name"]}"#;
    let consumers = Consumers::from_json(r#"[{"id": "7", "username": "alice"}]"#).unwrap();
    let introspector = Introspector::builder(Config::from_json(config).unwrap(), consumers).build().unwrap();
    let policy = introspector.policy(policy).unwrap();
    let active = r#"{"active":true,"username":"alice","scope":"read write","aud":["api","b"],"iss":"https://as.example",
                     "exp":4000,"nbf":1,"sub":"é","roles":["a","b"],"realm":{"name":"x"}}"#;
    let now = Now::new(Duration::from_secs(1000), Duration::from_secs(1000));
    for (what, body) in [("a hit", active), ("a negative hit", r#"{"active":false}"#)] {
        let credentials = format!("Bearer {}", what.replace(' ', "-"));
        let headers = [
            Header::new("Host", "api.example"),
            Header::new("Accept", "*/*"),
            Header::new("Cookie", "a=b"),
            Header::new("X-Request-Id", "1"),
            Header::new("Authorization", &credentials),
        ];
        let request = Request::new("GET", "/orders?page=2&filter=%20").headers(&headers);
        for policy in [None, Some(&policy)] {
            let begin = || match policy {
                None => introspector.begin(&request, now),
                Some(policy) => introspector.begin_with(policy, &request, now),
            };
            if let Step::Introspect(exchange) = begin() {
                let headers = [Header::new("content-type", "application/json")];
                drop(exchange.resume(Reply::Response { status: 200, headers: &headers, body: body.as_bytes() }, now));
            }
            let mut seen = 0;
            let mut look = || {
                let Step::Done(decision) = begin() else { panic!("not remembered") };
                match &decision {
                    Decision::Allow(allow) => {
                        seen += allow.edits().set().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                        seen += allow.edits().remove().map(<[u8]>::len).sum::<usize>();
                    }
                    Decision::Deny(deny) => {
                        seen += deny.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                        seen += deny.body().map_or(0, str::len);
                    }
                }
            };
            look(); // the bodies of refusals are made once per process
            let allocations = allocation_counter::measure(|| (0..1000).for_each(|_| look()));
            assert_eq!(allocations.count_total, 0, "{what}, {}", policy.is_some());
            assert!(seen > 1000, "{what}");
        }
    }
}
