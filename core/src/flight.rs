//! Who is asking about a token, who waits for the answer, and who takes over when the asker goes away.
//!
//! A flight is one question under way. It is locked for moments only, and nothing of the host's runs under its lock:
//! what has to be called is handed back as [`Wakes`].

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Now;
use crate::reply::{Introspection, NoAnswer};
use crate::sync::{AtomicBool, Mutex};

/// Called once: `true` when the wait can be resumed with profit, `false` when it was dropped first.
pub(crate) type OnReady = Box<dyn FnOnce(bool) + Send>;

/// What a flight came to. None of it says anything about the request that asked.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// With the moment when the question was asked.
    Answer(Introspection, Now),
    Failure(NoAnswer),
    /// Nobody asks any more.
    Abandoned,
}

/// Calls to make once no lock is held.
#[must_use]
#[derive(Default)]
pub(crate) struct Wakes(Vec<Call>);

/// What to call, what to say, and whether the wait it is for has ended in the meantime.
type Call = (OnReady, bool, Gone);

/// Set once a wait has ended: a call that is still to be made then says so.
type Gone = Arc<AtomicBool>;

#[cfg(not(all(loom, test)))]
thread_local! {
    /// Calls still to be made by the outermost `run` of this thread; none if there is none.
    static LEFT: Cell<Option<VecDeque<Call>>> = const { Cell::new(None) };
}
#[cfg(all(loom, test))]
loom::thread_local! {
    static LEFT: Cell<Option<VecDeque<Call>>> = Cell::new(None);
}

impl Wakes {
    /// Makes the calls. A call may resume or drop other steps, whose calls come after it: they are made one after the other, not
    /// within each other, so that any number of them fits on the stack.
    pub(crate) fn run(self) {
        if self.0.is_empty() {
            return;
        }
        let mut calls = Some(self.0);
        let is_nested = LEFT.try_with(|left| {
            let Some(mut queue) = left.take() else {
                left.set(Some(VecDeque::new()));
                return false;
            };
            queue.extend(calls.take().into_iter().flatten());
            left.set(Some(queue));
            true
        });
        if matches!(is_nested, Ok(true)) {
            return;
        }
        for call in calls.into_iter().flatten() {
            make(call);
        }
        let next = |left: &Cell<Option<VecDeque<Call>>>| {
            let mut queue = left.take()?;
            let next = queue.pop_front()?;
            left.set(Some(queue));
            Some(next)
        };
        while let Ok(Some(call)) = LEFT.try_with(next) {
            make(call);
        }
    }

    fn add(&mut self, call: Option<OnReady>, ready: bool, gone: &Gone) {
        self.0.extend(call.map(|call| (call, ready, Arc::clone(gone))));
    }
}

/// A call that panics harms its own request alone: the others are woken all the same.
fn make((call, ready, gone): Call) {
    // An earlier call may have dropped the wait that this one is about.
    let ready = ready && !gone.load(Ordering::Acquire);
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call(ready))) {
        std::mem::forget(payload); // its destructor is the host's as well, and may panic again
    }
}

/// A place among those who wait.
pub(crate) type Ticket = u64;

/// How things stand for one who waits.
#[derive(Debug)]
pub(crate) enum Standing {
    Over(Outcome),
    /// The asker went away: this one is to ask.
    Elected,
    /// Somebody asks until that moment.
    Waiting(i64),
    /// The flight's time is over.
    Ended,
}

pub(crate) struct Flight {
    pub(crate) id: u64,
    state: Mutex<State>,
}

struct State {
    /// When the exchange under way ends, on the monotonic clock.
    deadline: i64,
    /// Somebody saw that time was over. It stays so, should the clock go back.
    ended: bool,
    phase: Phase,
    waiters: BTreeMap<Ticket, Waiter>,
    /// The same by time left; of those with as much, the first who came is the last here.
    by_deadline: BTreeSet<(i64, Reverse<Ticket>)>,
    next: Ticket,
}

enum Phase {
    Asking,
    /// Waits for the elected one to resume.
    Offered(Ticket),
    Over(Outcome),
}

struct Waiter {
    deadline: i64,
    on_ready: Option<OnReady>,
    gone: Gone,
}

impl Flight {
    pub(crate) fn new(id: u64, deadline: i64) -> Self {
        let state = State {
            deadline,
            ended: false,
            phase: Phase::Asking,
            waiters: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            next: 0,
        };
        Self { id, state: Mutex::new(state) }
    }

    pub(crate) fn deadline(&self) -> i64 {
        self.state.lock().deadline
    }

    pub(crate) fn has_ended(&self, now: i64) -> bool {
        self.state.lock().has_ended(now)
    }

    /// One more waits, until `deadline` at most. None if the flight is over, or its time is.
    pub(crate) fn join(&self, deadline: i64, now: i64) -> Option<Ticket> {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Over(_)) || state.has_ended(now) {
            return None;
        }
        let ticket = state.next;
        state.next += 1;
        state.waiters.insert(ticket, Waiter { deadline, on_ready: None, gone: Gone::default() });
        state.by_deadline.insert((deadline, Reverse(ticket)));
        Some(ticket)
    }

    pub(crate) fn standing(&self, ticket: Ticket, now: i64) -> Standing {
        let state = self.state.lock();
        match &state.phase {
            Phase::Over(outcome) => Standing::Over(outcome.clone()),
            Phase::Offered(elected) if *elected == ticket => Standing::Elected,
            _ if state.deadline <= now => Standing::Ended,
            _ => Standing::Waiting(state.deadline),
        }
    }

    /// Registers the call that says when to resume; one registered before is called with `false`.
    pub(crate) fn on_ready(&self, ticket: Ticket, call: OnReady) -> Wakes {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        let ready = match state.phase {
            Phase::Over(_) => true,
            Phase::Offered(elected) => elected == ticket,
            Phase::Asking => false,
        };
        match state.waiters.get_mut(&ticket) {
            Some(waiter) if ready => wakes.add(Some(call), true, &waiter.gone),
            Some(waiter) => wakes.add(waiter.on_ready.replace(call), false, &waiter.gone),
            None => wakes.add(Some(call), false, &Gone::default()),
        }
        wakes
    }

    /// The question is answered, or failed: everybody who waits shares it.
    pub(crate) fn finish(&self, outcome: Outcome) -> Wakes {
        self.state.lock().end(outcome)
    }

    /// The asker is gone: the waiter with most time left is to ask. Without one, the flight is over; tells whether it is.
    pub(crate) fn hand_on(&self) -> (bool, Wakes) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Over(_)) {
            return (true, Wakes::default());
        }
        state.elect()
    }

    /// A waiter is gone, `expired` if its time is over. Tells whether the flight is over with that.
    pub(crate) fn leave(&self, ticket: Ticket, expired: bool) -> (bool, Wakes) {
        let mut state = self.state.lock();
        let (call, gone) = state.remove(ticket);
        gone.store(true, Ordering::Release);
        let (over, mut wakes) = match state.phase {
            // It had most time left of those who waited then: they have none either. Who came later begins anew.
            Phase::Offered(elected) if elected == ticket && expired => (true, state.end(Outcome::Abandoned)),
            Phase::Offered(elected) if elected == ticket => state.elect(),
            // Whoever ended the flight has seen to the rest.
            _ => (false, Wakes::default()),
        };
        wakes.add(call, false, &gone);
        (over, wakes)
    }

    /// The elected waiter asks, until `deadline`.
    pub(crate) fn take_over(&self, ticket: Ticket, deadline: i64) -> Wakes {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        // A call registered after the election was made at once, so there is none left.
        let (call, gone) = state.remove(ticket);
        wakes.add(call, true, &gone);
        state.phase = Phase::Asking;
        state.deadline = deadline;
        state.ended = false;
        wakes
    }
}

impl State {
    fn has_ended(&mut self, now: i64) -> bool {
        self.ended |= self.deadline <= now;
        self.ended
    }

    /// Takes a waiter out, and its call if that was not made.
    fn remove(&mut self, ticket: Ticket) -> (Option<OnReady>, Gone) {
        let Some(waiter) = self.waiters.remove(&ticket) else { return (None, Gone::default()) };
        self.by_deadline.remove(&(waiter.deadline, Reverse(ticket)));
        (waiter.on_ready, waiter.gone)
    }

    fn end(&mut self, outcome: Outcome) -> Wakes {
        let mut wakes = Wakes::default();
        self.phase = Phase::Over(outcome);
        for waiter in self.waiters.values_mut() {
            wakes.add(waiter.on_ready.take(), true, &waiter.gone);
        }
        wakes
    }

    fn elect(&mut self) -> (bool, Wakes) {
        let mut wakes = Wakes::default();
        match self.by_deadline.last() {
            Some((_, Reverse(ticket))) => {
                if let Some(waiter) = self.waiters.get_mut(ticket) {
                    wakes.add(waiter.on_ready.take(), true, &waiter.gone);
                }
                self.phase = Phase::Offered(*ticket);
                (false, wakes)
            }
            None => {
                self.phase = Phase::Over(Outcome::Abandoned);
                (true, wakes)
            }
        }
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Bounds how many questions are under way: `limits.concurrent_introspections`.
///
/// Flights hold a slot until they are over or their time is; slots of the latter are taken back when the next one is taken.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Deadline and flight, the earliest first.
    held: Mutex<BTreeSet<(i64, u64)>>,
}

impl Slots {
    /// Takes a slot until `deadline`; false if all `limit` of them are held.
    pub(crate) fn take(&self, flight: u64, deadline: i64, now: i64, limit: usize) -> bool {
        let mut held = self.held.lock();
        while held.first().is_some_and(|(deadline, _)| *deadline <= now) {
            held.pop_first();
        }
        held.len() < limit && held.insert((deadline, flight))
    }

    /// A flight goes on until another deadline; false if its slot was taken back and no other is free.
    pub(crate) fn prolong(&self, flight: u64, from: i64, to: i64, now: i64, limit: usize) -> bool {
        let mut held = self.held.lock();
        if held.remove(&(from, flight)) {
            return held.insert((to, flight));
        }
        drop(held);
        self.take(flight, to, now, limit)
    }

    pub(crate) fn release(&self, flight: u64, deadline: i64) {
        self.held.lock().remove(&(deadline, flight));
    }

    pub(crate) fn held(&self) -> usize {
        self.held.lock().len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn counter() -> (Arc<AtomicUsize>, impl Fn() -> OnReady) {
        let count = Arc::new(AtomicUsize::new(0));
        let handle = Arc::clone(&count);
        (count, move || {
            let count = Arc::clone(&handle);
            Box::new(move |ready| {
                count.fetch_add(if ready { 1 } else { 100 }, Ordering::SeqCst);
            })
        })
    }

    #[test]
    fn a_call_is_made_exactly_once() {
        let (count, call) = counter();
        let flight = Flight::new(1, 10);
        let ticket = flight.join(5, 0).unwrap();
        flight.on_ready(ticket, call()).run();
        flight.on_ready(ticket, call()).run();
        assert_eq!(count.load(Ordering::SeqCst), 100, "the first is replaced");
        flight.finish(Outcome::Abandoned).run();
        assert_eq!(count.load(Ordering::SeqCst), 101);
        flight.on_ready(ticket, call()).run();
        assert_eq!(count.load(Ordering::SeqCst), 102, "at once when there is something to resume");
        flight.leave(ticket, false).1.run();
        assert_eq!(count.load(Ordering::SeqCst), 102);
        flight.on_ready(ticket, call()).run();
        assert_eq!(count.load(Ordering::SeqCst), 202, "there is no wait any more");
    }

    #[test]
    fn the_one_with_most_time_left_is_elected_and_then_the_next() {
        let flight = Flight::new(1, 10);
        let [short, long, longer] = [11, 12, 13].map(|deadline| flight.join(deadline, 0).unwrap());
        assert!(!flight.hand_on().0);
        assert!(matches!(flight.standing(longer, 0), Standing::Elected));
        assert!(matches!(flight.standing(long, 0), Standing::Waiting(10)));
        assert!(!flight.leave(longer, false).0);
        assert!(matches!(flight.standing(long, 0), Standing::Elected));
        assert!(!flight.leave(short, false).0);
        assert!(flight.leave(long, false).0, "nobody is left");
        assert_eq!(flight.join(20, 0), None);
    }

    #[test]
    fn a_call_within_a_call_comes_after_it() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let say = |what: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().push(what)
        };
        let (outer, after, inner) = (say("outer"), say("after"), say("inner"));
        let first: OnReady = Box::new(move |_| {
            Wakes(vec![(Box::new(move |_| inner()), true, Gone::default())]).run();
            outer();
        });
        Wakes(vec![(first, true, Gone::default()), (Box::new(move |_| after()), true, Gone::default())]).run();
        assert_eq!(*order.lock(), ["outer", "after", "inner"]);
    }

    #[test]
    fn a_wait_that_a_call_drops_is_told_so() {
        let flight = Arc::new(Flight::new(1, 10));
        let (first, second) = (flight.join(11, 0).unwrap(), flight.join(12, 0).unwrap());
        let said = Arc::new(Mutex::new(Vec::new()));
        let (other, to) = (Arc::clone(&flight), Arc::clone(&said));
        flight
            .on_ready(
                first,
                Box::new(move |ready| {
                    to.lock().push(("first", ready));
                    other.leave(second, false).1.run();
                }),
            )
            .run();
        let to = Arc::clone(&said);
        flight.on_ready(second, Box::new(move |ready| to.lock().push(("second", ready)))).run();
        flight.finish(Outcome::Abandoned).run();
        assert_eq!(*said.lock(), [("first", true), ("second", false)]);
    }

    #[test]
    fn when_the_elected_one_has_no_time_left_everybody_is_woken() {
        let (count, call) = counter();
        let flight = Flight::new(1, 10);
        let [first, second, elected] = [11, 12, 13].map(|deadline| flight.join(deadline, 0).unwrap());
        flight.hand_on().1.run();
        for ticket in [first, second] {
            flight.on_ready(ticket, call()).run();
        }
        let (over, wakes) = flight.leave(elected, true);
        wakes.run();
        assert!(over);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn only_the_elected_one_is_called_at_once() {
        let (count, call) = counter();
        let flight = Flight::new(1, 10);
        let [other, elected] = [11, 12].map(|deadline| flight.join(deadline, 0).unwrap());
        flight.hand_on().1.run();
        flight.on_ready(other, call()).run();
        assert_eq!(count.load(Ordering::SeqCst), 0);
        flight.on_ready(elected, call()).run();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_election_stands_when_another_leaves() {
        let flight = Flight::new(1, 10);
        let [other, elected] = [11, 12].map(|deadline| flight.join(deadline, 0).unwrap());
        flight.hand_on().1.run();
        // Has more time left, and came after the election.
        let late = flight.join(20, 0).unwrap();
        assert!(!flight.leave(other, false).0);
        assert!(matches!(flight.standing(elected, 0), Standing::Elected));
        assert!(matches!(flight.standing(late, 0), Standing::Waiting(10)));
    }

    #[test]
    fn a_flight_that_goes_on_keeps_its_slot_or_needs_another() {
        let slots = Slots::default();
        assert!(slots.take(1, 10, 0, 1));
        assert!(slots.prolong(1, 10, 20, 5, 1));
        assert_eq!(slots.held(), 1);
        assert!(slots.take(2, 30, 20, 1), "the first one's time is over");
        assert!(!slots.prolong(1, 20, 40, 20, 1), "its slot is another's now");
        assert!(slots.prolong(1, 20, 40, 20, 2));
        assert_eq!(slots.held(), 2);
    }

    #[test]
    fn nobody_joins_a_flight_whose_time_is_over() {
        let flight = Flight::new(1, 10);
        assert!(flight.join(19, 9).is_some());
        assert_eq!(flight.join(20, 10), None);
    }

    #[test]
    fn slots_of_flights_whose_time_is_over_are_taken_back() {
        let slots = Slots::default();
        assert!(slots.take(1, 10, 0, 1));
        assert!(!slots.take(2, 20, 9, 1));
        assert!(slots.take(2, 20, 10, 1));
        slots.release(1, 10);
        assert_eq!(slots.held(), 1);
        slots.release(2, 20);
        assert_eq!(slots.held(), 0);
    }
}
