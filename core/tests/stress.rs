//! Many threads that do anything at all with one introspector, and hosts whose functions panic. What must hold is looked at while it
//! goes on and when all is over. The seed is printed; `TOKENWARD_SEED` sets it, and `TOKENWARD_STRESS` how many rounds there are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test, not a part of the core"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokenward_core::{
    Config, Consumers, Decision, Failure, Header, Introspector, Level, Now, Reason, Record, Reply, Request, Source,
    Step,
};

const CONFIGS: [&str; 3] = [
    r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "ttl": 3}"#,
    r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "ttl": 1,
        "cache": {"capacity": 3, "negative_capacity": 2}, "limits": {"concurrent_introspections": 3}}"#,
    r#"{"introspection_url": "https://as.example/other", "authorization_value": "Basic eA==", "retry": {"attempts": 3}}"#,
];
const TOKENS: u64 = 6;
const THREADS: u64 = 8;
const JSON: &[Header<'_>] = &[Header { name: b"content-type", value: b"application/json" }];

fn config(at: usize) -> Config {
    Config::from_json(CONFIGS[at]).unwrap()
}

fn consumers(generation: u64) -> Consumers {
    Consumers::from_json(&format!(r#"[{{"id": "{generation}", "username": "t1"}}]"#)).unwrap()
}

fn begin(introspector: &Introspector, token: &str, now: Now) -> Step {
    let value = format!("Bearer {token}");
    introspector.begin(&Request::new("GET", "/").headers(&[Header::new("Authorization", &value)]), now)
}

fn active(body: &str) -> Reply<'_> {
    Reply::Response { status: 200, headers: JSON, body: body.as_bytes() }
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % n
    }
}

/// A request under way, and its token.
type Parked = (Step, u64);

/// What all threads share: steps wander between them, and are answered, resumed and abandoned wherever they are.
struct Shared {
    introspector: Introspector,
    parked: Mutex<Vec<Parked>>,
    /// Milliseconds, only forwards.
    clock: AtomicU64,
    registered: AtomicU64,
    told: AtomicU64,
    decided: AtomicU64,
}

impl Shared {
    fn now(&self) -> Now {
        let millis = Duration::from_millis(self.clock.load(Ordering::SeqCst));
        Now::new(Duration::from_secs(1_700_000_000) + millis, millis)
    }

    fn act(self: &Arc<Self>, random: &mut Random) {
        let token = random.below(TOKENS);
        match random.below(24) {
            0..=9 => {
                let now = self.now();
                self.keep(begin(&self.introspector, &format!("t{token}"), now), token, now, random);
            }
            10..=17 => {
                let parked = {
                    let mut parked = self.parked.lock().unwrap();
                    let count = parked.len() as u64;
                    (count > 0).then(|| parked.swap_remove(random.below(count) as usize))
                };
                if let Some((step, token)) = parked {
                    self.go_on(step, token, random);
                }
            }
            18 => {
                self.introspector.forget(&format!("t{token}"));
            }
            19 if random.below(8) == 0 => self.introspector.forget_all(),
            20 if random.below(8) == 0 => {
                self.introspector.replace_config(config(random.below(CONFIGS.len() as u64) as usize)).unwrap();
            }
            21 => self.introspector.replace_consumers(consumers(random.below(100))),
            22 => {
                let snapshot = self.introspector.snapshot();
                assert!(snapshot.bytes <= 134_217_728);
            }
            _ => {
                self.clock.fetch_add(random.below(300), Ordering::SeqCst);
            }
        }
    }

    fn go_on(self: &Arc<Self>, step: Step, token: u64, random: &mut Random) {
        let now = self.now();
        match (step, random.below(8)) {
            (step, 0) => drop(step), // abandoned on another thread than it began
            (Step::Introspect(exchange), 1) => {
                let failure = Failure::ALL[random.below(8) as usize];
                self.keep(exchange.resume(Reply::Failed(failure), now), token, now, random);
            }
            (Step::Introspect(exchange), 2) => {
                self.keep(exchange.resume(active(r#"{"active":false}"#), now), token, now, random);
            }
            (Step::Introspect(exchange), 3) => self.keep(exchange.decline(now), token, now, random),
            (Step::Introspect(exchange), _) => {
                assert_eq!(exchange.outbound().body(), format!("token=t{token}"));
                let exp = now.wall().as_secs() + random.below(4);
                let body = format!(r#"{{"active":true,"sub":"t{token}","username":"t{token}","exp":{exp}}}"#);
                self.keep(exchange.resume(active(&body), now), token, now, random);
            }
            (Step::Wait(wait), _) => self.keep(wait.resume(now), token, now, random),
            (Step::Done(_), _) => panic!("a decision is not parked"),
        }
    }

    fn keep(self: &Arc<Self>, step: Step, token: u64, now: Now, random: &mut Random) {
        match step {
            Step::Done(decision) => {
                self.decided.fetch_add(1, Ordering::SeqCst);
                if let Decision::Allow(allow) = decision {
                    let name = format!("t{token}");
                    assert_eq!(allow.claims().unwrap().text("sub").unwrap(), name, "another's answer");
                    let exp = u64::try_from(allow.expires().unwrap().seconds()).unwrap();
                    assert!(Duration::from_secs(exp) > now.wall(), "allowed after its time");
                }
            }
            Step::Wait(wait) => {
                if random.below(4) > 0 {
                    self.registered.fetch_add(1, Ordering::SeqCst);
                    let shared = Arc::clone(self);
                    let act = random.below(16) == 0;
                    wait.on_ready(move |_| {
                        shared.told.fetch_add(1, Ordering::SeqCst);
                        if act {
                            // A host may well answer one request from another's callback.
                            let next = shared.parked.lock().unwrap().pop();
                            drop(next);
                        }
                    });
                }
                self.parked.lock().unwrap().push((Step::Wait(wait), token));
            }
            step => self.parked.lock().unwrap().push((step, token)),
        }
    }
}

fn rounds(few: u64) -> u64 {
    std::env::var("TOKENWARD_STRESS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(few)
}

fn seed() -> u64 {
    let given = std::env::var("TOKENWARD_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

#[test]
fn whatever_many_threads_do_every_step_ends_and_nothing_is_left() {
    let seed = seed();
    println!("TOKENWARD_SEED={seed}");
    let introspector = Introspector::builder(config(0), consumers(0)).build().unwrap();
    let shared = Arc::new(Shared {
        introspector,
        parked: Mutex::default(),
        clock: AtomicU64::new(1_000_000),
        registered: AtomicU64::new(0),
        told: AtomicU64::new(0),
        decided: AtomicU64::new(0),
    });
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let shared = Arc::clone(&shared);
            let mut random = Random(seed.wrapping_mul(2 * number + 1) | 1);
            thread::spawn(move || {
                for _ in 0..rounds(40_000) {
                    shared.act(&mut random);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    // Those who are left go away; callbacks take further ones along.
    let next = || shared.parked.lock().unwrap().pop();
    while let Some(parked) = next() {
        drop(parked);
    }
    let snapshot = shared.introspector.snapshot();
    assert_eq!(snapshot.in_flight, 0);
    let denied: u64 = snapshot.denied.iter().map(|(_, count)| count).sum();
    assert_eq!(snapshot.allowed + denied, shared.decided.load(Ordering::SeqCst));
    assert_eq!(shared.told.load(Ordering::SeqCst), shared.registered.load(Ordering::SeqCst), "each call comes once");
    shared.introspector.forget_all();
    let snapshot = shared.introspector.snapshot();
    assert_eq!((snapshot.entries, snapshot.negative_entries, snapshot.bytes), (0, 0, 0));
}

#[test]
fn a_panic_in_what_the_host_gave_harms_its_own_request_alone() {
    let now = Now::new(Duration::from_secs(1000), Duration::from_secs(1000));
    let said = Arc::new(AtomicU64::new(0));
    let lines = Arc::clone(&said);
    let sink = move |record: &Record<'_>| {
        lines.fetch_add(1, Ordering::SeqCst);
        assert!(
            record.level == Level::Debug || record.reason != Some(Reason::EndpointUnreachable),
            "a sink that panics"
        );
    };
    let introspector = Introspector::builder(config(0), consumers(0)).log(sink).build().unwrap();

    // Functions that panic, before and behind one that does not: everybody is woken, and the asker has its decision.
    let Step::Introspect(asker) = begin(&introspector, "t1", now) else { panic!("no call to make") };
    let woken = Arc::new(AtomicU64::new(0));
    let waits: Vec<_> = (0..3)
        .map(|number| {
            let Step::Wait(wait) = begin(&introspector, "t1", now) else { panic!("no wait") };
            let woken = Arc::clone(&woken);
            wait.on_ready(move |_| {
                woken.fetch_add(1, Ordering::SeqCst);
                assert!(number == 1, "a function that panics");
            });
            wait
        })
        .collect();
    let decision = asker.resume(active(r#"{"active":true,"username":"t1"}"#), now);
    assert!(matches!(decision, Step::Done(Decision::Allow(_))));
    assert_eq!(woken.load(Ordering::SeqCst), 3);
    for wait in waits {
        let Step::Done(decision) = wait.resume(now) else { panic!("there is an answer") };
        assert_eq!((decision.is_allow(), decision.source()), (true, Source::Waiting));
    }

    // A sink that panics: its own request ends so, those who wait have the failure, and the next one asks.
    let Step::Introspect(asker) = begin(&introspector, "t2", now) else { panic!("no call to make") };
    let Step::Wait(wait) = begin(&introspector, "t2", now) else { panic!("no wait") };
    let panicked = catch_unwind(AssertUnwindSafe(|| asker.resume(Reply::Failed(Failure::Tls), now)));
    assert!(panicked.is_err() && said.load(Ordering::SeqCst) > 0);
    let Step::Done(Decision::Deny(deny)) = wait.resume(now) else { panic!("no refusal") };
    assert_eq!(deny.reason(), Reason::EndpointUnreachable);
    assert_eq!(introspector.snapshot().in_flight, 0);
    let Step::Introspect(asker) = begin(&introspector, "t2", now) else { panic!("the next one asks") };
    let decision = asker.resume(active(r#"{"active":true,"username":"t2"}"#), now);
    assert!(matches!(decision, Step::Done(Decision::Allow(_))));
    assert!(matches!(begin(&introspector, "t2", now), Step::Done(Decision::Allow(_))));
}
