//! Who is asking about a token, who waits for the answer, and who takes over when the asker goes away.
//!
//! A flight is one question under way. It is locked for moments only, and nothing of the host's runs under its lock:
//! what has to be called is handed back as [`Wakes`].

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;

use crate::reply::{Introspection, NoAnswer};

/// Called once: `true` when the wait can be resumed with profit, `false` when it was dropped first.
pub(crate) type OnReady = Box<dyn FnOnce(bool) + Send>;

/// What a flight came to. None of it says anything about the request that asked.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Answer(Introspection),
    Failure(NoAnswer),
    /// Nobody asks any more.
    Abandoned,
}

/// Calls to make once no lock is held.
#[must_use]
#[derive(Default)]
pub(crate) struct Wakes(Vec<(OnReady, bool)>);

impl Wakes {
    pub(crate) fn run(self) {
        for (call, ready) in self.0 {
            // A call that panics harms its own request alone: the others are woken all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| call(ready)));
        }
    }

    fn add(&mut self, call: Option<OnReady>, ready: bool) {
        self.0.extend(call.map(|call| (call, ready)));
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
    phase: Phase,
    waiters: BTreeMap<Ticket, Waiter>,
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
}

impl Flight {
    pub(crate) fn new(id: u64, deadline: i64) -> Self {
        let state = State { deadline, phase: Phase::Asking, waiters: BTreeMap::new(), next: 0 };
        Self { id, state: Mutex::new(state) }
    }

    pub(crate) fn deadline(&self) -> i64 {
        self.state.lock().deadline
    }

    /// One more waits, until `deadline` at most. None if the flight is over, or its time is.
    pub(crate) fn join(&self, deadline: i64, now: i64) -> Option<Ticket> {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Over(_)) || state.deadline <= now {
            return None;
        }
        let ticket = state.next;
        state.next += 1;
        state.waiters.insert(ticket, Waiter { deadline, on_ready: None });
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
        if ready {
            wakes.add(Some(call), true);
        } else if let Some(waiter) = state.waiters.get_mut(&ticket) {
            wakes.add(waiter.on_ready.replace(call), false);
        } else {
            wakes.add(Some(call), false);
        }
        wakes
    }

    /// The question is answered, or failed: everybody who waits shares it.
    pub(crate) fn finish(&self, outcome: Outcome) -> Wakes {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        state.phase = Phase::Over(outcome);
        for waiter in state.waiters.values_mut() {
            wakes.add(waiter.on_ready.take(), true);
        }
        wakes
    }

    /// The asker is gone: the waiter with most time left is to ask. Without one, the flight is over; tells whether it is.
    pub(crate) fn hand_on(&self) -> (bool, Wakes) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Over(_)) {
            return (true, Wakes::default());
        }
        state.elect()
    }

    /// A waiter is gone. Tells whether the flight is over with that.
    pub(crate) fn leave(&self, ticket: Ticket) -> (bool, Wakes) {
        let mut state = self.state.lock();
        let call = state.waiters.remove(&ticket).and_then(|waiter| waiter.on_ready);
        let (over, mut wakes) = match state.phase {
            Phase::Offered(elected) if elected == ticket => state.elect(),
            Phase::Over(_) => (true, Wakes::default()),
            _ => (false, Wakes::default()),
        };
        wakes.add(call, false);
        (over, wakes)
    }

    /// The elected waiter asks, until `deadline`.
    pub(crate) fn take_over(&self, ticket: Ticket, deadline: i64) -> Wakes {
        let mut wakes = Wakes::default();
        let mut state = self.state.lock();
        // A call registered after the election was made at once, so there is none left.
        wakes.add(state.waiters.remove(&ticket).and_then(|waiter| waiter.on_ready), true);
        state.phase = Phase::Asking;
        state.deadline = deadline;
        wakes
    }
}

impl State {
    fn elect(&mut self) -> (bool, Wakes) {
        let mut wakes = Wakes::default();
        // Of those with the same time left, the first who came.
        let elected = self.waiters.iter_mut().rev().max_by_key(|(_, waiter)| waiter.deadline);
        match elected {
            Some((ticket, waiter)) => {
                wakes.add(waiter.on_ready.take(), true);
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
/// Flights hold a slot until they are over or their time is; slots of the latter are taken back when they are needed.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Deadline and flight, the earliest first.
    held: Mutex<std::collections::BTreeSet<(i64, u64)>>,
}

impl Slots {
    /// Takes a slot until `deadline`; false if all `limit` of them are held.
    pub(crate) fn take(&self, flight: u64, deadline: i64, now: i64, limit: usize) -> bool {
        let mut held = self.held.lock();
        if held.len() >= limit {
            while held.first().is_some_and(|(deadline, _)| *deadline <= now) {
                held.pop_first();
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        flight.leave(ticket).1.run();
        assert_eq!(count.load(Ordering::SeqCst), 101);
        flight.on_ready(ticket, call()).run();
        assert_eq!(count.load(Ordering::SeqCst), 102, "at once when there is something to resume");
    }

    #[test]
    fn the_one_with_most_time_left_is_elected_and_then_the_next() {
        let flight = Flight::new(1, 10);
        let [short, long, longer] = [11, 12, 13].map(|deadline| flight.join(deadline, 0).unwrap());
        assert!(!flight.hand_on().0);
        assert!(matches!(flight.standing(longer, 0), Standing::Elected));
        assert!(matches!(flight.standing(long, 0), Standing::Waiting(10)));
        assert!(!flight.leave(longer).0);
        assert!(matches!(flight.standing(long, 0), Standing::Elected));
        assert!(!flight.leave(short).0);
        assert!(flight.leave(long).0, "nobody is left");
        assert_eq!(flight.join(20, 0), None);
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
