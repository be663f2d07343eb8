//! The way of a request: decision, edits, upstream, answer.
//!
//! Choices of a plain HTTP/1.1 reverse proxy:
//! - `Host` goes on as received, but for a target in absolute form, whose authority takes its place (RFC 9112 §3.2.2).
//! - Trailers are not passed on, neither way.
//! - Of upgrades only WebSocket is passed on, and a tunnel lasts as long as its two ends want. With another protocol, HTTP/2
//!   say, a client could send further requests through the tunnel past every decision.
//! - `CONNECT`, two `Host` lines and a transfer coding other than `chunked` are refused before anybody is asked.
//! - How long the upstream may think is the client's patience: when it goes away, so do its call and its question.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokenward_core::{Allow, Decision, Deny, Header, Introspector, Now, Policy, Reason, Source, Step};
use tokio::sync::{mpsc, oneshot};

use crate::fields;
use crate::transport::Transport;
use crate::upload::Upload;

/// The upstream's answer, or one of ours.
pub(crate) type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// Decides about requests and passes on those that are allowed.
pub(crate) struct Gateway {
    introspector: Introspector,
    transport: ArcSwap<Transport>,
    upstream: Authority,
    client: Client<HttpConnector, Upload>,
    routes: Vec<Route>,
    watcher: Option<mpsc::UnboundedSender<Seen>>,
}

/// Paths with a policy of their own. For the demonstration, whose upstream compares paths byte for byte: a gateway before one
/// that decodes or normalizes them would have to do the same first.
pub(crate) struct Route {
    pub(crate) prefix: &'static str,
    pub(crate) policy: Policy,
}

/// A decision, as a watcher is told of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) decision: Decision,
    pub(crate) source: Source,
    /// From the beginning to the decision.
    pub(crate) took: Duration,
}

/// How long a client may take to send a body that has to be searched for a token.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Servers close idle connections without a word, some after 5 s. One that is about to be closed is better not taken.
const UPSTREAM_IDLE: Duration = Duration::from_secs(4);
const UPSTREAM_CONNECT: Duration = Duration::from_secs(10);

impl Gateway {
    pub(crate) fn new(introspector: Introspector, transport: Transport, upstream: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(UPSTREAM_CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(UPSTREAM_IDLE)
            .build(connector);
        let transport = ArcSwap::from_pointee(transport);
        Self { introspector, transport, upstream, client, routes: Vec::new(), watcher: None }
    }

    /// Gives paths policies of their own.
    pub(crate) fn routes(mut self, routes: Vec<Route>) -> Self {
        self.routes = routes;
        self
    }

    /// Tells of every decision.
    pub(crate) fn watcher(mut self, watcher: mpsc::UnboundedSender<Seen>) -> Self {
        self.watcher = Some(watcher);
        self
    }

    pub(crate) fn introspector(&self) -> &Introspector {
        &self.introspector
    }

    /// Makes further calls to the endpoint by this transport; gives the one before.
    pub(crate) fn replace_transport(&self, transport: Arc<Transport>) -> Arc<Transport> {
        self.transport.swap(transport)
    }

    /// Answers a request.
    pub(crate) async fn handle(self: Arc<Self>, mut request: Request<Incoming>) -> Answer {
        if let Some(refusal) = unsupported(&request) {
            return refusal;
        }
        let websocket = wants_websocket(&request).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let mut upload = Upload::of(body);
        let decision = match self.decide(&parts, &mut upload).await {
            Ok(decision) => decision,
            Err(refusal) => return refusal,
        };
        match decision {
            Decision::Allow(allow) => self.forward(&allow, parts, upload, websocket).await,
            Decision::Deny(deny) => refuse(&deny, &parts, upload),
        }
    }

    async fn decide(&self, parts: &Parts, upload: &mut Upload) -> Result<Decision, Answer> {
        let began = Now::read();
        let target = match parts.uri.scheme() {
            Some(_) => parts.uri.to_string(),
            None => parts.uri.path_and_query().map_or("", PathAndQuery::as_str).to_owned(),
        };
        let policy =
            self.routes.iter().find(|route| parts.uri.path().starts_with(route.prefix)).map(|route| &route.policy);
        let headers: Vec<Header<'_>> =
            parts.headers.iter().map(|(name, value)| Header::new(name.as_str(), value.as_bytes())).collect();
        let mut request = tokenward_core::Request::new(parts.method.as_str(), &target).headers(&headers);
        let needs_body = match policy {
            Some(policy) => self.introspector.needs_body_with(policy, &request),
            None => self.introspector.needs_body(&request),
        };
        if needs_body {
            let limit = self.introspector.body_bytes();
            match tokio::time::timeout(BODY_TIME, upload.read(limit)).await {
                Ok(Ok(())) => request = request.body(upload.bytes()),
                Ok(Err(_)) => return Err(own(StatusCode::BAD_REQUEST, "The request body could not be read")),
                Err(_) => return Err(own(StatusCode::REQUEST_TIMEOUT, "The request body did not come in time")),
            }
        }
        let now = Now::read();
        let step = match policy {
            Some(policy) => self.introspector.begin_with(policy, &request, now),
            None => self.introspector.begin(&request, now),
        };
        let (decision, source) = self.settle(step).await;
        if let Some(watcher) = &self.watcher {
            let took = Now::read().monotonic().saturating_sub(began.monotonic());
            let _ = watcher.send(Seen { decision: decision.clone(), source, took });
        }
        Ok(decision)
    }

    /// Goes from step to step without blocking. If the client goes away this future is dropped, and the step with it: the
    /// core then looks after those who wait for the same answer.
    async fn settle(&self, mut step: Step) -> (Decision, Source) {
        let mut source = Source::Cache;
        loop {
            step = match step {
                Step::Introspect(exchange) => {
                    source = Source::Endpoint;
                    self.transport.load_full().ask(exchange).await
                }
                Step::Wait(wait) => {
                    source = Source::Waiting;
                    let (ready, woken) = oneshot::channel();
                    wait.on_ready(move |_| ready.send(()).unwrap_or_default());
                    let left = wait.deadline().saturating_sub(Now::read().monotonic());
                    let _ = tokio::time::timeout(left, woken).await;
                    wait.resume(Now::read())
                }
                Step::Done(decision) => {
                    let source = match &decision {
                        Decision::Allow(allow) => allow.source(),
                        Decision::Deny(deny) => match deny.reason() {
                            Reason::TokenMissing | Reason::RequestMalformed | Reason::Overloaded => Source::None,
                            _ => source,
                        },
                    };
                    return (decision, source);
                }
            };
        }
    }

    async fn forward(&self, allow: &Allow, parts: Parts, mut upload: Upload, websocket: Option<OnUpgrade>) -> Answer {
        let mut headers = parts.headers;
        fields::drop_hop_by_hop(&mut headers);
        if websocket.is_some() {
            add_websocket(&mut headers);
        }
        if parts.uri.scheme().is_some()
            && let Some(host) = parts.uri.authority().and_then(host_field)
        {
            headers.insert(header::HOST, host);
        }
        if let Some(body) = allow.body() {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
            upload = Upload::whole(body);
        }
        let edited = fields::apply(allow.edits(), &mut headers);
        let (Some(()), Some(uri)) = (edited, self.uri(allow, &parts.uri)) else {
            // What cannot be sent as the decision says is not sent at all.
            return own(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred");
        };
        let mut request = Request::new(upload);
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        match self.client.request(request).await {
            Ok(answer) => deliver(allow, answer, websocket),
            Err(_) => own(StatusCode::BAD_GATEWAY, "The upstream gave no answer"),
        }
    }

    /// The upstream with the path and query of the target: the rewritten one, or the one received.
    fn uri(&self, allow: &Allow, received: &Uri) -> Option<Uri> {
        let rewritten = match allow.target() {
            Some(target) if !target.starts_with(b"/") => Some(Uri::try_from(target).ok()?.into_parts().path_and_query?),
            Some(target) => Some(PathAndQuery::try_from(target).ok()?),
            None => None,
        };
        let mut uri = hyper::http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.upstream.clone());
        uri.path_and_query = rewritten.or_else(|| received.path_and_query().cloned());
        Uri::from_parts(uri).ok()
    }
}

/// The upstream's answer for the client.
fn deliver(allow: &Allow, mut answer: Response<Incoming>, websocket: Option<OnUpgrade>) -> Answer {
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let is_websocket = says(answer.headers(), header::UPGRADE, "websocket");
    fields::drop_hop_by_hop(answer.headers_mut());
    match websocket {
        Some(client) if switches && is_websocket => {
            tokio::spawn(tunnel(client, hyper::upgrade::on(&mut answer)));
            add_websocket(answer.headers_mut());
        }
        _ if switches => return own(StatusCode::BAD_GATEWAY, "The upstream switched to a protocol nobody asked for"),
        _ => {}
    }
    if answer.status().is_success() {
        for (name, value) in allow.response_headers() {
            if name.eq_ignore_ascii_case("cache-control") {
                fields::make_private(answer.headers_mut());
            } else {
                let _ = fields::append(name, value, answer.headers_mut());
            }
        }
    }
    answer.map(Either::Left)
}

/// Carries bytes both ways until both ends are done.
async fn tunnel(client: OnUpgrade, upstream: OnUpgrade) {
    if let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) {
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
    }
}

/// The decision's answer.
fn refuse(deny: &Deny, parts: &Parts, upload: Upload) -> Answer {
    let mut answer = Response::new(Either::Right(Full::from(deny.body().unwrap_or_default())));
    *answer.status_mut() = StatusCode::from_u16(deny.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in deny.headers() {
        let _ = fields::append(name, value, answer.headers_mut());
    }
    if parts.headers.contains_key(header::EXPECT) {
        // The client waits for leave to send its body. It gets this answer instead, and must not reuse the connection.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        upload.abandon();
    }
    answer
}

/// An answer of the proxy's own, in the form of the core's.
fn own(status: StatusCode, description: &str) -> Answer {
    let error = if status.is_client_error() { "invalid_request" } else { "server_error" };
    // Fixed words without anything to escape.
    let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
    let mut answer = Response::new(Either::Right(Full::from(body)));
    *answer.status_mut() = status;
    for (name, value) in [("content-type", "application/json; charset=utf-8"), ("cache-control", "no-store")] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED {
        // Where the next request would begin is not sure.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Requests that this proxy does not pass on whoever sends them.
fn unsupported(request: &Request<Incoming>) -> Option<Answer> {
    let lines = |name| request.headers().get_all(name).iter();
    if request.method() == Method::CONNECT {
        return Some(own(StatusCode::NOT_IMPLEMENTED, "This gateway opens no tunnels"));
    }
    if request.uri().scheme().is_none() && request.uri().authority().is_some() {
        return Some(own(StatusCode::BAD_REQUEST, "The request target is not one of this gateway's"));
    }
    let hosts = lines(header::HOST).count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some(own(StatusCode::BAD_REQUEST, "The request has not exactly one Host"));
    }
    // What a decision rests on must not change behind it.
    if lists_what_counts(request.headers()) {
        return Some(own(StatusCode::BAD_REQUEST, "Connection lists a field that is not of the connection"));
    }
    if lines(header::TRANSFER_ENCODING).any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Some(own(StatusCode::NOT_IMPLEMENTED, "The transfer coding is not supported"));
    }
    None
}

/// Whether `Connection` lists fields that say what the request is (RFC 9110 §7.6.1: it must not).
fn lists_what_counts(headers: &HeaderMap) -> bool {
    let mut listed =
        headers.get_all(header::CONNECTION).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    listed.any(|name| {
        let name = name.trim_ascii().to_ascii_lowercase();
        name == b"host" || name.starts_with(b"content-")
    })
}

fn wants_websocket(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && says(request.headers(), header::CONNECTION, "upgrade")
        && says(request.headers(), header::UPGRADE, "websocket")
}

/// Whether a field has this word among its comma-separated ones.
fn says(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    let mut words = headers.get_all(name).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn add_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// The authority of a target in absolute form as a `Host`: without user information.
fn host_field(authority: &Authority) -> Option<HeaderValue> {
    let host = authority.as_str().rsplit('@').next()?;
    HeaderValue::from_str(host).ok()
}
