//! Many threads at one introspector: nobody's wake-up is lost, one call is made for one token, and no answer goes to
//! another's question.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test, not a part of the core"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tokenward_core::{
    Config, Consumers, Decision, Failure, Header, Introspector, Now, Reason, Record, Reply, Request, Source, Step,
};

fn introspector(config: &str) -> Introspector {
    let config = Config::from_json(config).unwrap();
    Introspector::builder(config, Consumers::none()).build().unwrap()
}

const CONFIG: &str = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA=="}"#;

fn begin(introspector: &Introspector, token: &str, now: Now) -> Step {
    let value = format!("Bearer {token}");
    introspector.begin(&Request::new("GET", "/").headers(&[Header::new("Authorization", &value)]), now)
}

fn at(seconds: u64) -> Now {
    Now::new(Duration::from_secs(seconds), Duration::from_secs(seconds))
}

fn answer(body: &str) -> Reply<'_> {
    const JSON: &[Header<'_>] = &[Header { name: b"content-type", value: b"application/json" }];
    Reply::Response { status: 200, headers: JSON, body: body.as_bytes() }
}

/// Drives a step to its decision; `ask` answers what the endpoint would.
fn drive(mut step: Step, now: Now, ask: impl Fn(&str) -> String) -> Decision {
    loop {
        step = match step {
            Step::Done(decision) => return decision,
            Step::Introspect(exchange) => {
                let body = ask(exchange.outbound().body());
                exchange.resume(answer(&body), now)
            }
            Step::Wait(wait) => {
                let (send, receive) = mpsc::channel();
                wait.on_ready(move |ready| send.send(ready).unwrap());
                assert!(receive.recv_timeout(Duration::from_secs(30)).expect("a lost wake-up"));
                wait.resume(now)
            }
        };
    }
}

#[test]
fn two_hundred_requests_for_one_new_token_make_one_call() {
    for round in 0..20 {
        let introspector = introspector(CONFIG);
        let calls = Arc::new(AtomicUsize::new(0));
        let barrier = Arc::new(Barrier::new(200));
        let threads: Vec<_> = (0..200)
            .map(|_| {
                let (introspector, calls, barrier) = (introspector.clone(), Arc::clone(&calls), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    let decision = drive(begin(&introspector, "abc", at(1000)), at(1000), |body| {
                        assert_eq!(body, "token=abc");
                        calls.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(round % 3));
                        r#"{"active":true}"#.to_owned()
                    });
                    decision.is_allow()
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let snapshot = introspector.snapshot();
        assert_eq!((snapshot.misses, snapshot.allowed, snapshot.in_flight), (1, 200, 0));
        assert_eq!(snapshot.hits + snapshot.waits, 199);
    }
}

#[test]
fn steps_dropped_at_random_lose_nobody_and_mix_up_nothing() {
    let config = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "ttl": 0.000001,
                     "cache": {"negative_ttl": 0, "capacity": 64}}"#;
    let introspector = introspector(config);
    let stop = Arc::new(AtomicBool::new(false));
    let forgetter = {
        let (introspector, stop) = (introspector.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut n = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                n = n.wrapping_add(1);
                introspector.forget(&format!("t{}", n % 4));
                if n.is_multiple_of(16) {
                    introspector.forget_all();
                }
                thread::yield_now();
            }
        })
    };
    let threads: Vec<_> = (0..8_u64)
        .map(|seed| {
            let introspector = introspector.clone();
            thread::spawn(move || {
                let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
                let mut next = move |n: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % n
                };
                for n in 0..3000_u64 {
                    let token = format!("t{}", next(4));
                    let now = at(1000 + n);
                    let mut step = begin(&introspector, &token, now);
                    let decision = loop {
                        step = match step {
                            Step::Done(decision) => break Some(decision),
                            unfinished if next(3) == 0 => {
                                drop(unfinished);
                                break None;
                            }
                            Step::Introspect(exchange) => {
                                assert_eq!(exchange.outbound().body(), format!("token={token}"));
                                match next(4) {
                                    0 => exchange.resume(Reply::Failed(Failure::Dns), now),
                                    _ => exchange.resume(answer(&format!(r#"{{"active":true,"sub":"{token}"}}"#)), now),
                                }
                            }
                            Step::Wait(wait) => {
                                let (send, receive) = mpsc::channel();
                                wait.on_ready(move |ready| send.send(ready).unwrap());
                                assert!(receive.recv_timeout(Duration::from_secs(30)).expect("a lost wake-up"));
                                wait.resume(now)
                            }
                        };
                    };
                    match decision {
                        Some(Decision::Allow(allow)) => {
                            assert_eq!(allow.claims().unwrap().text("sub").unwrap(), token);
                        }
                        Some(Decision::Deny(deny)) => {
                            assert!(matches!(deny.reason(), Reason::EndpointUnreachable | Reason::EndpointTimedOut))
                        }
                        None => {}
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    forgetter.join().unwrap();
    assert_eq!(introspector.snapshot().in_flight, 0);
}

#[test]
fn consumers_are_replaced_under_load_without_a_decision_in_between() {
    let directory = |id: &str| Consumers::from_json(&format!(r#"[{{"id":"{id}","username":"alice"}}]"#)).unwrap();
    let config = Config::from_json(CONFIG).unwrap();
    let introspector = Introspector::builder(config, directory("0")).build().unwrap();
    let _ = drive(begin(&introspector, "abc", at(1)), at(1), |_| r#"{"active":true,"username":"alice"}"#.to_owned());
    let latest = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (introspector, latest, stop) = (introspector.clone(), Arc::clone(&latest), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let before = latest.load(Ordering::SeqCst);
                    let Step::Done(Decision::Allow(allow)) = begin(&introspector, "abc", at(1)) else { panic!() };
                    assert_eq!(allow.source(), Source::Cache);
                    let seen: usize = allow.identity().consumer().unwrap().id().parse().unwrap();
                    let (_, header) = allow.edits().set().next().unwrap();
                    assert_eq!(header, seen.to_string());
                    assert!(seen >= before, "an older directory was used");
                }
            })
        })
        .collect();
    for n in 1..2000 {
        introspector.replace_consumers(directory(&n.to_string()));
        latest.store(n, Ordering::SeqCst);
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn callbacks_and_the_sink_may_call_back_into_the_introspector() {
    let slot: Arc<Mutex<Option<Introspector>>> = Arc::default();
    let seen = Arc::new(AtomicUsize::new(0));
    let (inner, count) = (Arc::clone(&slot), Arc::clone(&seen));
    let introspector = Introspector::builder(Config::from_json(CONFIG).unwrap(), Consumers::none())
        .log(move |_: &Record<'_>| {
            let introspector = inner.lock().unwrap().clone();
            if let Some(introspector) = introspector {
                introspector.forget("other");
                let _ = introspector.snapshot();
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
        .build()
        .unwrap();
    *slot.lock().unwrap() = Some(introspector.clone());

    let Step::Introspect(exchange) = begin(&introspector, "abc", at(1)) else { panic!() };
    let parked: Arc<Mutex<HashMap<u32, Step>>> = Arc::default();
    for n in 0..3 {
        let Step::Wait(wait) = begin(&introspector, "abc", at(1)) else { panic!() };
        let (introspector, parked_too) = (introspector.clone(), Arc::clone(&parked));
        wait.on_ready(move |_| {
            introspector.forget_all();
            // Drops another one that waits, within its own call.
            let other = parked_too.lock().unwrap().remove(&((n + 1) % 3));
            drop(other);
            assert!(n != 1, "a panic of the host's");
        });
        parked.lock().unwrap().insert(n, Step::Wait(wait));
    }
    let Step::Done(Decision::Deny(deny)) = exchange.resume(Reply::Failed(Failure::Tls), at(1)) else { panic!() };
    assert_eq!(deny.reason(), Reason::EndpointUnreachable);
    assert_eq!(seen.load(Ordering::SeqCst), 2, "the failure, and that the request was denied");
    *slot.lock().unwrap() = None;
    let left: Vec<Step> = parked.lock().unwrap().drain().map(|(_, step)| step).collect();
    drop(left);
    assert_eq!(introspector.snapshot().in_flight, 0);
}

#[test]
fn any_number_of_waits_may_be_resumed_and_dropped_within_calls() {
    // On a small stack: calls within calls would overflow it.
    let small = thread::Builder::new().stack_size(256 * 1024).spawn(|| {
        for drop_only in [true, false] {
            let introspector = introspector(CONFIG);
            let Step::Introspect(exchange) = begin(&introspector, "abc", at(1)) else { panic!() };
            let (done, count) = mpsc::channel();
            for _ in 0..20_000 {
                let Step::Wait(wait) = begin(&introspector, "abc", at(1)) else { panic!() };
                let parked = Arc::new(Mutex::new(Some(wait)));
                let again = Arc::clone(&parked);
                let done = done.clone();
                parked.lock().unwrap().as_ref().unwrap().on_ready(move |_| {
                    let Some(wait) = again.lock().unwrap().take() else { return };
                    if !drop_only {
                        let Step::Done(Decision::Deny(deny)) = wait.resume(at(11)) else { panic!() };
                        assert_eq!(deny.reason(), Reason::EndpointTimedOut);
                    }
                    done.send(()).unwrap();
                });
            }
            drop(done);
            let _ = exchange.resume(Reply::Failed(Failure::TimedOut), at(11));
            assert_eq!(count.iter().count(), 20_000);
            assert_eq!(introspector.snapshot().in_flight, 0);
        }
    });
    small.unwrap().join().unwrap();
}

#[test]
fn policies_that_make_the_same_edits_share_them() {
    let introspector = introspector(CONFIG);
    let policies: Vec<_> = (0..50)
        .map(|n| introspector.policy(&format!(r#"{{"require":{{"scopes":["s{n}"]}},"realm":"r{n}"}}"#)).unwrap())
        .collect();
    let scopes: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let body = format!(r#"{{"active":true,"scope":"{}","sub":"{}"}}"#, scopes.join(" "), "x".repeat(9000));
    let _ = drive(begin(&introspector, "abc", at(1)), at(1), |_| body.clone());
    let headers = [Header::new("Authorization", "Bearer abc")];
    let request = Request::new("GET", "/").headers(&headers);
    for policy in &policies {
        let Step::Done(Decision::Allow(allow)) = introspector.begin_with(policy, &request, at(1)) else { panic!() };
        assert_eq!(allow.source(), Source::Cache);
    }
    // A value that is left out is counted whenever edits are computed: that was once.
    assert_eq!(introspector.snapshot().values_left_out, 1);
    let other = introspector.policy(r#"{"custom_claims_forward":["a"]}"#).unwrap();
    let _ = introspector.begin_with(&other, &request, at(1));
    assert_eq!(introspector.snapshot().values_left_out, 2);
}

#[test]
fn a_step_outlives_its_introspector() {
    let introspector = introspector(CONFIG);
    let Step::Introspect(exchange) = begin(&introspector, "abc", at(1)) else { panic!() };
    let Step::Wait(wait) = begin(&introspector, "abc", at(1)) else { panic!() };
    drop(introspector);
    assert!(matches!(exchange.resume(answer(r#"{"active":true}"#), at(1)), Step::Done(Decision::Allow(_))));
    assert!(matches!(wait.resume(at(1)), Step::Done(Decision::Allow(_))));
}

#[test]
fn clocks_at_their_ends_neither_panic_nor_allow_for_ever() {
    let ends = [Duration::ZERO, Duration::from_secs(1), Duration::MAX];
    for ttl in ["1e-9", "1e300", "\"until_exp\""] {
        let config = format!("{},\"ttl\":{ttl},\"leeway\":300}}", CONFIG.trim_end_matches('}'));
        for exp in ["-1e400", "-1e300", "0", "1e300", "9223372036854775807", "99999999999999999999"] {
            for first in ends {
                for then in ends {
                    let introspector = introspector(&config);
                    let now = Now::new(first, then);
                    let Step::Introspect(exchange) = begin(&introspector, "abc", now) else { panic!() };
                    let _ = exchange.resume(answer(&format!(r#"{{"active":true,"exp":{exp},"nbf":{exp}}}"#)), now);
                    let step = begin(&introspector, "abc", Now::new(then, first));
                    drop(step);
                    if let Step::Done(Decision::Allow(_)) = begin(&introspector, "abc", Now::new(Duration::MAX, first))
                    {
                        panic!("allowed at the end of time: ttl {ttl}, exp {exp}");
                    }
                }
            }
        }
    }
}

#[cfg(feature = "clock")]
#[test]
fn blocking_ends_with_the_answer_or_with_the_time() {
    let introspector = introspector(&CONFIG.replace('}', ",\"timeout\":300}"));
    let Step::Introspect(exchange) = begin(&introspector, "abc", Now::read()) else { panic!() };
    let Step::Wait(wait) = begin(&introspector, "abc", Now::read()) else { panic!() };
    let waiter = thread::spawn(move || wait.block());
    thread::sleep(Duration::from_millis(20));
    let _ = exchange.resume(answer(r#"{"active":true}"#), Now::read());
    assert!(matches!(waiter.join().unwrap(), Step::Done(Decision::Allow(_))));

    let Step::Introspect(held) = begin(&introspector, "hangs", Now::read()) else { panic!() };
    let Step::Wait(wait) = begin(&introspector, "hangs", Now::read()) else { panic!() };
    let mut step = Step::Wait(wait);
    let decision = loop {
        step = match step {
            Step::Wait(wait) => wait.block(),
            Step::Introspect(_) => break None, // the asker's time ended a moment before this one's
            Step::Done(decision) => break Some(decision),
        };
    };
    if let Some(decision) = decision {
        let Decision::Deny(deny) = decision else { panic!() };
        assert_eq!(deny.reason(), Reason::EndpointTimedOut);
    }
    drop(held);
}

#[test]
fn steps_and_decisions_travel_between_threads() {
    fn is_send<T: Send + 'static>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Step>();
    is_send::<tokenward_core::Exchange>();
    is_send::<tokenward_core::Wait>();
    is_send::<Decision>();
    is_sync::<Decision>();
    is_send::<Introspector>();
    is_sync::<Introspector>();
    is_send::<tokenward_core::Policy>();
    is_sync::<tokenward_core::Policy>();
    is_sync::<Consumers>();
    is_sync::<Config>();
}

#[test]
fn a_lookup_decides_from_what_is_known_and_begins_nothing() {
    let introspector = introspector(CONFIG);
    let now = Now::new(Duration::from_secs(1000), Duration::from_secs(1000));
    let headers = [Header::new("Authorization", "Bearer abc")];
    let request = Request::new("GET", "/").headers(&headers);
    assert!(introspector.lookup(&request, now).is_none());
    assert_eq!((introspector.snapshot().misses, introspector.snapshot().in_flight), (0, 0));

    let Step::Introspect(exchange) = begin(&introspector, "abc", now) else { panic!() };
    assert!(introspector.lookup(&request, now).is_none(), "another request asks");
    assert_eq!(introspector.snapshot().waits, 0);
    let _ = exchange.resume(answer(r#"{"active":true,"scope":"read"}"#), now);
    let Some(Decision::Allow(allow)) = introspector.lookup(&request, now) else { panic!() };
    assert_eq!(allow.source(), tokenward_core::Source::Cache);

    let Some(Decision::Allow(again)) = introspector.lookup(&request, now) else { panic!() };
    assert!(allow.shared().is_some() && allow.shared() == again.shared());
    introspector.replace_consumers(Consumers::none());
    let Some(Decision::Allow(again)) = introspector.lookup(&request, now) else { panic!() };
    assert!(allow.shared() != again.shared(), "what was computed for another directory is another thing");

    let policy = introspector.policy(r#"{"require":{"scopes":["write"]}}"#).unwrap();
    let Some(Decision::Deny(deny)) = introspector.lookup_with(&policy, &request, now) else { panic!() };
    assert_eq!(deny.reason(), Reason::InsufficientScope);
    let Some(Decision::Deny(deny)) = introspector.lookup(&Request::new("GET", "/"), now) else { panic!() };
    assert_eq!(deny.reason(), Reason::TokenMissing);
}

#[test]
fn a_host_without_room_refuses_all_who_wait_and_the_next_asks_again() {
    let introspector = introspector(CONFIG);
    let now = Now::new(Duration::from_secs(1000), Duration::from_secs(1000));
    let Step::Introspect(exchange) = begin(&introspector, "abc", now) else { panic!() };
    let Step::Wait(wait) = begin(&introspector, "abc", now) else { panic!() };
    for step in [exchange.decline(now), wait.resume(now)] {
        let Step::Done(Decision::Deny(deny)) = step else { panic!() };
        assert_eq!(deny.reason(), Reason::Overloaded);
    }
    assert_eq!(introspector.snapshot().in_flight, 0);
    assert!(matches!(begin(&introspector, "abc", now), Step::Introspect(_)));
}

#[test]
fn a_request_whose_body_is_needed_and_was_not_read_begins_nothing() {
    const BODY: &str = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "profile": "kong"}"#;
    let introspector = introspector(BODY);
    let form = Header::new("Content-Type", "application/x-www-form-urlencoded");
    let (with_form, bearer) = ([form], [form, Header::new("Authorization", "Bearer abc")]);
    let needed = Request::new("POST", "/").headers(&with_form);
    assert!(introspector.needs_body(&needed));
    assert!(introspector.begin_without_body(None, &needed, at(1)).is_none());
    let snapshot = introspector.snapshot();
    assert_eq!(
        (snapshot.misses, snapshot.allowed, snapshot.denied.iter().map(|(_, count)| count).sum::<u64>()),
        (0, 0, 0)
    );

    // The token is in the header, which takes precedence: no body is needed.
    let step = introspector.begin_without_body(None, &Request::new("POST", "/").headers(&bearer), at(1));
    assert!(matches!(step, Some(Step::Introspect(_))), "{step:?}");
    drop(step);
    // A policy that does not look at bodies needs none.
    let policy = introspector.policy(r#"{"token_from": ["header"]}"#).unwrap();
    match introspector.begin_without_body(Some(&policy), &needed, at(1)) {
        Some(Step::Done(Decision::Deny(deny))) => assert_eq!(deny.reason(), Reason::TokenMissing),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_hit_and_no_refusal_of_any_thread_goes_uncounted() {
    const THREADS: usize = 48; // more than have counters of their own
    const EACH: usize = 500;
    let introspector = introspector(CONFIG);
    assert!(drive(begin(&introspector, "abc", at(1000)), at(1000), |_| r#"{"active":true}"#.to_owned()).is_allow());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    assert!(matches!(begin(&introspector, "abc", at(1001)), Step::Done(Decision::Allow(_))));
                    assert!(matches!(begin(&introspector, "", at(1001)), Step::Done(Decision::Deny(_))));
                }
            });
        }
    });
    let snapshot = introspector.snapshot();
    let count = u64::try_from(THREADS * EACH).unwrap();
    assert_eq!((snapshot.hits, snapshot.allowed), (count, count + 1));
    assert_eq!(snapshot.denied(Reason::RequestMalformed) + snapshot.denied(Reason::TokenMissing), count);
}
