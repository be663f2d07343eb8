//! The core alone: what a hit costs with so many tokens remembered, on one thread and on two, and what they cost in memory.

use std::error::Error;
use std::hint::black_box;
use std::thread;
use std::time::Instant;

use serde_json::json;
use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Step};

use crate::{Options, token};

/// One of so many hits is timed by itself.
const SAMPLE: u64 = 32;
/// Of a token, as long as 32 random bytes in base64url.
const LENGTH: usize = 43;
const CONSUMER: &str =
    r#"[{"id": "7d3f0a52-5d3c-4a36-9a3b-6f1d5b5f0c11", "username": "jdoe", "custom_id": "customer-1"}]"#;

pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let config = Config::from_json(
        &json!({
            "introspection_url": "http://127.0.0.1/introspect", "authorization_value": "Basic cnM6c2VjcmV0", "ttl": 86400,
            "cache": { "capacity": options.tokens * 2, "max_bytes": 1_u64 << 34 },
        })
        .to_string(),
    )?;
    let introspector = Introspector::builder(config, Consumers::from_json(CONSUMER)?).build()?;
    let before = resident()?;
    for number in 0..options.tokens {
        remember(&introspector, number)?;
    }
    let grown = resident()?.saturating_sub(before);
    // Warm, and every decision's edits made once, as a host's first hit would.
    hits(&introspector, options, 1);
    let memory = resident()?.saturating_sub(before);
    let one = hits(&introspector, options, 2);
    let shared = &introspector;
    let two: Vec<Hits> = thread::scope(|scope| {
        let threads = [3, 4].map(|seed| scope.spawn(move || hits(shared, options, seed)));
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread has panicked")).collect::<Result<_, _>>()
    })?;
    let snapshot = introspector.snapshot();
    println!(
        "{}",
        json!({
            "tokens": options.tokens, "bytes": grown, "bytes_after_hits": memory, "hits": snapshot.hits, "misses": snapshot.misses,
            "one_thread": one.json(),
            "two_threads": two.iter().map(Hits::json).collect::<Vec<_>>(),
        })
    );
    Ok(())
}

/// Asks about a token for the first time.
fn remember(introspector: &Introspector, number: u64) -> Result<(), Box<dyn Error>> {
    let token = token::person(number, LENGTH);
    let headers = [Header::new("Content-Type", "application/json")];
    let reply = token::introspect(&token).ok_or("no such token")?;
    let credentials = format!("Bearer {token}");
    let Step::Introspect(exchange) =
        introspector.begin(&request(&[Header::new("Authorization", &credentials)]), Now::read())
    else {
        return Err("a new token was known".into());
    };
    match exchange.resume(Reply::Response { status: 200, headers: &headers, body: reply.as_bytes() }, Now::read()) {
        Step::Done(Decision::Allow(_)) => Ok(()),
        _ => Err("a good token was refused".into()),
    }
}

struct Hits {
    /// Nanoseconds of a hit, in the mean, without what the loop around it takes.
    mean: f64,
    /// Of those that were timed by themselves, sorted.
    samples: Vec<u64>,
}

impl Hits {
    fn json(&self) -> serde_json::Value {
        let at = |share: usize| self.samples.get(self.samples.len() * share / 1000);
        json!({ "mean_ns": self.mean, "p50_ns": at(500), "p99_ns": at(990) })
    }
}

/// Hits on tokens in an order that no cache of the processor foresees.
fn hits(introspector: &Introspector, options: &Options, seed: u64) -> Hits {
    let mut samples = Vec::new();
    let loop_alone = Instant::now();
    each(options, seed, |_, _| {});
    let loop_alone = loop_alone.elapsed();
    let began = Instant::now();
    each(options, seed, |turn, credentials| {
        let timed = turn.is_multiple_of(SAMPLE).then(Instant::now);
        let headers =
            [Header::new("Host", "gateway"), Header::new("Authorization", credentials), Header::new("Accept", "*/*")];
        let step = introspector.begin(&request(&headers), Now::read());
        assert!(matches!(step, Step::Done(Decision::Allow(_))), "a remembered token was not allowed");
        black_box(&step);
        drop(step);
        if let Some(timed) = timed {
            samples.push(u64::try_from(timed.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    });
    let spent = began.elapsed().saturating_sub(loop_alone);
    samples.sort_unstable();
    Hits { mean: spent.as_secs_f64() * 1e9 / options.operations as f64, samples }
}

fn each(options: &Options, seed: u64, mut act: impl FnMut(u64, &str)) {
    let mut credentials = format!("Bearer {}", token::person(0, LENGTH));
    let mut state = seed;
    for turn in 0..options.operations {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut number = (state >> 33) % options.tokens;
        let end = credentials.len();
        let digits: [u8; 8] = std::array::from_fn(|_| {
            let digit = b'0' + (number % 10) as u8;
            number /= 10;
            digit
        });
        let digits: [u8; 8] = std::array::from_fn(|place| digits[7 - place]);
        credentials.truncate(end - digits.len());
        credentials.push_str(std::str::from_utf8(&digits).unwrap_or_default());
        act(turn, black_box(&credentials));
    }
}

fn request<'a>(headers: &'a [Header<'a>]) -> Request<'a> {
    Request::new("GET", "/orders/7").headers(headers)
}

/// Bytes of the process in memory.
fn resident() -> Result<u64, Box<dyn Error>> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    Ok(pages.split(' ').nth(1).ok_or("no such figure")?.parse::<u64>()? * 4096)
}
