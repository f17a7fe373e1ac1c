//! Torrc's bandwidth: who may move bytes now, and who waits for the next refill.

use std::collections::HashSet;
use std::hash::Hash;
use std::mem;
use std::time::Instant;

use relay_engine::door::ChannelId;

use super::Driver;
use crate::rate::Way;

/// Who waits for the next refill, in the order in which they came, each once.
pub(super) struct Dry<N> {
    order: Vec<N>,
    names: HashSet<N>,
}

impl<N> Default for Dry<N> {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            names: HashSet::new(),
        }
    }
}

impl<N: Copy + Eq + Hash> Dry<N> {
    pub(super) fn add(&mut self, name: N) {
        if self.names.insert(name) {
            self.order.push(name);
        }
    }

    /// All of them; nobody waits any more.
    pub(super) fn take(&mut self) -> Vec<N> {
        self.names.clear();
        mem::take(&mut self.order)
    }
}

impl Driver {
    /// Bytes that this link may move now. None: it has been put among those that wait.
    pub(super) fn share(&mut self, name: ChannelId, way: Way, bytes_max: usize) -> Option<usize> {
        let (now, peer) = (Instant::now(), self.links.get(&name)?.peer.ip());
        let share = self.start.rates.share(now, way, peer, bytes_max);
        if share.is_none() {
            match way {
                Way::Read => self.dry_reads.add(name),
                Way::Write => self.dry_writes.add(name),
            }
            self.note_drought(now);
        }
        share
    }

    /// Somebody waits for the next refill.
    pub(super) fn note_drought(&mut self, now: Instant) {
        let refill = self.start.rates.next_refill(now);
        self.refill_at = Some(refill.saturating_duration_since(self.born));
    }

    /// After a refill those who waited have their turn before all others, in their order.
    pub(super) fn end_drought(&mut self) {
        if self.refill_at.is_none_or(|refill| refill > self.now()) {
            return;
        }
        self.refill_at = None;
        let waited = self.dry_reads.take();
        self.to_read.splice(0..0, waited);
        let waited = self.dry_writes.take();
        self.to_write.splice(0..0, waited);
        self.end_drought_of_exits();
    }
}
