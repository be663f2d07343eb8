//! The plain gateway: configuration from a file, read again on SIGHUP, and metrics.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokenward_core::{Document, Introspector, Level, Log, Record};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::options::Serve;
use crate::proxy::Gateway;
use crate::serve::serve;
use crate::transport::Transport;

/// How long requests under way may take to end once the gateway was told to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The core's lines, on standard error.
#[derive(Debug)]
pub(crate) struct StandardError {
    /// Refusals of single requests as well.
    pub(crate) verbose: bool,
}

impl Log for StandardError {
    fn log(&self, record: &Record<'_>) {
        say(&format!("{}: {record}", record.level.name()));
    }

    fn is_enabled(&self, level: Level) -> bool {
        self.verbose || level < Level::Debug
    }
}

/// Writes lines to standard error. That it may be closed is no reason to stop.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes lines to standard output, at once.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Serves until SIGTERM or SIGINT. Exit status 2 if the configuration cannot be used.
pub(crate) async fn run(options: Serve) -> ExitCode {
    let loaded = match load(options.config.clone()).await {
        Ok(loaded) => loaded,
        Err(problems) => {
            say(&problems);
            return ExitCode::from(2);
        }
    };
    match accept(options, loaded).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(&problem);
            ExitCode::FAILURE
        }
    }
}

async fn accept(options: Serve, (document, transport): (Document, Transport)) -> Result<(), String> {
    // Handlers come first: a signal must not find the default action in their place.
    let signals = |kind| signal(kind).map_err(|error| format!("signals cannot be received: {error}"));
    let mut hangup = signals(SignalKind::hangup())?;
    let stopped = stopped().map_err(|error| format!("signals cannot be received: {error}"))?;

    let (config, consumers) = document.into_parts();
    let log = StandardError { verbose: options.verbose };
    let introspector = Introspector::builder(config, consumers).log(log).build().map_err(|error| error.to_string())?;
    let gateway = Arc::new(Gateway::new(introspector, transport, options.upstream));

    let listener = bind(options.listen)?;
    if let Some(admin) = options.admin {
        let admin = bind(admin)?;
        if let Ok(address) = admin.local_addr() {
            say(&format!("info: metrics at http://{address}/metrics"));
        }
        tokio::spawn(serve_metrics(admin, gateway.introspector().clone(), stopped.clone()));
    }
    let reloaded = Arc::clone(&gateway);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload(&reloaded, &options.config).await;
        }
    });
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    print(&format!("ready http://{address}"));
    serve(listener, move |request| Arc::clone(&gateway).handle(request), until(stopped), GRACE).await;
    Ok(())
}

/// Listens, and lets more connections wait for being accepted than the usual 128: one over that is dropped and tries again
/// a second later.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart takes the place of connections that are still winding down.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(4096)
    };
    listen().map_err(|error: io::Error| format!("`{address}` cannot be listened on: {error}"))
}

/// Becomes true with the first SIGTERM or SIGINT. A second one ends the process at once.
pub(crate) fn stopped() -> io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        let _ = stop.send(true);
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(1);
    });
    Ok(stopped)
}

pub(crate) async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Reads the file and makes a transport for it, away from the threads that serve requests. The error is for the operator:
/// every problem on a line of its own.
async fn load(file: String) -> Result<(Document, Transport), String> {
    let loading = tokio::task::spawn_blocking(move || {
        let document = Document::from_file(&file)
            .map_err(|error| error.to_string())
            .and_then(|document| Ok((Transport::new(document.config())?, document)));
        match document {
            Ok((transport, document)) => Ok((document, transport)),
            Err(problems) => Err(problems.lines().map(|line| format!("error: {file}: {line}\n")).collect::<String>()),
        }
    });
    match loading.await {
        Ok(Ok(loaded)) => Ok(loaded),
        Ok(Err(problems)) => Err(problems.trim_end().to_owned()),
        Err(error) => Err(format!("error: the configuration was not loaded: {error}")),
    }
}

/// Takes over a file's new contents, connections to the endpoint included; a file that cannot be used changes nothing.
async fn reload(gateway: &Gateway, file: &str) {
    let replaced = match load(file.to_owned()).await {
        Ok((document, transport)) => {
            for warning in document.warnings() {
                say(&format!("warn: {file}: {warning}"));
            }
            let (config, consumers) = document.into_parts();
            // First who is trusted, then the credentials: new ones are never sent to a server that only the old file trusts.
            let before = gateway.replace_transport(Arc::new(transport));
            match gateway.introspector().replace_config(config) {
                Ok(()) => {
                    gateway.introspector().replace_consumers(consumers);
                    Ok(())
                }
                Err(error) => {
                    gateway.replace_transport(before);
                    Err(format!("error: {error}"))
                }
            }
        }
        Err(problems) => Err(problems),
    };
    if let Err(problems) = replaced {
        say(&format!("{problems}\nerror: {file}: not reloaded, the configuration from before stays"));
    }
}

/// Serves the counters as Prometheus text.
pub(crate) async fn serve_metrics(listener: TcpListener, introspector: Introspector, stopped: watch::Receiver<bool>) {
    let handle = move |request: Request<Incoming>| {
        let mut answer = Response::new(Full::<Bytes>::default());
        if request.uri().path() == "/metrics" {
            *answer.body_mut() = Full::from(introspector.snapshot().prometheus());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        } else {
            *answer.status_mut() = StatusCode::NOT_FOUND;
        }
        std::future::ready(answer)
    };
    serve(listener, handle, until(stopped), Duration::ZERO).await;
}
