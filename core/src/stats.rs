//! Counters: what happened since the introspector was built, and how things stand.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::duration;
use crate::decision::{Decision, Reason};

/// Upper bounds of the latency histogram's buckets, in milliseconds; the last bucket has none.
pub const LATENCY_BOUNDS_MS: [u64; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000];

const BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;
/// Counters of requests are spread over threads, so that these do not pull one cache line back and forth. The first threads of a process
/// have a stripe each, which nobody else writes to.
const OWN: usize = 16;
/// The others share these.
const SHARED: usize = 8;

/// The number of this thread: of no other thread in the process, before or after.
fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static THREAD: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is about to end shares.
    THREAD.try_with(|thread| *thread).unwrap_or(OWN)
}

/// Counters of requests, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    /// Positive hits are counted apart.
    allowed: AtomicU64,
    hits_allowed: AtomicU64,
    hits_denied: AtomicU64,
    negative_hits: AtomicU64,
    denied: [AtomicU64; Reason::ALL.len()],
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    stripes: [Stripe; OWN + SHARED],
    pub(crate) misses: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) introspections: AtomicU64,
    pub(crate) values_left_out: AtomicU64,
    pub(crate) bodies_not_searched: AtomicU64,
    latency: [AtomicU64; BUCKETS],
    latency_sum: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    /// `hit`: the answer was remembered, and whether it was a positive one. A hit that is allowed touches one counter.
    #[inline(always)]
    pub(crate) fn decided(&self, decision: &Decision, hit: Option<bool>) {
        let thread = thread();
        let own = thread < OWN;
        // INVARIANT: it is an index.
        let Some(stripe) = self.stripes.get(if own { thread } else { OWN + thread % SHARED }) else { return };
        let count = |counter: &AtomicU64| {
            if own {
                // Only this thread writes to it, so nothing is lost between the two; an addition at once takes several times as long.
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            } else {
                count(counter);
            }
        };
        match (decision, hit) {
            (Decision::Allow(_), Some(true)) => count(&stripe.hits_allowed),
            (Decision::Allow(_), _) => count(&stripe.allowed),
            (Decision::Deny(deny), _) => stripe.denied.get(deny.reason.index()).into_iter().for_each(count),
        }
        match (decision, hit) {
            (Decision::Deny(_), Some(true)) => count(&stripe.hits_denied),
            (_, Some(false)) => count(&stripe.negative_hits),
            _ => {}
        }
    }

    /// The time from asking to the answer or failure.
    pub(crate) fn answered(&self, micros: i64) {
        let elapsed = duration(micros);
        let bucket = LATENCY_BOUNDS_MS.iter().position(|bound| elapsed <= Duration::from_millis(*bound));
        self.latency.get(bucket.unwrap_or(BUCKETS - 1)).into_iter().for_each(count);
        self.latency_sum.fetch_add(u64::try_from(micros).unwrap_or(0), Ordering::Relaxed);
    }

    /// Without what the cache counts.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sum = |of: &dyn Fn(&Stripe) -> u64| self.stripes.iter().map(of).sum::<u64>();
        Snapshot {
            misses: load(&self.misses),
            waits: load(&self.waits),
            introspections: load(&self.introspections),
            values_left_out: load(&self.values_left_out),
            bodies_not_searched: load(&self.bodies_not_searched),
            hits: sum(&|stripe| load(&stripe.hits_allowed) + load(&stripe.hits_denied)),
            negative_hits: sum(&|stripe| load(&stripe.negative_hits)),
            allowed: sum(&|stripe| load(&stripe.allowed) + load(&stripe.hits_allowed)),
            denied: Reason::ALL
                .iter()
                .map(|reason| (*reason, sum(&|stripe| stripe.denied.get(reason.index()).map_or(0, load))))
                .collect(),
            latency: self.latency.iter().map(load).collect(),
            latency_sum: Duration::from_micros(load(&self.latency_sum)),
            ..Snapshot::default()
        }
    }
}

/// The counters at a moment. All but the last five only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Requests answered from a remembered positive answer.
    pub hits: u64,
    /// Requests answered from a remembered `active: false`.
    pub negative_hits: u64,
    /// Requests that started an introspection.
    pub misses: u64,
    /// Requests that waited for another's introspection.
    pub waits: u64,
    /// Calls that were handed to the host, retries included.
    pub introspections: u64,
    /// Header values that were over `limits.header_bytes`, counted each time edits are computed.
    pub values_left_out: u64,
    /// Request bodies that could have held a token and were too long or coded.
    pub bodies_not_searched: u64,
    /// Requests allowed.
    pub allowed: u64,
    /// Requests denied, by reason, every reason once in the order of its number.
    pub denied: Vec<(Reason, u64)>,
    /// Calls by how long they took: one count for each of [`LATENCY_BOUNDS_MS`], and one for those that took longer.
    pub latency: Vec<u64>,
    /// The time that all calls took together.
    pub latency_sum: Duration,
    /// Entries pushed out by newer ones, since the cache began.
    pub evictions: u64,
    /// Positive entries.
    pub entries: usize,
    /// Negative entries.
    pub negative_entries: usize,
    /// Bytes of both pools, counted with keys, claims and edits.
    pub bytes: usize,
    /// Introspections under way.
    pub in_flight: usize,
}

impl Snapshot {
    /// How often a request was denied for this reason.
    #[must_use]
    pub fn denied(&self, reason: Reason) -> u64 {
        self.denied.iter().find(|(one, _)| *one == reason).map_or(0, |(_, count)| *count)
    }

    /// How many [`numbers`](Self::numbers) are gauges: the last ones.
    pub const GAUGES: usize = 4;

    /// All of it as numbers, for hosts that add up what several processes counted: sums of them, one by one, are the
    /// numbers of all processes together. All but the last [`GAUGES`](Self::GAUGES) only grow. Order and number are those
    /// of this version of the library.
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        let counters = [
            self.hits,
            self.negative_hits,
            self.misses,
            self.waits,
            self.introspections,
            self.values_left_out,
            self.bodies_not_searched,
            self.allowed,
            self.evictions,
            u64::try_from(self.latency_sum.as_micros()).unwrap_or(u64::MAX),
        ];
        let gauges = [self.entries, self.negative_entries, self.bytes, self.in_flight];
        let denied = Reason::ALL.iter().map(|reason| self.denied(*reason));
        let latency = (0..BUCKETS).map(|bucket| self.latency.get(bucket).copied().unwrap_or(0));
        counters.into_iter().chain(denied).chain(latency).chain(gauges.map(|gauge| gauge as u64)).collect()
    }

    /// The snapshot of [`numbers`](Self::numbers); none if they are not as many.
    #[must_use]
    pub fn of_numbers(numbers: &[u64]) -> Option<Self> {
        let mut numbers = numbers.iter().copied();
        let mut next = || numbers.next();
        let snapshot = Self {
            hits: next()?,
            negative_hits: next()?,
            misses: next()?,
            waits: next()?,
            introspections: next()?,
            values_left_out: next()?,
            bodies_not_searched: next()?,
            allowed: next()?,
            evictions: next()?,
            latency_sum: Duration::from_micros(next()?),
            denied: Reason::ALL.iter().map(|reason| Some((*reason, next()?))).collect::<Option<_>>()?,
            latency: (0..BUCKETS).map(|_| next()).collect::<Option<_>>()?,
            entries: usize::try_from(next()?).unwrap_or(usize::MAX),
            negative_entries: usize::try_from(next()?).unwrap_or(usize::MAX),
            bytes: usize::try_from(next()?).unwrap_or(usize::MAX),
            in_flight: usize::try_from(next()?).unwrap_or(usize::MAX),
        };
        next().is_none().then_some(snapshot)
    }

    /// The counters as Prometheus text (exposition format 0.0.4).
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(4096);
        for (name, kind, help, value) in [
            ("hits_total", "counter", "Requests answered from a remembered positive answer.", self.hits),
            ("negative_hits_total", "counter", "Requests answered from a remembered active:false.", self.negative_hits),
            ("misses_total", "counter", "Requests that started an introspection.", self.misses),
            ("waits_total", "counter", "Requests that waited for another's introspection.", self.waits),
            (
                "introspections_total",
                "counter",
                "Calls to the introspection endpoint, retries included.",
                self.introspections,
            ),
            ("evictions_total", "counter", "Cache entries pushed out by newer ones.", self.evictions),
            ("header_values_left_out_total", "counter", "Header values over the limit.", self.values_left_out),
            ("bodies_not_searched_total", "counter", "Request bodies too long or coded.", self.bodies_not_searched),
            ("cache_entries", "gauge", "Positive cache entries.", self.entries as u64),
            ("cache_negative_entries", "gauge", "Negative cache entries.", self.negative_entries as u64),
            ("cache_bytes", "gauge", "Bytes of the cache.", self.bytes as u64),
            ("in_flight", "gauge", "Introspections under way.", self.in_flight as u64),
        ] {
            header(&mut text, name, kind, help);
            let _ = writeln!(text, "tokenward_{name} {value}");
        }
        header(&mut text, "decisions_total", "counter", "Decisions by outcome and reason.");
        let _ = writeln!(text, "tokenward_decisions_total{{outcome=\"allow\",reason=\"\"}} {}", self.allowed);
        for (reason, count) in &self.denied {
            let _ = writeln!(text, "tokenward_decisions_total{{outcome=\"deny\",reason=\"{reason}\"}} {count}");
        }
        let name = "introspection_duration_seconds";
        header(&mut text, name, "histogram", "Time from asking to the answer or failure.");
        let mut total = 0;
        for (bound, count) in LATENCY_BOUNDS_MS.iter().zip(&self.latency) {
            total += count;
            let seconds = Duration::from_millis(*bound).as_secs_f64();
            let _ = writeln!(text, "tokenward_{name}_bucket{{le=\"{seconds}\"}} {total}");
        }
        total = self.latency.iter().sum();
        let _ = writeln!(text, "tokenward_{name}_bucket{{le=\"+Inf\"}} {total}");
        let _ = writeln!(text, "tokenward_{name}_sum {}", self.latency_sum.as_secs_f64());
        let _ = writeln!(text, "tokenward_{name}_count {total}");
        text
    }
}

fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP tokenward_{name} {help}\n# TYPE tokenward_{name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_made_of_its_numbers_again() {
        let count = Snapshot::default().numbers().len() as u64;
        let numbers: Vec<u64> = (1..=count).collect();
        let snapshot = Snapshot::of_numbers(&numbers).unwrap();
        assert_eq!(snapshot.numbers(), numbers);
        assert_eq!(snapshot.hits, 1);
        assert_eq!(snapshot.in_flight as u64, count);
        assert_eq!(Snapshot::of_numbers(&numbers[1..]), None);
        assert_eq!(Snapshot::of_numbers(&[numbers.clone(), vec![0]].concat()), None);
        let stats = Stats::default();
        stats.answered(3000);
        assert_eq!(Snapshot::of_numbers(&stats.snapshot().numbers()).unwrap(), stats.snapshot());
    }

    #[test]
    fn a_latency_falls_into_one_bucket() {
        let stats = Stats::default();
        for micros in [0, 1000, 1001, 5_000_000, 5_000_001, i64::MAX] {
            stats.answered(micros);
        }
        let snapshot = stats.snapshot();
        assert_eq!(snapshot.latency, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        let text = snapshot.prometheus();
        assert!(text.contains("tokenward_introspection_duration_seconds_bucket{le=\"0.002\"} 3\n"));
        assert!(text.contains("tokenward_introspection_duration_seconds_bucket{le=\"+Inf\"} 6\n"));
    }
}
