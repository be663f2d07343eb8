//! Clients, and what they make of an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::truth::{
    ANEW, CONSUMERS, EXPIRED, FAILED, LET_IN, LET_IN_AFTER, MALFORMED, MISSING, REVOKED, TIMEOUT, TTL, Token, Truth,
    UNKNOWN, scramble, wall,
};

/// Nobody waits longer than this for a host.
const PATIENCE: Duration = Duration::from_secs(20);

type Connection = SendRequest<Empty<Bytes>>;

/// What is presented.
enum Sent {
    Good(Arc<Token>),
    Unknown(String),
    Nothing,
    Malformed,
}

impl Sent {
    fn choose(truth: &Truth, random: u64) -> Self {
        let pick = random >> 16;
        match random % 100 {
            0..55 => Self::Good(truth.hot(pick)),
            55..75 => Self::Good(truth.warm(pick)),
            75..80 => Self::Good(truth.passing()),
            80..88 => truth.buried(pick).map_or(Self::Nothing, Self::Good),
            88..96 => Self::Unknown(truth.unknown()),
            96..98 => Self::Nothing,
            _ => Self::Malformed,
        }
    }

    fn authorization(&self) -> Option<String> {
        match self {
            Self::Good(token) => Some(format!("Bearer {}", token.text)),
            Self::Unknown(token) => Some(format!("Bearer {token}")),
            Self::Nothing => None,
            Self::Malformed => Some("Bearer not a, token".into()),
        }
    }
}

/// Asks and checks, one request after the other.
pub(crate) async fn client(truth: Arc<Truth>, host: SocketAddr, number: usize, until: Instant) {
    let mut random = number as u64;
    let mut connection = None;
    while Instant::now() < until {
        random = scramble(random);
        let sent = Sent::choose(&truth, random);
        let is_spoofed = random >> 8 & 3 == 0;
        match tokio::time::timeout(PATIENCE, ask(&truth, host, &mut connection, &sent, is_spoofed)).await {
            Ok(Some(answer)) => check(&truth, &sent, &answer),
            Ok(None) => truth.count(FAILED),
            Err(_) => {
                connection = None;
                truth.is_wrong(format!("no answer within {PATIENCE:?}"));
            }
        }
    }
}

struct Answer {
    status: StatusCode,
    challenge: String,
    body: String,
    sent: Instant,
    sent_at: Duration,
    answered: Instant,
}

/// Asks. A connection that the host closed before it gave an answer is replaced, and what was asked is asked again.
async fn ask(
    truth: &Truth,
    host: SocketAddr,
    connection: &mut Option<Connection>,
    what: &Sent,
    is_spoofed: bool,
) -> Option<Answer> {
    for _ in 0..5 {
        let mut request = Request::get("/orders").header("Host", "gateway.example");
        if let Some(value) = what.authorization() {
            request = request.header("Authorization", value);
        }
        if is_spoofed {
            for (name, value) in
                [("X-Consumer-ID", "0"), ("X-Consumer-Username", "root"), ("x_credential_scope", "admin")]
            {
                request = request.header(name, value);
            }
            request = request.header("X-Credential-Jti", "spoofed").header("X-Anonymous-Consumer", "true");
        }
        let mut open = match connection.take() {
            Some(open) if !open.is_closed() => open,
            _ => match connect(host).await {
                Some(open) => open,
                None => continue,
            },
        };
        let (sent, sent_at) = (Instant::now(), wall());
        let request = request.body(Empty::new()).unwrap();
        let response = async {
            open.ready().await?;
            open.send_request(request).await
        };
        let Ok(response) = response.await else {
            truth.count(ANEW);
            continue;
        };
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await else {
            truth.is_wrong("an answer was cut off".into());
            return None;
        };
        let challenge =
            head.headers.get("www-authenticate").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        *connection = Some(open);
        return Some(Answer {
            status: head.status,
            challenge: challenge.unwrap_or_default(),
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            sent,
            sent_at,
            answered: Instant::now(),
        });
    }
    None
}

async fn connect(host: SocketAddr) -> Option<Connection> {
    let Ok(stream) = TcpStream::connect(host).await else {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return None;
    };
    stream.set_nodelay(true).ok()?;
    let (open, driver) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(driver);
    Some(open)
}

fn check(truth: &Truth, sent: &Sent, answer: &Answer) {
    let wrong = |what: &str| truth.is_wrong(format!("{what}: {} {} {}", answer.status, answer.challenge, answer.body));
    match (sent, answer.status.as_u16()) {
        // An outage, which there is none of: counted, since no decision is a wrong one.
        (_, 500..) => {
            truth.count(FAILED);
        }
        (Sent::Good(token), 200) => {
            let revoked = truth.revoked_by(token, answer.sent);
            if answer.sent_at >= Duration::from_secs(token.exp) {
                wrong("an expired token was let in");
            } else if revoked.is_some_and(|age| age > TTL + TIMEOUT) {
                wrong(&format!("a token was let in {revoked:?} after it was revoked"));
            }
            truth.count(if revoked.is_some() { LET_IN_AFTER } else { LET_IN });
            if let Err(problem) = same(truth, token, answer) {
                wrong(&problem);
            }
        }
        (Sent::Good(token), 401) if is_invalid(answer) => {
            if truth.revoked_by(token, answer.answered).is_some() {
                truth.count(REVOKED);
            } else if wall() >= Duration::from_secs(token.exp) {
                truth.count(EXPIRED);
            } else {
                wrong("a good token was refused");
            }
        }
        (Sent::Unknown(_), 401) if is_invalid(answer) => truth.count(UNKNOWN),
        (Sent::Nothing, 401) if answer.challenge == r#"Bearer realm="soak""# => truth.count(MISSING),
        (Sent::Malformed, 400) if answer.challenge.ends_with(r#", error="invalid_request""#) => truth.count(MALFORMED),
        (Sent::Good(_), _) => wrong("an answer to a token that was issued"),
        (Sent::Unknown(_), _) => wrong("an answer to a token that nobody has issued"),
        (Sent::Nothing, _) => wrong("an answer to no token"),
        (Sent::Malformed, _) => wrong("an answer to a malformed token"),
    }
}

fn is_invalid(answer: &Answer) -> bool {
    answer.challenge.contains(r#"error="invalid_token""#)
}

/// What the upstream was told is the token's own claims, and its consumer by a configuration that may have been in force.
fn same(truth: &Truth, token: &Token, answer: &Answer) -> Result<(), String> {
    let user = token.user;
    let mut expected = vec![
        format!("x-credential-client-id: app-{user}"),
        format!("x-credential-exp: {}", token.exp),
        format!("x-credential-identifier: user-{user}"),
        format!("x-credential-jti: {}", token.text),
        "x-credential-scope: read write".to_owned(),
    ];
    let mut told: Vec<&str> = answer.body.lines().collect();
    if user < CONSUMERS {
        expected.push(format!("x-consumer-custom-id: customer-{user}"));
        expected.push(format!("x-consumer-username: user-{user}"));
        let prefix = format!("x-consumer-id: {user}-");
        let Some(at) = told.iter().position(|line| line.starts_with(&prefix)) else {
            return Err(format!("no consumer for user-{user}"));
        };
        let generation = told.remove(at).get(prefix.len()..).and_then(|text| text.parse().ok());
        if !generation.is_some_and(|number| truth.may_be_in_force(number, answer.sent, answer.answered)) {
            return Err("a consumer of a configuration that is not in force".into());
        }
    }
    expected.sort();
    if told == expected {
        Ok(())
    } else {
        Err(format!("the upstream was told something else than {}", expected.join(" | ")))
    }
}
