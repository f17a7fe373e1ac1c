//! Torrc's bandwidth: who may move bytes now, and who waits for the next refill.

use std::time::Instant;

use relay_engine::door::ChannelId;

use super::Driver;
use crate::rate::Way;

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
            let refill = self.start.rates.next_refill(now);
            self.refill_at = Some(refill.saturating_duration_since(self.born));
        }
        share
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
    }
}
