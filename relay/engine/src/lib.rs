//! The sans-io relay: one shard of channels and circuits. Start at [`door`].

pub mod crypto {
    //! Circuit handshakes and relay crypto.
    pub mod cgo;
    pub mod introduction;
    pub mod kdf_tor;
    pub mod keys;
    pub(crate) mod layer;
    pub mod ntor;
    pub mod ntor_v3;
    pub mod onion;
    pub mod tor1;
    #[cfg(test)]
    mod vectors;
    pub mod x25519;
}
mod channel;
mod circuit;
mod conflux;
pub mod door;
pub mod dos;
mod engine;
pub mod flow;
pub mod keyed;
mod mux;
pub mod network;
pub mod settings;
mod slab;
mod stream;
mod timers;

pub use door::{Effect, Input, Now, Outbox, Tally};
pub use engine::Engine;
