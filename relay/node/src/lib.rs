//! The relay process around the engine: sockets, TLS, files, threads. `main.rs` only starts it.

pub mod accounting;
pub mod admin;
pub mod cli;
pub mod config;
pub mod crypto_pool;
pub mod dircache;
pub mod directory;
pub mod dns;
pub mod exits;
pub mod keys;
pub mod limits;
pub mod link;
pub mod link_keys;
pub mod logging;
pub mod metrics;
pub mod netdoc;
pub mod rate;
pub mod reports;
pub mod shards;
pub mod startup;
pub mod state_store;
pub mod status;
pub mod supervisor;
pub mod tls;
pub mod traffic;
pub mod user;
