//! What the core costs, as a ratio to what the hardware must do at least.
//!
//! Each line shows a figure beside its floor, measured in turn in the same run: the median of the ratios of pairs of samples is what
//! is quoted, since machines drift. `cargo bench -p tokenward-core` runs all, `... --bench cost -- hit` those whose name holds
//! the word. A goal that is missed is marked, and makes the exit status 1 with `--check`. `--markdown` prints the table of the README.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program that measures, not a part of the core"
)]

use std::cell::Cell;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Source, Step};

/// Pairs of samples.
const SAMPLES: usize = 15;
/// The example of RFC 7662 §2.2.
const EXAMPLE: &str = r#"{
  "active": true,
  "client_id": "l238j323ds-23ij4",
  "username": "jdoe",
  "scope": "read write dolphin",
  "sub": "Z5O3upPC88QrAjx00dis",
  "aud": "https://protected.example.net/resource",
  "iss": "https://server.example.com/",
  "exp": 1419356238,
  "iat": 1419350238,
  "extension_field": "twenty-seven"
}"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let markdown = given("--markdown");
    let mut report = Report { missed: 0, markdown, words: words.into_iter().cloned().collect() };
    if markdown && !given("--no-head") {
        println!("| | figure | floor | ratio | goal |\n|---|---:|---:|---:|---:|");
    } else if !given("--no-head") {
        println!("{:<52} {:>12} {:>12} {:>7}  {:>13}  goal", "", "figure", "floor", "ratio", "spread");
    }
    memory(&mut report); // first: what others have given back would be taken again, and the process not grow
    hits(&mut report);
    reply(&mut report);
    miss(&mut report);
    threads(&mut report);
    consumers(&mut report);
    authenticate(&mut report);
    if given("--check") && report.missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

struct Report {
    missed: usize,
    /// The table of the README.
    markdown: bool,
    words: Vec<String>,
}

impl Report {
    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    /// Measures both in turn. Each is given a number of rounds and says how long it took.
    fn compare(
        &mut self,
        name: &str,
        goal: Option<f64>,
        rounds: u32,
        mut figure: impl FnMut(u32) -> Duration,
        mut floor: impl FnMut(u32) -> Duration,
    ) {
        let (mut figures, mut floors, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        figure(rounds / 4 + 1);
        floor(rounds / 4 + 1);
        for sample in 0..SAMPLES {
            let (this, least) = if sample % 2 == 0 {
                let this = figure(rounds);
                (this, floor(rounds))
            } else {
                let least = floor(rounds);
                (figure(rounds), least)
            };
            let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(rounds);
            figures.push(each(this));
            floors.push(each(least));
            ratios.push(each(this) / each(least));
        }
        let ratio = median(&mut ratios);
        let spread = format!("{:.2}-{:.2}", ratios[SAMPLES / 4], ratios[SAMPLES * 3 / 4]);
        self.line(name, &nanos(median(&mut figures)), &nanos(median(&mut floors)), Some(ratio), &spread, goal);
    }

    fn line(&mut self, name: &str, figure: &str, floor: &str, ratio: Option<f64>, spread: &str, goal: Option<f64>) {
        let missed = matches!((ratio, goal), (Some(ratio), Some(goal)) if ratio > goal);
        self.missed += usize::from(missed);
        let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        if self.markdown {
            let goal = goal.map(|goal| format!("{goal:.2}")).unwrap_or_default();
            println!("| {name} | {figure} | {floor} | {ratio} | {goal} |");
            return;
        }
        let goal = goal.map(|goal| format!("{goal:.2}{}", if missed { "  MISSED" } else { "" })).unwrap_or_default();
        println!("{name:<52} {figure:>12} {floor:>12} {ratio:>7}  {spread:>13}  {goal}");
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn nanos(nanos: f64) -> String {
    if nanos < 10_000.0 { format!("{nanos:.0} ns") } else { format!("{:.1} us", nanos / 1000.0) }
}

fn time(rounds: u32, mut what: impl FnMut(u32)) -> Duration {
    let start = Instant::now();
    for round in 0..rounds {
        what(round);
    }
    start.elapsed()
}

/// CPU time of this thread: neither waiting for the other side nor another program on the processor is in it.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

fn now() -> Now {
    Now::new(Duration::from_secs(1_419_352_000), Duration::from_secs(1))
}

fn introspector(more: &str) -> Introspector {
    let config = format!(
        r#"{{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "ttl": 100000,
            "cache": {{"capacity": 1100000, "negative_capacity": 1100000, "max_bytes": 4294967296, "negative_ttl": 100000}}{more}}}"#
    );
    let consumers = Consumers::from_json(r#"[{"id": "c1", "username": "jdoe"}]"#).unwrap();
    Introspector::builder(Config::from_json(&config).unwrap(), consumers).build().unwrap()
}

/// Distinct tokens of so many bytes, with their scheme.
fn credentials(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|n| format!("Bearer {n:0>length$}")).collect()
}

/// What browsers and proxies send along.
const OTHERS: [(&str, &str); 24] = [
    ("Host", "api.example.com"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("X-Forwarded-For", "192.0.2.7"),
    ("X-Request-Id", "6f1c1d4f0c5e4e0a8d6f3b0f3f0c6f1c"),
    ("Connection", "keep-alive"),
    ("Cache-Control", "no-cache"),
    ("Cookie", "session=0123456789abcdef0123456789abcdef"),
    ("Referer", "https://app.example.com/orders"),
    ("Origin", "https://app.example.com"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Site", "same-site"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "api.example.com"),
    ("X-Real-Ip", "192.0.2.7"),
    ("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("If-None-Match", "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
    ("Pragma", "no-cache"),
    ("DNT", "1"),
    ("Priority", "u=1, i"),
    ("X-Csrf-Token", "abcdef0123456789"),
];

/// A request's header fields, the last of them for the credentials.
fn fields<'a>(count: usize) -> Vec<Header<'a>> {
    let others = OTHERS.iter().map(|(name, value)| Header::new(*name, *value));
    others.take(count - 1).chain([Header::new("Authorization", "")]).collect()
}

fn begin<'a>(
    introspector: &Introspector,
    credentials: &'a (impl AsRef<[u8]> + ?Sized),
    fields: &mut [Header<'a>],
) -> Step {
    if let Some(last) = fields.last_mut() {
        last.value = credentials.as_ref();
    }
    introspector.begin(&Request::new("GET", "/orders?page=2").headers(fields), now())
}

fn answer(step: Step, body: &str) -> Decision {
    let Step::Introspect(exchange) = step else { panic!("{step:?}") };
    let headers = [Header::new("content-type", "application/json")];
    match exchange.resume(Reply::Response { status: 200, headers: &headers, body: body.as_bytes() }, now()) {
        Step::Done(decision) => decision,
        step => panic!("{step:?}"),
    }
}

/// SHA-256 of the token, a look-up, and a reference count.
struct Floor(Mutex<LruCache<[u8; 32], Arc<u64>>>);

impl Floor {
    fn new(tokens: &mut Tokens) -> Self {
        let mut cache = LruCache::unbounded();
        for number in 0..tokens.count {
            cache.put(digest(tokens.credentials(number)), Arc::new(number as u64));
        }
        Self(Mutex::new(cache))
    }

    fn find(&self, credentials: &[u8]) -> Arc<u64> {
        let key = digest(credentials);
        Arc::clone(self.0.lock().get(&key).unwrap())
    }
}

fn digest(credentials: &[u8]) -> [u8; 32] {
    Sha256::digest(&credentials["Bearer ".len()..]).into()
}

/// A walk through indices that is not in order.
fn index(round: u32, count: usize) -> usize {
    (round as usize).wrapping_mul(2_654_435_761) % count
}

const TEN_CLAIMS: &str =
    r#", "custom_claims_forward": ["extension_field", "a", "b", "c", "d", "e", "f", "g", "h", "i"]"#;

/// So many distinct tokens of so many bytes, one after the other in one place: a gateway has just read the token from its socket, however
/// many it knows. A processor that had to fetch each from memory first would show the benchmark's tokens, not the cache.
struct Tokens {
    credentials: Vec<u8>,
    count: usize,
}

impl Tokens {
    /// Those that differ take as many bytes.
    const DIGITS: usize = 8;

    fn new(count: usize, length: usize) -> Self {
        Self { credentials: format!("Bearer {:a>length$}", "").into(), count }
    }

    /// The credentials with the token of this number.
    fn credentials(&mut self, number: usize) -> &[u8] {
        if self.count > 1 {
            let digits = self.credentials.last_chunk_mut::<{ Self::DIGITS }>().unwrap();
            *digits = std::array::from_fn(|at| b'a' + ((number >> (4 * at)) & 15) as u8);
        }
        &self.credentials
    }
}

/// Which token is next depends on what the round before gave: a request begins once the last one is decided. Otherwise a
/// processor hashes the next token while it waits for this one's memory, and neither side shows what a request costs.
fn hits(report: &mut Report) {
    for (length, goal) in [(43, 2.0), (1000, 1.3)] {
        for count in [1, 10_000, 1_000_000] {
            for (kind, headers, more, body) in [
                ("hit", 8, "", EXAMPLE),
                ("hit", 25, "", EXAMPLE),
                ("hit, 10 claims", 8, TEN_CLAIMS, EXAMPLE),
                ("negative hit", 8, "", r#"{"active": false}"#),
            ] {
                let name = format!("{kind}: {length} B token, {headers} headers, {count} cached");
                if !report.wants(&name) || (count > 1 && (headers == 25 || kind == "hit, 10 claims")) {
                    continue;
                }
                let mut tokens = Tokens::new(count, length);
                let introspector = introspector(more);
                for number in 0..count {
                    let _ = answer(begin(&introspector, tokens.credentials(number), &mut fields(8)), body);
                }
                let floor = Floor::new(&mut tokens);
                let others: [Header<'_>; 8] = fields(8).try_into().unwrap();
                let mut again = Tokens::new(count, length);
                let rounds = if count > 100_000 { 300_000 } else { 100_000 };
                report.compare(
                    &name,
                    Some(goal),
                    rounds,
                    |rounds| {
                        let mut last = 0;
                        let decided = |step| match step {
                            Step::Done(decision) => usize::from(black_box(decision).source() == Source::Endpoint),
                            step => panic!("{step:?}"),
                        };
                        if count == 1 {
                            let credentials = tokens.credentials(0);
                            let mut fields = fields(headers);
                            return time(rounds, |_| last = decided(begin(&introspector, credentials, &mut fields)));
                        }
                        time(rounds, |round| {
                            let mut fields = others;
                            let credentials = tokens.credentials(index(round, count) + last);
                            last = decided(begin(&introspector, credentials, &mut fields));
                        })
                    },
                    |rounds| {
                        let mut last = 0;
                        time(rounds, |round| {
                            let found = floor.find(again.credentials(index(round, count) + last));
                            last = usize::from(black_box(*found) == u64::MAX);
                        })
                    },
                );
            }
        }
    }
}

fn reply(report: &mut Report) {
    if !report.wants("reply") {
        return;
    }
    // Without a cache and with its own token each time, so that all that is measured is reading, checking and deciding.
    let config = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "cache": {"enabled": false}}"#;
    let consumers = Consumers::from_json(r#"[{"id": "c1", "username": "jdoe"}]"#).unwrap();
    let introspector = Introspector::builder(Config::from_json(config).unwrap(), consumers).build().unwrap();
    let credentials = credentials(1, 43);
    report.compare(
        "reply: RFC 7662 2.2, parse and decide",
        Some(1.5),
        20_000,
        |rounds| {
            let mut total = Duration::ZERO;
            let mut left = rounds;
            while left > 0 {
                let batch = left.min(500);
                let steps: Vec<Step> =
                    (0..batch).map(|_| begin(&introspector, &credentials[0], &mut fields(8))).collect();
                let mut decisions = Vec::with_capacity(steps.len());
                let start = Instant::now();
                for step in steps {
                    decisions.push(answer(step, EXAMPLE));
                }
                total += start.elapsed();
                left -= batch;
            }
            total
        },
        |rounds| {
            time(rounds, |_| {
                drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(EXAMPLE.as_bytes())).unwrap()));
            })
        },
    );
}

fn miss(report: &mut Report) {
    if !report.wants("miss") {
        return;
    }
    let introspector = introspector("");
    let credentials = credentials(200_000, 43);
    let mut next = 0;
    report.compare(
        "miss: begin and resume, without network",
        None,
        10_000,
        |rounds| {
            time(rounds, |_| {
                next = (next + 1) % credentials.len();
                if next == 0 {
                    introspector.forget_all();
                }
                drop(black_box(answer(begin(&introspector, &credentials[next], &mut fields(8)), EXAMPLE)));
            })
        },
        |rounds| {
            time(rounds, |_| {
                drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(EXAMPLE.as_bytes())).unwrap()));
            })
        },
    );
}

fn threads(report: &mut Report) {
    if !report.wants("threads") {
        return;
    }
    let credentials = credentials(10_000, 43);
    let fill = || {
        let introspector = introspector("");
        for one in &credentials {
            let _ = answer(begin(&introspector, one, &mut fields(8)), EXAMPLE);
        }
        introspector
    };
    // Where memory comes to lie makes a difference of its own, the same for as long as it lies there: several sets of introspectors
    // take turns.
    let sets: Vec<_> = (0..SAMPLES / 3).map(|_| [fill(), fill(), fill(), fill(), fill()]).collect();
    let set = |calls: &Cell<usize>| {
        let call = calls.replace(calls.get() + 1);
        &sets[call.saturating_sub(1) / 3] // the first call only warms up
    };
    // Each on a processor of its own, and by its own CPU time: threads that take turns on one processor never meet.
    let processors = core_affinity::get_core_ids().unwrap_or_default();
    let two = |one: &Introspector, other: &Introspector, rounds: u32| {
        std::thread::scope(|scope| {
            let threads = [(one, 0), (other, 5000)].into_iter().enumerate().map(|(at, (introspector, offset))| {
                let (credentials, processor) = (&credentials, processors.get(at).copied());
                scope.spawn(move || {
                    assert!(processor.is_some_and(core_affinity::set_for_current), "two processors are needed");
                    let mut fields = fields(8);
                    let start = cpu();
                    for round in 0..rounds {
                        let at = index(round + offset, credentials.len());
                        drop(black_box(begin(introspector, &credentials[at], &mut fields)));
                    }
                    cpu() - start
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Duration>() / 2
        })
    };
    let (calls, floor_calls) = (Cell::new(0), Cell::new(0));
    report.compare(
        "threads: two on one introspector, two on two",
        Some(1.0 / 0.9),
        200_000,
        |rounds| {
            let [shared, ..] = set(&calls);
            two(shared, shared, rounds)
        },
        |rounds| {
            let [_, first, second, ..] = set(&floor_calls);
            two(first, second, rounds)
        },
    );
    let (calls, floor_calls) = (Cell::new(0), Cell::new(0));
    report.compare(
        "threads: control, two on two and two on two others",
        None,
        200_000,
        |rounds| {
            let [_, _, _, first, second] = set(&calls);
            two(first, second, rounds)
        },
        |rounds| {
            let [_, first, second, ..] = set(&floor_calls);
            two(first, second, rounds)
        },
    );
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) * 1024.0
}

fn memory(report: &mut Report) {
    if !report.wants("memory") {
        return;
    }
    // Twelve members.
    let body = EXAMPLE.replace("\"active\": true,", "\"active\": true, \"token_type\": \"Bearer\", \"jti\": \"9a3c\",");
    let introspector = introspector("");
    let count = 1_000_000_u32;
    let mut token = String::new();
    let before = resident();
    for n in 0..count {
        use std::fmt::Write as _;
        token.clear();
        write!(token, "Bearer {n:0>43}").unwrap();
        let _ = answer(begin(&introspector, &token, &mut fields(8)), &body);
    }
    let grown = resident() - before;
    let snapshot = introspector.snapshot();
    assert_eq!(snapshot.entries, count as usize);
    let each = grown / f64::from(count);
    report.line(
        "memory: a positive answer of 12 members",
        &format!("{each:.0} B"),
        "1024 B",
        Some(each / 1024.0),
        "",
        Some(1.0),
    );
    #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
    let ratio = snapshot.bytes as f64 / grown;
    let name = "memory: what is counted, of what the process grew by";
    let counted = format!("{:.0} B", ratio * each);
    report.line(name, &counted, &format!("{each:.0} B"), Some(ratio), "", Some(1.1));
    // What is not counted is memory beyond the limit; measuring is good to a few percent.
    if ratio < 0.95 {
        report.missed += 1;
        println!("{name}: MISSED, less than 0.95");
    }
}

fn consumers(report: &mut Report) {
    use std::fmt::Write as _;

    if !report.wants("consumers") {
        return;
    }
    let count = 1_000_000;
    let mut json = String::from("[");
    for n in 0..count {
        let comma = if n == 0 { "" } else { "," };
        write!(json, r#"{comma}{{"id":"id-{n}","username":"user-{n}","custom_id":"app-{n}"}}"#).unwrap();
    }
    json.push(']');
    let start = Instant::now();
    let consumers = Consumers::from_json(&json).unwrap();
    let load = start.elapsed();
    let start = Instant::now();
    drop(serde_json::from_str::<serde_json::Value>(&json).unwrap());
    let floor = start.elapsed();
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let ratio = load.as_secs_f64() / floor.as_secs_f64();
    report.line("consumers: load a million", &seconds(load), &seconds(floor), Some(ratio), "", None);
    let introspector = introspector("");
    let start = Instant::now();
    introspector.replace_consumers(consumers);
    let replaced = start.elapsed();
    report.line("consumers: replace a million", &nanos(replaced.as_secs_f64() * 1e9), "", None, "", None);
    // The difference between finding somebody among a million and among one is the look-up.
    let one = self::introspector("");
    let no_cache = |introspector: &Introspector| {
        let mut config = introspector.config();
        config.clone_from(&Config::from_json(
            r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "cache": {"enabled": false}}"#,
        ).unwrap());
        introspector.replace_config(config).unwrap();
    };
    no_cache(&introspector);
    no_cache(&one);
    let bodies: Vec<String> =
        (0..10_000).map(|n| format!(r#"{{"active":true,"username":"user-{}"}}"#, index(n, count))).collect();
    let credentials = credentials(1, 43);
    let decide = |introspector: &Introspector, rounds: u32| {
        time(rounds, |round| {
            let body = &bodies[round as usize % bodies.len()];
            drop(black_box(answer(begin(introspector, &credentials[0], &mut fields(8)), body)));
        })
    };
    report.compare(
        "consumers: a miss with a million, and with one",
        None,
        50_000,
        |rounds| decide(&introspector, rounds),
        |rounds| decide(&one, rounds),
    );
}

/// The blocking client is a feature: a benchmark that was built without it asks for one that was built with it.
#[cfg(not(feature = "client"))]
fn authenticate(report: &mut Report) {
    if !report.wants("authenticate") {
        return;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.args(["bench", "-q", "-p", "tokenward-core", "--features", "client", "--bench", "cost", "--"]);
    command.args(["authenticate", "--check", "--no-head"]).args(report.markdown.then_some("--markdown"));
    let status = command.status().unwrap();
    report.missed += usize::from(!status.success());
}

#[cfg(feature = "client")]
fn authenticate(report: &mut Report) {
    use std::io::{Read, Write};

    if !report.wants("authenticate") {
        return;
    }
    // The clock is the real one here.
    let body = EXAMPLE.replace("1419356238", "4102444800");
    let response =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/introspect", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let response = response.clone();
            std::thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut got = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let read = stream.read(&mut buffer).unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    got.extend_from_slice(&buffer[..read]);
                    // Every request of this benchmark ends with its token of 43 digits.
                    let Some(head) = got.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                    if got.len() >= head + 4 + "token=".len() + 43 {
                        got.clear();
                        if stream.write_all(response.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    let config = format!(
        r#"{{"introspection_url": "{url}", "authorization_value": "Basic eA==", "cache": {{"enabled": false}}}}"#
    );
    let introspector = Introspector::builder(Config::from_json(&config).unwrap(), Consumers::none()).build().unwrap();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent("")
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();
    let credentials = credentials(1, 43);
    report.compare(
        "authenticate: over loopback, CPU time",
        Some(1.05),
        2000,
        |rounds| {
            let start = cpu();
            for _ in 0..rounds {
                let headers = [Header::new("Authorization", &credentials[0])];
                assert!(introspector.authenticate(&Request::new("GET", "/").headers(&headers)).is_allow());
            }
            cpu() - start
        },
        |rounds| {
            let body = format!("token={}", &credentials[0]["Bearer ".len()..]);
            let start = cpu();
            for _ in 0..rounds {
                let response = agent
                    .post(&url)
                    .header("Authorization", "Basic eA==")
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .header("Accept", "application/json")
                    .header("Accept-Encoding", "identity")
                    .send(&body)
                    .unwrap();
                drop(black_box(response.into_body().read_to_vec().unwrap()));
            }
            cpu() - start
        },
    );
}
