//! Arbitrary requests: which token is read, and what is kept from the upstream. The oracle reads SPEC 3 slowly; what is hidden plus
//! what is kept is the input.
//!
//! Input: a byte that chooses the configuration, one whether a body is handed over that nobody asked for, and then the request as text:
//! `METHOD target`, header lines, `~name` for a trailer, an empty line, the body.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokenward_core::{Allow, Config, Consumers, Decision, Header, Introspector, Policy, Reason, Reply, Request, Step};
use tokenward_core_fuzz::{Input, json, now};

struct Rules {
    kong: bool,
    header: bool,
    query: bool,
    body: bool,
    hide: bool,
    skips_preflight: bool,
    token_bytes: usize,
    body_bytes: usize,
}

struct Subject {
    rules: Rules,
    introspector: Introspector,
    /// Lets every request through, so that what is hidden can be seen.
    anonymous: Policy,
}

static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let all = ["header", "query", "body"];
    [
        (false, &all[..1], true, false, 16384, 1 << 20),
        (false, &all[..], true, false, 16384, 1 << 20),
        (true, &all[..], true, false, 16384, 1 << 20),
        (false, &all[1..], false, false, 16384, 1 << 20),
        (true, &all[..], false, true, 24, 96),
        (false, &all[..2], true, true, 16384, 1 << 20),
        (false, &all[..], true, true, 24, 96),
        (true, &all[1..], true, false, 24, 96),
    ]
    .into_iter()
    .map(|(kong, places, hide, skips_preflight, token_bytes, body_bytes)| {
        let config = serde_json::json!({
            "introspection_url": "https://as.example/introspect",
            "authorization_value": "Basic cnM6c2VjcmV0",
            "profile": if kong { "kong" } else { "standard" },
            "token_from": places,
            "hide_credentials": hide,
            "run_on_preflight": !skips_preflight,
            "limits": { "token_bytes": token_bytes, "body_bytes": body_bytes },
            "cache": { "enabled": false },
        });
        let consumers = Consumers::from_json(r#"[{"id":"1","username":"anon"}]"#).expect("consumers");
        let config = Config::from_json(&config.to_string()).expect("a configuration");
        let introspector = Introspector::builder(config, consumers).build().expect("an introspector");
        let anonymous = introspector.policy(r#"{"anonymous":"anon"}"#).expect("a policy");
        let [header, query, body] = all.map(|place| places.contains(&place));
        Subject {
            rules: Rules { kong, header, query, body, hide, skips_preflight, token_bytes, body_bytes },
            introspector,
            anonymous,
        }
    })
    .collect()
});

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let subject = &SUBJECTS[input.below(SUBJECTS.len())];
    let unasked = input.byte() % 2 == 1;
    let parsed = Parsed::read(input.rest());
    let request = Request::new(parsed.method, parsed.target).headers(&parsed.headers).trailers(&parsed.trailers);

    let model = Model { rules: &subject.rules, request: &parsed, body: None };
    let needs_body = subject.introspector.needs_body(&request);
    assert_eq!(needs_body, model.needs_body(), "whether the body is needed");
    let body = (needs_body || unasked).then_some(parsed.body);
    let request = body.map_or(request, |body| request.body(body));
    let expected = Model { body, ..model }.decide();

    let allow = match (subject.introspector.begin(&request, now()), &expected.presented) {
        (Step::Introspect(exchange), Place::Token(token)) => {
            let form = exchange.outbound().body().to_owned();
            let (name, value) = url::form_urlencoded::parse(form.as_bytes()).next().expect("a parameter");
            assert_eq!((&*name, value.as_bytes()), ("token", &token[..]));
            let headers = [Header::new("Content-Type", "application/json")];
            let reply = Reply::Response { status: 200, headers: &headers, body: br#"{"active":true}"# };
            done(exchange.resume(reply, now())).expect("an allow")
        }
        (step, presented) => match (done(step), presented) {
            (Ok(allow), Place::Preflight) => allow,
            (Err(reason), _) if presented.reason() == Some(reason) => {
                let step = subject.introspector.begin_with(&subject.anonymous, &request, now());
                done(step).expect("the anonymous consumer's allow")
            }
            (seen, _) => panic!("expected {presented:?}, got {seen:?}"),
        },
    };

    let removed: Vec<&[u8]> = allow.edits().remove().collect();
    assert_eq!(removed, expected.remove, "the names that are removed");
    assert_eq!(allow.target(), expected.target.as_deref(), "the target");
    assert_eq!(allow.response_headers().count(), usize::from(expected.private), "whether answers are private");
    match (allow.body(), expected.json) {
        (Some(kept), Some(json)) => assert_cut(kept, json),
        (kept, _) => assert_eq!(kept, expected.body.as_deref(), "the body"),
    }
    // A second opinion about the query: another reader finds no token in it.
    if subject.rules.hide && parsed.method != b"CONNECT" {
        let target = allow.target().unwrap_or(parsed.target);
        if let Some(at) = target.iter().position(|&byte| byte == b'?') {
            assert!(url::form_urlencoded::parse(&target[at + 1..]).all(|(name, _)| name != "access_token"));
        }
    }
});

fn done(step: Step) -> Result<Allow, Reason> {
    match step {
        Step::Done(Decision::Allow(allow)) => Ok(allow),
        Step::Done(Decision::Deny(deny)) => Err(deny.reason()),
        step => panic!("not done: {step:?}"),
    }
}

struct Parsed<'a> {
    method: &'a [u8],
    target: &'a [u8],
    headers: Vec<Header<'a>>,
    trailers: Vec<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> Parsed<'a> {
    fn read(text: &'a [u8]) -> Self {
        let (line, mut rest) = cut(text, b'\n');
        let (method, target) = cut(line, b' ');
        let (mut headers, mut trailers) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (line, behind) = cut(rest, b'\n');
            rest = behind;
            match line {
                [] => break,
                [b'~', name @ ..] => trailers.push(name),
                _ => {
                    let (name, value) = cut(line, b':');
                    headers.push(Header { name, value });
                }
            }
        }
        Self { method, target, headers, trailers, body: rest }
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.to_owned();
        let is = move |header: &&Header<'a>| header.name.eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(is).map(|header| header.value).collect::<Vec<_>>().into_iter()
    }
}

/// What stands before a byte and what behind it.
fn cut(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    let mut parts = text.splitn(2, |&byte| byte == at);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[derive(Debug)]
enum Place {
    Nothing,
    Bad,
    Token(Vec<u8>),
    /// Nobody looked.
    Preflight,
}

impl Place {
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Nothing => Some(Reason::TokenMissing),
            Self::Bad => Some(Reason::RequestMalformed),
            _ => None,
        }
    }
}

struct Expected<'a> {
    presented: Place,
    remove: Vec<&'a [u8]>,
    target: Option<Vec<u8>>,
    body: Option<Vec<u8>>,
    /// In place of `body`: the document that a member is cut out of.
    json: Option<&'a str>,
    private: bool,
}

#[derive(Clone, Copy)]
struct Model<'a> {
    rules: &'a Rules,
    request: &'a Parsed<'a>,
    body: Option<&'a [u8]>,
}

impl<'a> Model<'a> {
    fn decide(&self) -> Expected<'a> {
        let rules = self.rules;
        let mut expected = Expected {
            presented: Place::Preflight,
            remove: self.removed(),
            target: self.kept_target(),
            body: None,
            json: None,
            private: false,
        };
        if self.is_skipped() {
            return expected;
        }
        let mut places = Vec::new();
        let settled = |places: &[Place]| rules.kong && places.iter().any(|place| !matches!(place, Place::Nothing));
        if rules.header {
            places.push(self.header());
        }
        if rules.query && !settled(&places) {
            let place = self.query().map_or(Place::Nothing, |query| self.parameter(query));
            expected.private = matches!(place, Place::Token(_));
            places.push(place);
        }
        if rules.body
            && !settled(&places)
            && let Some(body) = self.body
            && let Some(is_json) = self.form()
            && body.len() <= rules.body_bytes
        {
            places.push(if is_json { self.member(body) } else { self.parameter(body) });
            if rules.hide && is_json {
                expected.json = object(body).filter(|text| token_members(text).next().is_some());
            } else if rules.hide {
                expected.body = kept_parameters(body);
            }
        }
        let tokens = places.iter().filter(|place| matches!(place, Place::Token(_))).count();
        let is_bad = tokens > 1 || places.iter().any(|place| matches!(place, Place::Bad));
        let token = places.into_iter().find(|place| matches!(place, Place::Token(_)));
        expected.presented = if is_bad { Place::Bad } else { token.unwrap_or(Place::Nothing) };
        expected
    }

    fn needs_body(&self) -> bool {
        let declared = self.request.values("content-length").next().map_or(0, |value| {
            let digits = String::from_utf8_lossy(value.trim_ascii()).into_owned();
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { digits.parse().unwrap_or(usize::MAX) } else { 0 }
        });
        let earlier = || {
            let header = self.rules.header && !matches!(self.header(), Place::Nothing);
            let query = self.query().map_or(Place::Nothing, |query| self.parameter(query));
            header || (self.rules.query && !matches!(query, Place::Nothing))
        };
        self.rules.body
            && !self.is_skipped()
            && self.form().is_some()
            && declared <= self.rules.body_bytes
            && !(self.rules.kong && earlier())
    }

    /// SPEC 9.3.
    fn is_skipped(&self) -> bool {
        let has = |name| self.request.values(name).next().is_some();
        self.rules.skips_preflight
            && self.request.method == b"OPTIONS"
            && (self.rules.kong || (has("origin") && has("access-control-request-method")))
    }

    /// SPEC 3.1.
    fn header(&self) -> Place {
        let lines: Vec<_> = self.request.values("authorization").collect();
        let credentials = match lines[..] {
            [] => return Place::Nothing,
            [line] => self.credentials(line),
            _ => return Place::Bad,
        };
        credentials.map_or(Place::Nothing, |token| self.checked(token.to_vec()))
    }

    fn credentials(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let white = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = line.iter().position(|byte| !white(byte))?;
        let end = line.iter().rposition(|byte| !white(byte))? + 1;
        let line = &line[start..end];
        let scheme = line.iter().position(white).unwrap_or(line.len());
        let ours: &[&str] = if self.rules.kong { &["bearer", "token"] } else { &["bearer"] };
        let name = String::from_utf8_lossy(&line[..scheme]).to_ascii_lowercase();
        let token = &line[scheme..];
        ours.contains(&&*name).then(|| &token[token.iter().take_while(|&&byte| byte == b' ').count()..])
    }

    /// SPEC 3.4: the query of the forms that have one.
    fn query(&self) -> Option<&'a [u8]> {
        let target = self.request.target;
        let at = target.iter().position(|&byte| byte == b'?')?;
        let before = String::from_utf8_lossy(&target[..at]);
        let is_absolute = before.split_once("://").is_some_and(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
        let has_query = self.request.method != b"CONNECT" && (before.starts_with('/') || is_absolute);
        has_query.then(|| &target[at + 1..])
    }

    /// SPEC 3.2.
    fn parameter(&self, text: &[u8]) -> Place {
        let found: Vec<_> = text.split(|&byte| byte == b'&').filter(|parameter| is_token(parameter)).collect();
        match found[..] {
            [] => Place::Nothing,
            [one] => match cut(one, b'=').1 {
                b"" => Place::Nothing,
                value => decoded(value).map_or(Place::Bad, |token| self.checked(token)),
            },
            _ if self.rules.kong => Place::Nothing,
            _ => Place::Bad,
        }
    }

    fn member(&self, body: &[u8]) -> Place {
        let Some(text) = object(body) else { return Place::Nothing };
        let values: Vec<_> = token_members(text).collect();
        let [value] = values[..] else { return Place::Nothing };
        match json::string(value) {
            Some(token) if !token.is_empty() => self.checked(token.into_bytes()),
            _ => Place::Nothing,
        }
    }

    /// Of a body that is searched: whether it is JSON.
    fn form(&self) -> Option<bool> {
        let types: Vec<_> = self.request.values("content-type").collect();
        let [media_type] = types[..] else { return None };
        let essence = String::from_utf8_lossy(cut(media_type, b';').0.trim_ascii()).to_ascii_lowercase();
        let plain = self.request.values("content-encoding").all(|value| {
            let coding = |part: &[u8]| part.trim_ascii().to_ascii_lowercase();
            value.split(|&byte| byte == b',').map(coding).all(|coding| coding.is_empty() || coding == b"identity")
        });
        if !plain || ![&b"POST"[..], b"PUT", b"PATCH"].contains(&self.request.method) {
            return None;
        }
        match &*essence {
            "application/x-www-form-urlencoded" => Some(false),
            "application/json" if self.rules.kong => Some(true),
            _ => None,
        }
    }

    fn checked(&self, token: Vec<u8>) -> Place {
        let body = String::from_utf8_lossy(&token).trim_end_matches('=').to_owned();
        let legal = !body.is_empty() && body.chars().all(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        if legal && token.len() <= self.rules.token_bytes { Place::Token(token) } else { Place::Bad }
    }

    /// SPEC 3.5 and 8.2.
    fn removed(&self) -> Vec<&'a [u8]> {
        let mut removed: Vec<&[u8]> = Vec::new();
        if self.rules.hide && self.request.values("authorization").any(|line| self.credentials(line).is_some()) {
            removed.push(b"Authorization");
        }
        let names = self.request.headers.iter().map(|header| header.name).chain(self.request.trailers.iter().copied());
        for name in names {
            let folded = String::from_utf8_lossy(name).to_ascii_lowercase().replace(['_', '.'], "-");
            let managed = folded == "x-anonymous-consumer"
                || folded.starts_with("x-consumer-")
                || folded.starts_with("x-credential-");
            if managed && !removed.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                removed.push(name);
            }
        }
        removed
    }

    fn kept_target(&self) -> Option<Vec<u8>> {
        let target = self.request.target;
        let at = target.iter().position(|&byte| byte == b'?')?;
        if !self.rules.hide || self.request.method == b"CONNECT" {
            return None;
        }
        let kept = kept_parameters(&target[at + 1..])?;
        let question: &[u8] = if kept.is_empty() { b"" } else { b"?" };
        Some([&target[..at], question, &kept].concat())
    }
}

/// Without those that are called `access_token`; none if there is none.
fn kept_parameters(text: &[u8]) -> Option<Vec<u8>> {
    let all: Vec<_> = text.split(|&byte| byte == b'&').collect();
    let kept: Vec<_> = all.iter().copied().filter(|parameter| !is_token(parameter)).collect();
    (kept.len() < all.len()).then(|| kept.join(&b'&'))
}

fn is_token(parameter: &[u8]) -> bool {
    decoded(cut(parameter, b'=').0).as_deref() == Some(b"access_token")
}

fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits = text.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                decoded.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                at += 2;
            }
            byte => decoded.push(byte),
        }
        at += 1;
    }
    Some(decoded)
}

/// A body that is a JSON object.
fn object(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    (json::is_json(text) && json::members(text).is_some()).then_some(text)
}

/// Values of the members `access_token`.
fn token_members(object: &str) -> impl Iterator<Item = &str> {
    let members = json::members(object).unwrap_or_default().into_iter();
    members.filter(|(name, _)| json::string(name).as_deref() == Some("access_token")).map(|(_, value)| value)
}

/// `kept` is `object` without its members `access_token`, the other members as they stood.
fn assert_cut(kept: &[u8], object: &str) {
    let kept = std::str::from_utf8(kept).expect("UTF-8");
    assert!(json::is_json(kept), "what is kept is JSON: {kept:?}");
    let mut expected = json::members(object).expect("an object");
    expected.retain(|(name, _)| json::string(name).as_deref() != Some("access_token"));
    assert_eq!(json::members(kept), Some(expected), "the members that are kept");
    let mut input = object.bytes();
    assert!(kept.bytes().all(|byte| input.any(|other| other == byte)), "nothing is added");
}
