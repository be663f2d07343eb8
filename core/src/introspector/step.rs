//! What the host does next, and what a request carries from step to step.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Asked, Denial, Inner, State};
use crate::cache::{Hit, is_fresh};
use crate::clock::{Now, duration};
use crate::config::Policy;
use crate::decision::{Decision, Deny, Reason, Source};
use crate::flight::{Flight, Outcome, Standing, Ticket, Wakes};
use crate::hide::Hidden;
use crate::key::Key;
use crate::outbound::{Outbound, Question};
use crate::reply::{self, Reply};
use crate::stats::count;
use crate::store::Boarding;

/// What the host does next.
///
/// Dropping an unfinished step has denied the request; whoever waits for the same answer is looked after.
#[derive(Debug)]
#[must_use = "a step that is dropped has denied the request"]
pub enum Step {
    /// There is a decision.
    Done(Decision),
    /// Send this request to the endpoint and hand the outcome to [`Exchange::resume`].
    Introspect(Exchange),
    /// Another request asks already: park this one, and [`Wait::resume`] it when it is woken or its deadline comes.
    Wait(Wait),
}

/// One call to the introspection endpoint, to be made by the host.
///
/// It owns its place in the flight: dropping it hands the place on to one of those who wait.
#[must_use = "an exchange that is dropped has denied the request"]
pub struct Exchange {
    /// None once resumed.
    asking: Option<Box<Asking>>,
    outbound: Box<Outbound>,
}

struct Asking {
    context: Context,
    flight: Arc<Flight>,
    asked: Now,
    attempt: u32,
}

/// One request's wait for an answer that another one asked for.
#[must_use = "a wait that is dropped has denied the request"]
pub struct Wait {
    /// None once resumed.
    waiting: Option<Box<Waiting>>,
    deadline: i64,
}

struct Waiting {
    context: Context,
    flight: Arc<Flight>,
    ticket: Ticket,
}

/// What a request carries from step to step.
pub(super) struct Context {
    pub(super) inner: Arc<Inner>,
    pub(super) state: Arc<State>,
    pub(super) policy: Policy,
    pub(super) key: Key,
    pub(super) family: Option<Key>,
    pub(super) question: Question,
    pub(super) hidden: Hidden,
    /// The request's body might hold a token, and was too long or coded.
    pub(super) body_not_searched: bool,
    pub(super) head: bool,
    /// When this request's own time is over, on the monotonic clock.
    pub(super) deadline: i64,
}

impl Context {
    /// Takes the answer that is there by now, joins the flight under way, or starts one.
    pub(super) fn ask(self, now: Now, source: Source) -> Step {
        let inner = Arc::clone(&self.inner);
        let settings = self.state.config.settings;
        let start = || {
            let id = inner.flights.fetch_add(1, Ordering::Relaxed);
            let taken = inner.slots.take(id, self.deadline, now.mono, settings.concurrent);
            taken.then(|| Arc::new(Flight::new(id, self.deadline)))
        };
        let boarding = if settings.cache {
            let lookup = inner.lookup(&self.state, &self.policy, now);
            self.state.store.board(&self.key, self.family, self.deadline, &lookup, start)
        } else {
            start().map_or(Boarding::Full, Boarding::Started)
        };
        match boarding {
            Boarding::Hit(hit) => {
                let Self { inner, state, policy, key, hidden, head, .. } = self;
                let (key, is) = (Some(&key), Some(!matches!(hit, Hit::Inactive)));
                inner.conclude(&Asked { state: &state, policy: &policy, key, head, source, now, hit: is }, hit, hidden)
            }
            Boarding::Joined(flight, ticket) => {
                count(&inner.stats.waits);
                self.wait(flight, ticket)
            }
            Boarding::Started(flight) => {
                count(&inner.stats.misses);
                self.exchange(flight, 1, now)
            }
            Boarding::Full => {
                inner.complain(Reason::Overloaded, "too many introspections are under way", &[], now);
                self.refuse(Reason::Overloaded.into(), Source::None, now)
            }
        }
    }

    fn exchange(self, flight: Arc<Flight>, attempt: u32, now: Now) -> Step {
        count(&self.inner.stats.introspections);
        // No more than `timeout`, even if the clock went back.
        let left = self.deadline.saturating_sub(now.mono).min(self.state.config.settings.timeout);
        let time_left = duration(left);
        let outbound = Box::new(Outbound::new(&self.state.config.endpoint, &self.question, time_left));
        Step::Introspect(Exchange {
            asking: Some(Box::new(Asking { context: self, flight, asked: now, attempt })),
            outbound,
        })
    }

    fn wait(self, flight: Arc<Flight>, ticket: Ticket) -> Step {
        let deadline = self.deadline.min(flight.deadline());
        Step::Wait(Wait { waiting: Some(Box::new(Waiting { context: self, flight, ticket })), deadline })
    }

    fn conclude(self, answer: Hit, source: Source, now: Now) -> Step {
        let Self { inner, state, policy, key, hidden, head, .. } = self;
        inner.conclude(
            &Asked { state: &state, policy: &policy, key: Some(&key), head, source, now, hit: None },
            answer,
            hidden,
        )
    }

    fn refuse(self, denial: Denial, source: Source, now: Now) -> Step {
        let Self { inner, state, policy, key, hidden, head, .. } = self;
        inner.refuse(
            &Asked { state: &state, policy: &policy, key: Some(&key), head, source, now, hit: None },
            denial,
            hidden,
        )
    }

    /// The flight came to its end without anybody left who asks or waits.
    fn release(&self, flight: &Arc<Flight>) {
        self.state.store.retire(&self.key, flight);
        self.inner.slots.release(flight.id, flight.deadline());
    }
}

impl Exchange {
    /// What to send.
    #[must_use]
    pub fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Until when the call may last, on the host's monotonic clock: [`time_left`](Outbound::time_left) after this step was made.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        duration(self.asking.as_ref().map_or(0, |asking| asking.context.deadline))
    }

    /// Hands over how the call went. After a failed connection this may be another call to make.
    ///
    /// An answer that comes after [`time_left`](Outbound::time_left) decides this request alone.
    pub fn resume(mut self, reply: Reply<'_>, now: Now) -> Step {
        let Some(asking) = self.asking.take() else {
            // INVARIANT: only `resume` and `drop` take it, and both end this value.
            return Step::Done(Decision::Deny(Deny::internal()));
        };
        (*asking).resume(&reply, now)
    }

    /// Says that the host has no room to make the call. This request and those who wait for the same answer are refused as
    /// `overloaded`; the next request asks again.
    pub fn decline(mut self, now: Now) -> Step {
        let Some(asking) = self.asking.take() else {
            // INVARIANT: as in `resume`.
            return Step::Done(Decision::Deny(Deny::internal()));
        };
        (*asking).decline(now)
    }

    #[cfg(feature = "client")]
    pub(crate) fn client(&self) -> Option<&crate::client::Client> {
        self.asking.as_ref().map(|asking| &asking.context.state.client)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.take() {
            let (over, wakes) = asking.flight.hand_on();
            if over {
                asking.context.release(&asking.flight);
            }
            drop(asking);
            wakes.run();
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("outbound", &self.outbound).finish_non_exhaustive()
    }
}

impl Asking {
    fn resume(self, reply: &Reply<'_>, now: Now) -> Step {
        let Self { context, flight, asked, attempt } = self;
        let inner = Arc::clone(&context.inner);
        let settings = context.state.config.settings;
        let elapsed = now.mono.saturating_sub(asked.mono).max(0);
        inner.stats.answered(elapsed);
        let in_time = now.mono < context.deadline;
        let may_retry = matches!(reply, Reply::Failed(failure) if failure.may_retry());
        if may_retry && in_time && attempt < settings.attempts {
            // In a step of its own first: a sink that panics drops it, and one of those who wait asks.
            let question = context.question.clone();
            let step = context.exchange(flight, attempt + 1, now);
            inner.report(reply, &Err(Reason::EndpointUnreachable.into()), &question, elapsed, now);
            return step;
        }

        let read = reply::read(reply, &context.state.config.reply_rules());
        let outcome = match &read {
            Ok(answer) => Outcome::Answer(answer.clone(), asked),
            Err(none) => Outcome::Failure(*none),
        };
        land(&context, &flight, outcome, in_time);
        // Whatever the host's sink does, those who wait have their answer.
        inner.report(reply, &read, &context.question, elapsed, now);
        match read {
            Ok(answer) => context.conclude(answer.into(), Source::Endpoint, now),
            Err(none) => context.refuse(none.into(), Source::Endpoint, now),
        }
    }

    fn decline(self, now: Now) -> Step {
        let Self { context, flight, .. } = self;
        let reason = Reason::Overloaded;
        land(&context, &flight, Outcome::Failure(reason.into()), now.mono < context.deadline);
        context.inner.complain(reason, "the host has no room for another introspection", &[], now);
        context.refuse(reason.into(), Source::None, now)
    }
}

/// Ends the flight and wakes those who wait.
fn land(context: &Context, flight: &Arc<Flight>, outcome: Outcome, in_time: bool) {
    let wakes = if in_time {
        context.state.store.land(&context.key, flight, outcome, &context.state.config.settings)
    } else {
        // Too late for everybody else: one of those who wait asks again.
        let (over, wakes) = flight.hand_on();
        if over {
            context.state.store.retire(&context.key, flight);
        }
        wakes
    };
    context.inner.slots.release(flight.id, context.deadline);
    wakes.run();
}

impl Wait {
    /// Until when this wait may last, on the host's monotonic clock. The host resumes it then, woken or not.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        duration(self.deadline)
    }

    /// Registers what is called when the wait can be resumed with profit: exactly once, with `true`; with `false` if
    /// the wait ends first. It may be called at once, and from any thread that resumes or drops a step; it may resume and drop steps
    /// itself, but must not block: other calls of its thread come after it. A second call takes the place of the first, which is called with `false`.
    pub fn on_ready(&self, call: impl FnOnce(bool) + Send + 'static) {
        if let Some(waiting) = &self.waiting {
            waiting.flight.on_ready(waiting.ticket, Box::new(call)).run();
        }
    }

    /// Goes on: a decision if there is an answer or the time is over, a call to make if the asker went away, and the wait
    /// again if it was resumed early.
    pub fn resume(mut self, now: Now) -> Step {
        let Some(waiting) = self.waiting.take() else {
            // INVARIANT: only `resume` and `drop` take it, and both end this value.
            return Step::Done(Decision::Deny(Deny::internal()));
        };
        waiting.resume(now)
    }

    /// Sleeps until the wait can be resumed or its deadline comes, and resumes it.
    #[cfg(feature = "clock")]
    pub fn block(self) -> Step {
        if let Some(waiting) = &self.waiting {
            let now = Now::read();
            if !matches!(waiting.flight.standing(waiting.ticket, now.mono), Standing::Waiting(_)) {
                return self.resume(now);
            }
        }
        let signal = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
        let waker = Arc::clone(&signal);
        self.on_ready(move |_| {
            *waker.0.lock() = true;
            waker.1.notify_all();
        });
        let mut ready = signal.0.lock();
        while !*ready {
            let left = self.deadline().saturating_sub(Now::read().monotonic());
            if left.is_zero() || signal.1.wait_for(&mut ready, left).timed_out() {
                break;
            }
        }
        drop(ready);
        self.resume(Now::read())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            let wakes = waiting.leave(false);
            drop(waiting);
            wakes.run();
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("deadline", &self.deadline()).finish_non_exhaustive()
    }
}

impl Waiting {
    fn resume(self: Box<Self>, now: Now) -> Step {
        let time_is_over = self.context.deadline <= now.mono;
        match self.flight.standing(self.ticket, now.mono) {
            // An answer may be waited for a little longer than it is of use; a request that was parked for long is refused.
            Standing::Over(Outcome::Answer(answer, asked))
                if !time_is_over || is_fresh(&answer, asked, now, &self.context.state.config.settings) =>
            {
                self.end().conclude(answer.into(), Source::Waiting, now)
            }
            Standing::Over(Outcome::Failure(none)) => self.end().refuse(none.into(), Source::Waiting, now),
            _ if time_is_over => self.expire().refuse(Reason::EndpointTimedOut.into(), Source::Waiting, now),
            Standing::Elected => (*self).take_over(now),
            Standing::Waiting(deadline) => {
                let deadline = deadline.min(self.context.deadline);
                Step::Wait(Wait { waiting: Some(self), deadline })
            }
            Standing::Ended | Standing::Over(_) => self.end().ask(now, Source::Waiting),
        }
    }

    /// The asker went away and this request asks in its place; the others go on waiting.
    fn take_over(self, now: Now) -> Step {
        let context = &self.context;
        let ended = self.flight.deadline();
        if ended <= now.mono && !context.state.store.holds(&context.key, &self.flight) {
            // Others have begun anew in the meantime.
            return self.end().ask(now, Source::Waiting);
        }
        let limit = context.state.config.settings.concurrent;
        if !context.inner.slots.prolong(self.flight.id, ended, context.deadline, now.mono, limit) {
            return self.end().refuse(Reason::Overloaded.into(), Source::None, now);
        }
        let call = self.flight.take_over(self.ticket, context.deadline);
        call.run();
        let Self { context, flight, .. } = self;
        context.exchange(flight, 1, now)
    }

    /// Stops waiting.
    fn end(self) -> Context {
        self.leave(false).run();
        self.context
    }

    /// Stops waiting because the time is over.
    fn expire(self) -> Context {
        self.leave(true).run();
        self.context
    }

    fn leave(&self, expired: bool) -> Wakes {
        let (over, wakes) = self.flight.leave(self.ticket, expired);
        if over {
            self.context.release(&self.flight);
        }
        wakes
    }
}
