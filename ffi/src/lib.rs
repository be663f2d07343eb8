//! Tokenward's C ABI, version 1.0. The header `include/tokenward.h` is made from this crate; its top says who owns what.
//!
//! One C object per file. `unsafe` lives in this crate alone: the core forbids it. Nothing here decides anything.
//!
//! How it holds together:
//! - Every entry goes through `guard`: no unwinding leaves it.
//! - Pointers become references through `text`, `guard` and `sized`, which refuse NULL, and nowhere else.
//! - A step is marked while the core works on it, so that callbacks that come back to it find it busy, not half changed.

#![allow(non_camel_case_types, reason = "the names are C's")]

#[cfg(panic = "abort")]
compile_error!("tokenward-ffi needs `panic = \"unwind\"`: a panic would take the host process down with it");

mod brief;
mod decision;
mod guard;
mod introspector;
mod log;
mod ready;
mod request;
mod result;
mod room;
mod sized;
mod stats;
mod step;
mod summary;
mod text;

pub use brief::*;
pub use decision::*;
pub use introspector::*;
pub use log::*;
pub use request::*;
pub use result::*;
pub use stats::*;
pub use step::*;
pub use summary::*;
pub use text::*;
