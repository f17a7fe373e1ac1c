//! Engines joined by a seeded network under a virtual clock, and a client that makes circuits through them. For tests
//! and load.
//!
//! No socket, no TLS, no thread: [`net::Net`] does what the driver does, byte for byte the same for the same seed.

pub mod client;
pub mod conflux;
pub mod keys;
pub mod net;
pub mod shards;
