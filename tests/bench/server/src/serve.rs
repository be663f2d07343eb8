//! The authorization server, the upstream, and what is said to them.

use std::convert::Infallible;
use std::error::Error;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::token;

/// Connections that wait to be accepted. The system's own bound counts as well.
const BACKLOG: u32 = 4096;

struct State {
    /// Milliseconds that every introspection takes.
    delay: AtomicU64,
    /// While it is true, no introspection is answered.
    hang: watch::Sender<bool>,
    active: AtomicU64,
    inactive: AtomicU64,
    /// Introspections that have begun: those that hang as well.
    asked: AtomicU64,
    upstream: AtomicU64,
}

#[derive(Clone, Copy)]
enum Role {
    AuthorizationServer,
    Upstream,
    Control,
}

/// Serves until SIGTERM.
pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let state = Rc::new(State {
        delay: AtomicU64::new(0),
        hang: watch::Sender::new(false),
        active: AtomicU64::new(0),
        inactive: AtomicU64::new(0),
        asked: AtomicU64::new(0),
        upstream: AtomicU64::new(0),
    });
    let tasks = tokio::task::LocalSet::new();
    let mut ports = Vec::new();
    for role in [Role::AuthorizationServer, Role::Upstream, Role::Control] {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        ports.push(listener.local_addr()?.port());
        tasks.spawn_local(accept(listener, role, Rc::clone(&state)));
    }
    println!("{}", json!({ "authorization_server": ports.first(), "upstream": ports.get(1), "control": ports.get(2) }));
    let mut stop = signal(SignalKind::terminate())?;
    tasks
        .run_until(async {
            stop.recv().await;
        })
        .await;
    Ok(())
}

async fn accept(listener: TcpListener, role: Role, state: Rc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: some connections have to end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let state = Rc::clone(&state);
        let service = service_fn(move |request| {
            let state = Rc::clone(&state);
            async move {
                Ok::<_, Infallible>(match role {
                    Role::AuthorizationServer => introspection(request, &state).await,
                    Role::Upstream => upstream(&request, &state),
                    Role::Control => control(&request, &state),
                })
            }
        });
        tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn introspection(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let Ok(body) = request.into_body().collect().await else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", String::new());
    };
    state.asked.fetch_add(1, Relaxed);
    let body = body.to_bytes();
    let said = url::form_urlencoded::parse(&body)
        .find(|(name, _)| name == "token")
        .and_then(|(_, token)| token::introspect(&token));
    let counter = if said.is_some() { &state.active } else { &state.inactive };
    counter.fetch_add(1, Relaxed);
    let delay = state.delay.load(Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if *state.hang.borrow() {
        // The sender is never dropped before its receivers.
        let _ = state.hang.subscribe().wait_for(|hang| !hang).await;
    }
    answer(StatusCode::OK, "application/json", said.unwrap_or_else(|| "{\"active\":false}".to_owned()))
}

/// `hello`, or under `/headers` the headers that came.
fn upstream(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    state.upstream.fetch_add(1, Relaxed);
    if !request.uri().path().ends_with("/headers") {
        return answer(StatusCode::OK, "text/plain", "hello".to_owned());
    }
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    answer(StatusCode::OK, "application/json", json!(headers).to_string())
}

/// The query sets `delay` (milliseconds) and `hang` (`true`, `false`); the answer is the counters.
fn control(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    for (name, value) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
        match (&*name, value.parse::<u64>(), value.parse::<bool>()) {
            ("delay", Ok(delay), _) => state.delay.store(delay, Relaxed),
            ("hang", _, Ok(hang)) => {
                state.hang.send_replace(hang);
            }
            _ => return answer(StatusCode::BAD_REQUEST, "text/plain", format!("{name}={value}?")),
        }
    }
    let counters = json!({
        "asked": state.asked.load(Relaxed),
        "active": state.active.load(Relaxed),
        "inactive": state.inactive.load(Relaxed),
        "upstream": state.upstream.load(Relaxed),
    });
    answer(StatusCode::OK, "application/json", counters.to_string())
}

fn answer(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
