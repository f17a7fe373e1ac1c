//! Fuzz targets: what bytes from outside must never do to the relay, one function for each door that they come in by.
//!
//! A target is plain code that asserts: `e2e/fuzz` lets libFuzzer search for bytes that break it, and the test `replay`
//! runs what such searches have learnt (`corpus/TARGET/`), and random changes of it, in each run of the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "to fail loudly is what a target is for"
)]

mod relay;
mod shard;
pub mod tape;
mod targets;

pub use targets::{TARGETS, Target, target};
