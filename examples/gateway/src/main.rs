//! A reverse proxy that asks Tokenward about every request: the core inside an async runtime.
//!
//! ```text
//! cargo run --release -p gateway               an authorization server, an upstream, the gateway, a tour of it all
//! cargo run --release -p gateway -- --tour     the same, ending with status 0 if every step was as expected
//! examples/gateway/run --config FILE --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000 [--admin ADDR]
//! ```
//!
//! What a host does with the core is in three short places: `Gateway::decide` and `Gateway::settle` (`proxy.rs`) begin and
//! go from step to step, `Transport::ask` (`transport.rs`) makes the call of an `Exchange`, and `fields::apply` (`fields.rs`)
//! carries out the edits of an `Allow`. No thread ever blocks: a wait is a oneshot channel and a deadline, a call is hyper's
//! pooled client, and a client that goes away drops the future and with it the step.
//!
//! Prints `ready http://ADDR` on standard output when it accepts connections; the core's log lines and configuration
//! errors go to standard error. SIGHUP reads the file again: all of it takes effect, answers are kept where SPEC 5 allows, and
//! a file that cannot be used changes nothing. SIGTERM and SIGINT end it after the requests under way. Exit status: 0, 1 for
//! a failure, 2 for arguments or a configuration that cannot be used.

mod demo;
mod fields;
mod gateway;
mod options;
mod proxy;
mod serve;
mod transport;
mod upload;

use std::process::ExitCode;
use std::time::Duration;

use crate::options::{Mode, USAGE};

fn main() -> ExitCode {
    let mode = match Mode::parse(std::env::args_os().skip(1)) {
        Ok(mode) => mode,
        Err(problem) => {
            gateway::say(&format!("error: {problem}\n\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            gateway::say(&format!("error: no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match mode {
            Mode::Help => {
                gateway::print(USAGE);
                ExitCode::SUCCESS
            }
            Mode::Demo(options) => demo::run(options).await,
            Mode::Serve(options) => gateway::run(options).await,
        }
    });
    // A name that is still being resolved must not hold the process back.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}
