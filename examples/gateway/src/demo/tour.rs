//! A walk through what the gateway decides. Every step says what is expected of it, and the tour fails if it is not so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokenward_core::{Decision, Identity, Introspector, Source};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::authorization_server::{ALICE, AuthorizationServer, BOB, Client};
use super::paper::Paper;
use super::upstream::Echo;
use crate::proxy::Seen;

/// Requests at once, for one token that nobody knows yet.
const CROWD: usize = 200;

pub(super) struct Tour {
    gateway: String,
    pub(super) server: AuthorizationServer,
    echo: Arc<Echo>,
    introspector: Introspector,
    seen: mpsc::UnboundedReceiver<Seen>,
    pub(super) paper: Paper,
    client: legacy::Client<HttpConnector, Full<Bytes>>,
    steps: u32,
    surprises: u32,
}

/// One request, and what is to become of it.
struct Step<'a> {
    title: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    expected: Expected<'a>,
}

struct Expected<'a> {
    status: u16,
    /// Who was recognized, or the reason to refuse.
    why: &'a str,
    source: Source,
    /// Questions that reach the authorization server.
    calls: u64,
    /// Headers that the upstream sees with exactly this value, or not at all.
    upstream: &'a [(&'a str, Option<&'a str>)],
}

/// The answer to a request.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// The header lines that the upstream was sent, if it was it that answered.
    fn upstream_headers(&self) -> Vec<(String, String)> {
        let echoed: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let lines = echoed["headers"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let pairs = lines.filter_map(|line| line.split_once(": "));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl Tour {
    pub(super) fn new(
        gateway: &str,
        server: AuthorizationServer,
        echo: Arc<Echo>,
        introspector: Introspector,
        seen: mpsc::UnboundedReceiver<Seen>,
        paper: Paper,
    ) -> Self {
        Self {
            gateway: gateway.to_owned(),
            server,
            echo,
            introspector,
            seen,
            paper,
            client: legacy::Client::builder(TokioExecutor::new()).build_http(),
            steps: 0,
            surprises: 0,
        }
    }

    /// Takes the tour; tells whether every step was as expected.
    pub(super) async fn take(&mut self) -> Result<bool, String> {
        self.who_may_pass().await?;
        self.what_a_route_wants().await?;
        self.what_the_upstream_sees().await?;
        self.when_a_token_ends().await?;
        self.when_the_server_is_down().await?;
        self.a_crowd().await?;
        self.paper.line("");
        let (steps, good) = (self.steps, self.steps - self.surprises);
        let verdict = format!("{good} of {steps} steps as expected");
        self.paper.line(&if good == steps { self.paper.green(&verdict) } else { self.paper.red(&verdict) });
        Ok(good == steps)
    }

    async fn who_may_pass(&mut self) -> Result<(), String> {
        let orders = |title, headers, expected| Step { title, path: "/orders", headers, expected };
        let refused = |status, why, source, calls| Expected { status, why, source, calls, upstream: &[] };
        self.step(orders("no token", &[], refused(401, "token_missing", Source::None, 0))).await?;
        let malformed = [("authorization", "Bearer not a token")];
        self.step(orders("no legal token", &malformed, refused(400, "request_malformed", Source::None, 0))).await?;
        let junk = [("authorization", "Bearer junk")];
        self.step(orders("an unknown token", &junk, refused(401, "token_inactive", Source::Endpoint, 1))).await?;
        self.step(orders("the same again, remembered", &junk, refused(401, "token_inactive", Source::Cache, 0)))
            .await?;

        let token = self.bearer(ALICE).await?;
        let header = [("authorization", token.as_str())];
        let upstream = &[("x-consumer-username", Some("alice")), ("authorization", None)];
        let allowed = |source, calls| Expected { status: 200, why: "consumer alice", source, calls, upstream };
        self.step(orders("a good token", &header, allowed(Source::Endpoint, 1))).await?;
        self.step(orders("the same again, from the cache", &header, allowed(Source::Cache, 0))).await
    }

    async fn what_a_route_wants(&mut self) -> Result<(), String> {
        let (alice, bob) = (self.bearer(ALICE).await?, self.bearer(BOB).await?);
        let (alice, bob) = ([("authorization", alice.as_str())], [("authorization", bob.as_str())]);
        self.step(Step {
            title: "another consumer",
            path: "/orders",
            headers: &bob,
            expected: Expected {
                status: 200,
                why: "consumer bob",
                source: Source::Endpoint,
                calls: 1,
                upstream: &[("x-consumer-username", Some("bob"))],
            },
        })
        .await?;
        self.step(Step {
            title: "a route that wants a scope, which alice's token has not",
            path: "/reports",
            headers: &alice,
            expected: Expected {
                status: 403,
                why: "insufficient_scope",
                source: Source::Endpoint,
                calls: 1,
                upstream: &[],
            },
        })
        .await?;
        self.step(Step {
            title: "the same route for bob: another policy, the same cached answer",
            path: "/reports",
            headers: &bob,
            expected: Expected {
                status: 200,
                why: "consumer bob",
                source: Source::Cache,
                calls: 0,
                upstream: &[("x-credential-scope", Some("orders:read reports:read"))],
            },
        })
        .await
    }

    async fn what_the_upstream_sees(&mut self) -> Result<(), String> {
        self.step(Step {
            title: "a route that is open to anonymous requests",
            path: "/public",
            headers: &[],
            expected: Expected {
                status: 200,
                why: "anonymous guest",
                source: Source::None,
                calls: 0,
                upstream: &[("x-anonymous-consumer", Some("true")), ("x-consumer-username", Some("guest"))],
            },
        })
        .await?;
        let token = self.bearer(ALICE).await?;
        self.step(Step {
            title: "spoofed headers",
            path: "/orders?access_token=hidden&page=2",
            headers: &[
                ("authorization", &token),
                ("x-consumer-username", "root"),
                ("x_consumer_id", "0"),
                ("x-credential-admin", "true"),
                ("connection", "x-consumer-id"),
            ],
            expected: Expected {
                status: 200,
                why: "consumer alice",
                source: Source::Endpoint,
                calls: 1,
                upstream: &[
                    ("x-consumer-username", Some("alice")),
                    ("x-consumer-id", Some("1")),
                    ("x_consumer_id", None),
                    ("x-credential-admin", None),
                ],
            },
        })
        .await
    }

    async fn when_a_token_ends(&mut self) -> Result<(), String> {
        let token = self.token(ALICE, 3600).await?;
        let bearer = format!("Bearer {token}");
        let header = [("authorization", bearer.as_str())];
        self.ask("/orders", &header).await?;
        self.post("/revoke", ALICE, &[("token", &token)]).await?;
        self.step(Step {
            title: "revoked at the server, remembered here: at most for `ttl`",
            path: "/orders",
            headers: &header,
            expected: Expected {
                status: 200,
                why: "consumer alice",
                source: Source::Cache,
                calls: 0,
                upstream: &[("x-consumer-username", Some("alice"))],
            },
        })
        .await?;
        self.introspector.forget(&token);
        self.step(Step {
            title: "revoked, and the gateway told to forget it",
            path: "/orders",
            headers: &header,
            expected: Expected {
                status: 401,
                why: "token_inactive",
                source: Source::Endpoint,
                calls: 1,
                upstream: &[],
            },
        })
        .await?;
        let bearer = self.expired_token().await?;
        self.step(Step {
            title: "expired: a remembered answer ends with its token, whatever `ttl` says",
            path: "/orders",
            headers: &[("authorization", &bearer)],
            expected: Expected {
                status: 401,
                why: "token_inactive",
                source: Source::Endpoint,
                calls: 1,
                upstream: &[],
            },
        })
        .await
    }

    async fn when_the_server_is_down(&mut self) -> Result<(), String> {
        let (known, new) = (self.bearer(ALICE).await?, self.bearer(BOB).await?);
        let (known, new) = ([("authorization", known.as_str())], [("authorization", new.as_str())]);
        self.ask("/orders", &known).await?;
        self.server.stop().await;
        self.step(Step {
            title: "the authorization server is down: a remembered token",
            path: "/orders",
            headers: &known,
            expected: Expected {
                status: 200,
                why: "consumer alice",
                source: Source::Cache,
                calls: 0,
                upstream: &[("x-consumer-username", Some("alice"))],
            },
        })
        .await?;
        self.step(Step {
            title: "the authorization server is down: a new token",
            path: "/orders",
            headers: &new,
            expected: Expected {
                status: 503,
                why: "endpoint_unreachable",
                source: Source::Endpoint,
                calls: 0,
                upstream: &[],
            },
        })
        .await?;
        self.server.start_again().await.map_err(|error| format!("the authorization server: {error}"))?;
        self.step(Step {
            title: "it is back: its failure was not remembered",
            path: "/orders",
            headers: &new,
            expected: Expected {
                status: 200,
                why: "consumer bob",
                source: Source::Endpoint,
                calls: 1,
                upstream: &[("x-consumer-username", Some("bob"))],
            },
        })
        .await
    }

    async fn a_crowd(&mut self) -> Result<(), String> {
        let bearer = self.bearer(ALICE).await?;
        self.announce(&format!("{CROWD} requests at once for one new token"), "/orders", &[("authorization", &bearer)]);
        let calls = self.server.introspections();
        let mut crowd = JoinSet::new();
        for _ in 0..CROWD {
            let request = self.request("/orders", &[("authorization", &bearer)])?;
            let client = self.client.clone();
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
        self.paper.line(&format!(
            "    {verdict}   from: {}   {} at most   {}",
            sources.join(", "),
            milliseconds(longest),
            count_calls(calls)
        ));
        let mut surprises = Vec::new();
        compare("answers of status 200", &CROWD, &allowed, &mut surprises);
        compare("calls", &1, &calls, &mut surprises);
        self.conclude(&surprises);
        Ok(())
    }

    /// Sends one request and shows what became of it.
    async fn step(&mut self, step: Step<'_>) -> Result<(), String> {
        let Step { title, path, headers, expected } = step;
        self.announce(title, path, headers);
        while self.seen.try_recv().is_ok() {}
        let (calls, reached) = (self.server.introspections(), self.echo.requests());
        let answer = self.ask(path, headers).await?;
        let (calls, reached) = (self.server.introspections() - calls, self.echo.requests() - reached);
        let seen = self.seen.try_recv().map_err(|_| "the gateway decided nothing".to_owned())?;

        let why = why(&seen.decision);
        let is_allow = seen.decision.is_allow();
        let words = if is_allow { self.paper.green("allowed") } else { self.paper.red("refused") };
        let (status, source) = (answer.status.as_u16(), seen.source);
        self.paper.line(&format!(
            "    {words} {status}   {why}   from: {}   {}   {}",
            source.name(),
            milliseconds(seen.took),
            count_calls(calls)
        ));
        let upstream = answer.upstream_headers();
        if is_allow {
            self.show(&upstream);
        }

        let mut surprises = Vec::new();
        compare("status", &expected.status, &status, &mut surprises);
        compare("why", &expected.why, &why.as_str(), &mut surprises);
        compare("source", &expected.source.name(), &source.name(), &mut surprises);
        compare("calls", &expected.calls, &calls, &mut surprises);
        compare("requests at the upstream", &u64::from(expected.status == 200), &reached, &mut surprises);
        for (name, value) in expected.upstream {
            let lines: Vec<&str> =
                upstream.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str()).collect();
            compare(name, &value.as_slice(), &lines.as_slice(), &mut surprises);
        }
        self.conclude(&surprises);
        Ok(())
    }

    fn announce(&mut self, title: &str, path: &str, headers: &[(&str, &str)]) {
        self.steps += 1;
        self.paper.line("");
        self.paper.title(&format!("{:2}. {title}", self.steps));
        let headers: Vec<String> =
            headers.iter().map(|(name, value)| format!("   {name}: {}", shortened(value))).collect();
        self.paper.line(&self.paper.dim(&format!("    GET {path}{}", headers.concat())));
    }

    /// The headers that the upstream saw, but for those that say nothing here.
    fn show(&self, headers: &[(String, String)]) {
        let mut label = "the upstream saw";
        for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
            self.paper.line(&format!("    {label:16}   {name}: {value}"));
            label = "";
        }
    }

    fn conclude(&mut self, surprises: &[String]) {
        self.surprises += u32::from(!surprises.is_empty());
        for surprise in surprises {
            self.paper.line(&self.paper.red(&format!("    NOT AS EXPECTED: {surprise}")));
        }
    }

    /// A token that the gateway remembers as good and whose time is over.
    async fn expired_token(&mut self) -> Result<String, String> {
        // On a slow machine a token can expire before it was used once.
        for lifetime in 1..10 {
            let bearer = format!("Bearer {}", self.token(ALICE, lifetime).await?);
            let answer = self.ask("/orders", &[("authorization", &bearer)]).await?;
            let headers = answer.upstream_headers();
            let expires = headers.iter().find(|(name, _)| name == "x-credential-exp");
            let Some(expires) = expires.and_then(|(_, value)| value.parse().ok()) else { continue };
            let expires = Duration::from_secs(expires);
            let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            while now() < expires {
                tokio::time::sleep(expires.saturating_sub(now())).await;
            }
            return Ok(bearer);
        }
        Err("no token lived long enough to be used".to_owned())
    }

    async fn bearer(&self, client: &Client) -> Result<String, String> {
        Ok(format!("Bearer {}", self.token(client, 3600).await?))
    }

    /// A new token by client credentials.
    pub(super) async fn token(&self, client: &Client, lifetime: u64) -> Result<String, String> {
        let lifetime = lifetime.to_string();
        let form = [("grant_type", "client_credentials"), ("expires_in", lifetime.as_str())];
        let answer = self.post("/token", client, &form).await?;
        let answer: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        answer["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("no token: {answer}"))
    }

    /// Asks the authorization server for something, as one of its clients.
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

    /// Sends a request to the gateway.
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        send(&self.client, self.request(path, headers)?).await
    }

    fn request(&self, path: &str, headers: &[(&str, &str)]) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::get(format!("{}{path}", self.gateway));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::default()).map_err(|error| error.to_string())
    }

    /// Takes note of decisions that nobody shows any more.
    pub(super) async fn look_on(&mut self) {
        while self.seen.recv().await.is_some() {}
    }
}

async fn send(
    client: &legacy::Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let problem = |error: &dyn std::error::Error| format!("a request of the tour failed: {error}");
    let (parts, body) = client.request(request).await.map_err(|error| problem(&error))?.into_parts();
    let body = body.collect().await.map_err(|error| problem(&error))?.to_bytes();
    Ok(Answer { status: parts.status, body })
}

/// Who was recognized, or the reason to refuse.
fn why(decision: &Decision) -> String {
    let name = |consumer: &tokenward_core::Consumer| consumer.username().unwrap_or(consumer.id()).to_owned();
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

fn compare<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, expected: &T, found: &T, surprises: &mut Vec<String>) {
    if expected != found {
        surprises.push(format!("{what}: {expected:?} expected, {found:?} found"));
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

fn count_calls(calls: u64) -> String {
    match calls {
        1 => "1 call to the authorization server".to_owned(),
        calls => format!("{calls} calls to the authorization server"),
    }
}

/// A long token is shown by its beginning.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(20) {
        Some((at, _)) => format!("{}...", &value[..at]),
        None => value.to_owned(),
    }
}
