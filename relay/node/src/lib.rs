//! The relay process around the engine: sockets, TLS, files, threads. `main.rs` only starts it.

pub mod config;
pub mod crypto_pool;
pub mod dircache;
pub mod directory;
pub mod keys;
pub mod link;
pub mod link_keys;
pub mod netdoc;
pub mod shards;
pub mod tls;
