//! The blocking client against servers that do what servers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Reason, Request, Source};
use tokenward_tests::server::{Act, Server, json};

fn introspector(url: &str, more: &str) -> Introspector {
    let config = format!(r#"{{"introspection_url": "{url}", "authorization_value": "Basic cnM6c2VjcmV0"{more}}}"#);
    Introspector::builder(Config::from_json(&config).unwrap(), Consumers::none()).build().unwrap()
}

fn authenticate(introspector: &Introspector, token: &str) -> Decision {
    let value = format!("Bearer {token}");
    introspector.authenticate(&Request::new("GET", "/").headers(&[Header::new("Authorization", &value)]))
}

fn reason(decision: &Decision) -> Option<Reason> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Deny(deny) => Some(deny.reason()),
    }
}

fn echo(body: &str) -> Vec<u8> {
    let token = body.strip_prefix("token=").unwrap();
    json(&format!(r#"{{"active":true,"sub":"{token}"}}"#))
}

#[test]
fn the_request_is_what_the_specification_says_and_connections_are_reused() {
    let server = Server::start(|got| {
        let head = got.head.to_ascii_lowercase();
        let mut lines: Vec<&str> = head.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.remove(0), "post /introspect http/1.1");
        lines.retain(|line| !line.starts_with("host: 127.0.0.1:"));
        lines.sort_unstable();
        let expected = [
            "accept-encoding: identity",
            "accept: application/json",
            "authorization: basic cnm6c2vjcmv0",
            &format!("content-length: {}", got.body.len()),
            "content-type: application/x-www-form-urlencoded",
        ];
        assert_eq!(lines, expected);
        Act::Send(echo(&got.body))
    });
    let introspector = introspector(&server.url(), "");
    for n in 0..50 {
        let decision = authenticate(&introspector, &format!("t{n}"));
        let Decision::Allow(allow) = decision else { panic!("{decision:?}") };
        assert_eq!(allow.claims().unwrap().text("sub").unwrap(), format!("t{n}"));
    }
    assert_eq!((server.requests(), server.connections()), (50, 1));
}

#[test]
fn many_threads_share_one_introspector() {
    let server = Server::start(|got| {
        thread::sleep(Duration::from_millis(1));
        Act::Send(echo(&got.body))
    });
    let introspector = introspector(&server.url(), "");
    let allowed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..16 {
            let (introspector, allowed) = (&introspector, &allowed);
            scope.spawn(move || {
                for n in 0..40 {
                    // Every token is asked for by two threads.
                    let token = format!("t{}-{n}", thread / 2);
                    let Decision::Allow(allow) = authenticate(introspector, &token) else { panic!() };
                    assert_eq!(allow.claims().unwrap().text("sub").unwrap(), token);
                    allowed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(allowed.into_inner(), 640);
    assert_eq!(server.requests(), 320);
    assert!(server.connections() <= 16);
}

#[test]
fn a_herd_makes_one_call_and_waits_without_spinning() {
    let server = Server::start(|got| {
        thread::sleep(Duration::from_millis(100));
        Act::Send(echo(&got.body))
    });
    let introspector = introspector(&server.url(), "");
    thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| assert!(authenticate(&introspector, "abc").is_allow()));
        }
    });
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_connection_closed_between_requests_does_not_surface() {
    let served = AtomicUsize::new(0);
    let server = Server::start(move |got| {
        // Says nothing about closing, and closes.
        if served.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            Act::SendAndClose(echo(&got.body))
        } else {
            Act::Send(echo(&got.body))
        }
    });
    let introspector = introspector(&server.url(), "");
    for n in 0..20 {
        assert!(authenticate(&introspector, &format!("t{n}")).is_allow(), "{n}");
    }
}

#[test]
fn connections_that_are_all_dead_when_they_are_used_again_cost_no_request() {
    let server = Server::start(|got| {
        if got.nth > 1 {
            return Act::SendAndClose(Vec::new());
        }
        thread::sleep(Duration::from_millis(100));
        Act::Send(echo(&got.body))
    });
    let introspector = introspector(&server.url(), "");
    thread::scope(|scope| {
        for n in 0..4 {
            let introspector = &introspector;
            scope.spawn(move || assert!(authenticate(introspector, &format!("kept{n}")).is_allow()));
        }
    });
    for n in 0..8 {
        assert!(authenticate(&introspector, &format!("later{n}")).is_allow(), "{n}");
    }
    assert!(server.requests() > 12, "no connection was used again");
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = introspector(&format!("http://{closed}/"), "");
    assert_eq!(reason(&authenticate(&refused, "abc")), Some(Reason::EndpointUnreachable));

    let whole = json(r#"{"active":true}"#);
    let cut = |bytes: &[u8], at: usize| bytes[..at].to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"active\":true}\r\n".to_vec();
    let endless = [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n".to_vec(), vec![b' '; 4096]].concat();
    for (what, act, expected) in [
        ("closed without a word", Act::SendAndClose(Vec::new()), Some(Reason::EndpointUnreachable)),
        ("closed in the header", Act::SendAndClose(cut(&whole, 20)), Some(Reason::EndpointUnreachable)),
        ("closed in the body", Act::SendAndClose(cut(&whole, whole.len() - 3)), Some(Reason::ReplyMalformed)),
        ("a chunked body without its end", Act::SendAndClose(chunked), Some(Reason::ReplyMalformed)),
        ("no HTTP", Act::SendAndClose(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()), Some(Reason::ReplyMalformed)),
        ("too long", Act::SendAndClose(endless), Some(Reason::ReplyMalformed)),
        ("a hanging server", Act::Hang, Some(Reason::EndpointTimedOut)),
        ("a dripping server", Act::Drip(whole.clone(), Duration::from_millis(50)), Some(Reason::EndpointTimedOut)),
        ("a good one", Act::Send(whole.clone()), None),
    ] {
        let act = Arc::new(std::sync::Mutex::new(Some(act)));
        let again = Arc::clone(&act);
        let server = Server::start(move |_| match &*again.lock().unwrap() {
            Some(Act::Send(bytes)) => Act::Send(bytes.clone()),
            Some(Act::SendAndClose(bytes)) => Act::SendAndClose(bytes.clone()),
            Some(Act::Drip(bytes, pause)) => Act::Drip(bytes.clone(), *pause),
            Some(Act::Hang) | None => Act::Hang,
        });
        let introspector = introspector(&server.url(), r#", "timeout": 700, "limits": {"reply_bytes": 2048}"#);
        let before = Instant::now();
        assert_eq!(reason(&authenticate(&introspector, "abc")), expected, "{what}");
        assert!(before.elapsed() < Duration::from_secs(5), "{what}");
        let unread = matches!(&*act.lock().unwrap(), Some(Act::SendAndClose(bytes)) if bytes.is_empty());
        assert_eq!(server.requests(), if unread || what == "closed in the header" { 2 } else { 1 }, "{what}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_a_failed_look_up_and_is_not_tried_again() {
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let config = r#"{"introspection_url": "https://as.invalid/", "authorization_value": "x", "timeout": 20000}"#;
    let introspector = Introspector::builder(Config::from_json(config).unwrap(), Consumers::none())
        .log(move |record: &tokenward_core::Record<'_>| sink.lock().unwrap().push(record.to_string()))
        .build()
        .unwrap();
    assert_eq!(reason(&authenticate(&introspector, "abc")), Some(Reason::EndpointUnreachable));
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("failure=dns")), "{lines:?}");
    assert_eq!(introspector.snapshot().introspections, 1);
}

#[test]
fn a_name_is_looked_up_and_called() {
    let server = Server::start(|got| Act::Send(echo(&got.body)));
    let introspector = introspector(&format!("http://localhost:{}/", server.address.port()), "");
    assert!(authenticate(&introspector, "abc").is_allow());
    assert!(authenticate(&introspector, "def").is_allow());
}

#[test]
fn a_configuration_that_cannot_be_used_leaves_everything_as_it_is() {
    let server = Server::start(|got| Act::Send(echo(&got.body)));
    let introspector = introspector(&server.url(), "");
    assert!(authenticate(&introspector, "abc").is_allow());
    let broken = format!(
        r#"{{"introspection_url": "{}", "authorization_value": "Basic cnM6c2VjcmV0", "cache": {{"capacity": 5}},
            "tls_roots": {{"file": "/does/not/exist"}}}}"#,
        server.url()
    );
    assert!(introspector.replace_config(Config::from_json(&broken).unwrap()).is_err());
    let Decision::Allow(allow) = authenticate(&introspector, "abc") else { panic!() };
    assert_eq!(allow.source(), Source::Cache);
    assert_eq!(introspector.snapshot().entries, 1);
}

#[test]
fn an_answer_that_was_not_read_to_its_end_leaves_no_connection_behind() {
    let server = Server::start(|got| match got.body.as_str() {
        // What follows the part that is read would be taken for the answer to the next question.
        "token=long" => Act::Send([json(&" ".repeat(5000)), json(r#"{"active":true,"sub":"long"}"#)].concat()),
        _ => Act::Send(json(r#"{"active":false}"#)),
    });
    let introspector = introspector(&server.url(), r#", "limits": {"reply_bytes": 2048}"#);
    assert_eq!(reason(&authenticate(&introspector, "long")), Some(Reason::ReplyMalformed));
    assert_eq!(reason(&authenticate(&introspector, "junk")), Some(Reason::TokenInactive));
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_| Act::Send(json(r#"{"active":true}"#)));
    let location = elsewhere.url();
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        let server = Server::start(move |_| {
            Act::Send(format!("HTTP/1.1 {status} x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into())
        });
        let introspector = introspector(&server.url(), "");
        assert_eq!(reason(&authenticate(&introspector, "abc")), Some(Reason::EndpointRefused), "{status}");
    }
    assert_eq!(elsewhere.requests(), 0);
}

#[test]
fn the_time_of_a_request_covers_its_wait() {
    let server = Server::start(|_| Act::Hang);
    let introspector = introspector(&server.url(), r#", "timeout": 400"#);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let before = Instant::now();
                assert_eq!(reason(&authenticate(&introspector, "abc")), Some(Reason::EndpointTimedOut));
                assert!(before.elapsed() < Duration::from_secs(3));
            });
        }
    });
    assert_eq!(introspector.snapshot().in_flight, 0);
}

#[test]
fn a_cached_answer_needs_no_server() {
    let server = Server::start(|got| Act::SendAndClose(echo(&got.body)));
    let introspector = introspector(&server.url(), "");
    assert!(authenticate(&introspector, "abc").is_allow());
    let Decision::Allow(allow) = authenticate(&introspector, "abc") else { panic!() };
    assert_eq!((allow.source(), server.requests()), (Source::Cache, 1));
}
