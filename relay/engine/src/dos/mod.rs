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
    /// Bytes that their drivers hold for peers.
    held_bytes: Arc<AtomicU64>,
}

impl Commons {
    /// Nobody is known, nothing waits. `seed` is all the randomness that it will ever have.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            addresses: Addresses::new(seed),
            queued_bytes: Arc::default(),
            held_bytes: Arc::default(),
        }
    }

    /// Bytes that a driver is going to hold for peers; it says what has changed.
    pub fn holding(&self) -> Holding {
        Holding {
            all: Arc::clone(&self.held_bytes),
            own: 0,
        }
    }

    /// What lies in the mailboxes between shards; it counts as held.
    pub fn post(&self) -> Post {
        Post {
            all: Arc::clone(&self.held_bytes),
        }
    }

    /// What all drivers hold for peers.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that wait in all shards' queues, as each of them said last.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }
}

/// Counts what is on its way from one thread to another.
#[derive(Clone)]
pub struct Post {
    all: Arc<AtomicU64>,
}

impl Post {
    /// So many bytes are on their way.
    pub fn sent(&self, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many have come; never more than were sent.
    pub fn taken(&self, bytes: u64) {
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A driver's share in what is held for peers; given back when it is dropped.
pub struct Holding {
    all: Arc<AtomicU64>,
    own: u64,
}

impl Holding {
    /// So many bytes from now on.
    pub fn set(&mut self, bytes: u64) {
        if bytes == self.own {
            return;
        }
        match bytes.checked_sub(self.own) {
            Some(more) => self.all.fetch_add(more, Ordering::Relaxed),
            None => self.all.fetch_sub(self.own - bytes, Ordering::Relaxed),
        };
        self.own = bytes;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.set(0);
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
