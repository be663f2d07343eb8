//! Arbitrary answers of the authorization server. The oracle reads them a second time, slowly, by SPEC 4.2, 4.4 and 6.
//!
//! Input: bytes that choose profile, policy, status and header lines, and then the body.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokenward_core::{
    Claims, Config, Consumers, Decision, Header, Introspector, NumericDate, Policy, Reason, Reply, Request, Step,
};
use tokenward_core_fuzz::json::{self, Member};
use tokenward_core_fuzz::{Input, WALL, now};

const REPLY_BYTES: usize = 3000;
const LEEWAY: i64 = 10;
/// What the policies require: nothing, scopes, an audience and an issuer.
const POLICIES: [&str; 3] = [
    "{}",
    r#"{"require":{"scopes":["read write","admin"]}}"#,
    r#"{"require":{"audience":["api","other"],"issuer":["https://as.example"]}}"#,
];

struct Subject {
    kong: bool,
    introspector: Introspector,
    policies: Vec<Policy>,
}

static SUBJECTS: LazyLock<[Subject; 2]> = LazyLock::new(|| {
    [false, true].map(|kong| {
        let config = serde_json::json!({
            "introspection_url": "https://as.example/introspect",
            "authorization_value": "Basic cnM6c2VjcmV0",
            "profile": if kong { "kong" } else { "standard" },
            "leeway": LEEWAY,
            "limits": { "reply_bytes": REPLY_BYTES },
            "cache": { "enabled": false },
        });
        let config = Config::from_json(&config.to_string()).expect("a configuration");
        let introspector = Introspector::builder(config, Consumers::none()).build().expect("an introspector");
        let policies = POLICIES.map(|json| introspector.policy(json).expect("a policy")).into();
        Subject { kong, introspector, policies }
    })
});

type Lines = [(&'static str, &'static str)];

/// Header lines, and whether they say "JSON, as it is".
const HEADERS: [(&Lines, bool); 9] = [
    (&[("content-type", "application/json")], true),
    (&[("Content-Type", "Application/JSON ; charset=utf-8"), ("Content-Encoding", " identity,")], true),
    (&[("content-type", "application/json;a=b;"), ("cache-control", "no-store")], true),
    (&[("content-type", "application/json"), ("content-encoding", "identity, gzip")], false),
    (&[("content-type", "application/json"), ("content-type", "application/json")], false),
    (&[("content-type", "application/jwt")], false),
    (&[("content-type", "text/html; application/json")], false),
    (&[("content-type", "application/json, application/json")], false),
    (&[], false),
];
/// Values of `Retry-After`, and what of them reaches the client.
const RETRY_AFTER: [(&[&str], &str); 8] = [
    (&[], "1"),
    (&["5"], "5"),
    (&["0"], "1"),
    (&["3601"], "3600"),
    (&["99999999999999999999"], "3600"),
    (&[" 7 "], "7"),
    (&["Wed, 21 Oct 2026 07:28:00 GMT"], "1"),
    (&["-5"], "1"),
];
/// The most frequent one is the one that is read.
const STATUS: [u16; 16] = [200, 200, 200, 200, 200, 200, 200, 200, 400, 400, 429, 503, 500, 302, 401, 204];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let chosen = input.byte();
    let subject = &SUBJECTS[usize::from(chosen % 2)];
    let policy = usize::from(chosen / 2) % POLICIES.len();
    let status = STATUS[usize::from(chosen / 16)];
    let (lines, is_json) = HEADERS[input.byte().checked_sub(200).map_or(0, |at| usize::from(at) % HEADERS.len())];
    let (retry, seconds) = RETRY_AFTER[usize::from(chosen) % RETRY_AFTER.len()];
    let mut headers: Vec<_> = lines.iter().map(|(name, value)| Header::new(*name, *value)).collect();
    headers.extend(retry.iter().map(|value| Header::new("Retry-After", *value)));
    let body = input.rest();

    let authorization = [Header::new("Authorization", "Bearer a")];
    let request = Request::new("GET", "/").headers(&authorization);
    let Step::Introspect(exchange) = subject.introspector.begin_with(&subject.policies[policy], &request, now()) else {
        panic!("no call to make");
    };
    let step = exchange.resume(Reply::Response { status, headers: &headers, body }, now());

    let model = Model { kong: subject.kong, policy };
    let document = if is_json { document(body) } else { None };
    let expected = model.judge(status, document.as_deref());
    match (&step, expected) {
        (Step::Done(Decision::Allow(allow)), Ok(())) => {
            let claims = allow.claims().expect("claims");
            let text = std::str::from_utf8(body).expect("UTF-8").trim_matches([' ', '\t', '\n', '\r']);
            assert_eq!(claims.json(), text, "the claims are the reply's text");
            assert_eq!(allow.expires(), claims.exp());
            model.compare(claims, document.as_deref().expect("a document"));
        }
        (Step::Done(Decision::Deny(deny)), Err(reason)) if deny.reason() == reason => {
            let passed = deny.headers().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
            let expected = (reason == Reason::EndpointUnavailable).then(|| ("Retry-After".into(), seconds.into()));
            assert_eq!(passed.map(|(name, value)| (name.to_string(), value.to_string())), expected);
        }
        (step, expected) => panic!("expected {expected:?}, got {step:?}"),
    }
});

/// A body that passes what is judged first: its members.
fn document(body: &[u8]) -> Option<Vec<Member<'_>>> {
    let text = std::str::from_utf8(body).ok().filter(|_| body.len() <= REPLY_BYTES)?;
    if json::is_json(text) && json::is_strict(text, 128) { json::members(text) } else { None }
}

fn member<'a>(document: &[Member<'a>], name: &str) -> Option<&'a str> {
    document.iter().find(|(known, _)| json::string(known).as_deref() == Some(name)).map(|(_, value)| *value)
}

struct Model {
    kong: bool,
    policy: usize,
}

impl Model {
    fn judge(&self, status: u16, document: Option<&[Member<'_>]>) -> Result<(), Reason> {
        match (status, document) {
            (200, None) => Err(Reason::ReplyMalformed),
            (200, Some(document)) => self.verify(document),
            (400, Some(document))
                if member(document, "error").and_then(json::string).as_deref() == Some("unsupported_token_type") =>
            {
                Err(Reason::TokenInactive)
            }
            (429 | 500 | 502 | 503 | 504, _) => Err(Reason::EndpointUnavailable),
            _ => Err(Reason::EndpointRefused),
        }
    }

    fn verify(&self, document: &[Member<'_>]) -> Result<(), Reason> {
        match member(document, "active") {
            Some("true") => {}
            Some("false") => return Err(Reason::TokenInactive),
            _ => return Err(Reason::ReplyMalformed),
        }
        let mut dates = [None; 3];
        for (date, name) in dates.iter_mut().zip(["exp", "nbf", "iat"]) {
            if let Some(value) = member(document, name) {
                *date = Some(self.date(value).ok_or(Reason::ReplyMalformed)?);
            }
        }
        let wall = i128::from(WALL) * 1_000_000;
        let leeway = i128::from(LEEWAY) * 1_000_000;
        let [exp, nbf, _] = dates;
        if exp.is_some_and(|exp| exp + leeway <= wall) {
            return Err(Reason::TokenExpired);
        }
        if nbf.is_some_and(|nbf| nbf - leeway > wall) {
            return Err(Reason::TokenNotYetValid);
        }
        if !self.kong && is_marked(document) {
            return Err(Reason::TokenNotUsable);
        }
        let text = |name| member(document, name).and_then(json::string);
        match self.policy {
            1 => {
                let granted: Vec<String> = match member(document, "scope") {
                    Some(scope) if scope.starts_with('[') => strings(scope).unwrap_or_default(),
                    Some(_) => text("scope").iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect(),
                    None => Vec::new(),
                };
                let has = |word: &str| granted.iter().any(|granted| granted == word);
                if (has("read") && has("write")) || has("admin") { Ok(()) } else { Err(Reason::InsufficientScope) }
            }
            2 => {
                let audiences = match member(document, "aud") {
                    Some(aud) if aud.starts_with('[') => strings(aud).unwrap_or_default(),
                    _ => text("aud").into_iter().collect(),
                };
                let meant = audiences.iter().any(|audience| audience == "api" || audience == "other");
                let issued = text("iss").as_deref() == Some("https://as.example");
                if meant && issued { Ok(()) } else { Err(Reason::TokenNotUsable) }
            }
            _ => Ok(()),
        }
    }

    /// Microseconds.
    fn date(&self, value: &str) -> Option<i128> {
        let text = json::string(value).filter(|_| self.kong);
        let value = match &text {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits,
            Some(_) => return None,
            None => value,
        };
        let first = value.bytes().next()?;
        if first != b'-' && !first.is_ascii_digit() {
            return None;
        }
        let micros = if json::is_integer(value) {
            let far = if first == b'-' { i128::MIN } else { i128::MAX };
            value.parse::<i128>().unwrap_or(far).saturating_mul(1_000_000)
        } else {
            (value.parse::<f64>().ok()? * 1e6).floor() as i128
        };
        Some(micros.clamp(i64::MIN.into(), i64::MAX.into()))
    }

    fn compare(&self, claims: &Claims, document: &[Member<'_>]) {
        for (name, value) in document {
            let name = json::string(name).expect("a name");
            assert_eq!(claims.value(&name), Some(*value), "the value of {name:?}");
            assert_eq!(claims.text(&name).map(|text| text.into_owned()), json::string(value), "the text of {name:?}");
        }
        let date = |name| member(document, name).map(|value| self.date(value).expect("a date"));
        let micros = |date: Option<NumericDate>| date.map(|date| i128::from(date.microseconds()));
        assert_eq!([claims.exp(), claims.nbf(), claims.iat()].map(micros), ["exp", "nbf", "iat"].map(date));
        let mut left = 64;
        walk(claims, "", claims.json(), &mut left);
    }
}

/// RFC 6901: everything is found at its pointer.
fn walk(claims: &Claims, pointer: &str, value: &str, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    assert_eq!(claims.pointer(pointer), Some(value), "the value at {pointer:?}");
    for (name, value) in json::members(value).unwrap_or_default() {
        let name = json::string(name).expect("a name").replace('~', "~0").replace('/', "~1");
        walk(claims, &format!("{pointer}/{name}"), value, left);
    }
    for (index, value) in json::elements(value).unwrap_or_default().into_iter().enumerate() {
        walk(claims, &format!("{pointer}/{index}"), value, left);
        assert_eq!(claims.pointer(&format!("{pointer}/0{index}")), None, "no leading zero");
    }
}

/// SPEC 6: what cannot be honoured as a bearer access token.
fn is_marked(document: &[Member<'_>]) -> bool {
    const MARKS: [&str; 10] = [
        "refresh",
        "refresh_token",
        "refresh-token",
        "refresh+jwt",
        "rt+jwt",
        "offline",
        "id",
        "id_token",
        "id-token",
        "id+jwt",
    ];
    let text = |name| member(document, name).and_then(json::string).map(|text| text.to_ascii_lowercase());
    let marked = |name| text(name).is_some_and(|text| MARKS.contains(&&*text));
    member(document, "cnf").is_some()
        || text("token_type").as_deref() == Some("dpop")
        || ["token_use", "token_type", "typ"].into_iter().any(marked)
}

/// An array of strings alone.
fn strings(array: &str) -> Option<Vec<String>> {
    json::elements(array)?
        .into_iter()
        .map(|element| serde_json::from_str::<Value>(element).ok()?.as_str().map(str::to_owned))
        .collect()
}
