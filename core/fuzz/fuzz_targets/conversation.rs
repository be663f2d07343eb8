//! Arbitrary conversations: requests begin, are answered, fail, go away, wait; tokens are forgotten, configurations replaced, and both
//! clocks move both ways. The oracle looks at nothing but what was said so far, and holds what must never happen:
//!
//! - no allow after `exp`, none before `nbf`, none without an active answer about that very token that was asked for after the last
//!   forgetting, and none from the cache beyond `ttl` or after the answer was taken back;
//! - at most one call under way for a token;
//! - nobody waits past its deadline, no wake-up is lost, and each call back comes exactly once;
//! - a refusal has its cause, and nothing is left over at the end.
//!
//! Input: a byte that chooses the first configuration, then an operation a byte, each with its arguments.

#![no_main]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokenward_core::{
    Config, Consumers, Decision, Exchange, Failure, Header, Introspector, Now, Policy, Reason, Reply, Request, Source,
    Step, Wait,
};
use tokenward_core_fuzz::{Input, WALL};

const SECOND: i64 = 1_000_000;
const TOKENS: [&str; 3] = ["a", "b", "c"];
const BEARER: [&str; 3] = ["Bearer a", "Bearer b", "Bearer c"];
const PATHS: [&str; 2] = ["/", "/other?x"];
/// How far clocks move, in microseconds.
const MOVES: [i64; 8] = [1, SECOND / 4, SECOND / 2, SECOND, 2 * SECOND, 3 * SECOND, 10 * SECOND, 3600 * SECOND];
/// No conversation is longer.
const OPERATIONS: usize = 100;

struct Shape {
    config: Config,
    endpoint: &'static str,
    by_request: bool,
    ttl: Option<i64>,
    negative_ttl: i64,
    leeway: i64,
    timeout: i64,
    attempts: u32,
    limit: usize,
    cache: bool,
    capacity: usize,
    max_bytes: usize,
}

static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let one = "https://as.example/one";
    [
        // endpoint, introspect_request, ttl (0: until_exp), negative_ttl, leeway, attempts, limit, cache, capacity, bytes
        (one, false, 2, 1, 0, 2, 1024, true, 1000, 1 << 20),
        (one, false, 0, 5, 1, 1, 1024, true, 1000, 1 << 20),
        (one, false, 30, 0, 0, 3, 1, true, 1000, 1 << 20),
        (one, true, 2, 2, 0, 2, 2, true, 1000, 1 << 20),
        ("https://as.example/two", false, 2, 1, 0, 2, 1024, true, 1000, 1 << 20),
        (one, false, 5, 5, 0, 2, 1024, true, 1, 1 << 20),
        (one, false, 5, 5, 0, 2, 1024, true, 1000, 900),
        (one, false, 2, 1, 0, 2, 2, false, 1000, 1 << 20),
    ]
    .into_iter()
    .map(|(endpoint, by_request, ttl, negative_ttl, leeway, attempts, limit, cache, capacity, max_bytes)| {
        let config = serde_json::json!({
            "introspection_url": endpoint,
            "authorization_value": "Basic cnM6c2VjcmV0",
            "introspect_request": by_request,
            "ttl": if ttl == 0 { serde_json::json!("until_exp") } else { ttl.into() },
            "timeout": 2000,
            "leeway": leeway,
            "retry": { "attempts": attempts },
            "limits": { "concurrent_introspections": limit },
            "cache": {
                "enabled": cache,
                "negative_ttl": negative_ttl,
                "capacity": capacity,
                "negative_capacity": 2,
                "max_bytes": max_bytes,
            },
        });
        Shape {
            config: Config::from_json(&config.to_string()).expect("a configuration"),
            endpoint,
            by_request,
            ttl: (ttl > 0).then_some(ttl * SECOND),
            negative_ttl: negative_ttl * SECOND,
            leeway: leeway * SECOND,
            timeout: 2 * SECOND,
            attempts,
            limit,
            cache,
            capacity,
            max_bytes,
        }
    })
    .collect()
});

static CONSUMERS: LazyLock<Consumers> =
    LazyLock::new(|| Consumers::from_json(r#"[{"id":"1","username":"alice"}]"#).expect("consumers"));

/// What a reply says, and what has to become of it.
#[derive(Clone, Copy, Debug)]
enum Said {
    /// `exp` and `nbf` in seconds after now, whether the scope is granted.
    Active(Option<i64>, Option<i64>, bool),
    Inactive,
    Nothing(Reason),
}

const REPLIES: [(u16, Said); 12] = [
    (200, Said::Active(None, None, true)),
    (200, Said::Active(Some(1), None, true)),
    (200, Said::Active(Some(3), None, false)),
    (200, Said::Active(Some(0), None, true)),
    (200, Said::Active(Some(-5), None, true)),
    (200, Said::Active(None, Some(2), true)),
    (200, Said::Active(Some(3600), Some(-1), true)),
    (200, Said::Inactive),
    (400, Said::Inactive),
    (503, Said::Nothing(Reason::EndpointUnavailable)),
    (401, Said::Nothing(Reason::EndpointRefused)),
    (200, Said::Nothing(Reason::ReplyMalformed)),
];

/// About whom is asked: the token, and the path where the endpoint is told of it.
type Key = (usize, usize);

/// A request, for as long as it is not decided.
struct Live {
    key: Key,
    token: usize,
    /// Requires a scope.
    strict: bool,
    shape: &'static Shape,
    /// Configurations of other endpoints share nothing.
    generation: usize,
    /// Where sizes change, calls under way stay behind, though answers are kept.
    era: usize,
    begun: usize,
    deadline: i64,
    /// When its call began, if it stands at one.
    asked: Option<Asked>,
    step: Step,
    waker: Option<Rc<Waker>>,
}

#[derive(Clone, Copy)]
struct Asked {
    /// Of the first attempt.
    since: usize,
    attempt: u32,
    wall: i64,
    mono: i64,
}

/// What one registration was told.
struct Waker {
    ready: Arc<AtomicU32>,
    let_go: Arc<AtomicU32>,
    replaced: Cell<bool>,
}

struct Answer {
    key: Key,
    token: usize,
    generation: usize,
    said: Said,
    exp: Option<i64>,
    nbf: Option<i64>,
    /// Of the request that asked: it may have taken over an older call.
    begun: usize,
    asked: Asked,
    given: usize,
    /// It came in time to be of use to others.
    shared: bool,
    /// It was written if there was room: no other call for it began while it was under way.
    alone: bool,
}

struct World {
    introspector: Introspector,
    strict: Policy,
    shape: &'static Shape,
    generation: usize,
    era: usize,
    live: Vec<Live>,
    answers: Vec<Answer>,
    /// When a token was last forgotten: the moments, for each token.
    forgotten: BTreeMap<usize, Vec<usize>>,
    wall: i64,
    mono: i64,
    latest: i64,
    /// Counts what happens.
    moment: usize,
    decided: u64,
    wakers: Vec<Rc<Waker>>,
    /// A clock was set back, or a configuration replaced: what is remembered may be gone.
    may_have_lost: bool,
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut world = World::new(input.choose(&[0, 1, 2, 3, 4, 5, 6, 7]));
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        world.moment += 1;
        let operation = input.byte() % 16;
        match operation {
            0..=3 => world.begin(input.byte()),
            4..=6 => world.reply(input.byte(), input.choose(&REPLIES)),
            7 => world.fail(input.byte(), input.choose(&Failure::ALL)),
            8 | 9 => world.resume(input.byte()),
            10 => world.leave(input.byte()),
            11 => world.forward(input.byte()),
            12 => world.set_clock(input.byte()),
            13 => world.forget(input.byte()),
            14 => world.replace(input.byte()),
            _ => world.decline(input.byte()),
        }
        world.check();
    }
    world.end();
});

impl World {
    fn new(shape: usize) -> Self {
        let shape = &SHAPES[shape];
        let introspector =
            Introspector::builder(shape.config.clone(), CONSUMERS.clone()).build().expect("an introspector");
        let strict = introspector.policy(r#"{"require":{"scopes":["read"]}}"#).expect("a policy");
        Self {
            introspector,
            strict,
            shape,
            generation: 0,
            era: 0,
            live: Vec::new(),
            answers: Vec::new(),
            forgotten: BTreeMap::new(),
            wall: i64::try_from(WALL).expect("a date") * SECOND,
            mono: 10_000 * SECOND,
            latest: 10_000 * SECOND,
            moment: 0,
            decided: 0,
            wakers: Vec::new(),
            may_have_lost: false,
        }
    }

    fn now(&self) -> Now {
        let micros = |micros: i64| Duration::from_micros(micros.try_into().expect("not negative"));
        Now::new(micros(self.wall), micros(self.mono))
    }

    fn begin(&mut self, chosen: u8) {
        let chosen = usize::from(chosen);
        let (token, path, strict) = (chosen % 3, chosen / 3 % 2, chosen / 6 % 2 == 1);
        let headers = [Header::new("Authorization", BEARER[token])];
        let request = Request::new("GET", PATHS[path]).headers(&headers);
        let now = self.now();
        let policy = strict.then_some(&self.strict);
        let known = match policy {
            Some(policy) => self.introspector.lookup_with(policy, &request, now),
            None => self.introspector.lookup(&request, now),
        };
        let step = match policy {
            Some(policy) => self.introspector.begin_with(policy, &request, now),
            None => self.introspector.begin(&request, now),
        };
        self.decided += u64::from(known.is_some());
        match (&known, &step) {
            (Some(known), Step::Done(decision)) => assert_eq!(known.is_allow(), decision.is_allow()),
            (None, Step::Done(Decision::Deny(deny))) if deny.reason() == Reason::Overloaded => {}
            (None, Step::Introspect(_) | Step::Wait(_)) => {}
            (known, step) => panic!("looked up {known:?}, begun {step:?}"),
        }
        let live = Live {
            key: (token, if self.shape.by_request { path } else { 0 }),
            token,
            strict,
            shape: self.shape,
            generation: self.generation,
            era: self.era,
            begun: self.moment,
            deadline: self.mono + self.shape.timeout,
            asked: None,
            step,
            waker: None,
        };
        if matches!(live.step, Step::Introspect(_)) {
            self.must_ask(&live);
        }
        self.settle(live);
    }

    fn reply(&mut self, at: u8, (status, said): (u16, Said)) {
        let Some((mut live, exchange, asked)) = self.take_exchange(at) else { return };
        let now = self.now();
        let seconds = self.wall.div_euclid(SECOND);
        let date = |name: &str, after: Option<i64>| {
            after.map_or_else(String::new, |after| format!(r#","{name}":{}"#, seconds + after))
        };
        let body = match said {
            Said::Active(exp, nbf, scope) => {
                let scope = if scope { r#","scope":"write read""# } else { "" };
                format!(r#"{{"active":true,"username":"alice"{}{}{scope}}}"#, date("exp", exp), date("nbf", nbf))
            }
            Said::Inactive if status == 200 => r#"{"active":false}"#.to_owned(),
            Said::Inactive => r#"{"error":"unsupported_token_type"}"#.to_owned(),
            Said::Nothing(_) => r#"{"active":"true"}"#.to_owned(),
        };
        let micros = |after: Option<i64>| after.map(|after| (seconds + after) * SECOND);
        let (exp, nbf) = if let Said::Active(exp, nbf, _) = said { (micros(exp), micros(nbf)) } else { (None, None) };
        self.record(&live, asked, said, exp, nbf);
        let headers = [Header::new("content-type", "application/json")];
        live.step = exchange.resume(Reply::Response { status, headers: &headers, body: body.as_bytes() }, now);
        let Step::Done(decision) = &live.step else { panic!("no decision: {:?}", live.step) };
        assert_eq!(decision.source(), Source::Endpoint);
        assert_eq!(reason(decision), self.judge(self.answers.last().expect("an answer"), &live));
        self.settle(live);
    }

    fn fail(&mut self, at: u8, failure: Failure) {
        let Some((mut live, exchange, asked)) = self.take_exchange(at) else { return };
        let in_time = self.mono < live.deadline;
        live.step = exchange.resume(Reply::Failed(failure), self.now());
        let may_retry = matches!(failure, Failure::Connect | Failure::Closed);
        if may_retry && in_time && asked.attempt < live.shape.attempts {
            assert!(matches!(live.step, Step::Introspect(_)), "another attempt: {:?}", live.step);
            live.asked = Some(Asked { attempt: asked.attempt + 1, wall: self.wall, mono: self.mono, ..asked });
            self.live.push(live);
            return;
        }
        let expected = match failure {
            Failure::TimedOut => Reason::EndpointTimedOut,
            Failure::Protocol | Failure::TooLong | Failure::CutOff => Reason::ReplyMalformed,
            _ => Reason::EndpointUnreachable,
        };
        self.record(&live, asked, Said::Nothing(expected), None, None);
        let Step::Done(decision) = &live.step else { panic!("no decision: {:?}", live.step) };
        assert_eq!((decision.source(), reason(decision)), (Source::Endpoint, Some(expected)));
        self.settle(live);
    }

    fn decline(&mut self, at: u8) {
        let Some((mut live, exchange, asked)) = self.take_exchange(at) else { return };
        self.record(&live, asked, Said::Nothing(Reason::Overloaded), None, None);
        live.step = exchange.decline(self.now());
        let Step::Done(decision) = &live.step else { panic!("no decision: {:?}", live.step) };
        assert_eq!(reason(decision), Some(Reason::Overloaded));
        self.decided += 1;
    }

    fn resume(&mut self, at: u8) {
        let Some((mut live, wait)) = self.take_wait(at) else { return };
        let until = micros(wait.deadline());
        live.step = wait.resume(self.now());
        if let Step::Wait(again) = &live.step {
            assert!(self.mono < live.deadline, "nobody waits past its own deadline");
            assert!(self.mono < micros(again.deadline()) || self.mono < until, "nor past its wait's");
        }
        self.settle(live);
    }

    /// Drops a step, whatever it stands at.
    fn leave(&mut self, at: u8) {
        if !self.live.is_empty() {
            let at = usize::from(at) % self.live.len();
            drop(self.live.remove(at));
        }
    }

    fn forward(&mut self, by: u8) {
        let by = MOVES[usize::from(by) % MOVES.len()];
        self.wall += by;
        self.mono += by;
        self.latest = self.latest.max(self.mono);
    }

    /// One clock alone, forwards or backwards.
    fn set_clock(&mut self, by: u8) {
        let by = usize::from(by);
        let distance = MOVES[by % 8] * if by / 8 % 2 == 0 { 1 } else { -1 };
        let clock = if by / 16 % 2 == 0 { &mut self.wall } else { &mut self.mono };
        *clock = clock.saturating_add(distance).max(0);
        self.latest = self.latest.max(self.mono);
        self.may_have_lost = true;
    }

    fn forget(&mut self, token: u8) {
        let token = usize::from(token) % 4;
        let tokens = match TOKENS.get(token) {
            Some(name) => {
                let _ = self.introspector.forget(name);
                token..token + 1
            }
            None => {
                self.introspector.forget_all();
                0..TOKENS.len()
            }
        };
        for token in tokens {
            self.forgotten.entry(token).or_default().push(self.moment);
        }
    }

    fn replace(&mut self, shape: u8) {
        let shape = usize::from(shape) % (SHAPES.len() + 1);
        let Some(shape) = SHAPES.get(shape) else {
            self.introspector.replace_consumers(CONSUMERS.clone());
            return;
        };
        self.introspector.replace_config(shape.config.clone()).expect("a configuration");
        if (shape.endpoint, shape.by_request) != (self.shape.endpoint, self.shape.by_request) {
            self.generation += 1;
            self.era += 1;
        } else if (shape.capacity, shape.max_bytes) != (self.shape.capacity, self.shape.max_bytes) {
            self.era += 1;
        }
        self.shape = shape;
        self.may_have_lost = true;
    }

    fn take_exchange(&mut self, at: u8) -> Option<(Live, Exchange, Asked)> {
        let standing: Vec<usize> = self.standing(|step| matches!(step, Step::Introspect(_)));
        let mut live = self.live.remove(*standing.get(usize::from(at) % standing.len().max(1))?);
        let asked = live.asked.take().expect("it asks");
        match std::mem::replace(&mut live.step, Step::Done(Decision::internal(false))) {
            Step::Introspect(exchange) => Some((live, exchange, asked)),
            _ => None,
        }
    }

    fn take_wait(&mut self, at: u8) -> Option<(Live, Wait)> {
        let standing: Vec<usize> = self.standing(|step| matches!(step, Step::Wait(_)));
        let mut live = self.live.remove(*standing.get(usize::from(at) % standing.len().max(1))?);
        match std::mem::replace(&mut live.step, Step::Done(Decision::internal(false))) {
            Step::Wait(wait) => Some((live, wait)),
            _ => None,
        }
    }

    fn standing(&self, at: impl Fn(&Step) -> bool) -> Vec<usize> {
        (0..self.live.len()).filter(|index| at(&self.live[*index].step)).collect()
    }

    fn record(&mut self, live: &Live, asked: Asked, said: Said, exp: Option<i64>, nbf: Option<i64>) {
        let alone = live.era == self.era
            && !self.answers.iter().any(|other| other.key == live.key && other.given > asked.since)
            && !self.others(live).any(|other| other.asked.is_some() || is_woken(other));
        self.answers.push(Answer {
            key: live.key,
            token: live.token,
            generation: live.generation,
            said,
            exp,
            nbf,
            begun: live.begun,
            asked,
            given: self.moment,
            shared: live.shape.cache && self.mono < live.deadline,
            alone,
        });
    }

    fn others<'s>(&'s self, live: &'s Live) -> impl Iterator<Item = &'s Live> {
        self.live.iter().filter(|other| other.key == live.key && other.era == live.era && other.shape.cache)
    }

    /// What a request comes to: a decision that has its cause, a call that nobody else makes, or a wait that ends.
    fn settle(&mut self, mut live: Live) {
        match &live.step {
            Step::Done(decision) => {
                self.decided += 1;
                self.justify(decision, &live);
                return;
            }
            Step::Introspect(exchange) => {
                let call = exchange.outbound();
                assert_eq!(call.body(), format!("token={}", TOKENS[live.token]));
                assert_eq!(call.url(), live.shape.endpoint);
                let left = call.time_left();
                let most = (live.deadline - self.mono).min(live.shape.timeout);
                assert!(!left.is_zero() && micros(left) <= most, "{left:?} left of {most}");
                if live.shape.cache {
                    for other in self.others(&live).filter(|other| other.asked.is_some()) {
                        let ended = other.deadline <= self.latest;
                        // One that took over goes on with a call that began before itself.
                        let first = other.begun.min(live.begun);
                        assert!(ended || self.is_forgotten(live.token, first, self.moment), "two calls at once");
                    }
                }
                live.asked = Some(Asked { since: self.moment, attempt: 1, wall: self.wall, mono: self.mono });
                live.waker = None;
            }
            Step::Wait(wait) => {
                assert!(live.shape.cache, "nothing is shared");
                assert!(micros(wait.deadline()) <= live.deadline, "a wait ends with the request's time");
                let told = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
                let [ready, let_go] = told.clone();
                if let Some(old) = live.waker.take() {
                    old.replaced.set(true);
                }
                wait.on_ready(move |is_ready| {
                    let told = if is_ready { &ready } else { &let_go };
                    told.fetch_add(1, Ordering::Relaxed);
                });
                let [ready, let_go] = told;
                let waker = Rc::new(Waker { ready, let_go, replaced: Cell::new(false) });
                self.wakers.push(Rc::clone(&waker));
                live.waker = Some(waker);
            }
        }
        self.live.push(live);
    }

    /// Every decision has its cause.
    fn justify(&self, decision: &Decision, live: &Live) {
        let source = decision.source();
        let reason = reason(decision);
        if source == Source::Endpoint {
            return; // compared with the reply already
        }
        if reason == Some(Reason::Overloaded) && source == Source::None {
            let asking = self.live.iter().filter(|other| other.asked.is_some() || is_woken(other)).count();
            assert!(asking >= live.shape.limit, "{asking} are asking");
            return;
        }
        if reason == Some(Reason::EndpointTimedOut) && live.deadline <= self.mono {
            return;
        }
        let found = self.answers.iter().any(|answer| {
            self.is_about(answer, live)
                && self.judge(answer, live) == reason
                && (self.was_waited_for(answer, live) || (source_is_cached(source) && self.is_remembered(answer, live)))
        });
        assert!(found, "{source:?} {reason:?} has no cause");
    }

    /// Whether an answer can be behind a decision about a request: the same token and endpoint, in time, and asked for after
    /// everything was forgotten that the request came after.
    fn is_about(&self, answer: &Answer, live: &Live) -> bool {
        answer.key == live.key
            && answer.generation == live.generation
            && answer.shared
            && !self.is_forgotten(live.token, answer.asked.since, live.begun)
    }

    fn is_forgotten(&self, token: usize, from: usize, to: usize) -> bool {
        self.forgotten.get(&token).is_some_and(|moments| moments.iter().any(|moment| (from..to).contains(moment)))
    }

    fn was_waited_for(&self, answer: &Answer, live: &Live) -> bool {
        answer.given > live.begun
    }

    /// Whether an answer may still be remembered.
    fn is_remembered(&self, answer: &Answer, live: &Live) -> bool {
        let taken_back = self.answers.iter().any(|later| {
            later.given > answer.given
                && later.key == answer.key
                && later.generation == answer.generation
                && later.shared
                && later.alone
                && !matches!(later.said, Said::Nothing(_))
                && !self.is_forgotten(later.token, later.begun, later.given)
        });
        let lifetime = match answer.said {
            Said::Active(..) => live.shape.ttl.unwrap_or(if answer.exp.is_some() { i64::MAX } else { 30 * SECOND }),
            _ => live.shape.negative_ttl,
        };
        let over = |asked: i64, now: i64| now >= asked.saturating_add(lifetime);
        let elapsed_beyond_exp = answer.exp.is_some_and(|exp| {
            self.mono >= answer.asked.mono.saturating_add(exp + live.shape.leeway - answer.asked.wall)
        });
        let forgotten = self.is_forgotten(answer.token, answer.asked.since, self.moment);
        let writable = matches!(answer.said, Said::Active(..) | Said::Inactive);
        writable
            && live.shape.cache
            && !taken_back
            && !elapsed_beyond_exp
            && !forgotten
            && !over(answer.asked.mono, self.mono)
            && !over(answer.asked.wall, self.wall)
    }

    /// A call is made only if no answer is there.
    fn must_ask(&self, live: &Live) {
        if self.may_have_lost || live.shape.capacity < 1000 || live.shape.max_bytes < 1 << 20 {
            return;
        }
        let last = self.answers.iter().rev().find(|answer| answer.key == live.key && !is_nothing(answer));
        let Some(last) = last.filter(|answer| matches!(answer.said, Said::Active(..)) && answer.alone) else { return };
        let fresh = last.exp.is_none_or(|exp| self.wall < exp + live.shape.leeway)
            && !self.is_forgotten(last.token, last.begun, self.moment);
        assert!(!(fresh && self.is_about(last, live) && self.is_remembered(last, live)), "the answer was there");
    }

    /// What an answer means for a request, now.
    fn judge(&self, answer: &Answer, live: &Live) -> Option<Reason> {
        match answer.said {
            Said::Nothing(reason) => Some(reason),
            Said::Inactive => Some(Reason::TokenInactive),
            Said::Active(_, _, scope) => {
                if answer.exp.is_some_and(|exp| exp + live.shape.leeway <= self.wall) {
                    Some(Reason::TokenExpired)
                } else if answer.nbf.is_some_and(|nbf| nbf - live.shape.leeway > self.wall) {
                    Some(Reason::TokenNotYetValid)
                } else {
                    (live.strict && !scope).then_some(Reason::InsufficientScope)
                }
            }
        }
    }

    /// Whoever waits is going to be woken: somebody asks, or was told to.
    fn check(&self) {
        for live in self.live.iter().filter(|live| matches!(live.step, Step::Wait(_)) && !is_woken(live)) {
            let somebody = self.others(live).any(|other| other.asked.is_some() || is_woken(other));
            assert!(somebody, "a wake-up is lost");
        }
    }

    /// Everybody goes away, one after the other: those who ask first.
    fn end(mut self) {
        loop {
            let next = self.live.iter().position(|live| live.asked.is_some() || is_woken(live));
            let Some(next) = next else { break };
            drop(self.live.remove(next));
        }
        assert!(self.live.is_empty(), "a wake-up is lost");
        for waker in &self.wakers {
            let (ready, let_go) = (waker.ready.load(Ordering::Relaxed), waker.let_go.load(Ordering::Relaxed));
            assert_eq!(ready + let_go, 1, "each call comes once");
        }
        let snapshot = self.introspector.snapshot();
        assert_eq!(snapshot.in_flight, 0, "no slot is left over");
        assert!(snapshot.entries <= self.shape.capacity && snapshot.negative_entries <= 2);
        assert!(snapshot.bytes <= self.shape.max_bytes, "{} bytes", snapshot.bytes);
        let denied: u64 = snapshot.denied.iter().map(|(_, count)| count).sum();
        assert_eq!(snapshot.allowed + denied, self.decided, "decisions are counted once");
        self.introspector.forget_all();
        assert_eq!(self.introspector.snapshot().bytes, 0);
    }
}

fn is_woken(live: &Live) -> bool {
    live.waker.as_ref().is_some_and(|waker| waker.ready.load(Ordering::Relaxed) > 0)
}

fn is_nothing(answer: &Answer) -> bool {
    matches!(answer.said, Said::Nothing(_))
}

fn source_is_cached(source: Source) -> bool {
    matches!(source, Source::Cache | Source::Waiting)
}

fn reason(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Deny(deny) => Some(deny.reason()),
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
