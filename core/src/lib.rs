//! Who is behind this access token, and what may the upstream be told about them?
//!
//! Tokenward's core reads an OAuth 2.0 access token from a request, has the authorization server that issued it asked through
//! its introspection endpoint (RFC 7662), remembers the answer, matches a consumer that the gateway knows, and returns a
//! decision: allow, with the exact edits of the upstream request; or deny, with status, challenge and body.
//!
//! It refuses to do I/O, to read a clock, to start a thread, to hold a lock while it calls the host, and to panic. The host
//! owns sockets, event loop and time. Two types are to be learnt: an [`Introspector`] begins, a [`Step`] says what comes next.
//!
//! ```text
//!  begin ──► read the token ──► cache ──► flight ──────────────► Introspect ──► the host's HTTP call
//!                 │               │          └─► Wait ◄── woken ──────┐                │
//!                 │               │                │                  └──── resume ◄───┘
//!                 ▼               ▼                ▼                          │
//!               Done ◄──── checks, consumer, edits: one way for every answer ◄┘
//! ```
//!
//! ```
//! use std::time::Duration;
//! use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Now, Reply, Request, Step};
//!
//! let config = Config::from_json(r#"{
//!     "introspection_url": "https://as.example/introspect",
//!     "authorization_value": "Basic Z2F0ZXdheTpzM2NyM3Q="
//! }"#)?;
//! let consumers = Consumers::from_json(r#"[{ "id": "7", "username": "alice" }]"#)?;
//! let introspector = Introspector::builder(config, consumers).build()?;
//!
//! let headers = [Header::new("Authorization", "Bearer 2YotnFZFEjr1zCsicMWpAA")];
//! let request = Request::new("GET", "/orders").headers(&headers);
//! let now = Now::new(Duration::from_secs(1_700_000_000), Duration::from_secs(1));
//!
//! let mut step = introspector.begin(&request, now);
//! let decision = loop {
//!     step = match step {
//!         Step::Done(decision) => break decision,
//!         Step::Introspect(exchange) => {
//!             let call = exchange.outbound();
//!             assert_eq!(call.body(), "token=2YotnFZFEjr1zCsicMWpAA");
//!             // Send call.method(), call.url(), call.headers(), call.body() within call.time_left().
//!             let headers = [Header::new("Content-Type", "application/json")];
//!             let body = br#"{ "active": true, "username": "alice", "scope": "orders" }"#;
//!             exchange.resume(Reply::Response { status: 200, headers: &headers, body }, now)
//!         }
//!         Step::Wait(wait) => wait.resume(now), // park it: wait.on_ready(..), wait.deadline()
//!     };
//! };
//!
//! let Decision::Allow(allow) = decision else { panic!("denied") };
//! let set: Vec<_> = allow.edits().set().collect();
//! assert_eq!(set, [
//!     ("X-Consumer-ID", "7"),
//!     ("X-Consumer-Username", "alice"),
//!     ("X-Credential-Scope", "orders"),
//!     ("X-Credential-Identifier", "alice"),
//! ]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! None by default: no HTTP, TLS, file or clock code is then built.
//! - `clock`: [`Now::read`] and [`Wait::block`].
//! - `load`: configuration from files, secrets by environment or file, Kong's declarative files.
//! - `client`: a blocking transport and [`Introspector::authenticate`]; with it come `clock` and `load`.

mod cache;
mod checks;
mod claims;
#[cfg(feature = "client")]
mod client;
mod clock;
mod config;
mod consumer;
mod decision;
mod flight;
mod headers;
mod hide;
mod introspector;
mod key;
#[cfg(feature = "load")]
mod load;
mod log;
mod outbound;
mod recent;
mod reply;
mod request;
mod stats;
mod store;
mod token;

pub use claims::{Claims, NumericDate};
pub use clock::Now;
#[doc(hidden)]
pub use config::settings;
pub use config::{Config, ConfigError, Policy, Problem, Profile, TlsRoots};
pub use consumer::{Consumer, Consumers, Identity};
pub use decision::{Allow, Decision, Deny, Reason, Shared, Source};
pub use headers::{HeaderEdits, counted_headers, is_managed, set_headers};
pub use introspector::{BuildError, Builder, Exchange, Introspector, Step, Wait};
#[cfg(feature = "load")]
pub use load::{Document, Loader};
pub use log::{Level, Log, Record};
pub use outbound::Outbound;
pub use reply::{Failure, Reply};
pub use request::{Header, Request};
pub use stats::{LATENCY_BOUNDS_MS, Snapshot};
