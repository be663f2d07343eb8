//! Plays a vector against anything that decides, and compares.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use serde_json::Value;

use crate::vector::{At, Begin, Bytes, Expect, Load, Message, Vector};

pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A surface of Tokenward: the core, the C ABI, ...
///
/// Steps that are not done are kept by the host under their name.
pub trait Host {
    fn needs_body(&mut self, request: &Begin) -> bool;
    fn begin(&mut self, request: &Begin, now: Time) -> Result<Seen, String>;
    fn reply(&mut self, name: &str, status: u16, headers: &[(Bytes, Bytes)], body: &[u8], now: Time) -> Seen;
    fn fail(&mut self, name: &str, failure: &str, now: Time) -> Seen;
    fn resume(&mut self, name: &str, now: Time) -> Seen;
    fn abandon(&mut self, name: &str);
    fn forget(&mut self, token: &[u8]) -> bool;
    fn forget_all(&mut self);
    fn replace_consumers(&mut self, json: &str);
    fn replace_config(&mut self, json: &str);
    /// Waits whose call came since this was asked last, with what it said.
    fn woken(&mut self) -> Vec<(String, bool)>;
    /// Reasons of lines that were logged since this was asked last.
    fn logged(&mut self) -> Vec<String>;
    fn snapshot(&mut self) -> BTreeMap<String, Value>;
}

#[derive(Clone, Copy, Debug)]
pub struct Time {
    pub wall: Duration,
    pub mono: Duration,
}

/// What a step turned out to be.
#[derive(Debug)]
pub enum Seen {
    Introspect { method: String, url: String, headers: Pairs, body: Vec<u8>, time_left: Duration },
    Wait { deadline: Duration },
    Allow(Allowed),
    Deny { reason: String, number: u16, status: u16, headers: Pairs, body: Option<Vec<u8>> },
}

#[derive(Debug)]
pub struct Allowed {
    pub source: String,
    pub identity: Value,
    pub set: Pairs,
    pub remove: Vec<Vec<u8>>,
    pub target: Option<Vec<u8>>,
    pub body: Option<Vec<u8>>,
    pub response_headers: Pairs,
    pub expires: Option<f64>,
    /// JSON Pointer to JSON text, for what was asked.
    pub claims: Box<dyn ClaimsOf>,
}

/// Looks claims up by JSON Pointer.
pub trait ClaimsOf: Debug {
    fn at(&self, pointer: &str) -> Option<Value>;
}

/// Plays the steps. An error says which step was not as expected, and how.
pub fn play(vector: &Vector, host: &mut dyn Host) -> Result<(), String> {
    let mut now = time(At::Both(1000.0));
    let mut begun: BTreeMap<String, Begin> = BTreeMap::new();
    let mut calls = 0;
    for (at, step) in vector.steps.iter().enumerate() {
        let said = |problem: String| format!("step {at}: {problem}");
        if let Some(at) = step.at {
            now = time(at);
        }
        let expect = &step.expect;
        let mut seen = None;
        if let Some(begin) = &step.begin {
            let request = match &begin.like {
                Some(other) => begin.clone().like(&begun[other]),
                None => begin.clone(),
            };
            if let Some(expected) = expect.needs_body {
                same("needs_body", &host.needs_body(&request), &expected).map_err(said)?;
            }
            seen = Some(host.begin(&request, now).map_err(said)?);
            begun.insert(request.name.clone(), request);
        } else if let Some(name) = &step.reply {
            let default = [(Bytes(b"content-type".to_vec()), Bytes(b"application/json".to_vec()))];
            let headers = step.headers.as_deref().unwrap_or(&default);
            let body = step.body.as_ref().map_or(&b""[..], |body| &body.0);
            seen = Some(host.reply(name, step.status.unwrap_or(200), headers, body, now));
        } else if let Some(name) = &step.fail {
            seen = Some(host.fail(name, step.failure.as_deref().expect("a failure"), now));
        } else if let Some(name) = &step.resume {
            seen = Some(host.resume(name, now));
        } else if let Some(name) = &step.drop {
            host.abandon(name);
        } else if let Some(token) = &step.forget {
            let forgotten = host.forget(&token.0);
            if let Some(expected) = expect.forgotten {
                same("forgotten", &forgotten, &expected).map_err(said)?;
            }
        } else if step.forget_all == Some(true) {
            host.forget_all();
        } else if let Some(consumers) = &step.replace_consumers {
            host.replace_consumers(consumers.get());
        } else if let Some(config) = &step.replace_config {
            host.replace_config(&crate::vector::fill_in(config.get()));
        } else {
            return Err(said("no action".to_owned()));
        }
        if matches!(seen, Some(Seen::Introspect { .. })) {
            calls += 1;
        }
        compare(seen, expect).map_err(said)?;
        compare_around(expect, calls, host).map_err(said)?;
    }
    Ok(())
}

fn compare(seen: Option<Seen>, expect: &Expect) -> Result<(), String> {
    let expected = (&expect.introspect, &expect.wait, &expect.allow, &expect.deny);
    match (seen, expected) {
        (_, (None, None, None, None)) => Ok(()),
        (Some(Seen::Introspect { method, url, headers, body, time_left }), (Some(expected), ..)) => {
            given("method", &method, expected.method.as_ref())?;
            given("url", &url, expected.url.as_ref())?;
            given("headers", &texts(&headers), expected.headers.as_ref().map(|all| texts(&pairs(all))).as_ref())?;
            given("body", &text(&body), expected.body.as_ref().map(|body| text(&body.0)).as_ref())?;
            given("time_left", &(time_left.as_secs_f64() * 1000.0), expected.time_left.as_ref())
        }
        (Some(Seen::Wait { deadline }), (_, Some(expected), ..)) => {
            given("deadline", &deadline.as_secs_f64(), expected.deadline.as_ref())
        }
        (Some(Seen::Allow(seen)), (_, _, Some(expected), _)) => {
            given("source", &seen.source, expected.source.as_ref())?;
            given("identity", &seen.identity, expected.identity.as_ref())?;
            given("set", &texts(&seen.set), expected.set.as_ref().map(|set| texts(&pairs(set))).as_ref())?;
            let names = |names: &[Vec<u8>]| names.iter().map(text).collect::<Vec<_>>();
            let remove = expected.remove.as_ref().map(|all| all.iter().map(|name| text(&name.0)).collect());
            given("remove", &names(&seen.remove), remove.as_ref())?;
            let optional = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| text(&bytes.0));
            given("target", &seen.target.as_deref().map(text), expected.target.as_ref().map(optional).as_ref())?;
            given("body", &seen.body.as_deref().map(text), expected.body.as_ref().map(optional).as_ref())?;
            let headers = expected.response_headers.as_ref().map(|all| texts(&pairs(all)));
            given("response_headers", &texts(&seen.response_headers), headers.as_ref())?;
            given("expires", &seen.expires, expected.expires.as_ref())?;
            for (pointer, value) in expected.claims.iter().flatten() {
                same(pointer, &seen.claims.at(pointer).unwrap_or(Value::Null), value)?;
            }
            Ok(())
        }
        (Some(Seen::Deny { reason, number, status, headers, body }), (_, _, _, Some(expected))) => {
            given("reason", &reason, expected.reason.as_ref())?;
            given("number", &number, expected.number.as_ref())?;
            given("status", &status, expected.status.as_ref())?;
            given("headers", &texts(&headers), expected.headers.as_ref().map(|all| texts(&pairs(all))).as_ref())?;
            let optional = expected.body.as_ref().map(|body| body.as_ref().map(|body| text(&body.0)));
            given("body", &body.as_deref().map(text), optional.as_ref())
        }
        (seen, _) => Err(format!("expected {expect:?}, got {seen:?}")),
    }
}

fn compare_around(expect: &Expect, calls: u64, host: &mut dyn Host) -> Result<(), String> {
    let woken = host.woken();
    let names = |with: bool| {
        let mut names: Vec<String> =
            woken.iter().filter(|(_, ready)| *ready == with).map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    given("ready", &names(true), expect.ready.as_ref())?;
    given("let_go", &names(false), expect.let_go.as_ref())?;
    given("calls", &calls, expect.calls.as_ref())?;
    given("log", &host.logged(), expect.log.as_ref())?;
    if let Some(expected) = &expect.snapshot {
        let snapshot = host.snapshot();
        for (counter, value) in expected {
            match value {
                Value::Object(members) => {
                    for (name, value) in members {
                        same(&format!("{counter} {name}"), &snapshot[counter][name], value)?;
                    }
                }
                _ => same(counter, &snapshot[counter], value)?,
            }
        }
    }
    Ok(())
}

/// Paths and messages.
pub type Messages = [(String, String)];

/// Compares what loading gave with what a vector expects: lists of (path, message), and consumers.
pub fn compare_load(
    load: Option<&Load>,
    loaded: Result<&Messages, &Messages>,
    consumers: &[BTreeMap<String, Value>],
) -> Result<(), String> {
    let Some(load) = load else {
        return loaded.map(|_| ()).map_err(|errors| format!("loading failed: {errors:?}"));
    };
    match (loaded, load.errors.as_ref().or(load.consumers_errors.as_ref())) {
        (Err(errors), Some(expected)) => messages("errors", errors, expected),
        (Err(errors), None) => Err(format!("loading failed: {errors:?}")),
        (Ok(_), Some(expected)) => Err(format!("loading succeeded, expected {expected:?}")),
        (Ok(warnings), None) => {
            if let Some(expected) = &load.warnings {
                messages("warnings", warnings, expected)?;
            }
            let Some(expected) = &load.consumers else { return Ok(()) };
            same("consumers", &consumers.len(), &expected.len())?;
            for (consumer, expected) in consumers.iter().zip(expected) {
                for (member, value) in expected {
                    same(member, consumer.get(member).unwrap_or(&Value::Null), value)?;
                }
            }
            Ok(())
        }
    }
}

fn messages(what: &str, found: &[(String, String)], expected: &[Message]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} expected, found {found:#?}", expected.len()));
    }
    for ((path, message), expected) in found.iter().zip(expected) {
        given(what, path, expected.path.as_ref())?;
        let whole = format!("`{path}`: {message}");
        for part in &expected.contains {
            if !whole.contains(part.as_str()) {
                return Err(format!("{what}: {whole:?} does not contain {part:?}"));
            }
        }
        for part in &expected.lacks {
            if whole.contains(part.as_str()) {
                return Err(format!("{what}: {whole:?} contains {part:?}"));
            }
        }
    }
    Ok(())
}

fn time(at: At) -> Time {
    let (wall, mono) = match at {
        At::Both(both) => (both, both),
        At::Each { wall, mono } => (wall, mono),
    };
    let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    // To the microsecond, so that sums of decimal fractions are what they look like.
    let round = |seconds: f64| {
        let micros = (seconds * 1e6).round();
        if micros < 9e15 { Duration::from_micros(micros as u64) } else { duration(seconds) }
    };
    Time { wall: round(wall), mono: round(mono) }
}

fn pairs(all: &[(Bytes, Bytes)]) -> Pairs {
    all.iter().map(|(name, value)| (name.0.clone(), value.0.clone())).collect()
}

fn texts(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// Bytes as they can be compared and shown.
fn text(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().escape_ascii().to_string()
}

fn given<T: PartialEq + Debug>(what: &str, seen: &T, expected: Option<&T>) -> Result<(), String> {
    expected.map_or(Ok(()), |expected| same(what, seen, expected))
}

fn same<T: PartialEq + Debug>(what: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {seen:?}")) }
}
