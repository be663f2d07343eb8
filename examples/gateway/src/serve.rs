//! Accepts connections and serves them, until it is told to stop.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a connection without a request so far may take to send one, once its server is to end.
const FIRST_REQUEST: Duration = Duration::from_millis(200);

/// Serves HTTP/1.1 until `stop` ends. Requests under way then have `grace` to end; whatever is left is cut off.
pub(crate) async fn serve<F, R, B>(listener: TcpListener, handle: F, stop: impl Future<Output = ()>, grace: Duration)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut http = http1::Builder::new();
    // With a timer, a client has 30 s for the head of a request.
    http.timer(TokioTimer::new());
    let (last_requests, ending) = watch::channel(());
    // Dropped at the end, and with it the tasks.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: some connections have to end first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (handle, begun) = (handle.clone(), Arc::new(AtomicBool::new(false)));
        let has_begun = Arc::clone(&begun);
        let service = service_fn(move |request| {
            begun.store(true, Ordering::Relaxed);
            let answer = handle(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut ending = ending.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            // What goes wrong on a client's connection is told to nobody but that client.
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = ending.changed() => connection.as_mut().graceful_shutdown(),
            }
            // A connection that was opened in advance is not waited for, one whose first request is on its way is.
            let is_over = tokio::time::timeout(FIRST_REQUEST, connection.as_mut()).await.is_ok();
            if !is_over && has_begun.load(Ordering::Relaxed) {
                let _ = connection.await;
            }
        });
    }
    drop((listener, last_requests));
    let _ = tokio::time::timeout(grace, async { while connections.join_next().await.is_some() {} }).await;
}
