//! One kind of request over and over, for `tests/run instructions`, which counts its instructions under callgrind and holds them
//! to `instructions.json`. Arguments: `hit`, `negative`, `miss` or `hash`, and how often.
//!
//! `hash` is the part that belongs to SHA-256 alone; the emulated processor has no instructions for it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program that is measured, not a part of the core"
)]

use std::hint::black_box;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Step};

const ACTIVE: &str = r#"{"active":true,"client_id":"l238j323ds-23ij4","username":"jdoe","scope":"read write dolphin",
"sub":"Z5O3upPC88QrAjx00dis","aud":"https://protected.example.net/resource","iss":"https://server.example.com/","exp":1419356238}"#;
const TOKEN: &str = "0123456789012345678901234567890123456789abc";
const CREDENTIALS: &str = "Bearer 0123456789012345678901234567890123456789abc";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(kind), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return; // `cargo bench` runs every benchmark; this one counts nothing by itself
    };
    let rounds: u32 = rounds.parse().unwrap();
    let config = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "ttl": 100000}"#;
    let consumers = Consumers::from_json(r#"[{"id": "c1", "username": "jdoe"}]"#).unwrap();
    let introspector = Introspector::builder(Config::from_json(config).unwrap(), consumers).build().unwrap();
    let body = if kind == "negative" { r#"{"active":false}"# } else { ACTIVE };
    drop(decide(&introspector, body));
    for round in 0..rounds {
        match kind.as_str() {
            "hit" | "negative" => drop(black_box(decide(&introspector, ""))),
            "miss" => {
                introspector.forget(TOKEN);
                drop(black_box(decide(&introspector, body)));
            }
            "hash" => {
                // The prefix is absorbed once, so a key costs as much as the token alone.
                black_box(Sha256::digest(black_box(TOKEN.as_bytes())));
            }
            other => panic!("unknown kind {other} in round {round}"),
        }
    }
}

fn decide(introspector: &Introspector, body: &str) -> Decision {
    let headers = [
        Header::new("Host", "api.example.com"),
        Header::new("User-Agent", "curl/8.5.0"),
        Header::new("Accept", "*/*"),
        Header::new("Accept-Encoding", "gzip, deflate, br"),
        Header::new("X-Forwarded-For", "192.0.2.7"),
        Header::new("X-Request-Id", "6f1c1d4f0c5e4e0a8d6f3b0f3f0c6f1c"),
        Header::new("Connection", "keep-alive"),
        Header::new("Authorization", CREDENTIALS),
    ];
    let now = Now::new(Duration::from_secs(1_419_352_000), Duration::from_secs(1));
    match introspector.begin(&Request::new("GET", "/orders?page=2").headers(&headers), now) {
        Step::Done(decision) => decision,
        Step::Wait(_) => panic!("nobody else asks"),
        Step::Introspect(exchange) => {
            let headers = [Header::new("content-type", "application/json")];
            match exchange.resume(Reply::Response { status: 200, headers: &headers, body: body.as_bytes() }, now) {
                Step::Done(decision) => decision,
                step => panic!("{step:?}"),
            }
        }
    }
}
