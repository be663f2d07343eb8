//! A soak: mixed traffic at full speed against a host, every answer held against the truth.
//!
//! ```text
//! soak HOST SECONDS      HOST: a folder of examples/ whose `run` reads its configuration again on SIGHUP
//! ```
//!
//! Clients send tokens that are hot, warm, new, unknown, malformed, expired and revoked, some with headers made up for the upstream. The
//! authorization server and the upstream are here too, and know what is true: who is let in must be good, or have been good within `ttl`
//! and `timeout`, never past `exp`; who is refused must not be good; and what the upstream is told must be the claims of that very token
//! and a consumer of a configuration that is in force. Meanwhile tokens are revoked and the configuration is replaced. Memory and
//! file descriptors of the host must not grow.
//!
//! Exit status 0 if nothing was wrong. What is kept here is bounded, however long it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads clocks and files")]

mod clients;
mod host;
mod servers;
mod truth;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::truth::Truth;

/// Connections that ask one request after the other.
const CLIENTS: usize = 32;
/// Of those that are not answered at all, or with an outage that is none: a machine that stands still for seconds is no wrong decision.
const MOST_FAILED: f64 = 0.001;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(seconds)) = (arguments.next(), arguments.next().and_then(|text| text.parse().ok())) else {
        eprintln!("usage: soak HOST SECONDS");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let problems = runtime.block_on(run(&name, Duration::from_secs(seconds)));
    for problem in &problems {
        println!("wrong: {problem}");
    }
    println!("{name}: {}", if problems.is_empty() { "nothing was wrong" } else { "failed" });
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(name: &str, length: Duration) -> Vec<String> {
    let truth = Arc::new(Truth::new());
    let authorization_server = servers::authorization_server(Arc::clone(&truth)).await;
    let upstream = servers::upstream(Arc::clone(&truth)).await;
    let mut host = Host::start(name, &truth, authorization_server, upstream).await;
    println!("{name}: {} clients for {} s", CLIENTS, length.as_secs());

    let until = Instant::now() + length;
    let churn = tokio::spawn(truth::churn(Arc::clone(&truth), until));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(clients::client(Arc::clone(&truth), host.address, number, until)))
        .collect();
    let measured = host.tend(&truth, until).await;
    for task in clients {
        task.await.unwrap();
    }
    churn.await.unwrap();

    let mut problems = truth.problems();
    let counts = truth.counts();
    println!("{name}: {counts}");
    println!("{name}: {measured}");
    let answers = counts.answers();
    if answers == 0 || counts.failed() as f64 > answers as f64 * MOST_FAILED {
        problems.push(format!("{} of {} requests had no decision", counts.failed(), answers));
    }
    for (what, count) in counts.must_happen() {
        if count == 0 {
            problems.push(format!("no request was {what}"));
        }
    }
    problems.extend(measured.problems());
    problems.extend(host.idle().await);
    problems.extend(host.stop(&truth, &measured).await);
    problems
}
