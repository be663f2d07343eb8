//! What is true: tokens, when they were revoked, and which configurations were in force.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

/// `ttl` and `timeout` of every configuration here.
pub(crate) const TTL: Duration = Duration::from_secs(2);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a worker of before a reload may still answer: nginx's ends when its clients let it.
const HANDOVER: Duration = Duration::from_secs(10);

const HOT: usize = 64;
const SLOTS: usize = 4000;
/// Tokens that are revoked or will expire, and are asked about all the same.
const GRAVES: usize = 2000;
const USERS: usize = 60;
/// Users that have no consumer.
pub(crate) const CONSUMERS: usize = 50;

const NEVER: u64 = u64::MAX;

/// A token that was issued.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) user: usize,
    /// Seconds since 1970.
    pub(crate) exp: u64,
    /// Microseconds since the beginning.
    revoked: AtomicU64,
}

pub(crate) struct Truth {
    began: Instant,
    count: AtomicU64,
    issued: RwLock<HashMap<String, Arc<Token>>>,
    slots: Vec<Mutex<Arc<Token>>>,
    graves: Mutex<VecDeque<Arc<Token>>>,
    passing: Mutex<VecDeque<Arc<Token>>>,
    generations: Mutex<VecDeque<Generation>>,
    problems: Mutex<Vec<String>>,
    pub(crate) counts: [AtomicUsize; KINDS.len()],
    pub(crate) upstream_requests: AtomicUsize,
}

struct Generation {
    number: u64,
    written: Instant,
    /// When it was seen to be in force.
    confirmed: Option<Instant>,
}

/// What becomes of requests, in the order of `counts`.
pub(crate) const KINDS: [&str; 9] = [
    "let in",
    "let in for a while after the token was revoked",
    "refused for an unknown token",
    "refused for a revoked token",
    "refused for an expired token",
    "refused without a token",
    "refused for a malformed token",
    "begun anew, since the host had closed the connection",
    "left without a decision",
];
pub(crate) const LET_IN: usize = 0;
pub(crate) const LET_IN_AFTER: usize = 1;
pub(crate) const UNKNOWN: usize = 2;
pub(crate) const REVOKED: usize = 3;
pub(crate) const EXPIRED: usize = 4;
pub(crate) const MISSING: usize = 5;
pub(crate) const MALFORMED: usize = 6;
pub(crate) const ANEW: usize = 7;
pub(crate) const FAILED: usize = 8;

/// A number that is hard to tell from the next one; quality does not matter here.
pub(crate) fn scramble(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Adds one, and gives the one that has no place any more.
fn push(ring: &Mutex<VecDeque<Arc<Token>>>, token: Arc<Token>) -> Option<Arc<Token>> {
    let mut ring = ring.lock();
    ring.push_back(token);
    if ring.len() > GRAVES { ring.pop_front() } else { None }
}

pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

impl Truth {
    pub(crate) fn new() -> Self {
        let mut truth = Self {
            began: Instant::now(),
            count: AtomicU64::new(0),
            issued: RwLock::default(),
            slots: Vec::new(),
            graves: Mutex::default(),
            passing: Mutex::default(),
            generations: Mutex::default(),
            problems: Mutex::default(),
            counts: Default::default(),
            upstream_requests: AtomicUsize::new(0),
        };
        truth.slots = (0..SLOTS).map(|_| Mutex::new(truth.issue(3600))).collect();
        truth
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// A token that is good for so many seconds.
    pub(crate) fn issue(&self, lifetime: u64) -> Arc<Token> {
        let number = self.next();
        let token = Arc::new(Token {
            text: format!("good-{number}-{:x}", scramble(number)),
            user: (scramble(number ^ 1) % USERS as u64) as usize,
            exp: wall().as_secs() + lifetime,
            revoked: AtomicU64::new(NEVER),
        });
        self.issued.write().insert(token.text.clone(), Arc::clone(&token));
        token
    }

    /// A token that nobody has issued.
    pub(crate) fn unknown(&self) -> String {
        let number = self.next();
        let padding = if number.is_multiple_of(16) { "x".repeat(2000) } else { String::new() };
        format!("junk-{number}-{:x}{padding}", scramble(number))
    }

    pub(crate) fn hot(&self, random: u64) -> Arc<Token> {
        Arc::clone(&self.slots[random as usize % HOT].lock())
    }

    pub(crate) fn warm(&self, random: u64) -> Arc<Token> {
        Arc::clone(&self.slots[random as usize % SLOTS].lock())
    }

    /// One that was revoked, or expires.
    pub(crate) fn buried(&self, random: u64) -> Option<Arc<Token>> {
        let graves = self.graves.lock();
        let at = random as usize % graves.len().max(1);
        graves.get(at).cloned()
    }

    /// It is asked about for a while, and then nobody knows it any more.
    pub(crate) fn bury(&self, token: Arc<Token>) {
        let oldest = push(&self.graves, token);
        self.forget(oldest);
    }

    /// One that is good for a while, and nearly always asked about for the first time.
    pub(crate) fn passing(&self) -> Arc<Token> {
        let token = self.issue(3600);
        let oldest = push(&self.passing, Arc::clone(&token));
        self.forget(oldest);
        token
    }

    fn forget(&self, token: Option<Arc<Token>>) {
        if let Some(token) = token {
            // A request may be under way with it.
            let now = self.micros(Instant::now());
            let _ = token.revoked.compare_exchange(NEVER, now, Ordering::SeqCst, Ordering::SeqCst);
            self.issued.write().remove(&token.text);
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_micros() as u64
    }

    /// What the authorization server says of a token: its claims, if it is active now.
    pub(crate) fn introspect(&self, text: &str) -> Option<Arc<Token>> {
        let token = self.issued.read().get(text).cloned()?;
        (token.revoked.load(Ordering::SeqCst) == NEVER && wall().as_secs() < token.exp).then_some(token)
    }

    /// When the token was revoked, if it was by then.
    pub(crate) fn revoked_by(&self, token: &Token, at: Instant) -> Option<Duration> {
        let revoked = token.revoked.load(Ordering::SeqCst);
        let age = self.micros(at).checked_sub(revoked)?;
        (revoked != NEVER).then_some(Duration::from_micros(age))
    }

    /// A configuration is about to be written.
    pub(crate) fn write_generation(&self) -> u64 {
        let mut generations = self.generations.lock();
        let number = generations.back().map_or(0, |last| last.number + 1);
        generations.push_back(Generation { number, written: Instant::now(), confirmed: None });
        if generations.len() > 64 {
            generations.pop_front();
        }
        number
    }

    pub(crate) fn confirm_generation(&self, number: u64) {
        if let Some(found) = self.generations.lock().iter_mut().find(|one| one.number == number) {
            found.confirmed.get_or_insert_with(Instant::now);
        }
    }

    /// Whether a generation may have decided about a request that was sent and answered at these moments.
    pub(crate) fn may_be_in_force(&self, number: u64, sent: Instant, answered: Instant) -> bool {
        let generations = self.generations.lock();
        let Some(at) = generations.iter().position(|one| one.number == number) else { return false };
        let superseded = generations.get(at + 1).and_then(|next| next.confirmed);
        generations[at].written <= answered && superseded.is_none_or(|since| sent <= since + HANDOVER)
    }

    pub(crate) fn count(&self, kind: usize) {
        self.counts[kind].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn is_wrong(&self, problem: String) {
        let mut problems = self.problems.lock();
        if problems.len() < 20 {
            problems.push(problem);
        }
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed)))
    }
}

pub(crate) struct Counts([usize; KINDS.len()]);

impl Counts {
    pub(crate) fn answers(&self) -> usize {
        self.0.iter().sum::<usize>() - self.0[ANEW]
    }

    pub(crate) fn let_in(&self) -> usize {
        self.0[LET_IN] + self.0[LET_IN_AFTER]
    }

    pub(crate) fn failed(&self) -> usize {
        self.0[FAILED]
    }

    /// A soak in which one of these never came up has shown nothing about it.
    pub(crate) fn must_happen(&self) -> impl Iterator<Item = (&'static str, usize)> {
        KINDS.into_iter().zip(self.0).take(ANEW)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests", self.answers())?;
        for (kind, count) in KINDS.iter().zip(self.0) {
            write!(f, ", {count} {kind}")?;
        }
        Ok(())
    }
}

/// Revokes tokens, and issues others in their place.
pub(crate) async fn churn(truth: Arc<Truth>, until: Instant) {
    let mut random = 1;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
        random = scramble(random);
        // A hot one now and then.
        let at = if random % 20 == 0 { random >> 32 } else { (random >> 32) % SLOTS as u64 };
        let at = if random % 20 == 0 { at as usize % HOT } else { at as usize };
        let brief = random % 3 == 0;
        let next = if brief { truth.issue(1 + random % 4) } else { truth.issue(3600) };
        let before = std::mem::replace(&mut *truth.slots[at].lock(), Arc::clone(&next));
        before.revoked.store(truth.micros(Instant::now()), Ordering::SeqCst);
        truth.bury(before);
        if brief {
            // Expires in its place, and is asked about then as well.
            truth.bury(next);
        }
    }
}
