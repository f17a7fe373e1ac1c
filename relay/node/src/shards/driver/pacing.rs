//! The bandwidth of torrc and consensus: who may move bytes now, and who waits for the next refill.

use std::collections::HashSet;
use std::hash::Hash;
use std::mem;
use std::time::Instant;

use relay_engine::door::ChannelId;
use relay_engine::network::NetworkView;

use super::{Driver, ShardStart};
use crate::link::{Link, Proven};
use crate::rate::links::LinkBuckets;
use crate::rate::{RateLimits, Way};

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

/// Counts what a link has moved.
pub(super) fn spend(rates: &RateLimits, now: Instant, link: &mut Link, way: Way, bytes: usize) {
    rates.take(now, way, link.peer.ip(), bytes);
    if let Some(own) = &mut link.buckets {
        own.take(rates.step(now), way, bytes);
    }
}

/// Whether a peer is no relay that the consensus lists (C tor, `connection_or_digest_is_known_relay`).
fn is_stranger(proven: Proven, network: &NetworkView) -> bool {
    match proven {
        Proven::Nobody => true,
        Proven::Relay(identity) => !network.relays.contains_key(&identity),
    }
}

impl Driver {
    /// Bytes that this link may move now. None: it has been put among those that wait.
    pub(super) fn share(&mut self, name: ChannelId, way: Way, bytes_max: usize) -> Option<usize> {
        let (now, link) = (self.instant(), self.links.get_mut(&name)?);
        let (rates, own) = (&self.start.rates, link.buckets.as_mut());
        let share = rates.share(now, way, link.peer.ip(), bytes_max);
        let share = share.and_then(|share| match own {
            Some(own) => own.share(rates.step(now), way, share),
            None => Some(share),
        });
        if share.is_none() {
            match way {
                Way::Read => self.dry_reads.add(name),
                Way::Write => self.dry_writes.add(name),
            }
            self.note_drought(now);
        }
        share
    }

    /// After a new torrc or consensus: gives each link the limit of its own that it is to have now.
    pub(super) fn limit_links(&mut self) {
        let names: Vec<ChannelId> = self.links.keys().copied().collect();
        names.into_iter().for_each(|name| self.limit_link(name));
    }

    /// Gives a link whose handshake is through the limit of its own that it is to have.
    pub(super) fn limit_link(&mut self, name: ChannelId) {
        let instant = self.instant();
        let ShardStart { rates, network, .. } = &self.start;
        let Some(link) = self.links.get_mut(&name) else { return };
        let Some(proven) = link.proven else { return };
        let limit = rates
            .link_limit(&network.parameters)
            .filter(|_| is_stranger(proven, network));
        let now = rates.step(instant);
        match (&mut link.buckets, limit) {
            (Some(buckets), Some(limit)) => buckets.adjust(now, limit),
            (buckets, limit) => *buckets = limit.map(|limit| Box::new(LinkBuckets::new(limit))),
        }
    }

    /// Somebody waits for the next refill.
    pub(super) fn note_drought(&mut self, now: Instant) {
        let refill = self.start.rates.next_refill(now);
        self.refill_at = Some(self.on_steady_clock(refill));
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
