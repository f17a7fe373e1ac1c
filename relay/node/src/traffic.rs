//! How many bytes went over our links: what the descriptor says of our bandwidth comes from here.
//!
//! Sums over all links, TLS records included, as C tor counts them; nothing per link or peer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that the shards raise and the directory part reads.
#[derive(Debug, Default)]
pub struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
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
