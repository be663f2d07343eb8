//! Leads a tour: sends its requests, shows what became of each, and holds that against what was expected.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokenward_core::{Consumer, Decision, Identity, Introspector, Source};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::authorization_server::{AuthorizationServer, Client};
use super::paper::Paper;
use super::upstream::Echo;
use crate::proxy::Seen;

pub(super) struct Guide {
    gateway: String,
    pub(super) server: AuthorizationServer,
    echo: Arc<Echo>,
    pub(super) introspector: Introspector,
    seen: mpsc::UnboundedReceiver<Seen>,
    pub(super) paper: Paper,
    client: HttpClient,
    steps: u32,
    surprises: u32,
}

type HttpClient = legacy::Client<HttpConnector, Full<Bytes>>;

/// One request, and what is to become of it.
pub(super) struct Step<'a> {
    pub(super) title: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: Vec<(&'a str, &'a str)>,
    pub(super) expected: Expected<'a>,
}

pub(super) struct Expected<'a> {
    pub(super) status: u16,
    /// Who was recognized, or the reason to refuse.
    pub(super) why: &'a str,
    pub(super) source: Source,
    /// Questions that reach the authorization server.
    pub(super) calls: u64,
    /// The request target at the upstream, if that is not the client's.
    pub(super) target: Option<&'a str>,
    /// Headers that the upstream sees with exactly this value, or not at all.
    pub(super) upstream: &'a [(&'a str, Option<&'a str>)],
}

/// The answer to a request.
pub(super) struct Answer {
    status: StatusCode,
    body: Bytes,
}

/// What the upstream says that it was sent.
#[derive(Default)]
pub(super) struct Echoed {
    target: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Answer {
    /// Empty if it was not the upstream that answered.
    pub(super) fn echo(&self) -> Echoed {
        let echo: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let lines = echo["headers"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let pairs = lines.filter_map(|line| line.split_once(": "));
        Echoed {
            target: echo["target"].as_str().unwrap_or_default().to_owned(),
            headers: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

impl Guide {
    pub(super) fn new(
        gateway: &str,
        server: AuthorizationServer,
        echo: Arc<Echo>,
        introspector: Introspector,
        seen: mpsc::UnboundedReceiver<Seen>,
        paper: Paper,
    ) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new()).build_http();
        let gateway = gateway.to_owned();
        Self { gateway, server, echo, introspector, seen, paper, client, steps: 0, surprises: 0 }
    }

    /// Sends one request and shows what became of it.
    pub(super) async fn step(&mut self, step: Step<'_>) -> Result<(), String> {
        let Step { title, path, headers, expected } = step;
        self.announce(title, path, &headers);
        while self.seen.try_recv().is_ok() {}
        let (calls, reached) = (self.server.introspections(), self.echo.requests());
        let answer = self.ask(path, &headers).await?;
        let (calls, reached) = (self.server.introspections() - calls, self.echo.requests() - reached);
        let seen = self.seen.try_recv().map_err(|_| "the gateway decided nothing".to_owned())?;

        let (status, why, source) = (answer.status.as_u16(), why(&seen.decision), seen.source.name());
        let is_allow = seen.decision.is_allow();
        let verdict = if is_allow { self.paper.green("allowed") } else { self.paper.red("refused") };
        let (took, asked) = (milliseconds(seen.took), count_calls(calls));
        self.paper.line(&format!("    {verdict} {status}   {why}   from: {source}   {took}   {asked}"));
        let echo = answer.echo();
        if is_allow {
            self.show(&echo);
        }

        let mut surprises = Surprises::default();
        surprises.compare("status", &expected.status, &status);
        surprises.compare("why", &expected.why, &why.as_str());
        surprises.compare("from", &expected.source.name(), &source);
        surprises.compare("calls", &expected.calls, &calls);
        surprises.compare("requests at the upstream", &u64::from(expected.status == 200), &reached);
        if is_allow {
            surprises.compare("target", &expected.target.unwrap_or(path), &echo.target.as_str());
        }
        for (name, value) in expected.upstream {
            let lines: Vec<&str> =
                echo.headers.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str()).collect();
            surprises.compare(name, value.as_slice(), lines.as_slice());
        }
        self.conclude(surprises);
        Ok(())
    }

    /// Sends many requests at once with one `Authorization`. Whoever comes first asks about it, and nobody else.
    pub(super) async fn crowd(&mut self, size: usize, bearer: &str) -> Result<(), String> {
        let headers = [("authorization", bearer)];
        self.announce(&format!("{size} requests at once for one new token"), "/orders", &headers);
        while self.seen.try_recv().is_ok() {}
        let calls = self.server.introspections();
        let mut crowd = JoinSet::new();
        for _ in 0..size {
            let (client, request) = (self.client.clone(), self.request("/orders", &headers)?);
            crowd.spawn(async move { send(&client, request).await });
        }
        let mut allowed = 0;
        while let Some(answer) = crowd.join_next().await {
            let answer = answer.map_err(|error| error.to_string())??;
            allowed += usize::from(answer.status == StatusCode::OK);
        }
        let calls = self.server.introspections() - calls;

        let mut sources = BTreeMap::new();
        let mut longest = Duration::ZERO;
        while let Ok(seen) = self.seen.try_recv() {
            *sources.entry(seen.source.name()).or_insert(0) += 1;
            longest = longest.max(seen.took);
        }
        let sources: Vec<String> = sources.iter().map(|(source, count)| format!("{count} {source}")).collect();
        let verdict = self.paper.green(&format!("{allowed} allowed"));
        let (sources, took, asked) = (sources.join(", "), milliseconds(longest), count_calls(calls));
        self.paper.line(&format!("    {verdict}   from: {sources}   {took} at most   {asked}"));

        let mut surprises = Surprises::default();
        surprises.compare("answers of status 200", &size, &allowed);
        surprises.compare("calls", &1, &calls);
        self.conclude(surprises);
        Ok(())
    }

    /// Shows how the tour went; tells whether every step was as expected.
    pub(super) fn verdict(&self) -> bool {
        let good = self.steps - self.surprises;
        let verdict = format!("{good} of {} steps as expected", self.steps);
        self.paper.line("");
        self.paper.line(&if self.surprises == 0 { self.paper.green(&verdict) } else { self.paper.red(&verdict) });
        self.surprises == 0
    }

    /// Takes note of decisions that nobody shows any more.
    pub(super) async fn look_on(&mut self) {
        while self.seen.recv().await.is_some() {}
    }

    /// Sends a request to the gateway.
    pub(super) async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        send(&self.client, self.request(path, headers)?).await
    }

    /// The `Authorization` of a new token.
    pub(super) async fn bearer(&self, client: &Client) -> Result<String, String> {
        Ok(format!("Bearer {}", self.token(client, 3600).await?))
    }

    /// A new token by client credentials, for so many seconds.
    pub(super) async fn token(&self, client: &Client, lifetime: u64) -> Result<String, String> {
        let lifetime = lifetime.to_string();
        let form = [("grant_type", "client_credentials"), ("expires_in", lifetime.as_str())];
        let answer = self.post("/token", client, &form).await?;
        let answer: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        answer["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("no token: {answer}"))
    }

    pub(super) async fn revoke(&self, client: &Client, token: &str) -> Result<(), String> {
        let answer = self.post("/revoke", client, &[("token", token)]).await?;
        if answer.status.is_success() { Ok(()) } else { Err(format!("revocation failed with {}", answer.status)) }
    }

    async fn post(&self, path: &str, client: &Client, form: &[(&str, &str)]) -> Result<Answer, String> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let credentials = STANDARD.encode(format!("{}:{}", client.id, client.secret));
        let request = Request::post(self.server.url(path))
            .header("authorization", format!("Basic {credentials}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        send(&self.client, request).await
    }

    fn request(&self, path: &str, headers: &[(&str, &str)]) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::get(format!("{}{path}", self.gateway));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::default()).map_err(|error| error.to_string())
    }

    fn announce(&mut self, title: &str, path: &str, headers: &[(&str, &str)]) {
        self.steps += 1;
        self.paper.line("");
        self.paper.line(&self.paper.bold(&format!("{:2}. {title}", self.steps)));
        let mut words = vec![format!("GET {path}")];
        words.extend(headers.iter().map(|(name, value)| format!("{name}: {}", shortened(value))));
        self.paper.words("    ", &words);
    }

    /// What the upstream was sent, but for its own name.
    fn show(&self, echo: &Echoed) {
        let mut words = vec![format!("GET {}", echo.target)];
        let headers = echo.headers.iter().filter(|(name, _)| name != "host");
        words.extend(headers.map(|(name, value)| format!("{name}: {value}")));
        self.paper.words("    upstream: ", &words);
    }

    fn conclude(&mut self, Surprises(surprises): Surprises) {
        self.surprises += u32::from(!surprises.is_empty());
        for surprise in surprises {
            self.paper.line(&self.paper.red(&format!("    NOT AS EXPECTED: {surprise}")));
        }
    }
}

/// What was not as expected.
#[derive(Default)]
struct Surprises(Vec<String>);

impl Surprises {
    fn compare<T: PartialEq + Debug + ?Sized>(&mut self, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.0.push(format!("{what}: {expected:?} expected, {found:?} found"));
        }
    }
}

async fn send(client: &HttpClient, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let (parts, body) = client.request(request).await.map_err(|error| problem(&error))?.into_parts();
    let body = body.collect().await.map_err(|error| problem(&error))?.to_bytes();
    Ok(Answer { status: parts.status, body })
}

/// An error with its causes: too few open files are allowed, say.
fn problem(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(format!("a request of the tour failed: {error}"), |text, cause| format!("{text}: {cause}"))
}

/// Who was recognized, or the reason to refuse.
fn why(decision: &Decision) -> String {
    let name = |consumer: &Consumer| consumer.username().unwrap_or(consumer.id()).to_owned();
    match decision {
        Decision::Deny(deny) => deny.reason().name().to_owned(),
        Decision::Allow(allow) => match allow.identity() {
            Identity::Consumer(consumer) => format!("consumer {}", name(consumer)),
            Identity::Anonymous(consumer) => format!("anonymous {}", name(consumer)),
            Identity::Unmatched => "no consumer".to_owned(),
            Identity::None => "nobody".to_owned(),
        },
    }
}

fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 1.0 { format!("{milliseconds:.3} ms") } else { format!("{milliseconds:.1} ms") }
}

fn count_calls(calls: u64) -> String {
    format!("{calls} {} to the authorization server", if calls == 1 { "call" } else { "calls" })
}

/// A token is shown by its beginning.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(20) {
        Some((at, _)) => format!("{}...", value.split_at(at).0),
        None => value.to_owned(),
    }
}
