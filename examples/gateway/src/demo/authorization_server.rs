//! An authorization server for development: fixed secrets, everything in memory, no TLS. It counts who asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::gateway::bind;
use crate::serve::serve;

/// A client of this server, which gets tokens in the name of a user.
pub(super) struct Client {
    pub(super) id: &'static str,
    pub(super) secret: &'static str,
    username: &'static str,
    scopes: &'static [&'static str],
}

pub(super) const ALICE: &Client =
    &Client { id: "alice-app", secret: "alice-secret", username: "alice", scopes: &["orders:read"] };
pub(super) const BOB: &Client =
    &Client { id: "bob-app", secret: "bob-secret", username: "bob", scopes: &["orders:read", "reports:read"] };
/// The resource server: it may introspect, and gets no tokens.
pub(super) const GATEWAY: &Client = &Client { id: "gateway", secret: "gateway-secret", username: "", scopes: &[] };

/// A network and a database would take some time as well.
const THINKING: Duration = Duration::from_millis(20);
const LIFETIME: u64 = 3600;
const FORM_BYTES: usize = 64 << 10;

struct Token {
    client: &'static Client,
    scope: String,
    /// Seconds since the Unix epoch.
    issued: u64,
    expires: u64,
}

#[derive(Default)]
struct Shared {
    tokens: Mutex<HashMap<String, Token>>,
    introspections: AtomicU64,
    /// Milliseconds that it takes to answer a question about a token.
    thinking: AtomicU64,
}

/// A server that can be stopped and started again at the same address.
pub(super) struct AuthorizationServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl AuthorizationServer {
    pub(super) fn start(address: SocketAddr) -> Result<Self, String> {
        let listener = bind(address)?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let mut server = Self { address, shared: Arc::default(), running: None };
        server.think_as_usual();
        server.run(listener);
        Ok(server)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many questions about a token have come in.
    pub(super) fn introspections(&self) -> u64 {
        self.shared.introspections.load(Ordering::Relaxed)
    }

    /// Takes this long, from now on, to answer a question about a token.
    pub(super) fn think(&self, time: Duration) {
        self.shared.thinking.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn think_as_usual(&self) {
        self.think(THINKING);
    }

    /// Closes the port and every connection.
    pub(super) async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            let _ = stop.send(());
            let _ = task.await;
        }
    }

    /// Starts again, with the tokens of before.
    pub(super) fn start_again(&mut self) -> Result<(), String> {
        self.run(bind(self.address)?);
        Ok(())
    }

    fn run(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let handle = move |request| answer(Arc::clone(&shared), request);
        let stopped = async move { stopped.await.unwrap_or_default() };
        self.running = Some((stop, tokio::spawn(serve(listener, handle, stopped, Duration::ZERO))));
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return reply(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({ "error": "for development only: POST to /token, /introspect or /revoke" }),
        );
    }
    let Ok(body) = Limited::new(body, FORM_BYTES).collect().await else {
        return reply(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_request" }));
    };
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body.to_bytes()).into_owned().collect();
    let Some(client) = client(&parts.headers) else {
        let mut refusal = reply(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" }));
        refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"development\""));
        return refusal;
    };
    match parts.uri.path() {
        "/token" => shared.token(client, &form),
        "/introspect" => {
            shared.introspections.fetch_add(1, Ordering::Relaxed);
            let thinking = shared.thinking.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(thinking)).await;
            shared.introspect(client, &form)
        }
        "/revoke" => shared.revoke(client, &form),
        _ => reply(StatusCode::NOT_FOUND, &json!({ "error": "not_found" })),
    }
}

impl Shared {
    /// RFC 6749 §4.4. `expires_in` is ours: a request may ask for a shorter life.
    fn token(&self, client: &'static Client, form: &HashMap<String, String>) -> Response<Full<Bytes>> {
        let refuse = |error: &str| reply(StatusCode::BAD_REQUEST, &json!({ "error": error }));
        if form.get("grant_type").map(String::as_str) != Some("client_credentials") {
            return refuse("unsupported_grant_type");
        }
        if client.scopes.is_empty() {
            return refuse("unauthorized_client");
        }
        let scope = form.get("scope").cloned().unwrap_or_else(|| client.scopes.join(" "));
        if !scope.split(' ').all(|word| client.scopes.contains(&word)) {
            return refuse("invalid_scope");
        }
        let lifetime = form.get("expires_in").map_or(Ok(LIFETIME), |seconds| seconds.parse());
        let (Ok(lifetime @ 1..=LIFETIME), Some(token)) = (lifetime, random()) else { return refuse("invalid_request") };
        let issued = now();
        let answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": scope });
        let entry = Token { client, scope, issued, expires: issued.saturating_add(lifetime) };
        self.tokens.lock().insert(token, entry);
        reply(StatusCode::OK, &answer)
    }

    /// RFC 7662.
    fn introspect(&self, client: &Client, form: &HashMap<String, String>) -> Response<Full<Bytes>> {
        if client.id != GATEWAY.id {
            return reply(StatusCode::FORBIDDEN, &json!({ "error": "unauthorized_client" }));
        }
        let tokens = self.tokens.lock();
        let answer = match form.get("token").and_then(|token| tokens.get(token)) {
            Some(token) if now() < token.expires => json!({
                "active": true,
                "scope": token.scope,
                "client_id": token.client.id,
                "username": token.client.username,
                "token_type": "Bearer",
                "exp": token.expires,
                "iat": token.issued,
            }),
            _ => json!({ "active": false }),
        };
        reply(StatusCode::OK, &answer)
    }

    /// RFC 7009: a client revokes its own tokens, and an unknown one is no error.
    fn revoke(&self, client: &Client, form: &HashMap<String, String>) -> Response<Full<Bytes>> {
        if let Some(token) = form.get("token") {
            let mut tokens = self.tokens.lock();
            if tokens.get(token).is_some_and(|entry| entry.client.id == client.id) {
                tokens.remove(token);
            }
        }
        reply(StatusCode::OK, &json!({}))
    }
}

/// The client behind HTTP Basic. Ids and secrets here are the same with and without form encoding.
fn client(headers: &HeaderMap) -> Option<&'static Client> {
    let credentials = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let credentials = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (id, secret) = credentials.split_once(':')?;
    [ALICE, BOB, GATEWAY].into_iter().find(|client| client.id == id && client.secret == secret)
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    for (name, value) in [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn random() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whole seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
