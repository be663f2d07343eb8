//! The authorization server and the upstream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::truth::{Truth, scramble};

type Answer = Response<Full<Bytes>>;

/// Credentials of the host: a reload may change them.
pub(crate) const CREDENTIALS: [&str; 2] =
    ["Basic Z2F0ZXdheTpzb2FrLXMzY3IzdA==", "Basic Z2F0ZXdheTphbm90aGVyLXMzY3IzdA=="];

async fn serve<F, R>(handle: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            stream.set_nodelay(true).unwrap();
            let handle = handle.clone();
            let service = service_fn(move |request| {
                let answer = handle(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
        }
    });
    address
}

/// Tells the truth of the moment, one time in eight only after a while.
pub(crate) async fn authorization_server(truth: Arc<Truth>) -> SocketAddr {
    serve(move |request| {
        let truth = Arc::clone(&truth);
        async move {
            let known = request.headers().get(AUTHORIZATION).is_some_and(|value| CREDENTIALS.iter().any(|one| value == one));
            let form = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut answer = Response::new(Full::default());
            if !known {
                truth.is_wrong("the authorization server was asked without credentials".into());
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
                return answer;
            }
            // Tokens here are made of characters that a form leaves alone.
            let form = String::from_utf8_lossy(&form);
            let token = form.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
            let delay = scramble(token.len() as u64 ^ token.bytes().fold(0, |sum, byte| scramble(sum ^ u64::from(byte))));
            if delay.is_multiple_of(8) {
                tokio::time::sleep(Duration::from_millis(delay >> 32 & 15)).await;
            }
            let body = match truth.introspect(token) {
                Some(token) => format!(
                    r#"{{"active":true,"jti":"{}","username":"user-{}","client_id":"app-{}","scope":"read write","exp":{}}}"#,
                    token.text, token.user, token.user, token.exp
                ),
                None => r#"{"active":false}"#.into(),
            };
            answer.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
            *answer.body_mut() = Full::from(body);
            answer
        }
    })
    .await
}

/// Answers with the lines that only the host may set, and with credentials that should have been taken away.
pub(crate) async fn upstream(truth: Arc<Truth>) -> SocketAddr {
    serve(move |request| {
        truth.upstream_requests.fetch_add(1, Ordering::Relaxed);
        let mut lines: Vec<String> = request
            .headers()
            .iter()
            .filter_map(|(name, value)| {
                let name = name.as_str().replace(['_', '.'], "-");
                let ours = name.starts_with("x-consumer-") || name.starts_with("x-credential-");
                (ours || name == "x-anonymous-consumer" || name == "authorization")
                    .then(|| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            })
            .collect();
        lines.sort();
        std::future::ready(Response::new(Full::from(lines.join("\n"))))
    })
    .await
}
