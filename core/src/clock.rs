//! Time as an argument.

use std::time::Duration;

/// A moment as the host sees it, on two clocks.
///
/// The wall clock (time since 1970-01-01 00:00 UTC) is held against `exp` and `nbf`. The monotonic clock (time since any
/// fixed moment of the process) measures how long an answer may be reused and a request may take. An answer ends with
/// whichever clock gets there first.
///
/// Both are kept in microseconds. Values that do not fit end at the year 294247; nothing wraps and nothing panics.
///
/// ```
/// use std::time::Duration;
/// use tokenward_core::Now;
///
/// let now = Now::new(Duration::from_secs(1_700_000_000), Duration::from_secs(12));
/// assert_eq!(now.wall(), Duration::from_secs(1_700_000_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub(crate) wall: i64,
    pub(crate) mono: i64,
}

impl Now {
    /// A moment from the time since the Unix epoch and the time on a monotonic clock.
    #[must_use]
    pub fn new(wall: Duration, monotonic: Duration) -> Self {
        Self { wall: micros(wall), mono: micros(monotonic) }
    }

    /// Reads the system's clocks. The monotonic one counts from the first call in this process.
    #[cfg(feature = "clock")]
    #[allow(clippy::disallowed_methods, reason = "this function is the clock, and its feature says so")]
    #[must_use]
    pub fn read() -> Self {
        use std::sync::OnceLock;
        use std::time::{Instant, SystemTime};

        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        // A clock before 1970 reads as 1970: every `exp` is then in the future and every `nbf` as well.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::new(wall, start.elapsed())
    }

    /// Time since the Unix epoch.
    #[must_use]
    pub fn wall(&self) -> Duration {
        duration(self.wall)
    }

    /// Time on the monotonic clock.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        duration(self.mono)
    }
}

/// Microseconds, saturating.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The duration of so many microseconds; none if negative.
pub(crate) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_durations_saturate() {
        let now = Now::new(Duration::MAX, Duration::MAX);
        assert_eq!((now.wall, now.mono), (i64::MAX, i64::MAX));
        assert_eq!(duration(-1), Duration::ZERO);
    }

    #[cfg(feature = "clock")]
    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let (first, second) = (Now::read(), Now::read());
        assert!(second.mono >= first.mono);
        assert!(first.wall > 1_600_000_000_000_000);
    }
}
