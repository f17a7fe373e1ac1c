//! The plan, driven round by round in a cluster in memory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers of tests are tests too

mod changes;
mod custody;
mod family;
mod life;
mod objects;
mod pool;
mod ports;
mod sets;
mod world;
