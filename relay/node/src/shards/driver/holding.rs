//! Bytes that this shard holds for peers outside the engine: sealed ones that a socket does not take, records that have
//! not ended, what directory streams have leased, and answers of the DNS. They count against `MaxMemInQueues` like the
//! engine's queues, and so does what lies in the mailboxes.

use std::time::Duration;

use relay_engine::door::{ChannelId, ShardId};

use super::Driver;

/// How often those who take nothing are looked for, while anybody's bytes are held.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// When memory grows short, a link goes that has not taken one batch whole for so long (our own number; C tor waits for 50
/// minutes, as it does not count these bytes for themselves).
const PATIENCE: Duration = Duration::from_secs(30);

impl Driver {
    /// Counts what a link holds now.
    pub(super) fn count_held(&mut self, name: ChannelId) {
        let now = self.now();
        let Some(link) = self.links.get_mut(&name) else { return };
        let bytes = link.held_bytes();
        self.link_bytes = (self.link_bytes + bytes).saturating_sub(link.counted_bytes);
        link.counted_bytes = bytes;
        if link.unsent.is_empty() {
            link.stuck_since = None;
        } else {
            link.stuck_since.get_or_insert(now);
        }
    }

    /// Tells all shards' engines what is held here.
    pub(super) fn tell_held(&mut self) {
        // Directory streams of all shards have one budget: one of them tells it.
        let leased = match self.own {
            ShardId(0) => self.start.directory.budget().spent(),
            _ => 0,
        };
        let names = self.exits.cache_bytes();
        self.held.set((self.link_bytes + leased + names) as u64);
        self.forget_names(names);
        if self.look_at_held.is_none() && self.link_bytes > 0 {
            self.look_at_held = Some(self.now() + LOOK_EVERY);
        }
    }

    /// As C tor, answers of the DNS go that take more than a fifth of what may wait, until it is a tenth; here before any
    /// circuit has to, when three quarters are used.
    fn forget_names(&mut self, bytes: usize) {
        let Some(most) = self.start.settings.defences.queued_bytes_max else {
            return;
        };
        let share = most / u64::from(self.siblings.count().get());
        if bytes as u64 > share / 5 && self.waiting_bytes() >= most / 4 * 3 {
            self.exits
                .forget_names(usize::try_from(share / 10).unwrap_or(usize::MAX));
        }
    }

    /// What waits in all shards' queues and is held beside them.
    fn waiting_bytes(&self) -> u64 {
        let commons = &self.siblings.commons;
        commons.queued_bytes().saturating_add(commons.held_bytes())
    }

    /// Ends links that take nothing, where three quarters of what may wait do so.
    pub(super) fn end_stuck(&mut self) {
        let now = self.now();
        if self.look_at_held.is_none_or(|at| at > now) {
            return;
        }
        self.look_at_held = None;
        let (waiting, defences) = (self.waiting_bytes(), &self.start.settings.defences);
        if defences.queued_bytes_max.is_none_or(|most| waiting < most / 4 * 3) {
            return;
        }
        let stuck = self.links.iter().filter(|(_, link)| {
            let since = link.stuck_since.unwrap_or(now);
            now.saturating_sub(since) >= PATIENCE
        });
        for name in stuck.map(|(name, _)| *name).collect::<Vec<_>>() {
            self.lose(name);
        }
    }
}
