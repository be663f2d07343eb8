//! Every vector, replayed through the core. Each is a test of its own name; all that the core said on the way, at the most
//! verbose level, is searched for what it must never say.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokenward_core::{
    Config, ConfigError, Consumers, Decision, Exchange, Failure, Header, Identity, Introspector, Level, Loader, Now,
    Record, Reply, Request, Step, Wait,
};
use tokenward_tests::player::{self, Allowed, ClaimsOf, Host, Pairs, Seen, Time};
use tokenward_tests::vector::{self, Begin, Bytes, Vector};

fn main() {
    let tests = vector::all()
        .into_iter()
        .map(|(area, vector)| {
            let name = format!("{area}: {}", vector.name);
            libtest_mimic::Trial::test(name, move || replay(&vector).map_err(Into::into))
        })
        .collect();
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), tests).exit();
}

fn replay(vector: &Vector) -> Result<(), String> {
    let said = Said::default();
    let loaded = load(vector);
    let list = |problems: &[tokenward_core::Problem]| -> Vec<(String, String)> {
        problems.iter().map(|problem| (problem.path().to_owned(), problem.message().to_owned())).collect()
    };
    let (config, consumers) = match loaded {
        Ok(parts) => parts,
        Err(error) => {
            said.add(format!("{error} {error:?}"));
            player::compare_load(vector.load.as_ref(), Err(&list(error.problems())), &[])?;
            return search(vector, &said);
        }
    };
    let directory: Vec<BTreeMap<String, Value>> = consumers.iter().map(|consumer| describe(consumer)).collect();
    let warnings = list(&config.warnings_with(&consumers));
    player::compare_load(vector.load.as_ref(), Ok(&warnings), &directory)?;
    said.add(format!("{config:?} {consumers:?} {warnings:?}"));

    let sink = said.clone();
    let introspector = Introspector::builder(config, consumers)
        .log(move |record: &Record<'_>| {
            if record.level <= Level::Warn
                && let Some(reason) = record.reason
            {
                sink.0.lock().unwrap().reasons.push(reason.name().to_owned());
            }
            sink.add(format!("{record} {record:?}"));
        })
        .build()
        .map_err(|error| error.to_string())?;
    let mut core = Core { introspector, said: said.clone(), steps: HashMap::new(), woken: Arc::default() };
    player::play(vector, &mut core)?;
    let snapshot = core.introspector.snapshot();
    said.add(format!("{snapshot:?} {} {:?}", snapshot.prometheus(), core.introspector));
    drop(core);
    search(vector, &said)
}

fn load(vector: &Vector) -> Result<(Config, Consumers), ConfigError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tokenward-vectors-{}-{number}", std::process::id()));
    for (name, content) in &vector.files {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), &content.0).unwrap();
    }
    let env = vector.env.clone();
    let mut loader = Loader::new().folder(folder).environment(move |name| env.get(name).cloned());
    if let Some(select) = &vector.select {
        loader = loader.select(select);
    }
    let (config, mut consumers) = match (&vector.kong, &vector.document) {
        (Some(kong), None) => loader.text(kong)?.into_parts(),
        (None, Some(document)) => loader.text(document.get())?.into_parts(),
        _ if vector.env.is_empty() && vector.files.is_empty() => {
            (Config::from_json(&vector.config_text())?, Consumers::none())
        }
        _ => loader.text(&vector.config_text())?.into_parts(),
    };
    if let Some(json) = &vector.consumers {
        consumers = Consumers::from_json(json.get())?;
    }
    Ok((config, consumers))
}

fn describe(consumer: &tokenward_core::Consumer) -> BTreeMap<String, Value> {
    let tags: Vec<&str> = consumer.tags().collect();
    let groups: Vec<&str> = consumer.groups().collect();
    let members = [
        ("id", json!(consumer.id())),
        ("username", json!(consumer.username())),
        ("custom_id", json!(consumer.custom_id())),
        ("tags", json!(tags)),
        ("groups", json!(groups)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// All that was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Words>>);

#[derive(Default)]
struct Words {
    text: String,
    reasons: Vec<String>,
}

impl Said {
    fn add(&self, text: String) {
        let mut words = self.0.lock().unwrap();
        words.text.push_str(&text);
        words.text.push('\n');
    }
}

/// Fails if a token or a secret of the vector was said.
fn search(vector: &Vector, said: &Said) -> Result<(), String> {
    let text = &said.0.lock().unwrap().text;
    for secret in secrets(vector) {
        if secret.len() >= 6 && text.contains(&secret) {
            return Err(format!("{secret:?} was said in {text}"));
        }
    }
    Ok(())
}

fn secrets(vector: &Vector) -> Vec<String> {
    let mut secrets: Vec<String> = vector.env.values().cloned().collect();
    secrets.extend(vector.files.values().map(|bytes| String::from_utf8_lossy(&bytes.0).trim().to_owned()));
    let text = vector.document.as_ref().map_or_else(|| vector.config_text(), |document| document.get().to_owned());
    if vector.kong.is_none()
        && let Ok(config) = serde_json::from_str::<Value>(&text)
    {
        let mut add = |value: &Value| secrets.extend(value.as_str().map(str::to_owned));
        add(&config["authorization_value"]);
        add(&config["client_auth"]["client_secret"]);
        for map in ["introspection_params", "custom_introspection_headers"] {
            config[map].as_object().into_iter().flat_map(|map| map.values()).for_each(&mut add);
        }
    }
    for begin in vector.steps.iter().filter_map(|step| step.begin.as_ref()) {
        for (name, value) in begin.headers.iter().flatten() {
            if name.0.eq_ignore_ascii_case(b"authorization") {
                let value = String::from_utf8_lossy(&value.0).into_owned();
                secrets.extend(value.split_whitespace().last().map(str::to_owned));
            }
        }
        let target = begin.target.as_ref().map(|target| String::from_utf8_lossy(&target.0).into_owned());
        let token =
            target.iter().flat_map(|target| target.split(['?', '&'])).filter_map(|p| p.strip_prefix("access_token="));
        secrets.extend(token.map(str::to_owned));
    }
    secrets
}

enum Kept {
    Exchange(Exchange),
    Wait(Wait),
}

struct Core {
    introspector: Introspector,
    said: Said,
    steps: HashMap<String, Kept>,
    woken: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Core {
    fn see(&mut self, name: &str, step: Step) -> Seen {
        self.said.add(format!("{step:?}"));
        match step {
            Step::Done(decision) => decided(&decision),
            Step::Introspect(exchange) => {
                let call = exchange.outbound();
                let seen = Seen::Introspect {
                    method: call.method().to_owned(),
                    url: call.url().to_owned(),
                    headers: call.headers().map(|(n, v)| (n.into(), v.into())).collect(),
                    body: call.body().into(),
                    time_left: call.time_left(),
                };
                self.steps.insert(name.to_owned(), Kept::Exchange(exchange));
                seen
            }
            Step::Wait(wait) => {
                let seen = Seen::Wait { deadline: wait.deadline() };
                self.steps.insert(name.to_owned(), Kept::Wait(wait));
                seen
            }
        }
    }

    fn parked(&mut self, name: &str, step: Step, is_new: bool) -> Seen {
        if let Step::Wait(wait) = &step
            && is_new
        {
            let (woken, name) = (Arc::clone(&self.woken), name.to_owned());
            wait.on_ready(move |ready| woken.lock().unwrap().push((name, ready)));
        }
        self.see(name, step)
    }

    fn exchange(&mut self, name: &str) -> Exchange {
        match self.steps.remove(name) {
            Some(Kept::Exchange(exchange)) => exchange,
            _ => panic!("{name} does not stand at introspect"),
        }
    }
}

fn request<R>(begin: &Begin, with_body: bool, then: impl FnOnce(&Request<'_>) -> R) -> R {
    let method = begin.method.as_ref().map_or(&b"GET"[..], |method| &method.0);
    let target = begin.target.as_ref().map_or(&b"/"[..], |target| &target.0);
    let headers: Vec<Header<'_>> =
        begin.headers.iter().flatten().map(|(name, value)| Header::new(&name.0, &value.0)).collect();
    let trailers: Vec<&[u8]> = begin.trailers.iter().flatten().map(|name| &name.0[..]).collect();
    let mut request = Request::new(method, target).headers(&headers).trailers(&trailers);
    if with_body && let Some(body) = &begin.body {
        request = request.body(&body.0);
    }
    then(&request)
}

fn now(time: Time) -> Now {
    Now::new(time.wall, time.mono)
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Pairs {
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

fn decided(decision: &Decision) -> Seen {
    match decision {
        Decision::Allow(allow) => Seen::Allow(Allowed {
            source: allow.source().name().to_owned(),
            identity: match allow.identity() {
                Identity::Consumer(consumer) => json!({ "consumer": consumer.id() }),
                Identity::Anonymous(consumer) => json!({ "anonymous": consumer.id() }),
                Identity::Unmatched => json!("unmatched"),
                Identity::None => json!("none"),
            },
            set: pairs(allow.edits().set()),
            remove: allow.edits().remove().map(<[u8]>::to_vec).collect(),
            target: allow.target().map(<[u8]>::to_vec),
            body: allow.body().map(<[u8]>::to_vec),
            response_headers: pairs(allow.response_headers()),
            expires: allow.expires().map(|date| date.microseconds() as f64 / 1e6),
            claims: Box::new(Decided(decision.clone())),
        }),
        Decision::Deny(deny) => Seen::Deny {
            reason: deny.reason().name().to_owned(),
            number: deny.reason().number(),
            status: deny.status(),
            headers: pairs(deny.headers()),
            body: deny.body().map(|body| body.as_bytes().to_vec()),
        },
    }
}

#[derive(Debug)]
struct Decided(Decision);

impl ClaimsOf for Decided {
    fn at(&self, pointer: &str) -> Option<Value> {
        let Decision::Allow(allow) = &self.0 else { return None };
        let json = allow.claims()?.pointer(pointer)?;
        Some(serde_json::from_str(json).expect("a claim is JSON"))
    }
}

impl Host for Core {
    fn needs_body(&mut self, begin: &Begin) -> bool {
        request(begin, false, |request| match &begin.policy {
            None => self.introspector.needs_body(request),
            Some(json) => self.introspector.needs_body_with(&self.introspector.policy(json.get()).unwrap(), request),
        })
    }

    fn begin(&mut self, begin: &Begin, time: Time) -> Result<Seen, String> {
        let step = match &begin.policy {
            None => request(begin, true, |request| self.introspector.begin(request, now(time))),
            Some(json) => {
                let policy = self.introspector.policy(json.get()).map_err(|error| error.to_string())?;
                request(begin, true, |request| self.introspector.begin_with(&policy, request, now(time)))
            }
        };
        Ok(self.parked(&begin.name, step, true))
    }

    fn reply(&mut self, name: &str, status: u16, headers: &[(Bytes, Bytes)], body: &[u8], time: Time) -> Seen {
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| Header::new(&name.0, &value.0)).collect();
        let reply = Reply::Response { status, headers: &headers, body };
        let step = self.exchange(name).resume(reply, now(time));
        self.parked(name, step, true)
    }

    fn fail(&mut self, name: &str, failure: &str, time: Time) -> Seen {
        let failure = Failure::from_name(failure).expect("a failure");
        let step = self.exchange(name).resume(Reply::Failed(failure), now(time));
        self.parked(name, step, true)
    }

    fn resume(&mut self, name: &str, time: Time) -> Seen {
        let Some(Kept::Wait(wait)) = self.steps.remove(name) else { panic!("{name} does not stand at wait") };
        let step = wait.resume(now(time));
        self.parked(name, step, true)
    }

    fn abandon(&mut self, name: &str) {
        assert!(self.steps.remove(name).is_some(), "{name} does not stand");
    }

    fn forget(&mut self, token: &[u8]) -> bool {
        self.introspector.forget(std::str::from_utf8(token).expect("a token"))
    }

    fn forget_all(&mut self) {
        self.introspector.forget_all();
    }

    fn replace_consumers(&mut self, json: &str) {
        self.introspector.replace_consumers(Consumers::from_json(json).expect("consumers"));
    }

    fn replace_config(&mut self, json: &str) {
        self.introspector.replace_config(Config::from_json(json).expect("a configuration")).expect("randomness");
    }

    fn woken(&mut self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.woken.lock().unwrap())
    }

    fn logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said.0.lock().unwrap().reasons)
    }

    fn snapshot(&mut self) -> BTreeMap<String, Value> {
        let snapshot = self.introspector.snapshot();
        let mut decisions: BTreeMap<String, u64> =
            snapshot.denied.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect();
        decisions.insert("allow".to_owned(), snapshot.allowed);
        let counters = [
            ("hits", json!(snapshot.hits)),
            ("negative_hits", json!(snapshot.negative_hits)),
            ("misses", json!(snapshot.misses)),
            ("waits", json!(snapshot.waits)),
            ("evictions", json!(snapshot.evictions)),
            ("values_left_out", json!(snapshot.values_left_out)),
            ("bodies_not_searched", json!(snapshot.bodies_not_searched)),
            ("entries", json!(snapshot.entries)),
            ("negative_entries", json!(snapshot.negative_entries)),
            ("bytes", json!(snapshot.bytes)),
            ("in_flight", json!(snapshot.in_flight)),
            ("introspections", json!(snapshot.introspections)),
            ("decisions", json!(decisions)),
        ];
        counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
