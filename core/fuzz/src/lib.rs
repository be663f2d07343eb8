//! What the targets have in common: reading their input, and a slow second reading of JSON.
//!
//! A target's input has a form of its own, a few bytes that choose and then text, rather than one that is derived: `tests/fuzz/seeds`
//! writes it from the vectors, and libFuzzer's mutations of it are mutations of what a client or a server sends.

pub mod json;

use std::time::Duration;

use tokenward_core::Now;

/// 2023-11-14, in seconds.
pub const WALL: u64 = 1_700_000_000;

/// A moment that is as good as any.
#[must_use]
pub fn now() -> Now {
    Now::new(Duration::from_secs(WALL), Duration::from_secs(1000))
}

/// Bytes that choose; zeros once they are used up.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    pub fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
