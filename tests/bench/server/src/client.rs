//! Clients for what `wrk` cannot do: everybody at once, and so many a second with each one's own fate.

use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::{JoinSet, LocalSet};

use crate::{Options, token};

/// A status instead of one: nothing came within the client's patience, or the connection ended without an answer.
const HUNG: u16 = 0;
const CUT_OFF: u16 = 1;

/// All connections are there before the first request is sent.
pub(crate) async fn burst(options: Options) -> Result<(), Box<dyn Error>> {
    let patience = Duration::from_secs_f64(options.patience);
    let request: Rc<[u8]> = request(&options.path, &options.token).into();
    let mut streams = Vec::new();
    for _ in 0..options.clients {
        streams.push(TcpStream::connect(&*options.to).await?);
    }
    let together = Rc::new(Barrier::new(streams.len()));
    let tasks = LocalSet::new();
    let mut clients = JoinSet::new();
    for stream in streams {
        let (together, request) = (Rc::clone(&together), Rc::clone(&request));
        clients.spawn_local_on(
            async move {
                together.wait().await;
                asked(stream, &request, patience).await
            },
            &tasks,
        );
    }
    let (mut statuses, mut times) = (BTreeMap::<u16, u64>::new(), Vec::new());
    tasks
        .run_until(async {
            while let Some(Ok((status, time))) = clients.join_next().await {
                *statuses.entry(status).or_default() += 1;
                times.push(milliseconds(time));
            }
        })
        .await;
    times.sort_by(f64::total_cmp);
    println!("{}", json!({ "statuses": statuses, "ms": times }));
    Ok(())
}

pub(crate) async fn trickle(options: Options) -> Result<(), Box<dyn Error>> {
    let patience = Duration::from_secs_f64(options.patience);
    let (began, wall) = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?);
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / options.rate));
    let tasks = LocalSet::new();
    let mut clients = JoinSet::new();
    let mut all = Vec::new();
    tasks
        .run_until(async {
            let mut number = options.from;
            while began.elapsed().as_secs_f64() < options.seconds {
                ticks.tick().await;
                let request = request(&options.path, &token::person(number, options.length));
                number += 1;
                let to = options.to.clone();
                clients.spawn_local(async move {
                    let at = began.elapsed();
                    let (status, time) = match TcpStream::connect(to).await {
                        Ok(stream) => asked(stream, &request, patience).await,
                        Err(_) => (CUT_OFF, Duration::ZERO),
                    };
                    (at, status, time)
                });
            }
            while let Some(Ok((at, status, time))) = clients.join_next().await {
                all.push(json!([milliseconds(at), status, milliseconds(time)]));
            }
        })
        .await;
    println!("{}", json!({ "began": wall.as_secs_f64(), "requests": all }));
    Ok(())
}

fn request(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

/// The status, and how long the first line of the answer took.
async fn asked(mut stream: TcpStream, request: &[u8], patience: Duration) -> (u16, Duration) {
    let began = Instant::now();
    let exchange = async {
        let mut line = Vec::with_capacity(256);
        stream.write_all(request).await.ok()?;
        while !line.contains(&b'\n') {
            if stream.read_buf(&mut line).await.ok()? == 0 {
                return None;
            }
        }
        std::str::from_utf8(line.get(9..12)?).ok()?.parse::<u16>().ok()
    };
    let status = match tokio::time::timeout(patience, exchange).await {
        Ok(status) => status.unwrap_or(CUT_OFF),
        Err(_) => HUNG,
    };
    (status, began.elapsed())
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
