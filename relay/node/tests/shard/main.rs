//! A shard on real sockets.

// A test may end where something is not as it should be, in its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod bulk;
mod client;
mod dns_server;
mod exits;
mod links;
mod names;
mod support;
