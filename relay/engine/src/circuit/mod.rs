//! A circuit at this relay: the leg towards the client, perhaps one away from it, the crypto between.
//!
//! It has one owner, the shard of its client-side channel. Everyone else holds a [`Key`], which finds nothing once the
//! circuit is gone.
//!
//! When the next channel lies on another shard, the circuit is a [`guest::Guest`] there, which holds circuit id and queue;
//! cells, crypted here, go over in `Outbox.carry`. All crypto and all bookkeeping stays with the owner, so that a cell
//! crosses one mailbox and no lock.

pub(crate) mod duty;
pub(crate) mod extend;
pub(crate) mod guest;
pub(crate) mod messages;
pub(crate) mod onion_queue;
pub(crate) mod padding;

use zeroize::Zeroizing;

use self::duty::Duty;
use crate::circuit::guest::Guest;
use crate::circuit::padding::CircuitPadding;
use crate::crypto::keys::NONCE_BYTES;
use crate::crypto::layer::Layer;
use crate::door::AttemptId;
use crate::door::carry::{ShardId, Visit};
use crate::mux::{Queue, Queues};
use crate::network::Parameters;
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
    /// Away from it, and the circuit lives on another shard: the key is a [`Guest`]'s.
    Guest,
}

/// A circuit's place on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// A circuit's, or with [`Side::Guest`] a guest's.
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
    /// Another shard has been asked.
    Asked { visit: Visit },
    /// A channel of another shard.
    Abroad(Abroad),
}

/// The leg of a circuit that is a guest on another shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abroad {
    pub(crate) host: ShardId,
    /// The host's name for it.
    pub(crate) guest: Key,
    /// Whether the next relay has answered CREATE2.
    pub(crate) created: bool,
    /// Cells that the host has not written yet, those in the mailbox included.
    pub(crate) away_cells: u32,
}

impl Next {
    /// The leg, where it is on a channel of this shard.
    pub(crate) fn leg(&self) -> Option<Leg> {
        match self {
            Self::Creating(leg) | Self::Open(leg) => Some(*leg),
            Self::Nothing | Self::Connecting { .. } | Self::Asked { .. } | Self::Abroad(_) => None,
        }
    }

    /// The visit that `host` calls `guest`, if that is where the circuit goes on.
    #[inline]
    pub(crate) fn visit_at(&mut self, host: ShardId, guest: Key) -> Option<&mut Abroad> {
        match self {
            Self::Abroad(abroad) if abroad.host == host && abroad.guest == guest => Some(abroad),
            _ => None,
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
    /// What client and relay alone know of this circuit: KH in tor-spec.
    pub(crate) nonce: Zeroizing<[u8; NONCE_BYTES]>,
    pub(crate) duty: Duty,
    /// From the first PADDING_NEGOTIATE on.
    pub(crate) padding: Option<Box<CircuitPadding>>,
    /// Whether an INTRODUCE1 has come: one is all that a client may send.
    pub(crate) introduced: bool,
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
            nonce: Zeroizing::default(),
            duty: Duty::Plain,
            padding: None,
            introduced: false,
        }
    }

    /// Its edge; made when it is first needed.
    pub(crate) fn edge(&mut self, parameters: &Parameters) -> &mut Edge {
        let (increment, fast) = (self.sendme_increment, self.made_by_create_fast);
        self.edge
            .get_or_insert_with(|| Box::new(Edge::new(parameters, increment, fast)))
    }

    /// Takes what the handshake made.
    pub(crate) fn open(&mut self, keys: &crate::crypto::keys::CircuitKeys) {
        self.layer = Some(Layer::new(&keys.relay));
        self.sendme_increment = keys.sendme_increment;
        *self.nonce = keys.nonce;
    }
}

/// Everybody who may have a seat on a channel of this shard.
pub(crate) struct Seated<'a> {
    pub(crate) circuits: &'a mut Slab<Circuit>,
    pub(crate) guests: &'a mut Slab<Guest>,
}

impl Seated<'_> {
    /// Where this seat's cells away from the client go, and the queue for them.
    pub(crate) fn next_of(&mut self, seat: Seat) -> Option<(&mut Next, &mut Queue)> {
        match seat.side {
            Side::Guest => {
                let guest = self.guests.get_mut(seat.circuit)?;
                Some((&mut guest.next, &mut guest.queue))
            }
            Side::Prev | Side::Next => {
                let circuit = self.circuits.get_mut(seat.circuit)?;
                Some((&mut circuit.next, &mut circuit.forward))
            }
        }
    }
}

impl Queues<Seat> for Seated<'_> {
    #[inline]
    fn queue(&mut self, seat: Seat) -> Option<(&mut Queue, u32)> {
        match seat.side {
            Side::Prev => {
                let circuit = self.circuits.get_mut(seat.circuit)?;
                Some((&mut circuit.backward, circuit.prev.circ_id))
            }
            Side::Next | Side::Guest => {
                let (next, queue) = self.next_of(seat)?;
                let circ_id = next.leg()?.circ_id;
                Some((queue, circ_id))
            }
        }
    }
}
