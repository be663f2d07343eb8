//! What is remembered: answers under a hash of the token, in two pools that do not push each other out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use crate::claims::{Bounds, Claims, Marks, NumericDate};
use crate::clock::Now;
use crate::config::{Settings, Sizes};
use crate::decision::{Grant, Made};
use crate::key::Key;
use crate::recent::Recent;
use crate::reply::Introspection;

/// What was computed first of all that is still of use; none if nothing was yet.
type First = Option<Arc<Grant>>;

/// A remembered positive answer, with all that a hit looks at.
#[derive(Debug)]
struct Positive {
    asked: Now,
    /// The bounds of the claims.
    times: [i64; 2],
    marks: Marks,
    /// Of the first.
    made: Made,
    claims: Arc<Claims>,
    more: Option<Box<More>>,
}

/// With its key, a cache line and a half.
const _: () = assert!(size_of::<Key>() + size_of::<Positive>() == 96);

/// What few entries have.
#[derive(Debug, Default)]
struct More {
    /// Where keys differ by request.
    family: Option<Key>,
    /// What was computed later, for further policies.
    grants: Vec<Arc<Grant>>,
}

impl Positive {
    fn new(claims: &Arc<Claims>, family: Option<Key>, asked: Now) -> Self {
        let Bounds { times, marks } = claims.bounds;
        let more = family.map(|family| Box::new(More { family: Some(family), grants: Vec::new() }));
        Self { asked, times, marks, made: Made::default(), claims: Arc::clone(claims), more }
    }

    fn bounds(&self) -> Bounds {
        Bounds { times: self.times, marks: self.marks }
    }

    /// Everything that was computed, the oldest first.
    fn grants<'a>(&'a self, first: &'a First) -> impl Iterator<Item = &'a Arc<Grant>> {
        first.iter().chain(self.more.iter().flat_map(|more| &more.grants))
    }

    /// Keeps exactly these, the oldest first.
    fn keep(&mut self, first: &mut First, grants: impl IntoIterator<Item = Arc<Grant>>) {
        let mut grants = grants.into_iter();
        *first = grants.next();
        self.made = first.as_ref().map_or_else(Made::default, |first| first.made);
        let grants: Vec<Arc<Grant>> = grants.collect();
        let family = self.family().copied();
        let is_more = family.is_some() || !grants.is_empty();
        self.more = is_more.then(|| Box::new(More { family, grants }));
    }

    fn family(&self) -> Option<&Key> {
        self.more.as_ref()?.family.as_ref()
    }

    /// What it takes in all. The same whenever it is asked, until something else is kept.
    fn bytes(&self, first: &First) -> usize {
        let grants = self.grants(first).map(|grant| grant_bytes(grant));
        let more = if self.more.is_some() { MORE_BYTES } else { 0 };
        POSITIVE_BYTES + more + self.claims.heap() + grants.sum::<usize>()
    }
}

fn grant_bytes(grant: &Grant) -> usize {
    GRANT_BYTES + grant.set.heap()
}

#[derive(Debug)]
struct Negative {
    asked: Now,
    family: Option<Box<Key>>,
}

/// What a look-up depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup<'s> {
    pub(crate) now: Now,
    pub(crate) settings: &'s Settings,
    /// None: nothing that was computed before can be told to be the same.
    pub(crate) made: Option<Made>,
}

/// An answer found.
#[derive(Debug)]
pub(crate) enum Hit {
    /// What was computed for this answer, policy and directory before, and the bounds of its claims.
    Known(Arc<Grant>, Bounds),
    /// An answer for which nothing was computed yet.
    Active(Arc<Claims>),
    Inactive,
}

/// How many ways of making edits are kept for one answer. Policies that differ in nothing that edits depend on share one.
const GRANTS: usize = 4;
/// What a positive entry takes beside its claims and edits: entry, links, table, reference counts, allocator. Measured (`cargo bench -p
/// tokenward-core --bench cost -- memory`), as the others are.
const POSITIVE_BYTES: usize = 300;
/// What the few take that have [`More`].
const MORE_BYTES: usize = 48;
/// What one set of computed edits takes beside its lines.
const GRANT_BYTES: usize = 128;
/// What a negative entry takes in all.
pub(crate) const NEGATIVE_BYTES: usize = 112;

/// Both pools of one shard.
pub(crate) struct Pools {
    positive: Recent<First, Positive>,
    negative: Recent<(), Negative>,
    sizes: Sizes,
    bytes: usize,
    /// Shared with the store that takes this one's place: it only grows.
    evictions: Arc<AtomicU64>,
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Pools {
    pub(crate) fn new(sizes: Sizes, evictions: Arc<AtomicU64>) -> Self {
        Self {
            positive: Recent::new(),
            negative: Recent::new(),
            sizes: Sizes {
                capacity: sizes.capacity.min(Recent::<First, Positive>::MOST),
                negative_capacity: sizes.negative_capacity.min(Recent::<(), Negative>::MOST),
                ..sizes
            },
            bytes: 0,
            evictions,
        }
    }

    #[inline(always)]
    pub(crate) fn find(&mut self, key: &Key, lookup: &Lookup<'_>) -> Option<Hit> {
        let Lookup { now, settings, made } = *lookup;
        if let Some((first, entry)) = self.positive.get(key) {
            // What a hit counts a reference in is on its way from memory from here on, while the entry still is.
            let _ = first.as_ref().map(Arc::strong_count);
            let bounds = entry.bounds();
            if is_of_use(bounds.exp(), entry.asked, now, settings) {
                let known = match first {
                    Some(first) if Some(entry.made) == made => Some(&*first),
                    _ => entry.grants(first).find(|grant| Some(grant.made) == made),
                };
                return Some(match known {
                    Some(grant) => Hit::Known(Arc::clone(grant), bounds),
                    None => Hit::Active(Arc::clone(&entry.claims)),
                });
            }
            self.remove_positive(key);
        } else if let Some((_, entry)) = self.negative.get(key) {
            if is_alive(entry.asked, settings.negative_ttl, now) {
                return Some(Hit::Inactive);
            }
            self.remove_negative(key);
        }
        None
    }

    /// Remembers an answer, in place of whatever was remembered for the key.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        family: Option<Key>,
        answer: &Introspection,
        asked: Now,
        settings: &Settings,
    ) {
        self.remove(&key);
        if let Introspection::Active(claims) = answer
            && end(claims.bounds.exp(), settings) <= asked.wall
        {
            return; // it was over before it came
        }
        match answer {
            Introspection::Active(claims) => {
                let entry = Positive::new(claims, family, asked);
                let bytes = entry.bytes(&None);
                if self.make_room(bytes) {
                    self.positive.put(key, None, entry);
                    self.bytes += bytes;
                }
            }
            Introspection::Inactive => {
                if settings.negative_ttl > 0 {
                    self.insert_negative(key, Negative { asked, family: family.map(Box::new) });
                }
            }
        }
    }

    /// Remembers what was computed for an answer, if that answer is still there.
    pub(crate) fn keep(&mut self, key: &Key, claims: &Arc<Claims>, grant: Arc<Grant>) {
        let Some((first, entry)) = self.positive.peek(key) else { return };
        if !Arc::ptr_eq(&entry.claims, claims) {
            return;
        }
        let Made { edits, generation, .. } = grant.made;
        let mut grants: SmallVec<[Arc<Grant>; GRANTS]> = entry.grants(first).map(Arc::clone).collect();
        grants.retain(|one| one.made.edits != edits && one.made.generation == generation);
        if grants.len() >= GRANTS {
            grants.remove(0);
        }
        grants.push(grant);
        let before = entry.bytes(first);
        entry.keep(first, grants);
        if entry.bytes(first) > self.sizes.max_bytes {
            // Too large to keep with its edits: they are computed again for each request.
            entry.keep(first, []);
        }
        self.bytes = self.bytes - before + entry.bytes(first);
        self.shrink(key);
    }

    /// Drops what is remembered for a key; tells whether there was something.
    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        let positive = self.remove_positive(key);
        self.remove_negative(key) || positive
    }

    /// Drops every entry of a family.
    pub(crate) fn remove_family(&mut self, family: &Key) -> bool {
        let positive = self.positive.iter().filter(|(_, entry)| entry.family() == Some(family)).map(|(key, _)| *key);
        let negative = self.negative.iter().filter(|(_, entry)| entry.family.as_deref() == Some(family));
        let negative = negative.map(|(key, _)| *key);
        let keys: Vec<Key> = positive.chain(negative).collect();
        for key in &keys {
            self.remove(key);
        }
        !keys.is_empty()
    }

    /// Everything that is remembered, which is no longer remembered here.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self::new(self.sizes, Arc::clone(&self.evictions));
        std::mem::replace(self, empty)
    }

    pub(crate) fn clear(&mut self) {
        drop(self.take());
    }

    /// Positive entries, negative entries, bytes.
    pub(crate) fn held(&self) -> (usize, usize, usize) {
        (self.positive.len(), self.negative.len(), self.bytes)
    }

    /// Moves everything, least recently used first, to where `place` says.
    pub(crate) fn move_to(&mut self, mut place: impl FnMut(&Key, &mut dyn FnMut(&mut Self))) {
        while let Some((key, (), entry)) = self.negative.pop_oldest() {
            let mut entry = Some(entry);
            place(&key, &mut |pools| {
                if let Some(entry) = entry.take() {
                    pools.insert_negative(key, entry);
                }
            });
        }
        while let Some((key, first, entry)) = self.positive.pop_oldest() {
            let mut entry = Some((first, entry));
            place(&key, &mut |pools| {
                if let Some((first, entry)) = entry.take()
                    && let bytes = entry.bytes(&first)
                    && pools.make_room(bytes)
                {
                    pools.bytes += bytes;
                    pools.positive.put(key, first, entry);
                }
            });
        }
        self.bytes = 0;
    }

    fn insert_negative(&mut self, key: Key, entry: Negative) {
        if self.sizes.negative_capacity == 0 {
            return;
        }
        // A rejected token makes room among the rejected ones, or is not remembered.
        while self.negative.len() >= self.sizes.negative_capacity || self.bytes + NEGATIVE_BYTES > self.sizes.max_bytes
        {
            if !self.evict_negative() {
                return;
            }
        }
        self.negative.put(key, (), entry);
        self.bytes += NEGATIVE_BYTES;
    }

    /// Makes room for one more positive entry; false if it can never fit.
    fn make_room(&mut self, bytes: usize) -> bool {
        if bytes > self.sizes.max_bytes {
            return false;
        }
        while self.positive.len() >= self.sizes.capacity {
            if !self.evict_positive() {
                return false;
            }
        }
        while self.bytes + bytes > self.sizes.max_bytes {
            if !self.evict_negative() && !self.evict_positive() {
                return false;
            }
        }
        true
    }

    /// Brings the pools below their limit again after the entry of `key` grew.
    fn shrink(&mut self, key: &Key) {
        self.positive.get(key);
        while self.bytes > self.sizes.max_bytes {
            if !self.evict_negative() && !self.evict_positive() {
                break;
            }
        }
    }

    fn evict_negative(&mut self) -> bool {
        let evicted = self.negative.pop_oldest().is_some();
        if evicted {
            self.bytes -= NEGATIVE_BYTES;
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        evicted
    }

    fn evict_positive(&mut self) -> bool {
        let Some((_, first, entry)) = self.positive.pop_oldest() else { return false };
        self.bytes -= entry.bytes(&first);
        self.evictions.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn remove_positive(&mut self, key: &Key) -> bool {
        let removed = self.positive.pop(key);
        if let Some((first, entry)) = &removed {
            self.bytes -= entry.bytes(first);
        }
        removed.is_some()
    }

    fn remove_negative(&mut self, key: &Key) -> bool {
        let removed = self.negative.pop(key).is_some();
        if removed {
            self.bytes -= NEGATIVE_BYTES;
        }
        removed
    }
}

/// Whether an answer may still be used, apart from the checks on its claims.
pub(crate) fn is_fresh(answer: &Introspection, asked: Now, now: Now, settings: &Settings) -> bool {
    match answer {
        Introspection::Inactive => true,
        Introspection::Active(claims) => is_of_use(claims.bounds.exp(), asked, now, settings),
    }
}

/// Whether a positive answer may be reused: neither `ttl` nor `exp` is over. What was left until `exp` when the question was asked is
/// held against the monotonic clock as well: a wall clock that is set back does not lengthen a token's life.
fn is_of_use(exp: Option<NumericDate>, asked: Now, now: Now, settings: &Settings) -> bool {
    let end = end(exp, settings);
    let left = end.saturating_sub(asked.wall);
    is_alive(asked, settings.ttl.of(exp.is_some()), now) && now.wall < end && now.mono < asked.mono.saturating_add(left)
}

/// When `exp` plus `leeway` is reached; never without `exp`.
fn end(exp: Option<NumericDate>, settings: &Settings) -> i64 {
    exp.map_or(i64::MAX, |exp| exp.0.saturating_add(settings.leeway))
}

/// Whether `lifetime` since `asked` is not over, on either clock.
fn is_alive(asked: Now, lifetime: i64, now: Now) -> bool {
    now.mono < asked.mono.saturating_add(lifetime) && now.wall < asked.wall.saturating_add(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(capacity: usize, negative_capacity: usize, max_bytes: usize) -> Pools {
        Pools::new(Sizes { capacity, negative_capacity, max_bytes }, Arc::default())
    }

    impl Pools {
        fn evicted(&self) -> u64 {
            self.evictions.load(Ordering::Relaxed)
        }
    }

    fn key(n: u8) -> Key {
        Key::of([n; 32])
    }

    fn now() -> Now {
        Now { wall: 0, mono: 0 }
    }

    /// An answer whose entry takes so many bytes.
    fn active(bytes: usize) -> Introspection {
        let padding = bytes - POSITIVE_BYTES - "{\"active\":true,\"a\":\"\"}".len();
        let body = format!("{{\"active\":true,\"a\":\"{}\"}}", "x".repeat(padding));
        answer_of(&body)
    }

    fn answer_of(body: &str) -> Introspection {
        let headers = [crate::request::Header::new("content-type", "application/json")];
        let reply = crate::reply::Reply::Response { status: 200, headers: &headers, body: body.as_bytes() };
        crate::reply::read(&reply, &crate::reply::Rules { reply_bytes: 1 << 20, digits: false }).unwrap()
    }

    fn lookup(settings: &Settings, edits: u64, generation: u64) -> Lookup<'_> {
        Lookup { now: now(), settings, made: Some(made(edits, generation)) }
    }

    fn made(edits: u64, generation: u64) -> Made {
        Made::new(edits, generation, 8192).unwrap()
    }

    fn has(pools: &mut Pools, n: u8) -> bool {
        pools.find(&key(n), &lookup(&Settings::default(), 0, 0)).is_some()
    }

    fn computed(claims: &Arc<Claims>, edits: u64, generation: u64) -> Arc<Grant> {
        let rules = crate::config::Rules::new(crate::config::Profile::Standard);
        let verified = claims.verify(&claims.bounds, &rules.requirements, 0, 0).unwrap();
        let identity = crate::consumer::Identity::Unmatched;
        let set = crate::headers::Set::of_token(verified, &identity, &rules.writing, 8192);
        Arc::new(Grant::of_token(claims, made(edits, generation), identity, set))
    }

    #[test]
    fn rejected_tokens_never_push_an_accepted_one_out() {
        let settings = Settings::default();
        let limit = 1000 + NEGATIVE_BYTES;
        let mut pools = empty(10, 10, limit);
        pools.insert(key(0), None, &active(1000), now(), &settings);
        for n in 1..100 {
            pools.insert(key(n), None, &Introspection::Inactive, now(), &settings);
            assert!(has(&mut pools, 0) && has(&mut pools, n));
            assert_eq!(pools.held(), (1, 1, limit));
        }
        // An accepted one takes the room of rejected ones, and then of the one used least.
        pools.insert(key(100), None, &active(1000), now(), &settings);
        assert!(has(&mut pools, 100) && !has(&mut pools, 99) && !has(&mut pools, 0));
        assert_eq!((pools.held(), pools.evicted()), ((1, 0, 1000), 100));
        pools.clear();
        assert_eq!(pools.held(), (0, 0, 0));
    }

    #[test]
    fn what_fills_the_pools_to_the_byte_fits_and_a_byte_more_does_not() {
        let settings = Settings::default();
        let mut pools = empty(10, 10, 1000);
        pools.insert(key(1), None, &active(1001), now(), &settings);
        assert_eq!(pools.held(), (0, 0, 0));
        pools.insert(key(1), None, &active(1000), now(), &settings);
        assert_eq!(pools.held(), (1, 0, 1000));
        let mut pools = empty(10, 10, 1600);
        pools.insert(key(1), None, &active(800), now(), &settings);
        pools.insert(key(2), None, &active(800), now(), &settings);
        assert_eq!((pools.held(), pools.evicted()), ((2, 0, 1600), 0));
        let mut pools = empty(10, 10, 2 * NEGATIVE_BYTES);
        pools.insert(key(1), None, &Introspection::Inactive, now(), &settings);
        pools.insert(key(2), None, &Introspection::Inactive, now(), &settings);
        assert_eq!((pools.held(), pools.evicted()), ((0, 2, 2 * NEGATIVE_BYTES), 0));
    }

    #[test]
    fn edits_are_kept_for_their_policy_and_directory_and_counted() {
        let settings = Settings::default();
        let answer = active(1000);
        let Introspection::Active(claims) = &answer else { panic!() };
        let mut pools = empty(10, 10, 1 << 20);
        let of =
            |pools: &mut Pools, policy, generation| match pools.find(&key(1), &lookup(&settings, policy, generation)) {
                Some(Hit::Known(grant, bounds)) => {
                    assert_eq!(bounds, claims.bounds);
                    Some(grant)
                }
                Some(Hit::Active(_)) => None,
                _ => panic!("no answer"),
            };
        pools.keep(&key(1), claims, computed(claims, 1, 1));
        assert_eq!(pools.held(), (0, 0, 0), "no answer, no edits");
        pools.insert(key(1), None, &answer, now(), &settings);
        assert!(of(&mut pools, 1, 1).is_none());
        let first = computed(claims, 1, 1);
        let each = GRANT_BYTES + first.set.heap();
        assert_eq!(first.set.heap(), 0, "this answer sets nothing");
        let Introspection::Active(other) = answer_of(r#"{"active":true,"scope":["a"],"exp":1.50,"iat":2}"#) else {
            panic!()
        };
        let set = &computed(&other, 1, 1).set;
        let values: Vec<_> = set.iter(Some(&other), None).map(|(_, value)| value).collect();
        assert_eq!(values, [r#"["a"]"#, "1.5", "2"]);
        // Two of the values are no part of the answer's text.
        assert!(set.heap() >= 2 * (12 + 16 + 3 + crate::headers::ALLOCATION), "{}", set.heap());
        let grant = Arc::clone(&first);
        pools.keep(&key(1), claims, first);
        assert!(Arc::ptr_eq(&of(&mut pools, 1, 1).unwrap(), &grant));
        assert!(of(&mut pools, 2, 1).is_none() && of(&mut pools, 1, 2).is_none());
        assert_eq!(pools.held().2, 1000 + each);
        for policy in 2..=5 {
            pools.keep(&key(1), claims, computed(claims, policy, 1));
        }
        assert!(of(&mut pools, 1, 1).is_none() && of(&mut pools, 2, 1).is_some() && of(&mut pools, 5, 1).is_some());
        assert_eq!(pools.held().2, 1000 + MORE_BYTES + 4 * each);
        pools.keep(&key(1), claims, computed(claims, 5, 1));
        assert_eq!(pools.held().2, 1000 + MORE_BYTES + 4 * each, "in place of the one before");
        pools.keep(&key(1), claims, computed(claims, 5, 2));
        assert!(of(&mut pools, 5, 2).is_some() && of(&mut pools, 2, 1).is_none(), "an older directory's are gone");
        assert_eq!(pools.held().2, 1000 + each);
        // Another answer for the same key is not given the edits of this one.
        let Introspection::Active(other) = active(1000) else { panic!() };
        pools.keep(&key(1), &other, computed(&other, 7, 2));
        assert!(of(&mut pools, 7, 2).is_none());
        pools.remove(&key(1));
        assert_eq!(pools.held(), (0, 0, 0));
    }

    #[test]
    fn edits_that_take_too_much_room_push_out_the_answers_used_least() {
        let settings = Settings::default();
        let mut pools = empty(10, 10, 2000);
        let answer = active(1000);
        let Introspection::Active(claims) = &answer else { panic!() };
        pools.insert(key(1), None, &answer, now(), &settings);
        pools.insert(key(2), None, &active(1000), now(), &settings);
        pools.keep(&key(1), claims, computed(claims, 1, 1));
        assert!(has(&mut pools, 1) && !has(&mut pools, 2));
        assert!(pools.held().2 <= 2000);
    }

    #[test]
    fn edits_that_can_never_fit_push_nobody_out() {
        let settings = Settings::default();
        let mut pools = empty(10, 10, 2000);
        let body = format!(r#"{{"active":true,"scope":[{}]}}"#, "1.50,".repeat(100).trim_end_matches(','));
        let large = answer_of(&body);
        let Introspection::Active(claims) = &large else { panic!() };
        pools.insert(key(1), None, &active(500), now(), &settings);
        pools.insert(key(2), None, &large, now(), &settings);
        let before = pools.held();
        let rules = crate::config::Rules::new(crate::config::Profile::Kong);
        let verified = claims.verify(&claims.bounds, &rules.requirements, 0, 0).unwrap();
        let identity = crate::consumer::Identity::Unmatched;
        let set = crate::headers::Set::of_token(verified, &identity, &rules.writing, 8192);
        assert!(set.heap() > 2000);
        pools.keep(&key(2), claims, Arc::new(Grant::of_token(claims, made(1, 1), identity, set)));
        assert_eq!((pools.held(), pools.evicted()), (before, 0));
        assert!(has(&mut pools, 1) && has(&mut pools, 2));
    }

    #[test]
    fn moved_entries_keep_their_order_of_use_and_their_bytes() {
        let settings = Settings::default();
        let mut old = empty(10, 10, 1 << 20);
        for n in 1..=4 {
            old.insert(key(n), None, &active(1000), now(), &settings);
            old.insert(key(n + 10), None, &Introspection::Inactive, now(), &settings);
        }
        assert!(has(&mut old, 1) && has(&mut old, 11));
        let mut new = empty(2, 2, 1 << 20);
        old.move_to(|_, put| put(&mut new));
        assert_eq!(old.held(), (0, 0, 0));
        assert_eq!(new.held(), (2, 2, 2000 + 2 * NEGATIVE_BYTES));
        assert!(has(&mut new, 1) && has(&mut new, 4) && has(&mut new, 11) && has(&mut new, 14));
    }

    #[test]
    fn bytes_are_counted_back_to_nothing() {
        let settings = Settings::default();
        let mut pools = empty(10, 3, 1 << 20);
        for n in 0..50 {
            pools.insert(key(n), None, &Introspection::Inactive, now(), &settings);
        }
        assert_eq!(pools.held(), (0, 3, 3 * NEGATIVE_BYTES));
        assert_eq!(pools.evicted(), 47);
        for n in 0..50 {
            pools.remove(&key(n));
        }
        assert_eq!(pools.held(), (0, 0, 0));
    }
}
