//! A walk through what the gateway decides. Every step says what is expected of it, and the tour fails if it is not so.

use std::time::{Duration, SystemTime};

use tokenward_core::Source;

use super::authorization_server::{ALICE, BOB};
use super::guide::{Expected, Guide, Step};

/// Requests at once, for one token that nobody knows yet.
const CROWD: usize = 200;
/// How long the authorization server thinks about that token: time for the crowd to gather.
const GATHERING: Duration = Duration::from_millis(500);

/// Takes the tour; tells whether every step was as expected.
pub(super) async fn take(guide: &mut Guide) -> Result<bool, String> {
    let alice = guide.bearer(ALICE).await?;
    let bob = guide.bearer(BOB).await?;
    who_may_pass(guide, &alice, &bob).await?;
    what_a_route_wants(guide, &alice, &bob).await?;
    what_the_upstream_sees(guide, &alice).await?;
    when_a_token_ends(guide).await?;
    when_the_server_is_down(guide, &alice).await?;
    let bearer = guide.bearer(ALICE).await?;
    guide.server.think(GATHERING);
    guide.crowd(CROWD, &bearer).await?;
    guide.server.think_as_usual();
    Ok(guide.verdict())
}

async fn who_may_pass(guide: &mut Guide, alice: &str, bob: &str) -> Result<(), String> {
    guide.step(orders("no token", None, refused(401, "token_missing", Source::None, 0))).await?;
    let malformed = Some("Bearer not a token");
    guide.step(orders("no legal token", malformed, refused(400, "request_malformed", Source::None, 0))).await?;
    let junk = Some("Bearer junk");
    guide.step(orders("an unknown token", junk, refused(401, "token_inactive", Source::Endpoint, 1))).await?;
    guide.step(orders("the same again", junk, refused(401, "token_inactive", Source::Cache, 0))).await?;
    guide.step(orders("a good token", Some(alice), allowed("alice", Source::Endpoint, 1))).await?;
    guide.step(orders("the same again, from the cache", Some(alice), allowed("alice", Source::Cache, 0))).await?;
    guide.step(orders("another consumer", Some(bob), allowed("bob", Source::Endpoint, 1))).await
}

async fn what_a_route_wants(guide: &mut Guide, alice: &str, bob: &str) -> Result<(), String> {
    let step = |title, bearer, expected| Step { path: "/reports", ..orders(title, Some(bearer), expected) };
    let expected = refused(403, "insufficient_scope", Source::Cache, 0);
    guide.step(step("a route that wants a scope: another policy, the same cached answer", alice, expected)).await?;
    let expected = Expected { upstream: BOBS_SCOPES, ..allowed("bob", Source::Cache, 0) };
    guide.step(step("bob's token has that scope", bob, expected)).await?;
    guide
        .step(Step {
            title: "a route that is open to anonymous requests",
            path: "/public",
            headers: vec![],
            expected: Expected { why: "anonymous guest", upstream: GUEST, ..allowed("guest", Source::None, 0) },
        })
        .await
}

const BOBS_SCOPES: &[(&str, Option<&str>)] = &[("x-credential-scope", Some("orders:read reports:read"))];
const GUEST: &[(&str, Option<&str>)] =
    &[("x-anonymous-consumer", Some("true")), ("x-consumer-username", Some("guest"))];
const NOT_SPOOFED: &[(&str, Option<&str>)] = &[
    ("x-consumer-id", Some("1")),
    ("x-consumer-username", Some("alice")),
    ("x_consumer_id", None),
    ("x-credential-admin", None),
    ("authorization", None),
    ("x-request-id", Some("7")),
];

async fn what_the_upstream_sees(guide: &mut Guide, alice: &str) -> Result<(), String> {
    guide
        .step(Step {
            title: "spoofed headers, and a credential in the query",
            path: "/orders?access_token=1234&page=2",
            headers: vec![
                ("authorization", alice),
                ("x-consumer-username", "root"),
                ("x_consumer_id", "0"),
                ("x-credential-admin", "true"),
                ("connection", "x-consumer-id"),
                ("x-request-id", "7"),
            ],
            expected: Expected {
                target: Some("/orders?page=2"),
                upstream: NOT_SPOOFED,
                ..allowed("alice", Source::Cache, 0)
            },
        })
        .await
}

async fn when_a_token_ends(guide: &mut Guide) -> Result<(), String> {
    let token = guide.token(ALICE, 3600).await?;
    let bearer = format!("Bearer {token}");
    guide.ask("/orders", &[("authorization", &bearer)]).await?;
    guide.revoke(ALICE, &token).await?;
    let revoked = |title, expected| orders(title, Some(&bearer), expected);
    let title = "revoked at the server, and remembered here, for `ttl` at most";
    guide.step(revoked(title, allowed("alice", Source::Cache, 0))).await?;
    guide.introspector.forget(&token);
    let title = "revoked, and the gateway was told to forget it";
    guide.step(revoked(title, refused(401, "token_inactive", Source::Endpoint, 1))).await?;
    let expired = expired_token(guide).await?;
    let title = "expired: what is remembered ends with the token, whatever `ttl` says";
    guide.step(orders(title, Some(&expired), refused(401, "token_inactive", Source::Endpoint, 1))).await
}

async fn when_the_server_is_down(guide: &mut Guide, alice: &str) -> Result<(), String> {
    let new = guide.bearer(BOB).await?;
    guide.server.stop().await;
    let title = "the authorization server is down: a token that is remembered";
    guide.step(orders(title, Some(alice), allowed("alice", Source::Cache, 0))).await?;
    let title = "the authorization server is down: a new token";
    guide.step(orders(title, Some(&new), refused(503, "endpoint_unreachable", Source::Endpoint, 0))).await?;
    guide.server.start_again()?;
    let title = "it is back: its failure was not remembered";
    guide.step(orders(title, Some(&new), allowed("bob", Source::Endpoint, 1))).await
}

/// The `Authorization` of a token that the gateway remembers as good and whose time is over.
async fn expired_token(guide: &Guide) -> Result<String, String> {
    // On a slow machine a token can expire before it was used once: the next one lives longer.
    for lifetime in 1..10 {
        let bearer = format!("Bearer {}", guide.token(ALICE, lifetime).await?);
        let answer = guide.ask("/orders", &[("authorization", &bearer)]).await?;
        let headers = answer.echo().headers;
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

fn orders<'a>(title: &'a str, authorization: Option<&'a str>, expected: Expected<'a>) -> Step<'a> {
    let headers = authorization.map(|value| ("authorization", value)).into_iter().collect();
    Step { title, path: "/orders", headers, expected }
}

fn allowed(username: &'static str, source: Source, calls: u64) -> Expected<'static> {
    let (why, upstream) = match username {
        "alice" => ("consumer alice", &[("x-consumer-username", Some("alice")), ("authorization", None)]),
        _ => ("consumer bob", &[("x-consumer-username", Some("bob")), ("authorization", None)]),
    };
    Expected { status: 200, why, source, calls, target: None, upstream }
}

fn refused(status: u16, why: &'static str, source: Source, calls: u64) -> Expected<'static> {
    Expected { status, why, source, calls, target: None, upstream: &[] }
}
