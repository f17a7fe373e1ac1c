//! A guest: the leg of a circuit that lives on another shard. Knows no crypto; holds what the channel here needs.

use crate::circuit::Next;
use crate::door::carry::ShardId;
use crate::mux::Queue;
use crate::slab::Key;

/// A circuit of another shard on a channel of ours. There are no more of them than the others have circuits.
pub(crate) struct Guest {
    pub(crate) owner: ShardId,
    /// The owner's name for it.
    pub(crate) circuit: Key,
    /// `Connecting`, `Creating` or `Open`.
    pub(crate) next: Next,
    /// Cells for the next relay. Together with what is on its way to us they are bounded by the owner.
    pub(crate) queue: Queue,
    /// Cells for the client that the owner has not written yet: as full as the circuit's queue there and the mailbox.
    pub(crate) away_cells: u32,
}

impl Guest {
    pub(crate) fn new(owner: ShardId, circuit: Key) -> Self {
        Self {
            owner,
            circuit,
            next: Next::Nothing,
            queue: Queue::counted(),
            away_cells: 0,
        }
    }
}
