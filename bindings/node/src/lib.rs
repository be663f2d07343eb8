//! The addon beneath the package `tokenward`: the core as `lib/` uses it. Nothing in here is public; what users see is
//! `lib/index.d.ts`.
//!
//! Crossing from JavaScript costs more than a decision does, so that what every request needs crosses in as few values as
//! possible: one string in, one number out (`decide`). Everything else is asked for when somebody looks at it.
//!
//! One thread uses an introspector of this addon; a worker has its own. No step is an object of the engine's: they are kept by
//! number (`steps`), and JavaScript gives the numbers back.

#![allow(missing_debug_implementations, reason = "what crosses holds tokens and secrets, and nobody prints it")]

mod config;
mod decide;
mod decision;
mod introspector;
mod log;
mod steps;
mod text;

use napi_derive::napi;

/// Whether only Tokenward may set this header: names in bytes, as Node gives them.
#[napi(catch_unwind)]
pub fn is_managed(#[napi(ts_arg_type = "string")] name: text::Latin1) -> bool {
    tokenward_core::is_managed(&name.0)
}

/// How the names of the header fields begin that count for every request, in lower case; `_` and `.` are read as `-`.
#[napi(catch_unwind)]
pub fn counted_headers() -> Vec<&'static str> {
    tokenward_core::counted_headers().collect()
}

/// The addon's version, which is the package's.
#[napi(catch_unwind)]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// A panic, to test what becomes of one.
#[cfg(feature = "panic-for-tests")]
#[napi(catch_unwind, skip_typescript)]
pub fn panic() {
    panic!("a panic for the tests");
}
