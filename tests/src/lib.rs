//! What the tests of all surfaces share: reading vectors, and playing them against anything that decides.

#![allow(missing_debug_implementations, reason = "tests")]

pub mod player;
pub mod server;
pub mod vector;

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
