//! Defences against floods (C tor `dos.c`, its manual's "DENIAL OF SERVICE MITIGATION OPTIONS"): how many connections,
//! circuits and streams one client may make, and what becomes of whoever makes more.
//!
//! Options come from torrc, what it leaves open from the consensus. Shards share what they know of addresses, as one
//! client's connections come to all of them: [`Commons`], asked once a connection and once a circuit, never for a cell.

mod addresses;
mod options;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use addresses::{Addresses, ConnectRefusal, Visit};
pub use options::{DosOptions, DosRules};
pub(crate) use options::{StreamDefense, StreamRules};

/// What all shards of a relay have in common.
#[derive(Clone)]
pub struct Commons {
    /// What is known of clients' addresses.
    pub addresses: Addresses,
    /// Bytes that wait in all shards' queues.
    pub(crate) queued_bytes: Arc<AtomicU64>,
}

impl Commons {
    /// Nobody is known, nothing waits. `seed` is all the randomness that it will ever have.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            addresses: Addresses::new(seed),
            queued_bytes: Arc::default(),
        }
    }

    /// Bytes that wait in all shards' queues, as each of them said last.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }
}

/// What the defences did to addresses since the start; a line each of C tor's `tor_relay_dos_total`. The others are in the
/// engine's `Tally`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DosTally {
    /// Circuits refused: their client's address was marked.
    pub circuits_rejected: u64,
    /// Addresses marked for making too many circuits.
    pub addresses_marked: u64,
    /// Addresses marked for filling queues away from them.
    pub addresses_marked_maxq: u64,
    /// Connections refused: their address made too many in too short a time.
    pub connections_rejected: u64,
    /// Connections refused: their address had too many.
    pub concurrent_connections_rejected: u64,
}
