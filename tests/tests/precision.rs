//! Another crate of a host's build may switch on serde_json's `arbitrary_precision`, for everybody. Numbers mean the same then.

use std::time::Duration;

use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Step};

#[test]
fn numbers_mean_what_they_mean_without_it() {
    let text = serde_json::from_str::<serde_json::Value>("1.10").unwrap().to_string();
    assert_eq!(text, "1.10", "the feature is on");
    let config = r#"{"introspection_url": "https://as.example/", "authorization_value": "x", "ttl": 0.5, "timeout": 700,
                     "custom_claims_forward": ["n", "list"]}"#;
    let introspector = Introspector::builder(Config::from_json(config).unwrap(), Consumers::none()).build().unwrap();
    let now = Now::new(Duration::from_secs(1000), Duration::from_secs(1000));
    let decide = |token: &str, body: &str| {
        let value = format!("Bearer {token}");
        let headers = [Header::new("Authorization", &value)];
        let Step::Introspect(exchange) = introspector.begin(&Request::new("GET", "/").headers(&headers), now) else {
            panic!()
        };
        let headers = [Header::new("content-type", "application/json")];
        match exchange.resume(Reply::Response { status: 200, headers: &headers, body: body.as_bytes() }, now) {
            Step::Done(Decision::Allow(allow)) => {
                Some(allow.edits().set().map(|(_, value)| value.to_owned()).collect())
            }
            Step::Done(Decision::Deny(_)) => None,
            step => panic!("{step:?}"),
        }
    };
    let good = decide("a", r#"{"active":true,"exp":1e10,"n":12345678901234567890123,"list":[1.50,-0]}"#);
    let expected: Vec<String> = ["10000000000", "12345678901234567890123", "[1.50,-0]"].map(str::to_owned).into();
    assert_eq!(good, Some(expected));
    for bad in [r#"{"active":true,"n":1e400}"#, r#"{"active":true,"n":[1e400]}"#, r#"{"active":true,"exp":"1"}"#] {
        assert_eq!(decide(&bad.replace(|c: char| !c.is_ascii_alphanumeric(), "."), bad), None::<Vec<String>>, "{bad}");
    }
    for wrong in ["1.5", "-1", "null", "1e3"] {
        let config = config.replace("700", wrong);
        assert!(Config::from_json(&config).is_err(), "{wrong}");
    }
}
