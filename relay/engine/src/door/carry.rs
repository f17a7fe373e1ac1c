//! What shards tell each other: the word pair [`Outbox::carry`](super::Outbox) and [`Input::Carried`](super::Input).
//!
//! A circuit lives with its client-side channel. Where the channel to the next relay lies on another shard, the circuit is
//! a guest there: the owner's shard does all crypto and bookkeeping, the host's shard holds the circuit id and the queue of
//! that channel. A [`Load`] is all that one shard has to say to one other in a round of its driver.
//!
//! Loads from one shard to one other must arrive in order; between different pairs there is none.
//!
//! ```text
//! owner ──Extend──▶ home of the relay ──Extend──▶ host of a channel        (or the home is the host itself)
//! owner ◀─Housed── host        there is a guest, and this is its name
//! owner ◀─Created─ host        CREATED2 came
//! owner ◀─Cells──▶ host        bounded: what the other side has not written to its channel yet counts against the circuit
//! owner ◀─Ended─── host        or  owner ──Leave──▶ host
//! ```

use std::net::IpAddr;

use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::relay_cells::{DestroyReason, Format};

use super::ChannelId;
use crate::circuit::duty::Errand;
use crate::circuit::extend::Target;
use crate::conflux;
use crate::slab::Key;

/// The number of a shard, from 0 on without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// All that one shard has to tell one other, in order. The driver posts it as it is.
#[derive(Default)]
pub struct Load {
    pub(crate) notes: Vec<Note>,
    /// The bodies of the notes that are cells, one behind the other.
    pub(crate) bodies: Vec<u8>,
}

impl Load {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Bytes of cells in it: a driver that lets it grow too far makes the other shard wait and the cache forget.
    pub fn cell_bytes(&self) -> usize {
        self.bodies.len()
    }

    /// Memory that it takes, with the room that is kept for more.
    pub fn memory_bytes(&self) -> usize {
        self.notes.capacity() * size_of::<Note>() + self.bodies.capacity()
    }

    /// Makes it empty and keeps its memory for the next.
    pub fn clear(&mut self) {
        self.notes.clear();
        self.bodies.clear();
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    #[inline]
    pub(crate) fn cell(&mut self, note: Note, body: &[u8; BODY_BYTES]) {
        self.notes.push(note);
        self.bodies.extend_from_slice(body);
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Load of {}", self.notes.len())
    }
}

/// What a shard has to say to all others. Belongs to the outbox.
#[derive(Default)]
pub struct Carry {
    loads: Vec<Load>,
}

impl Carry {
    /// The load for `shard`, to be added to.
    #[inline]
    pub(crate) fn to(&mut self, shard: ShardId) -> &mut Load {
        let at = usize::from(shard.0);
        if self.loads.len() <= at {
            self.loads.resize_with(at + 1, Load::default);
        }
        // It has just been made long enough.
        #[expect(clippy::indexing_slicing, reason = "the line above made the place")]
        &mut self.loads[at]
    }

    /// Loads that are not empty, by shard. The driver takes them out and leaves empty ones.
    pub fn waiting(&mut self) -> impl Iterator<Item = (ShardId, &mut Load)> {
        let numbered = self.loads.iter_mut().enumerate();
        numbered
            .filter(|(_, load)| !load.is_empty())
            .map(|(shard, load)| (ShardId(shard as u16), load))
    }
}

/// Names one wish of an owner, so that an answer to an older one is not taken for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit(pub(crate) u64);

/// A circuit that is to go on to a relay.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) owner: ShardId,
    /// The owner's name for the circuit.
    pub(crate) circuit: Key,
    pub(crate) visit: Visit,
    pub(crate) target: Target,
    /// The body of CREATE2.
    pub(crate) create: Box<[u8]>,
    /// A channel that the home knew of was of no use: it is to make one itself.
    pub(crate) afresh: bool,
}

/// A channel to a relay, as its home knows it from the shard that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) rsa: RsaIdentity,
    pub(crate) ed25519: Ed25519Identity,
    pub(crate) channel: ChannelId,
    pub(crate) canonical: bool,
    pub(crate) address: IpAddr,
}

/// One thing that a shard tells another. `guest` is the host's name for the circuit, `circuit` the owner's.
#[derive(Debug)]
pub(crate) enum Note {
    /// To the home of a relay, and from there to the host of a channel to it.
    Extend(Box<Wish>),
    /// Host to owner: from now on it is called so.
    Housed { circuit: Key, visit: Visit, guest: Key },
    /// Host to owner: the next relay has answered; what CREATED2 holds.
    Created { circuit: Key, guest: Key, reply: Box<[u8]> },
    /// Host to owner: the guest is gone.
    Ended {
        circuit: Key,
        guest: Key,
        reason: DestroyReason,
    },
    /// Owner to host: the circuit has no use for its guest any more; the next relay is told this reason.
    Leave { guest: Key, told: Option<DestroyReason> },
    /// Owner to host; a body belongs to it.
    Forward { guest: Key, command: Command },
    /// Host to owner; a body belongs to it.
    Backward { circuit: Key, guest: Key, command: Command },
    /// Host to owner: so many cells are on their way to the next relay.
    ForwardWritten { circuit: Key, guest: Key, cells: u32 },
    /// Owner to host: so many cells are on their way to the client.
    BackwardWritten { guest: Key, cells: u32 },
    /// From one side of a rendezvous to the other; a body belongs to it.
    Crossed { circuit: Key, other: Key },
    /// To the other side of a rendezvous: so many of its cells are on their way.
    CrossedWritten { circuit: Key, other: Key, cells: u32 },
    /// To all others: more waits in queues than may, and most of it is not here.
    MemoryFull,
    /// From a leg of a conflux set to the set: a message of a stream. A body belongs to it, as it was decrypted.
    LegReceived { set: Key, circuit: Key, format: Format },
    /// From a set to its leg: a message of a stream. A body belongs to it, the message in format 0.
    LegSends { circuit: Key, set: Key },
    /// About conflux.
    Conflux(Box<conflux::Errand>),
    /// About onion services.
    Errand(Box<Errand>),
    /// To the home of a relay: there is a channel to it.
    ChannelOpened(Box<Listing>),
    /// To the home of a relay: it is there no more, or of no use for new circuits.
    ChannelClosed { rsa: RsaIdentity, channel: ChannelId },
}
