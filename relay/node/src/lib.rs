//! The relay process around the engine: sockets, TLS, files, threads. `main.rs` only starts it.

pub mod config;
pub mod dircache;
pub mod directory;
pub mod keys;
