//! The demonstration: an authorization server, an upstream and the gateway in one process, and a tour of them.

mod authorization_server;
mod guide;
mod paper;
mod tour;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokenward_core::{Document, Introspector};
use tokio::sync::mpsc;

use self::authorization_server::{ALICE, AuthorizationServer, BOB, Client, GATEWAY};
use self::guide::Guide;
use self::paper::Paper;
use self::upstream::Echo;
use crate::gateway::{GRACE, StandardError, bind, say, serve_metrics, stopped, until};
use crate::options::Demo;
use crate::proxy::{Gateway, Route};
use crate::serve::serve;
use crate::transport::Transport;

/// A port that nobody uses.
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Serves the demonstration and takes the tour. Exit status 1 if a step of it was not as expected.
pub(crate) async fn run(options: Demo) -> ExitCode {
    match show(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            say(&format!("error: {problem}"));
            ExitCode::FAILURE
        }
    }
}

async fn show(options: Demo) -> Result<bool, String> {
    let words = |error: std::io::Error| error.to_string();
    let stopped = stopped().map_err(words)?;
    let server = AuthorizationServer::start(FREE)?;

    let echo = Arc::new(Echo::default());
    let listener = bind(FREE)?;
    let upstream = listener.local_addr().map_err(words)?;
    let echoing = Arc::clone(&echo);
    tokio::spawn(serve(listener, move |request| Arc::clone(&echoing).answer(request), until(stopped.clone()), GRACE));

    let document = document(&server.url("/introspect"));
    let (config, consumers) = Document::from_text(&document).map_err(|error| error.to_string())?.into_parts();
    let transport = Transport::new(&config)?;
    // The tour stops the authorization server, and the log says so: in a tour that is noise.
    let builder = Introspector::builder(config, consumers);
    let builder = if options.verbose { builder.log(StandardError { verbose: true }) } else { builder };
    let introspector = builder.build().map_err(|error| error.to_string())?;
    let policy = |json| introspector.policy(json).map_err(|error| error.to_string());
    let routes = vec![
        Route { prefix: "/reports", policy: policy(r#"{ "require": { "scopes": ["reports:read"] } }"#)? },
        Route { prefix: "/public", policy: policy(r#"{ "anonymous": "guest" }"#)? },
    ];
    let authority = upstream.to_string().parse().map_err(|_| "the upstream has no address".to_owned())?;
    let (watcher, seen) = mpsc::unbounded_channel();
    let gateway = Arc::new(Gateway::new(introspector.clone(), transport, authority).routes(routes).watcher(watcher));

    let (listener, admin) = (bind(options.listen)?, bind(options.admin)?);
    let url = format!("http://{}", listener.local_addr().map_err(words)?);
    let metrics = format!("http://{}/metrics", admin.local_addr().map_err(words)?);
    tokio::spawn(serve_metrics(admin, introspector.clone(), stopped.clone()));
    let handle = move |request| Arc::clone(&gateway).handle(request);
    let serving = tokio::spawn(serve(listener, handle, until(stopped.clone()), GRACE));

    let paper = Paper::new();
    paper.line(&format!("ready {url}"));
    let warning = "FOR DEVELOPMENT ONLY: an authorization server with well-known secrets, in memory, without TLS";
    paper.line(&paper.loud(warning));
    paper.line(&format!("  authorization server  {}  (answers after 20 ms)", server.url("")));
    paper.line(&format!("  upstream              http://{upstream}  (echoes what it is sent)"));
    paper.line(&format!("  gateway               {url}"));
    paper.line(&format!("  metrics               {metrics}"));

    let mut guide = Guide::new(&url, server, echo, introspector, seen, paper);
    let as_expected = tokio::select! {
        as_expected = tour::take(&mut guide) => as_expected?,
        () = until(stopped) => return Ok(!options.tour_only),
    };
    if options.tour_only {
        return Ok(as_expected);
    }
    invite(&guide, &url, &metrics).await?;
    // Decisions are watched until the end, or their channel would fill.
    tokio::select! {
        () = guide.look_on() => {}
        _ = serving => {}
    }
    Ok(as_expected)
}

/// The configuration, as it would stand in a file.
fn document(introspection_url: &str) -> String {
    json!({
        "introspection_url": introspection_url,
        "client_auth": { "method": "client_secret_basic", "client_id": GATEWAY.id, "client_secret": GATEWAY.secret },
        // Long, so that only what the tour does ends an answer or a question, however slow the machine.
        "ttl": 600,
        "timeout": 60_000,
        "cache": { "negative_ttl": 60 },
        "consumers": [
            { "id": "1", "username": "alice", "custom_id": ALICE.id },
            { "id": "2", "username": "bob", "custom_id": BOB.id },
            { "id": "3", "username": "guest" },
        ],
    })
    .to_string()
}

/// Lines to paste.
async fn invite(guide: &Guide, url: &str, metrics: &str) -> Result<(), String> {
    let (alice, bob) = (guide.token(ALICE, 3600).await?, guide.token(BOB, 3600).await?);
    let bearer = |token| format!("-H 'Authorization: Bearer {token}'");
    let login = |client: &Client| format!("-u {}:{}", client.id, client.secret);
    let (tokens, revocation) = (guide.server.url("/token"), guide.server.url("/revoke"));
    let paper = &guide.paper;
    paper.line("");
    paper.line(&paper.bold("Try it, until Ctrl-C:"));
    for line in [
        format!("curl -i {url}/orders {}", bearer(&alice)),
        format!("curl -i {url}/reports {}", bearer(&alice)),
        format!("curl -i {url}/reports {}", bearer(&bob)),
        format!("curl -i {url}/orders"),
        format!("curl -i {url}/public -H 'X-Consumer-Username: root'"),
        format!("curl -s {tokens} {} -d grant_type=client_credentials", login(ALICE)),
        format!("curl -s {revocation} {} -d token={bob}", login(BOB)),
        format!("curl -s {metrics}"),
    ] {
        paper.line(&format!("  {line}"));
    }
    Ok(())
}
