//! A blocking transport over ureq, and the loop that drives it.
//!
//! Connections are pooled and verified, no redirect is followed, and no proxy is taken from the environment. A connection is
//! reused only by the process that opened it, and only after the previous answer was read to its end.
//!
//! ureq logs through the crate `log`; at its level *trace* that holds the bytes of requests and answers. A host that wires `log` to
//! a file keeps the targets `ureq` and `ureq_proto` above that level.

use std::fmt;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ureq::http::Uri;
use ureq::http::uri::Authority;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, NextTimeout};

use crate::clock::Now;
use crate::config::{Config, Policy, TlsRoots};
use crate::decision::Decision;
use crate::introspector::{Exchange, Introspector, Step};
use crate::outbound::Outbound;
use crate::reply::{Failure, Reply};
use crate::request::{Header, Request};

impl Introspector {
    /// Decides about a request, by the document's own policy, asking the authorization server where needed. Blocks for as long
    /// as `timeout` says at most. Any number of threads share one introspector and its connections.
    ///
    /// ```no_run
    /// use tokenward_core::{Decision, Document, Header, Introspector, Request};
    ///
    /// let (config, consumers) = Document::from_file("tokenward.json")?.into_parts();
    /// let introspector = Introspector::builder(config, consumers).build()?;
    /// let headers = [Header::new("Authorization", "Bearer 2YotnFZFEjr1zCsicMWpAA")];
    /// match introspector.authenticate(&Request::new("GET", "/orders").headers(&headers)) {
    ///     Decision::Allow(allow) => println!("{:?}", allow.identity()),
    ///     Decision::Deny(deny) => println!("{} {}", deny.status(), deny.reason()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn authenticate(&self, request: &Request<'_>) -> Decision {
        drive(self.begin(request, Now::read()))
    }

    /// The same, by a further policy.
    pub fn authenticate_with(&self, policy: &Policy, request: &Request<'_>) -> Decision {
        drive(self.begin_with(policy, request, Now::read()))
    }
}

impl Exchange {
    /// Makes the call with the introspector's own connections, and resumes. Blocks until
    /// [`deadline`](Self::deadline) at most, by the clock of [`Now::read`], however long ago this step was made.
    pub fn send(self) -> Step {
        let left = self.deadline().saturating_sub(Now::read().monotonic()).min(self.outbound().time_left());
        if left.is_zero() {
            return self.resume(Reply::Failed(Failure::TimedOut), Now::read());
        }
        // No thread for a look-up, say: what a library panics about is a failed call here.
        let call = || self.client().map(|client| client.call(self.outbound(), left));
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Some(Ok(answer))) => answer.hand_to(self),
            Ok(Some(Err(failure))) => self.resume(Reply::Failed(failure), Now::read()),
            Ok(None) | Err(_) => self.resume(Reply::Failed(Failure::Connect), Now::read()),
        }
    }
}

fn drive(mut step: Step) -> Decision {
    loop {
        step = match step {
            Step::Done(decision) => return decision,
            Step::Wait(wait) => wait.block(),
            Step::Introspect(exchange) => exchange.send(),
        };
    }
}

/// The connections to one endpoint.
pub(crate) struct Client {
    agents: ArcSwap<OwnedAgents>,
    settings: Settings,
}

/// Agents, and the process that their connections belong to.
struct OwnedAgents {
    process: u32,
    kept: ureq::Agent,
    /// Keeps no connection, and so takes none that was kept. It lasts for what it knows beside: certificate authorities, addresses.
    single: ureq::Agent,
}

impl OwnedAgents {
    fn of(&self, outbound: &Outbound) -> ureq::Agent {
        // A connection that was kept may be as dead as the one that the attempt before failed on.
        if outbound.is_retry() { self.single.clone() } else { self.kept.clone() }
    }
}

#[derive(Clone)]
struct Settings {
    roots: RootCerts,
    keepalive: Duration,
    reply_bytes: usize,
    connections: usize,
}

impl Client {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let settings = Settings {
            roots: roots(&config.tls_roots)?,
            keepalive: config.keepalive(),
            reply_bytes: config.settings.reply_bytes,
            connections: config.settings.concurrent,
        };
        Ok(Self { agents: ArcSwap::from_pointee(settings.agents()), settings })
    }

    /// Makes the call, within the time that is left for it.
    fn call(&self, outbound: &Outbound, left: Duration) -> Result<Answer, Failure> {
        let agent = self.agent(outbound);
        let mut request = agent.post(outbound.url()).config().timeout_global(Some(left)).build();
        for (name, value) in outbound.headers() {
            request = request.header(name, value);
        }
        let response = request.send(outbound.body()).map_err(|error| failure(&error))?;
        let (head, body) = response.into_parts();
        let limit = u64::try_from(self.settings.reply_bytes).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        body.into_reader().take(limit).read_to_end(&mut bytes).map_err(cut_off)?;
        if bytes.len() > self.settings.reply_bytes {
            return Err(Failure::TooLong);
        }
        Ok(Answer { head, body: bytes })
    }

    /// The agent of this process for a call. After a fork, the child leaves the inherited ones alone: a connection of two processes
    /// would give one the answer to the other's question.
    fn agent(&self, outbound: &Outbound) -> ureq::Agent {
        let owned = self.agents.load();
        let process = std::process::id();
        if owned.process == process {
            return owned.of(outbound);
        }
        drop(owned);
        let fresh = self.settings.agents();
        let agent = fresh.of(outbound);
        let inherited = self.agents.swap(Arc::new(fresh));
        if inherited.process == process {
            return agent; // another thread of this child was faster; its connections are this process's own
        }
        // Not even closed: another thread of the parent may have held one of its locks at the fork.
        std::mem::forget(inherited);
        agent
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Settings {
    fn agents(&self) -> OwnedAgents {
        OwnedAgents {
            process: std::process::id(),
            kept: self.agent(self.keepalive),
            single: self.agent(Duration::ZERO),
        }
    }

    fn agent(&self, keepalive: Duration) -> ureq::Agent {
        let connections = if keepalive.is_zero() { 0 } else { self.connections };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent("")
            .max_idle_age(keepalive)
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .tls_config(TlsConfig::builder().root_certs(self.roots.clone()).build())
            .build();
        let connector = AgentLevel(DefaultConnector::new());
        ureq::Agent::with_parts(config, connector, Addresses::default())
    }
}

/// ureq makes a new TLS configuration, certificate authorities and all, for each connection of a request that has settings of its
/// own. Ours has none but its deadline.
#[derive(Debug)]
struct AgentLevel(DefaultConnector);

impl Connector<()> for AgentLevel {
    type Out = <DefaultConnector as Connector<()>>::Out;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        let details = ConnectionDetails {
            uri: details.uri,
            addrs: details.addrs.clone(),
            config: details.config,
            request_level: false,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: Arc::clone(&details.current_time),
            run_connector: Arc::clone(&details.run_connector),
            register_shutdown: Arc::clone(&details.register_shutdown),
        };
        self.0.connect(&details, chained)
    }
}

/// How long an address is used without looking its name up again: ureq looks it up for each call, on a thread of its own.
const ADDRESSES_KEPT: Duration = Duration::from_secs(5);

/// Looks names up, but not for each call, and not what is an address.
#[derive(Debug, Default)]
struct Addresses {
    system: DefaultResolver,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    authority: Authority,
    since: Instant,
    addresses: ResolvedSocketAddrs,
}

impl Resolver for Addresses {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().ok_or(ureq::Error::HostNotFound)?;
        let literal = authority.host().trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse::<IpAddr>() {
            let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
            let mut addresses = self.empty();
            addresses.push(SocketAddr::new(address, authority.port_u16().unwrap_or(default)));
            return Ok(addresses);
        }
        #[allow(clippy::disallowed_methods, reason = "this feature makes calls, and its name says so")]
        let now = Instant::now();
        if let Some(known) = &*self.known.lock()
            && known.authority == *authority
            && now.duration_since(known.since) < ADDRESSES_KEPT
        {
            return Ok(known.addresses.clone());
        }
        let addresses = self.system.resolve(uri, config, timeout).map_err(|error| match error {
            ureq::Error::Timeout(_) => error,
            _ => ureq::Error::HostNotFound,
        })?;
        let known = Known { authority: authority.clone(), since: now, addresses: addresses.clone() };
        *self.known.lock() = Some(known);
        Ok(addresses)
    }
}

fn roots(roots: &TlsRoots) -> Result<RootCerts, String> {
    let (path, pem) = match roots {
        TlsRoots::System => return Ok(RootCerts::PlatformVerifier),
        TlsRoots::File { path, pem } => (path, pem),
    };
    let read;
    let pem: &[u8] = match pem {
        Some(pem) => pem,
        None => {
            #[allow(clippy::disallowed_methods, reason = "a configuration that was not loaded from a file names one")]
            let bytes = std::fs::read(path);
            read = bytes.map_err(|error| format!("`{}` cannot be read: {}", path.display(), error.kind()))?;
            &read
        }
    };
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(format!("`{}` is no PEM file", path.display())),
        }
    }
    if certificates.is_empty() {
        return Err(format!("`{}` holds no certificate", path.display()));
    }
    Ok(certificates.into())
}

/// An answer, read to its end.
struct Answer {
    head: ureq::http::response::Parts,
    body: Vec<u8>,
}

impl Answer {
    fn hand_to(&self, exchange: Exchange) -> Step {
        let headers: Vec<Header<'_>> =
            self.head.headers.iter().map(|(name, value)| Header::new(name.as_str(), value.as_bytes())).collect();
        let reply = Reply::Response { status: self.head.status.as_u16(), headers: &headers, body: &self.body };
        exchange.resume(reply, Now::read())
    }
}

/// What went wrong before the header section was complete.
fn failure(error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::TimedOut,
        ureq::Error::HostNotFound => Failure::Dns,
        ureq::Error::ConnectionFailed => Failure::Connect,
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) | ureq::Error::TlsRequired => Failure::Tls,
        ureq::Error::Io(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof => Failure::Closed,
            // rustls reports what it does not accept as invalid data.
            ErrorKind::InvalidData => Failure::Tls,
            _ => Failure::Connect,
        },
        _ => Failure::Protocol,
    }
}

/// What went wrong within the body.
fn cut_off(error: std::io::Error) -> Failure {
    match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => Failure::TimedOut,
        ureq::Error::Io(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut,
            _ => Failure::CutOff,
        },
        ureq::Error::Protocol(_) => Failure::Protocol,
        _ => Failure::CutOff,
    }
}
