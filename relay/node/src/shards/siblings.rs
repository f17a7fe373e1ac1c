//! What the shards of one relay know of each other: mailboxes, and how many links each has.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Poll;
use relay_engine::door::{Load, ShardId};
use relay_engine::dos::{Commons, Visit};

use super::crew::{Crew, Sharing};
use super::driver::WAKER;
use super::mailbox::{Inbox, Mailbox};

/// Spent loads that are kept for each shard. One is as large as what is carried over at once, some 70 KiB.
const SPARE_LOADS_A_SHARD_MAX: usize = 4;

/// One shard as the others see it.
struct Sibling {
    mailbox: Mailbox,
    links: AtomicUsize,
}

/// All shards of a relay.
pub struct Siblings {
    shards: Vec<Sibling>,
    /// Sockets of links and of streams.
    taken: AtomicUsize,
    places_max: usize,
    /// Memory of loads that are spent, for those who send more of them than they get.
    spare_loads: Mutex<Vec<Load>>,
    /// What their engines have in common.
    pub commons: Commons,
    /// Who runs them.
    pub(super) crew: Crew,
}

/// What a shard's thread begins with: its own ends of what others reach it by.
pub struct Berth {
    pub(super) shard: ShardId,
    pub(super) poll: Poll,
    pub(super) inbox: Inbox,
}

/// A link's share in the relay's limit on sockets; given back when it is dropped.
pub struct Place {
    shard: ShardId,
    socket: SocketPlace,
    /// Counts for the peer's address, where the peer began.
    _visit: Option<Visit>,
}

impl Place {
    /// The same, counted for a peer's address.
    pub fn visited(mut self, visit: Visit) -> Self {
        self._visit = Some(visit);
        self
    }
}

/// The same for the socket of a stream.
pub struct SocketPlace {
    siblings: Arc<Siblings>,
}

impl Siblings {
    /// As many shards as are wanted, none of them running yet. `places_max` is for the sockets of all of
    /// them together: links of both directions, and streams.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(shards: NonZeroU16, places_max: usize) -> std::io::Result<(Arc<Self>, Vec<Berth>)> {
        Self::shared_out(shards, places_max, Sharing::AsLoadWants)
    }

    /// The same, with their threads' work shared out as is wanted: for tests.
    ///
    /// # Errors
    /// As [`Siblings::new`].
    pub fn shared_out(
        shards: NonZeroU16,
        places_max: usize,
        sharing: Sharing,
    ) -> std::io::Result<(Arc<Self>, Vec<Berth>)> {
        let (mut siblings, mut berths, mut bells) = (Vec::new(), Vec::new(), Vec::new());
        let commons = Commons::new(rand::random());
        for shard in (0..shards.get()).map(ShardId) {
            let poll = Poll::new()?;
            let (mailbox, inbox) = Mailbox::new(&poll, WAKER, commons.post())?;
            bells.push(Arc::clone(mailbox.bell()));
            siblings.push(Sibling {
                mailbox,
                links: AtomicUsize::new(0),
            });
            berths.push(Berth { shard, poll, inbox });
        }
        let siblings = Self {
            shards: siblings,
            taken: AtomicUsize::new(0),
            places_max,
            spare_loads: Mutex::default(),
            commons,
            crew: Crew::new(bells, sharing),
        };
        Ok((Arc::new(siblings), berths))
    }

    /// How many shards there are; never 0.
    pub fn count(&self) -> NonZeroU16 {
        let count = u16::try_from(self.shards.len()).ok().and_then(NonZeroU16::new);
        count.unwrap_or(NonZeroU16::MIN)
    }

    /// Keeps a spent load's memory, if there is not enough of it already.
    pub(super) fn keep_load(&self, load: Load) {
        let mut spare = self.spare_loads.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_LOADS_A_SHARD_MAX * self.shards.len() {
            spare.push(load);
        }
    }

    /// An empty load, with memory that was kept if there is any.
    pub(super) fn spare_load(&self) -> Load {
        let spare = self.spare_loads.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_default()
    }

    /// Their mailboxes, by shard.
    pub fn mailboxes(&self) -> Vec<Mailbox> {
        self.shards.iter().map(|sibling| sibling.mailbox.clone()).collect()
    }

    /// One shard's mailbox.
    pub fn mailbox(&self, shard: ShardId) -> Option<&Mailbox> {
        self.shards.get(usize::from(shard.0)).map(|sibling| &sibling.mailbox)
    }

    /// The shard with the fewest links. Few heavy links are shared out as evenly as many light ones, which a hash of
    /// addresses would not do.
    pub fn lightest(&self) -> ShardId {
        let numbered = (0..).map(ShardId).zip(&self.shards);
        let lightest = numbered.min_by_key(|(_, sibling)| sibling.links.load(Ordering::Relaxed));
        lightest.map_or(ShardId(0), |(shard, _)| shard)
    }

    /// A place for one more link on that shard; none where the relay has as many sockets as it may.
    pub fn take_place(self: &Arc<Self>, shard: ShardId) -> Option<Place> {
        let sibling = self.shards.get(usize::from(shard.0))?;
        let socket = self.take_socket()?;
        sibling.links.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            shard,
            socket,
            _visit: None,
        })
    }

    /// A place for the socket of one more stream.
    pub fn take_socket(self: &Arc<Self>) -> Option<SocketPlace> {
        let more = |taken: usize| (taken < self.places_max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(SocketPlace {
            siblings: Arc::clone(self),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(sibling) = self.socket.siblings.shards.get(usize::from(self.shard.0)) {
            sibling.links.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        self.siblings.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_where_there_are_fewest_and_all_shards_share_one_limit() {
        let (siblings, _berths) = Siblings::new(NonZeroU16::new(3).unwrap(), 7).unwrap();
        let mut places: Vec<_> = (0..6)
            .map(|_| siblings.take_place(siblings.lightest()).unwrap())
            .collect();
        let shards: Vec<_> = places.iter().map(|place| place.shard.0).collect();
        assert_eq!(shards, vec![0, 1, 2, 0, 1, 2]);
        places.remove(4);
        assert_eq!(siblings.lightest(), ShardId(1));
        places.extend((0..2).map(|_| siblings.take_place(ShardId(2)).unwrap()));
        assert!(siblings.take_place(ShardId(0)).is_none(), "seven are enough");
        assert!(siblings.take_socket().is_none(), "and streams have no others");
        places.clear();
        assert!(siblings.take_place(ShardId(0)).is_some());
    }
}
