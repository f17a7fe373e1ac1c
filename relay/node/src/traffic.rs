//! What goes over the relay's sockets, counted: the descriptor's bandwidth and the metrics come from here.
//!
//! Bytes are sums over all links, TLS records included, as C tor counts them; nothing per link or peer.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::counters::{Connections, DnsCounts, LoadCounts};

/// Counters that the shards raise and the directory part and the metrics read.
#[derive(Debug, Default)]
pub struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
    /// Connections of all kinds.
    pub connections: Connections,
    /// Questions to the DNS.
    pub dns: DnsCounts,
    /// What we ran out of.
    pub load: LoadCounts,
}

impl Traffic {
    /// A socket gave this many bytes.
    pub fn note_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A socket took this many bytes.
    pub fn note_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes read and bytes written since the start.
    pub fn sums(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }
}
