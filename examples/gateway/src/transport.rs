//! The call to the introspection endpoint, by hyper's pooled client.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokenward_core::{Config, Exchange, Failure, Header, Now, Outbound, Reply, Step, TlsRoots};
use tower_service::Service;

/// Makes the calls that the introspector asks for. It follows no redirect and knows no proxy.
#[derive(Debug)]
pub(crate) struct Transport {
    client: Pooled,
    /// Without connections of before, for what a connection of before failed at.
    fresh: Pooled,
    reply_bytes: usize,
}

type Pooled = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// A complete answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Transport {
    /// A transport with connections of its own. Reads files: not for a thread that serves requests.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(config.tls_roots())?)
            .with_no_client_auth();
        let mut http = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        http.set_nodelay(true);
        // The configuration has judged already whether plain HTTP is allowed.
        http.enforce_http(false);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
        let mut client = Client::builder(TokioExecutor::new());
        client.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        // Whether to ask again is the core's decision, which counts attempts and time.
        client.retry_canceled_requests(false);
        let mut fresh = client.clone();
        fresh.pool_max_idle_per_host(0);
        if config.keepalive().is_zero() {
            client.pool_max_idle_per_host(0);
        } else {
            client.pool_idle_timeout(config.keepalive());
        }
        let fresh = fresh.build(connector.clone());
        Ok(Self { client: client.build(connector), fresh, reply_bytes: config.reply_bytes() })
    }

    /// Makes the call and hands its outcome over. Whoever drops this future gives the question to another request.
    pub(crate) async fn ask(&self, exchange: Exchange) -> Step {
        let outbound = exchange.outbound();
        let call = tokio::time::timeout(outbound.time_left(), self.call(outbound)).await;
        let answer = match call.unwrap_or(Err(Failure::TimedOut)) {
            Ok(answer) => answer,
            Err(failure) => return exchange.resume(Reply::Failed(failure), Now::read()),
        };
        let headers: Vec<Header<'_>> =
            answer.headers.iter().map(|(name, value)| Header::new(name.as_str(), value.as_bytes())).collect();
        let reply = Reply::Response { status: answer.status.as_u16(), headers: &headers, body: &answer.body };
        exchange.resume(reply, Now::read())
    }

    async fn call(&self, outbound: &Outbound) -> Result<Answer, Failure> {
        // The core has judged URL and headers; what hyper cannot send all the same was not sent.
        let request = request(outbound).ok_or(Failure::Protocol)?;
        let client = if outbound.is_retry() { &self.fresh } else { &self.client };
        let (parts, body) = client.request(request).await.map_err(|error| failure(&error))?.into_parts();
        let body = self.read(body).await?;
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn read(&self, mut body: Incoming) -> Result<Vec<u8>, Failure> {
        // A length that is too long is believed, and nothing more is read.
        if body.size_hint().lower() > self.reply_bytes as u64 {
            return Err(Failure::TooLong);
        }
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Failure::CutOff)?;
            read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if read.len() > self.reply_bytes {
                return Err(Failure::TooLong);
            }
        }
        Ok(read)
    }
}

fn request(outbound: &Outbound) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::from(outbound.body().to_owned()));
    *request.method_mut() = outbound.method().parse().ok()?;
    *request.uri_mut() = outbound.url().parse::<Uri>().ok()?;
    for (name, value) in outbound.headers() {
        let mut value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        value.set_sensitive(true);
        request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(request)
}

/// What went wrong before the head of an answer was there.
fn failure(error: &legacy::Error) -> Failure {
    if error.is_connect() {
        return if has::<Unresolved>(error) {
            Failure::Dns
        } else if has::<rustls::Error>(error) {
            Failure::Tls
        } else {
            Failure::Connect
        };
    }
    match find::<hyper::Error>(error) {
        Some(error) if error.is_parse() || error.is_user() => Failure::Protocol,
        // Closed, reset, or a kept connection that turned out to be gone.
        _ => Failure::Closed,
    }
}

fn has<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    find::<T>(error).is_some()
}

/// The first error of a type among an error and its causes.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // An `io::Error` shows the cause of what it wraps, and not what it wraps.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => find(wrapped),
        None => find(error.source()?),
    }
}

/// Who vouches for the endpoint.
fn roots(roots: &TlsRoots) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match roots {
        TlsRoots::File { path, pem } => {
            let problem = |what: &dyn std::fmt::Display| format!("`tls_roots.file`: `{}`: {what}", path.display());
            for certificate in CertificateDer::pem_slice_iter(pem.as_deref().unwrap_or_default()) {
                let certificate = certificate.map_err(|error| problem(&error))?;
                store.add(certificate).map_err(|error| problem(&error))?;
            }
            if store.is_empty() {
                return Err(problem(&"holds no certificate"));
            }
        }
        // None at all is no error here: an endpoint on this machine needs none, and one with TLS is refused.
        _ => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

/// The system's resolver, whose errors can be told from those of connecting.
#[derive(Clone, Debug)]
struct Resolver(GaiResolver);

/// A name was not resolved.
#[derive(Debug)]
struct Unresolved(io::Error);

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Unresolved {}

impl Service<Name> for Resolver {
    type Response = <GaiResolver as Service<Name>>::Response;
    type Error = Unresolved;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unresolved>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        self.0.poll_ready(context).map_err(Unresolved)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async { resolving.await.map_err(Unresolved) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Says how a call to the URL fails.
    async fn failure_of(url: &str) -> Option<Failure> {
        let json = format!(
            r#"{{ "introspection_url": "{url}", "authorization_value": "x", "limits": {{ "reply_bytes": 10 }} }}"#
        );
        let transport = Transport::new(&Config::from_json(&json).unwrap()).unwrap();
        let request = Request::post(url).body(Full::default()).unwrap();
        match transport.client.request(request).await {
            Ok(answer) => transport.read(answer.into_body()).await.err(),
            Err(error) => Some(failure(&error)),
        }
    }

    /// A server that gives every connection these bytes and closes it.
    async fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
            }
        });
        address.to_string()
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(failure_of(&format!("http://{unused}/")).await, Some(Failure::Connect));
        assert_eq!(failure_of("https://name.invalid/").await, Some(Failure::Dns));
        for (answer, expected) in [
            (&b""[..], Some(Failure::Closed)),
            (b"HTTP/1.1 200 O", Some(Failure::Closed)),
            (b"SMTP ready\r\n\r\n", Some(Failure::Protocol)),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", Some(Failure::CutOff)),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n", Some(Failure::TooLong)),
            (b"HTTP/1.1 200 OK\r\n\r\n01234567890", Some(Failure::TooLong)),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789", None),
        ] {
            let found = failure_of(&format!("http://{}/", server(answer).await)).await;
            assert_eq!(found, expected, "{}", answer.escape_ascii());
        }
        let plain = server(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert_eq!(failure_of(&format!("https://{plain}/")).await, Some(Failure::Tls));
    }
}
