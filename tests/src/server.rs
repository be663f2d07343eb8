//! A small HTTP server for one test: it does to each request what it is told, however wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What is done to a request.
pub enum Act {
    /// These bytes, and the connection is kept.
    Send(Vec<u8>),
    /// These bytes, and the connection is closed.
    SendAndClose(Vec<u8>),
    /// One byte at a time.
    Drip(Vec<u8>, Duration),
    /// Nothing, for ever.
    Hang,
}

/// What a client sent.
pub struct Got {
    pub head: String,
    pub body: String,
    /// Which one it is on its connection, from 1 on.
    pub nth: usize,
}

pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    /// Listens on a free port of the loopback interface for as long as the process lives.
    pub fn start(act: impl Fn(&Got) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&connections), Arc::clone(&requests));
        let act = Arc::new(act);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counters.0.fetch_add(1, Ordering::SeqCst);
                let (act, requests) = (Arc::clone(&act), Arc::clone(&counters.1));
                thread::spawn(move || {
                    let _ = serve(stream, &*act, &requests);
                });
            }
        });
        Self { address, connections, requests }
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/introspect", self.address)
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, act: &dyn Fn(&Got) -> Act, requests: &AtomicUsize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut nth = 0;
    while let Some(mut got) = read(&mut stream)? {
        nth += 1;
        got.nth = nth;
        requests.fetch_add(1, Ordering::SeqCst);
        match act(&got) {
            Act::Send(bytes) => stream.write_all(&bytes)?,
            Act::SendAndClose(bytes) => return stream.write_all(&bytes),
            Act::Drip(bytes, pause) => {
                for byte in bytes {
                    stream.write_all(&[byte])?;
                    thread::sleep(pause);
                }
            }
            Act::Hang => loop {
                thread::park();
            },
        }
    }
    Ok(())
}

/// One request, none at the end of the connection.
fn read(stream: &mut TcpStream) -> std::io::Result<Option<Got>> {
    let mut bytes = Vec::new();
    let mut byte = [0; 1];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|value| value.trim().to_owned()))
        .map_or(0, |value| value.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Got { head, body: String::from_utf8_lossy(&body).into_owned(), nth: 0 }))
}

/// A 200 with this JSON body.
#[must_use]
pub fn json(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}
