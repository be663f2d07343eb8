//! Small models of flights and store, whose threads loom runs in every order that a few preemptions allow:
//! `RUSTFLAGS='--cfg loom' cargo test -p tokenward-core --lib models`.
//!
//! They hold what no order may break: a wake-up is not lost, a call comes once, one asks, and what was forgotten is not written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use loom::thread;

use crate::cache::{Hit, Lookup};
use crate::clock::Now;
use crate::config::{Config, Settings};
use crate::decision::Reason;
use crate::flight::{Flight, OnReady, Outcome, Slots, Standing, Ticket, Wakes};
use crate::key::Key;
use crate::reply::Introspection;
use crate::request::Request;
use crate::store::{Boarding, Store};

const NOW: Now = Now { wall: 1_000_000, mono: 1_000_000 };
const DEADLINE: i64 = 9_000_000;

/// How often a registered function was told `true`, and `false`. Not of loom: nothing may depend on it.
#[derive(Default)]
struct Told {
    ready: AtomicU32,
    let_go: AtomicU32,
}

impl Told {
    fn call(self: &Arc<Self>) -> OnReady {
        let told = Arc::clone(self);
        Box::new(move |ready| {
            let count = if ready { &told.ready } else { &told.let_go };
            count.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn counts(&self) -> (u32, u32) {
        (self.ready.load(Ordering::Relaxed), self.let_go.load(Ordering::Relaxed))
    }
}

fn flight() -> Arc<Flight> {
    Arc::new(Flight::new(1, DEADLINE))
}

fn join(flight: &Flight, deadline: i64) -> Ticket {
    flight.join(deadline, NOW.mono).expect("a place")
}

fn is_over(flight: &Flight, ticket: Ticket) -> bool {
    matches!(flight.standing(ticket, NOW.mono), Standing::Over(_))
}

fn is_elected(flight: &Flight, ticket: Ticket) -> bool {
    matches!(flight.standing(ticket, NOW.mono), Standing::Elected)
}

fn answer() -> Outcome {
    Outcome::Answer(Introspection::Inactive, NOW)
}

#[test]
fn an_end_is_told_to_whoever_registers_meanwhile() {
    loom::model(|| {
        let flight = flight();
        let told = Arc::<Told>::default();
        let ticket = join(&flight, DEADLINE);
        let asker = thread::spawn({
            let flight = Arc::clone(&flight);
            move || flight.finish(answer()).run()
        });
        flight.on_ready(ticket, told.call()).run();
        asker.join().unwrap();
        assert_eq!(told.counts(), (1, 0));
        assert!(is_over(&flight, ticket));
        flight.leave(ticket, false).1.run();
        assert_eq!(told.counts(), (1, 0));
    });
}

#[test]
fn a_function_that_takes_anothers_place_is_told_of_the_end() {
    loom::model(|| {
        let flight = flight();
        let (first, second) = (Arc::<Told>::default(), Arc::<Told>::default());
        let ticket = join(&flight, DEADLINE);
        flight.on_ready(ticket, first.call()).run();
        let asker = thread::spawn({
            let flight = Arc::clone(&flight);
            move || flight.finish(answer()).run()
        });
        flight.on_ready(ticket, second.call()).run();
        asker.join().unwrap();
        let (ready, let_go) = first.counts();
        assert_eq!(ready + let_go, 1, "once");
        assert_eq!(second.counts(), (1, 0));
    });
}

#[test]
fn a_waiter_that_goes_away_while_it_is_elected_hands_the_election_on() {
    loom::model(|| {
        let flight = flight();
        let (first, second) = (Arc::<Told>::default(), Arc::<Told>::default());
        // The first has more time left: it is elected, if it is still there.
        let [one, other] = [DEADLINE + 1, DEADLINE].map(|deadline| join(&flight, deadline));
        flight.on_ready(one, first.call()).run();
        flight.on_ready(other, second.call()).run();
        let asker = thread::spawn({
            let flight = Arc::clone(&flight);
            move || {
                let (over, wakes) = flight.hand_on();
                wakes.run();
                over
            }
        });
        let (over, wakes) = flight.leave(one, false);
        wakes.run();
        assert!(!asker.join().unwrap() && !over, "the other one is there");
        assert!(is_elected(&flight, other));
        assert_eq!(second.counts(), (1, 0));
        let (ready, let_go) = first.counts();
        assert_eq!(ready + let_go, 1, "once");
    });
}

#[test]
fn of_those_who_wait_one_asks_when_all_but_it_go_away() {
    loom::model(|| {
        let flight = flight();
        let told = [(); 2].map(|()| Arc::<Told>::default());
        let [one, other] = [DEADLINE + 1, DEADLINE].map(|deadline| join(&flight, deadline));
        let leaver = thread::spawn({
            let (flight, told) = (Arc::clone(&flight), Arc::clone(&told[0]));
            move || {
                flight.on_ready(one, told.call()).run();
                flight.leave(one, false).1.run();
            }
        });
        let asker = thread::spawn({
            let flight = Arc::clone(&flight);
            move || flight.hand_on().1.run()
        });
        flight.on_ready(other, told[1].call()).run();
        leaver.join().unwrap();
        asker.join().unwrap();
        assert!(is_elected(&flight, other));
        assert_eq!(told[1].counts(), (1, 0));
        // It asks, and its answer ends the flight.
        flight.take_over(other, DEADLINE + 1).run();
        let late = join(&flight, DEADLINE);
        flight.finish(answer()).run();
        assert!(is_over(&flight, late));
    });
}

#[test]
fn the_end_of_time_of_an_elected_one_is_told_to_all() {
    loom::model(|| {
        let flight = flight();
        let told = Arc::<Told>::default();
        let [elected, other] = [DEADLINE + 1, DEADLINE].map(|deadline| join(&flight, deadline));
        flight.hand_on().1.run();
        let expires = thread::spawn({
            let flight = Arc::clone(&flight);
            move || flight.leave(elected, true).1.run()
        });
        flight.on_ready(other, told.call()).run();
        expires.join().unwrap();
        assert!(is_over(&flight, other));
        assert_eq!(told.counts(), (1, 0));
    });
}

struct Scene {
    store: Store,
    settings: Settings,
}

impl Scene {
    fn new() -> Arc<Self> {
        let json = r#"{"introspection_url":"https://as.example/","authorization_value":"x","cache":{"capacity":8}}"#;
        let config = Config::from_json(json).expect("a configuration");
        Arc::new(Self { store: Store::new(&config, None).expect("a store"), settings: config.settings })
    }

    fn key(&self) -> Key {
        self.store.key(b"a", &Request::new("GET", "/"))
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup { now: NOW, settings: &self.settings, made: None }
    }

    fn board(&self, id: u64) -> Boarding {
        let start = || Some(Arc::new(Flight::new(id, DEADLINE)));
        self.store.board(&self.key(), None, DEADLINE, &self.lookup(), start)
    }

    fn land(&self, flight: &Arc<Flight>) -> Wakes {
        self.store.land(&self.key(), flight, answer(), &self.settings)
    }

    fn is_remembered(&self) -> bool {
        matches!(self.store.find(&self.key(), &self.lookup()), Some(Hit::Inactive))
    }
}

/// What became of one who begins: whether it asked.
fn begin(scene: &Scene, id: u64, told: &Arc<Told>) -> bool {
    match scene.board(id) {
        Boarding::Started(flight) => {
            scene.land(&flight).run();
            true
        }
        Boarding::Joined(flight, ticket) => {
            flight.on_ready(ticket, told.call()).run();
            false
        }
        Boarding::Hit(hit) => {
            assert!(matches!(hit, Hit::Inactive));
            told.ready.fetch_add(1, Ordering::Relaxed);
            false
        }
        Boarding::Full => panic!("there is room"),
    }
}

#[test]
fn of_two_who_begin_at_once_one_asks_and_both_have_the_answer() {
    loom::model(|| {
        let scene = Scene::new();
        let told = [(); 2].map(|()| Arc::<Told>::default());
        let other = thread::spawn({
            let (scene, told) = (Arc::clone(&scene), Arc::clone(&told[1]));
            move || begin(&scene, 2, &told)
        });
        let first = begin(&scene, 1, &told[0]);
        let second = other.join().unwrap();
        assert!(first ^ second, "one asks");
        let waited = &told[usize::from(first)];
        assert_eq!(waited.counts(), (1, 0), "the other one is told once");
        assert!(scene.is_remembered());
    });
}

#[test]
fn an_answer_that_meets_its_forgetting_is_not_remembered() {
    loom::model(|| {
        let scene = Scene::new();
        let Boarding::Started(flight) = scene.board(1) else { panic!("nobody asks yet") };
        let forgets = thread::spawn({
            let scene = Arc::clone(&scene);
            move || scene.store.forget(b"a")
        });
        scene.land(&flight).run();
        forgets.join().unwrap();
        assert!(!scene.is_remembered());
        assert!(matches!(scene.board(2), Boarding::Started(_)), "who begins afterwards asks");
    });
}

#[test]
fn whoever_begins_after_a_forgetting_does_not_join_the_older_call() {
    loom::model(|| {
        let scene = Scene::new();
        let Boarding::Started(flight) = scene.board(1) else { panic!("nobody asks yet") };
        let lands = thread::spawn({
            let (scene, flight) = (Arc::clone(&scene), Arc::clone(&flight));
            move || scene.land(&flight).run()
        });
        scene.store.forget_all();
        let newer = match scene.board(2) {
            Boarding::Started(newer) => newer,
            _ => panic!("an older call's answer, or its end"),
        };
        lands.join().unwrap();
        assert!(!scene.is_remembered());
        assert!(scene.store.holds(&scene.key(), &newer), "the older end leaves it alone");
        scene.land(&newer).run();
        assert!(scene.is_remembered());
    });
}

#[test]
fn slots_are_never_more_than_their_limit() {
    loom::model(|| {
        let slots = Arc::new(Slots::default());
        let take = |slots: &Slots, flight| {
            let taken = slots.take(flight, DEADLINE, NOW.mono, 1);
            assert!(slots.held() <= 1);
            if taken {
                slots.release(flight, DEADLINE);
            }
            taken
        };
        let other = thread::spawn({
            let slots = Arc::clone(&slots);
            move || take(&slots, 2)
        });
        let first = take(&slots, 1);
        assert!(other.join().unwrap() || first, "one of two has it");
        assert_eq!(slots.held(), 0);
    });
}

#[test]
fn a_failure_is_shared_with_those_who_wait_and_forgotten() {
    loom::model(|| {
        let scene = Scene::new();
        let told = Arc::<Told>::default();
        let Boarding::Started(flight) = scene.board(1) else { panic!("nobody asks yet") };
        let fails = thread::spawn({
            let (scene, flight) = (Arc::clone(&scene), Arc::clone(&flight));
            let failure = Outcome::Failure(Reason::EndpointUnreachable.into());
            move || scene.store.land(&scene.key(), &flight, failure, &scene.settings).run()
        });
        match scene.board(2) {
            Boarding::Joined(flight, ticket) => {
                flight.on_ready(ticket, told.call()).run();
                fails.join().unwrap();
                assert_eq!(told.counts(), (1, 0));
                assert!(is_over(&flight, ticket));
            }
            Boarding::Started(_) => fails.join().unwrap(),
            _ => panic!("a failure is not remembered"),
        }
        assert!(!scene.is_remembered());
    });
}
