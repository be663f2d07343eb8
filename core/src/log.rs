//! Log lines for the host's sink. The core writes nowhere itself.

use std::fmt;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::decision::Reason;

/// How urgent a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Somebody has to act: the endpoint refuses us, a setting names nobody.
    Error,
    /// The authorization server failed, or a setting is probably not meant.
    Warn,
    /// Configuration and consumers were replaced.
    Info,
    /// Single requests that were denied.
    Debug,
}

impl Level {
    /// `error`, `warn`, `info` or `debug`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// One line. Nothing in it comes raw from a client or the authorization server; a token appears as the first 8 hex digits of its
/// SHA-256.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// How urgent it is.
    pub level: Level,
    /// What it is about, if that is a reason to deny.
    pub reason: Option<Reason>,
    /// Fixed words; for a warning about the configuration, what is probably not meant, without secrets.
    pub message: &'a str,
    /// What is particular about it: `status`, `failure`, `elapsed_ms`, `suppressed`, `token`, `setting`.
    pub fields: &'a [(&'static str, String)],
}

/// `message key=value ...`
impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        if let Some(reason) = self.reason {
            write!(f, " reason={reason}")?;
        }
        for (key, value) in self.fields {
            write!(f, " {key}={value}")?;
        }
        Ok(())
    }
}

/// Where lines go. Called from whichever thread handles a request, never under a lock of Tokenward's.
///
/// Any `Fn(&Record)` is a sink that wants lines of every level.
pub trait Log: Send + Sync {
    /// Takes a line.
    fn log(&self, record: &Record<'_>);

    /// Whether lines of this level are wanted. Lines that are not are not made.
    fn is_enabled(&self, level: Level) -> bool {
        let _ = level;
        true
    }
}

impl<F: Fn(&Record<'_>) + Send + Sync> Log for F {
    fn log(&self, record: &Record<'_>) {
        self(record);
    }
}

/// At most one line a second for each reason.
#[derive(Debug)]
pub(crate) struct Throttle([Mutex<Kind>; Reason::ALL.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    /// Monotonic microseconds of the last line.
    last: Option<i64>,
    suppressed: u64,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Kind::default())))
    }

    /// How many lines were suppressed since the last one; none if this one is suppressed too.
    pub(crate) fn pass(&self, reason: Reason, mono: i64) -> Option<u64> {
        let mut kind = self.0.get(reason.index())?.lock();
        // A clock that goes back does not silence anybody.
        if kind.last.is_some_and(|last| (last..last.saturating_add(1_000_000)).contains(&mono)) {
            kind.suppressed += 1;
            return None;
        }
        kind.last = Some(mono);
        Some(std::mem::take(&mut kind.suppressed))
    }
}

/// The only form of a token that a log sees.
pub(crate) fn fingerprint(token: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(token).into();
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_passes_and_counts_the_others() {
        let throttle = Throttle::new();
        let reason = Reason::EndpointUnreachable;
        assert_eq!(throttle.pass(reason, 0), Some(0));
        assert_eq!(throttle.pass(reason, 999_999), None);
        assert_eq!(throttle.pass(reason, 0), None);
        assert_eq!(throttle.pass(reason, 5), None);
        assert_eq!(throttle.pass(Reason::ReplyMalformed, 5), Some(0));
        assert_eq!(throttle.pass(reason, 1_000_000), Some(3));
        assert_eq!(throttle.pass(reason, 999_999), Some(0), "the clock went back");
        assert_eq!(throttle.pass(reason, 2_000_000), Some(0));
    }

    #[test]
    fn a_token_is_known_by_four_bytes_of_its_hash() {
        assert_eq!(fingerprint(b"abc"), "ba7816bf");
    }
}
