//! A circuit at this relay: the leg towards the client, perhaps one away from it, the crypto between.
//!
//! It has one owner, the shard of its client-side channel. Everyone else holds a [`Key`], which finds nothing once the
//! circuit is gone.
//!
//! Several shards: when the next channel lies on another shard, its table will seat the circuit id there as a
//! foreigner (shard and circuit), and a [`Leg`] will name that shard; cells, crypted here, go over in
//! `Outbox.carry` and come in as an input with circuit id and body. All crypto and all bookkeeping stays with the
//! owner, so that a cell crosses one mailbox and no lock.

pub(crate) mod extend;
pub(crate) mod messages;
pub(crate) mod onion_queue;

use crate::crypto::layer::Layer;
use crate::door::AttemptId;
use crate::mux::{Queue, Queues};
use crate::slab::{Key, Slab};
use crate::stream::Edge;

/// RELAY_EARLY cells that a client may send over one circuit (tor-spec, "RELAY_EARLY cells").
pub(crate) const EARLY_CELLS_MAX: u8 = 8;

/// Which of a circuit's legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Towards the client.
    Prev,
    /// Away from it.
    Next,
}

/// A circuit's place on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) circuit: Key,
    pub(crate) side: Side,
}

/// Where cells of a circuit go on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) channel: Key,
    pub(crate) circ_id: u32,
}

/// What lies away from the client.
pub(crate) enum Next {
    /// Nothing: the circuit ends here.
    Nothing,
    /// A channel that is being made; the CREATE2 waits for it.
    Connecting { attempt: AttemptId, create: Box<[u8]> },
    /// A relay that has not answered CREATE2 yet.
    Creating(Leg),
    /// A relay that has.
    Open(Leg),
}

impl Next {
    pub(crate) fn leg(&self) -> Option<Leg> {
        match self {
            Self::Creating(leg) | Self::Open(leg) => Some(*leg),
            Self::Nothing | Self::Connecting { .. } => None,
        }
    }
}

/// One circuit.
pub(crate) struct Circuit {
    pub(crate) prev: Leg,
    pub(crate) next: Next,
    /// `None` while the client's handshake is being answered.
    pub(crate) layer: Option<Layer>,
    pub(crate) early_cells_left: u8,
    pub(crate) forward: Queue,
    pub(crate) backward: Queue,
    /// Flow control and streams, from the first message that needs them.
    pub(crate) edge: Option<Box<Edge>>,
    /// Cells per SENDME where congestion control was agreed.
    pub(crate) sendme_increment: Option<u8>,
    pub(crate) made_by_create_fast: bool,
}

impl Circuit {
    pub(crate) fn new(prev: Leg) -> Self {
        Self {
            prev,
            next: Next::Nothing,
            layer: None,
            early_cells_left: EARLY_CELLS_MAX,
            forward: Queue::new(),
            backward: Queue::new(),
            edge: None,
            sendme_increment: None,
            made_by_create_fast: false,
        }
    }

    /// Takes what the handshake made.
    pub(crate) fn open(&mut self, keys: &crate::crypto::keys::CircuitKeys) {
        self.layer = Some(Layer::new(&keys.relay));
        self.sendme_increment = keys.sendme_increment;
    }

    /// Whether it stands in the round of the channel on that side.
    pub(crate) fn stands_at(&self, side: Side) -> bool {
        match side {
            Side::Prev => self.backward.is_in_round(),
            Side::Next => self.forward.is_in_round(),
        }
    }
}

impl Queues<Seat> for Slab<Circuit> {
    #[inline]
    fn queue(&mut self, seat: Seat) -> Option<(&mut Queue, u32)> {
        let circuit = self.get_mut(seat.circuit)?;
        match seat.side {
            Side::Prev => Some((&mut circuit.backward, circuit.prev.circ_id)),
            Side::Next => {
                let leg = circuit.next.leg()?;
                Some((&mut circuit.forward, leg.circ_id))
            }
        }
    }
}
