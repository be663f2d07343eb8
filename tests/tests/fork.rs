//! Four children of one process with warm connections: every answer is for its own token. This test runs on the main thread
//! of a process without others, as a server that preloads and forks does.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokenward_core::{Config, Consumers, Decision, Header, Introspector, Request};
use tokenward_tests::server::{Act, Server, json};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    let name = "four children share no connection with their parent or each other";
    let test = libtest_mimic::Trial::test(name, || fork_four().map_err(Into::into));
    libtest_mimic::run(&arguments, vec![test]).exit();
}

/// A server in a process of its own: says its address, and answers each token with itself, some later than others.
fn serve() {
    let server = Server::start(|got| {
        let token = got.body.strip_prefix("token=").unwrap_or_default();
        std::thread::sleep(Duration::from_micros(token.bytes().map(u64::from).sum::<u64>() * 7 % 1500));
        Act::Send(json(&format!(r#"{{"active":true,"sub":"{token}"}}"#)))
    });
    println!("{}", server.url());
    // Until the test closes our standard input.
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn fork_four() -> Result<(), String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut server = Command::new(this)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut url = String::new();
    let output = server.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut url).map_err(|error| error.to_string())?;

    let config = format!(
        r#"{{"introspection_url": "{}", "authorization_value": "Basic eA==", "cache": {{"enabled": false}}}}"#,
        url.trim()
    );
    let introspector =
        Introspector::builder(Config::from_json(&config).map_err(|error| error.to_string())?, Consumers::none())
            .build()
            .map_err(|error| error.to_string())?;
    ask(&introspector, "parent", 20)?;

    let mut children = Vec::new();
    for child in 0..4 {
        // SAFETY: this process has one thread, so the child may do what any process may.
        match unsafe { libc::fork() } {
            0 => {
                let asked = ask(&introspector, &format!("child{child}"), 300);
                if let Err(problem) = &asked {
                    eprintln!("child {child}: {problem}");
                }
                // SAFETY: ends the child without running what the parent registered.
                unsafe { libc::_exit(i32::from(asked.is_err())) }
            }
            pid if pid > 0 => children.push(pid),
            _ => return Err("fork failed".to_owned()),
        }
    }
    let own = ask(&introspector, "parent", 300);
    let mut failed = 0;
    for pid in children {
        let mut status = 0;
        // SAFETY: `status` lives for the call, and `pid` is a child of ours.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        failed += usize::from(waited != pid || status != 0);
    }
    drop(server.stdin.take());
    let _ = server.wait();
    own?;
    if failed == 0 { Ok(()) } else { Err(format!("{failed} children got wrong answers")) }
}

fn ask(introspector: &Introspector, who: &str, times: u32) -> Result<(), String> {
    for n in 0..times {
        let token = format!("{who}-{n}");
        let value = format!("Bearer {token}");
        let headers = [Header::new("Authorization", &value)];
        match introspector.authenticate(&Request::new("GET", "/").headers(&headers)) {
            Decision::Allow(allow) => {
                let sub = allow.claims().and_then(|claims| claims.text("sub")).unwrap_or_default();
                if sub != token {
                    return Err(format!("{token} was answered with {sub}"));
                }
            }
            Decision::Deny(deny) => return Err(format!("{token} was denied: {}", deny.reason())),
        }
    }
    Ok(())
}
