//! What benchmarks need around the hosts that they compare: an authorization server and an upstream that are fast enough not to be
//! measured themselves, clients for what `wrk` cannot do, and the core without a host.

mod client;
mod growth;
mod serve;
mod token;

use std::error::Error;
use std::process::ExitCode;

use lexopt::prelude::{Long, Value, ValueExt};

const USAGE: &str = "\
usage: bench-server serve
           an authorization server, an upstream and a control port on free ports of 127.0.0.1, which are printed as JSON
       bench-server burst --to ADDR --path PATH --token TOKEN --clients N --patience SECONDS
           N connections, then one request on each at once
       bench-server trickle --to ADDR --path PATH --from NUMBER --length BYTES --rate PER_SECOND --seconds S --patience SECONDS
           a request with a new token and a new connection of its own, so many times a second
       bench-server growth --tokens N --operations N
           what a hit and a remembered token cost in the core, without a host
Results are JSON on standard output.";

/// What the command line gives; each subcommand looks at its own.
#[derive(Debug, Default)]
struct Options {
    to: String,
    path: String,
    token: String,
    clients: u64,
    patience: f64,
    from: u64,
    length: usize,
    rate: f64,
    seconds: f64,
    tokens: u64,
    operations: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut parser = lexopt::Parser::from_env();
    let (mut command, mut options) = (String::new(), Options::default());
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => command = word.string()?,
            Long("to") => options.to = parser.value()?.string()?,
            Long("path") => options.path = parser.value()?.string()?,
            Long("token") => options.token = parser.value()?.string()?,
            Long("clients") => options.clients = parser.value()?.parse()?,
            Long("patience") => options.patience = parser.value()?.parse()?,
            Long("from") => options.from = parser.value()?.parse()?,
            Long("length") => options.length = parser.value()?.parse()?,
            Long("rate") => options.rate = parser.value()?.parse()?,
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("tokens") => options.tokens = parser.value()?.parse()?,
            Long("operations") => options.operations = parser.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    match command.as_str() {
        "serve" => block_on(serve::run()),
        "burst" => block_on(client::burst(options)),
        "trickle" => block_on(client::trickle(options)),
        "growth" => growth::run(&options),
        _ => Err("no such command".into()),
    }
}

/// On one thread: a benchmark's machine has few processors, and the host that is measured needs one for itself.
fn block_on(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
