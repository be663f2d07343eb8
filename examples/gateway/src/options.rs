//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;

use hyper::http::uri::Authority;
use hyper::{Uri, http::uri::Scheme};
use lexopt::prelude::{Long, Short, ValueExt};

pub(crate) const USAGE: &str = "\
usage: gateway                      a demonstration with everything it needs, and a tour of it
       gateway --tour               the same, ending after the tour: status 0 if every step was as expected
       gateway --config FILE --listen ADDR --upstream URL

  --config FILE    a Tokenward configuration in JSON with an extra member `consumers`, or a Kong declarative file
                   (of several plugins: FILE#route=NAME or FILE#service=NAME); read again on SIGHUP
  --listen ADDR    where to accept, 127.0.0.1:8080 say; port 0 takes a free one
  --upstream URL   where allowed requests go, http://127.0.0.1:3000 say
  --admin ADDR     serves /metrics for Prometheus
  --verbose        logs every refusal, not only failures
  --help           this text";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Mode {
    Help,
    Demo(Demo),
    Serve(Serve),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Demo {
    /// Ends after the tour.
    pub(crate) tour_only: bool,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) verbose: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Serve {
    pub(crate) config: String,
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: Authority,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) verbose: bool,
}

impl Mode {
    /// Reads the arguments behind the program's name; the error is a sentence for the user.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut config, mut listen, mut upstream, mut admin) = (None, None, None, None);
        let (mut tour_only, mut verbose) = (false, false);
        let mut parser = lexopt::Parser::from_args(arguments);
        let text = |error: lexopt::Error| error.to_string();
        while let Some(argument) = parser.next().map_err(text)? {
            match argument {
                Long("help") | Short('h') => return Ok(Self::Help),
                Long("config") => config = Some(parser.value().and_then(ValueExt::string).map_err(text)?),
                Long("listen") => listen = Some(address("--listen", &mut parser)?),
                Long("admin") => admin = Some(address("--admin", &mut parser)?),
                Long("upstream") => {
                    upstream = Some(authority(&parser.value().and_then(ValueExt::string).map_err(text)?)?);
                }
                Long("tour") => tour_only = true,
                Long("verbose") => verbose = true,
                other => return Err(other.unexpected().to_string()),
            }
        }
        match (config, listen, upstream) {
            (None, listen, None) => {
                let free = SocketAddr::from(([127, 0, 0, 1], 0));
                Ok(Self::Demo(Demo {
                    tour_only,
                    listen: listen.unwrap_or(free),
                    admin: admin.unwrap_or(free),
                    verbose,
                }))
            }
            _ if tour_only => {
                Err("`--tour` is for the demonstration, which takes no `--config` and `--upstream`".into())
            }
            (Some(config), Some(listen), Some(upstream)) => {
                Ok(Self::Serve(Serve { config, listen, upstream, admin, verbose }))
            }
            _ => Err("`--config`, `--listen` and `--upstream` are needed together".into()),
        }
    }
}

fn address(option: &str, parser: &mut lexopt::Parser) -> Result<SocketAddr, String> {
    let value = parser.value().and_then(ValueExt::string).map_err(|error| error.to_string())?;
    value.parse().map_err(|_| format!("`{option}`: `{value}` is no address and port, such as 127.0.0.1:8080"))
}

/// The upstream is a plain HTTP/1.1 server: paths are the client's, so the URL has none.
fn authority(url: &str) -> Result<Authority, String> {
    let refusal = || format!("`--upstream`: `{url}` is not of the form http://HOST:PORT");
    let uri: Uri = url.parse().map_err(|_| refusal())?;
    if uri.scheme() != Some(&Scheme::HTTP) || uri.path() != "/" || uri.query().is_some() {
        return Err(refusal());
    }
    uri.into_parts().authority.filter(|authority| !authority.as_str().contains('@')).ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Mode, String> {
        Mode::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn no_argument_asks_for_the_demonstration() {
        assert!(matches!(parse(""), Ok(Mode::Demo(Demo { tour_only: false, .. }))));
        assert!(matches!(parse("--tour"), Ok(Mode::Demo(Demo { tour_only: true, .. }))));
    }

    #[test]
    fn a_gateway_needs_its_three_settings() {
        let line = "--config a.json --listen 127.0.0.1:0 --upstream";
        let Ok(Mode::Serve(serve)) = parse(&format!("{line} http://127.0.0.1:9/")) else { panic!("refused") };
        assert_eq!((serve.config.as_str(), serve.upstream.as_str()), ("a.json", "127.0.0.1:9"));
        for url in ["https://a", "http://a/b", "http://a/?b", "http://u@a", "a:80", "/"] {
            assert!(parse(&format!("{line} {url}")).is_err(), "{url}");
        }
        for line in
            ["--config a", "--upstream http://a", "--nonsense", "--listen", "--listen x", "x", "--tour --config a"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
