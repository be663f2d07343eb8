//! Answers remembered and questions under way, side by side under one lock per shard: whoever finds neither is the one who
//! asks, and an answer is written only while its flight is still the one that counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::cache::{Hit, Lookup, Pools};
use crate::claims::Claims;
use crate::config::{Config, Settings, Sizes};
use crate::decision::Grant;
use crate::flight::{Flight, Outcome, Ticket, Wakes};
use crate::key::{Key, KeyHasher, Keys};
use crate::request::Request;
use crate::stats::Snapshot;

pub(crate) struct Store {
    keys: Keys,
    evictions: Arc<AtomicU64>,
    shards: Box<[Apart]>,
}

/// A shard on cache lines of its own: threads at work in two of them do not meet.
#[repr(align(128))]
struct Apart(Mutex<Shard>);

struct Shard {
    pools: Pools,
    flights: HashMap<Key, Boarded, KeyHasher>,
}

struct Boarded {
    flight: Arc<Flight>,
    family: Option<Key>,
}

/// What becomes of a request that found no answer.
pub(crate) enum Boarding {
    /// There is an answer after all.
    Hit(Hit),
    /// It waits for another's.
    Joined(Arc<Flight>, Ticket),
    /// It asks.
    Started(Arc<Flight>),
    /// It may not ask.
    Full,
}

impl Store {
    /// An empty store with a random prefix of its own, or the operating system's reason why there is none. It counts on from where the
    /// older one is.
    pub(crate) fn new(config: &Config, older: Option<&Self>) -> Result<Self, String> {
        let mut prefix = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *prefix).map_err(|error| error.to_string())?;
        let evictions = older.map(|older| Arc::clone(&older.evictions)).unwrap_or_default();
        Ok(Self::with(Keys::new(&prefix, config.endpoint.introspect_request), config.settings.sizes, evictions))
    }

    /// A store of other sizes with everything that this one remembers, as far as it fits. Questions under way stay behind.
    pub(crate) fn resized(&self, config: &Config) -> Self {
        let store = Self::with(self.keys.clone(), config.settings.sizes, Arc::clone(&self.evictions));
        for Apart(shard) in &self.shards {
            let mut old = shard.lock().pools.take();
            old.move_to(|key, put| put(&mut store.shard(key).lock().pools));
        }
        store
    }

    fn with(keys: Keys, sizes: Sizes, evictions: Arc<AtomicU64>) -> Self {
        let count = shards(sizes);
        let each = Sizes {
            capacity: sizes.capacity / count,
            negative_capacity: sizes.negative_capacity / count,
            max_bytes: sizes.max_bytes / count,
        };
        let shard = || {
            Apart(Mutex::new(Shard { pools: Pools::new(each, Arc::clone(&evictions)), flights: HashMap::default() }))
        };
        let shards = std::iter::repeat_with(shard).take(count).collect();
        Self { keys, evictions, shards }
    }

    pub(crate) fn key(&self, token: &[u8], request: &Request<'_>) -> Key {
        self.keys.key(token, request)
    }

    /// What all keys of a token have in common, where one token has several.
    pub(crate) fn family(&self, token: &[u8]) -> Option<Key> {
        self.keys.by_request().then(|| self.keys.family(token))
    }

    pub(crate) fn find(&self, key: &Key, lookup: &Lookup<'_>) -> Option<Hit> {
        self.shard(key).lock().pools.find(key, lookup)
    }

    /// Finds an answer, joins the flight under way, or starts the one that `start` makes.
    pub(crate) fn board(
        &self,
        key: &Key,
        family: Option<Key>,
        deadline: i64,
        lookup: &Lookup<'_>,
        start: impl FnOnce() -> Option<Arc<Flight>>,
    ) -> Boarding {
        let mut shard = self.shard(key).lock();
        if let Some(hit) = shard.pools.find(key, lookup) {
            return Boarding::Hit(hit);
        }
        if let Some(boarded) = shard.flights.get(key)
            && let Some(ticket) = boarded.flight.join(deadline, lookup.now.mono)
        {
            return Boarding::Joined(Arc::clone(&boarded.flight), ticket);
        }
        let Some(flight) = start() else { return Boarding::Full };
        shard.flights.insert(*key, Boarded { flight: Arc::clone(&flight), family });
        Boarding::Started(flight)
    }

    /// Ends a flight that is answered or failed in time. The answer is written if the flight is still the one for its key:
    /// not forgotten, not replaced.
    pub(crate) fn land(&self, key: &Key, flight: &Arc<Flight>, outcome: Outcome, settings: &Settings) -> Wakes {
        {
            let mut shard = self.shard(key).lock();
            if let Some(boarded) = shard.retire(key, flight)
                && let Outcome::Answer(answer, asked) = &outcome
            {
                shard.pools.insert(*key, boarded.family, answer, *asked, settings);
            }
        }
        flight.finish(outcome)
    }

    /// A flight is over without an answer for others.
    pub(crate) fn retire(&self, key: &Key, flight: &Arc<Flight>) {
        self.shard(key).lock().retire(key, flight);
    }

    /// Whether this flight is the one for its key.
    pub(crate) fn holds(&self, key: &Key, flight: &Arc<Flight>) -> bool {
        self.shard(key).lock().flights.get(key).is_some_and(|boarded| Arc::ptr_eq(&boarded.flight, flight))
    }

    /// Remembers what was computed for an answer.
    pub(crate) fn keep(&self, key: &Key, claims: &Arc<Claims>, grant: Arc<Grant>) {
        self.shard(key).lock().pools.keep(key, claims, grant);
    }

    /// Drops what is remembered about a token, and lets no request that begins from now on join a flight for it.
    pub(crate) fn forget(&self, token: &[u8]) -> bool {
        let family = self.keys.family(token);
        if !self.keys.by_request() {
            let mut shard = self.shard(&family).lock();
            shard.flights.remove(&family);
            return shard.pools.remove(&family);
        }
        let mut forgotten = false;
        for Apart(shard) in &self.shards {
            let mut shard = shard.lock();
            shard.flights.retain(|_, boarded| boarded.family != Some(family));
            forgotten |= shard.pools.remove_family(&family);
        }
        forgotten
    }

    pub(crate) fn forget_all(&self) {
        for Apart(shard) in &self.shards {
            let mut shard = shard.lock();
            shard.flights.clear();
            shard.pools.clear();
        }
    }

    pub(crate) fn count(&self, snapshot: &mut Snapshot) {
        for Apart(shard) in &self.shards {
            let shard = shard.lock();
            let (positive, negative, bytes) = shard.pools.held();
            snapshot.entries += positive;
            snapshot.negative_entries += negative;
            snapshot.bytes += bytes;
        }
        snapshot.evictions = self.evictions.load(Ordering::Relaxed);
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        let at = key.shard() & (self.shards.len() - 1);
        // INVARIANT: the number of shards is a power of two, so `at` is an index.
        #[allow(clippy::indexing_slicing, reason = "see above")]
        &self.shards[at].0
    }
}

impl Shard {
    fn retire(&mut self, key: &Key, flight: &Arc<Flight>) -> Option<Boarded> {
        let same = self.flights.get(key).is_some_and(|boarded| Arc::ptr_eq(&boarded.flight, flight));
        if same { self.flights.remove(key) } else { None }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// How many shards: enough that threads seldom meet, few enough that each keeps a good number of entries. Small caches have
/// one, whose order of use is exact.
fn shards(sizes: Sizes) -> usize {
    let most = [sizes.capacity / 1024, sizes.max_bytes / (4 << 20)];
    let negative = if sizes.negative_capacity == 0 { usize::MAX } else { sizes.negative_capacity / 256 };
    let count = most.into_iter().chain([negative, 32]).min().unwrap_or(1).max(1);
    1 << count.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_caches_have_one_shard_and_large_ones_a_power_of_two() {
        let sizes = |capacity, negative_capacity, max_bytes| Sizes { capacity, negative_capacity, max_bytes };
        assert_eq!(shards(sizes(2, 10_000, 1 << 27)), 1);
        assert_eq!(shards(sizes(100_000, 2, 1 << 27)), 1);
        assert_eq!(shards(sizes(100_000, 10_000, 1 << 20)), 1);
        assert_eq!(shards(sizes(100_000, 10_000, 1 << 27)), 32);
        assert_eq!(shards(sizes(1_000_000, 0, 1 << 30)), 32);
        assert_eq!(shards(sizes(5000, 10_000, 1 << 27)), 4);
    }
}
