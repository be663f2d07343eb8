//! What the tests of all surfaces share: reading vectors, and playing them against anything that decides.

#![allow(missing_debug_implementations, reason = "tests")]

pub mod player;
pub mod server;
pub mod vector;
