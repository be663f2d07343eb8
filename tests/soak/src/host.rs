//! The host: its process, its configuration, what it takes.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::servers::CREDENTIALS;
use crate::truth::{CONSUMERS, TIMEOUT, TTL, Truth};

/// Between two reloads.
const RELOAD: Duration = Duration::from_secs(4);
const SAMPLE: Duration = Duration::from_millis(250);
/// What memory may grow by from the middle third to the last one: a part of it, and what allocators keep or do not.
const GROWTH: f64 = 0.10;
const GROWTH_BYTES: u64 = 8 << 20;
const GROWTH_FILES: u64 = 32;
const CAPACITY: u64 = 5000;
/// Of the host's requests to the upstream, those that it may have sent once more since a connection was gone.
const SENT_AGAIN: usize = 64;
const CRASHES: [&str; 2] = ["panicked", "exited on signal"];

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    name: String,
    child: Child,
    folder: PathBuf,
    endpoint: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Host {
    pub(crate) async fn start(name: &str, truth: &Truth, endpoint: SocketAddr, upstream: SocketAddr) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = std::env::temp_dir().join(format!("tokenward-soak-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.json");
        fs::write(&file, config(truth.write_generation(), endpoint)).unwrap();
        let mut child = Command::new(root.join("examples").join(name).join("run"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--upstream",
                &format!("http://{upstream}"),
                "--config",
            ])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        tokio::spawn(listen(child.stderr.take().unwrap(), Arc::clone(&said)));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = loop {
            match lines.next_line().await.unwrap() {
                Some(line) if line.starts_with("ready http://") => {
                    break line["ready http://".len()..].parse().unwrap();
                }
                Some(_) => {}
                None => panic!("{name} did not start:\n{}", said.lock()),
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let admin = loop {
            let text = said.lock().clone();
            match text.split("metrics at http://").nth(1).and_then(|rest| rest.split('/').next()) {
                Some(address) => break address.parse().unwrap(),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        truth.confirm_generation(0);
        Self { address: ready, admin, name: name.to_owned(), child, folder, endpoint, said }
    }

    /// Reloads and measures until then.
    pub(crate) async fn tend(&mut self, truth: &Truth, until: Instant) -> Measured {
        let mut measured = Measured::default();
        let mut reload = Instant::now() + RELOAD;
        let mut awaited = None;
        // One that no client ever asks about tells which configuration is in force.
        let probe = truth.issue(1 << 20);
        let probe = truth_of_a_consumer(truth, probe);
        while Instant::now() < until {
            tokio::time::sleep(SAMPLE).await;
            measured.samples.push(self.sample());
            if measured.samples.len() == 4096 {
                // Every second one says as much.
                let mut even = false;
                measured.samples.retain(|_| {
                    even = !even;
                    even
                });
            }
            if let Some(number) = awaited {
                measured.probes += 1;
                if self.generation_of(&probe).await == Some(number) {
                    truth.confirm_generation(number);
                    awaited = None;
                    measured.reloads += 1;
                } else if Instant::now() >= reload + 2 * RELOAD {
                    // It is said at the end; what comes after is to be seen all the same.
                    measured.late += 1;
                    signal(self.child.id(), libc::SIGHUP);
                    reload = Instant::now() + RELOAD;
                }
            } else if Instant::now() >= reload {
                let number = truth.write_generation();
                fs::write(self.folder.join("config.json"), config(number, self.endpoint)).unwrap();
                signal(self.child.id(), libc::SIGHUP);
                (awaited, reload) = (Some(number), Instant::now() + RELOAD);
            }
        }
        measured
    }

    /// The generation whose consumer the upstream is told.
    async fn generation_of(&self, token: &str) -> Option<u64> {
        let request =
            format!("GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        let answer = exchange(self.address, &request).await?;
        let line = answer.lines().find(|line| line.starts_with("x-consumer-id: "))?.to_owned();
        line.rsplit('-').next()?.trim().parse().ok()
    }

    /// Memory and files of the processes that are there to stay.
    fn sample(&self) -> Sample {
        let mut sample = Sample::default();
        for pid in family(self.child.id().unwrap_or_default()) {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
            let is_old = command.contains("shutting down");
            // nginx's `run` is a shell, and its master keeps what every worker begins with.
            if is_old || command.starts_with("bash") || command.starts_with("/bin/bash") {
                continue;
            }
            sample.bytes += status(pid, "VmRSS:") << 10;
            sample.files += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |all| all.count() as u64);
        }
        sample
    }

    /// Once nobody asks any more, no question is under way, and the caches are no larger than they may be.
    pub(crate) async fn idle(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let deadline = Instant::now() + TIMEOUT + Duration::from_secs(1);
        loop {
            let text = exchange(self.admin, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            let text = text.unwrap_or_default();
            let metric = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            let (in_flight, entries) = (metric("tokenward_in_flight "), metric("tokenward_cache_entries "));
            if in_flight == Some(0) {
                if entries.is_none_or(|count| count > CAPACITY) {
                    problems.push(format!("the cache has {entries:?} entries"));
                }
                return problems;
            }
            if Instant::now() > deadline {
                problems.push(format!("{in_flight:?} questions are under way though nobody asks"));
                return problems;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends it, and looks at what it said and what reached the upstream.
    pub(crate) async fn stop(mut self, truth: &Truth, measured: &Measured) -> Vec<String> {
        signal(self.child.id(), libc::SIGTERM);
        let mut problems = Vec::new();
        match tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            ended => problems.push(format!("{} did not end well: {ended:?}\n{}", self.name, self.said.lock())),
        }
        let _ = fs::remove_dir_all(&self.folder);
        let said = self.said.lock().clone();
        if secrets().any(|secret| said.contains(secret)) {
            problems.push("a token or secret is in the log".into());
        }
        if measured.reloads == 0 || measured.late > 0 {
            let end: String = said
                .lines()
                .rev()
                .take(20)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .map(|line| format!("\n{line}"))
                .collect();
            eprintln!("{}: a reload had no effect in time; the log ends so:{end}", self.name);
        }
        if CRASHES.iter().any(|word| said.contains(word)) {
            problems.push(format!("the log has\n{said}"));
        }
        // Requests that were let in reached it once each; those that were begun anew may have twice. Nobody counted the answers of probes.
        let (reached, counts) = (truth.upstream_requests.load(Ordering::Relaxed), truth.counts());
        let begun_anew = truth.counts[crate::truth::ANEW].load(Ordering::Relaxed);
        let most = counts.let_in() + counts.failed() + begun_anew + measured.probes + SENT_AGAIN;
        if reached < counts.let_in() || reached > most {
            problems.push(format!("{reached} requests reached the upstream, and {} were let in", counts.let_in()));
        }
        problems
    }
}

/// What no log may have.
fn secrets() -> impl Iterator<Item = &'static str> {
    CREDENTIALS.iter().filter_map(|value| value.split(' ').nth(1)).chain(["good-", "junk-"])
}

/// The text of a token that has a consumer.
fn truth_of_a_consumer(truth: &Truth, mut token: Arc<crate::truth::Token>) -> String {
    while token.user >= CONSUMERS {
        token = truth.issue(1 << 20);
    }
    token.text.clone()
}

fn config(generation: u64, endpoint: SocketAddr) -> String {
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|user| {
            json!({ "id": format!("{user}-{generation}"), "username": format!("user-{user}"), "custom_id": format!("customer-{user}") })
        })
        .collect();
    json!({
        "introspection_url": format!("http://{endpoint}/introspect"),
        // With other credentials nothing that was remembered counts any more.
        "authorization_value": CREDENTIALS[generation as usize / 4 % CREDENTIALS.len()],
        "ttl": TTL.as_secs(),
        "timeout": TIMEOUT.as_millis() as u64,
        "realm": "soak",
        "cache": { "capacity": CAPACITY, "negative_capacity": 1000, "negative_ttl": 1 },
        "consumers": consumers,
    })
    .to_string()
}

async fn listen(mut from: impl AsyncRead + Unpin, said: Arc<Mutex<String>>) {
    let mut bytes = [0; 4096];
    let mut piece = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        // With the end of the piece before, where a word may have begun.
        let known = piece.len().min(64);
        piece.drain(..piece.len() - known);
        piece.extend_from_slice(&bytes[..count]);
        let text = String::from_utf8_lossy(&piece);
        let mut said = said.lock();
        // The beginning is kept, which names addresses; of what comes later, that in which something is wrong.
        if said.len() < 1 << 20 {
            said.push_str(&String::from_utf8_lossy(&piece[known..]));
        } else if said.len() < 2 << 20 && (CRASHES.iter().copied().chain(secrets())).any(|word| text.contains(word)) {
            said.push_str(&text);
        }
    }
}

async fn exchange(address: SocketAddr, request: &str) -> Option<String> {
    let run = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(Duration::from_secs(5), run).await.ok()?
}

fn signal(pid: Option<u32>, number: i32) {
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        // SAFETY: `kill` takes numbers alone.
        #[allow(unsafe_code, reason = "the standard library sends no signals")]
        unsafe {
            libc::kill(pid, number);
        }
    }
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&one) = all.get(at) {
        let children = fs::read_to_string(format!("/proc/{one}/task/{one}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    all
}

fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[derive(Clone, Copy, Default)]
struct Sample {
    bytes: u64,
    files: u64,
}

/// What the host took over time.
#[derive(Default)]
pub(crate) struct Measured {
    samples: Vec<Sample>,
    reloads: usize,
    /// Those that had no effect in time, and were asked for again.
    late: usize,
    probes: usize,
}

impl Measured {
    /// The most of each third: the first one is warming up.
    fn thirds(&self) -> [Sample; 3] {
        let third = self.samples.len().div_ceil(3).max(1);
        let mut most = [Sample::default(); 3];
        for (at, sample) in self.samples.iter().enumerate() {
            let most = &mut most[at / third];
            most.bytes = most.bytes.max(sample.bytes);
            most.files = most.files.max(sample.files);
        }
        most
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let [_, middle, last] = self.thirds();
        let mut problems = Vec::new();
        if last.bytes > middle.bytes + GROWTH_BYTES.max((middle.bytes as f64 * GROWTH) as u64) {
            problems.push(format!("memory grows: {self}"));
        }
        if last.files > middle.files + GROWTH_FILES {
            problems.push(format!("file descriptors are kept: {self}"));
        }
        if self.reloads == 0 {
            problems.push("no reload took effect".into());
        }
        problems
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} reloads, {} of them asked for again", self.reloads, self.late)?;
        for (name, most) in ["first", "middle", "last"].iter().zip(self.thirds()) {
            write!(f, ", {name} third {:.1} MiB and {} files at most", most.bytes as f64 / 1_048_576.0, most.files)?;
        }
        Ok(())
    }
}
