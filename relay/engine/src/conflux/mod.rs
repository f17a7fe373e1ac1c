//! Conflux, the exit's side: several circuits of one client that carry one set of streams (proposal 329; tor-spec,
//! "Conflux"; C tor `conflux.c`, `conflux_pool.c`).
//!
//! A [`Set`] owns its streams' [`Desk`] and what has come out of order; a leg is a circuit that ends here and keeps its
//! crypto, its queue and its own flow control. Messages of streams have sequence numbers, which nobody sends: each end
//! counts what comes on a leg, and SWITCH says how far the sender has got on others.
//!
//! ```text
//! circuit:  Plain --LINK--> Linking --the set takes it--> Leg      (never back)
//! client ──leg A── 1 2 3 ─────────── 8 9 ─▶ Order ─▶ streams of the set
//!        ──leg B── SWITCH(3) 4 5 6 7 ────▶
//! ```
//!
//! Legs come over different channels and so may live on different shards; the set lives at the home of its nonce, and
//! [`Errand`] is what legs and set tell each other. Knows no cell, no crypto and no engine.

mod order;
mod schedule;
mod set;

#[cfg(test)]
use order::Order;
pub(crate) use order::{Disorder, Taken};
pub(crate) use set::{Away, Leg, Loss, Refused, Set};

use std::time::Duration;

use relay_formats::fingerprint::RsaIdentity;
use relay_wire::conflux::{Link, NONCE_BYTES};
use relay_wire::relay_cells::{DestroyReason, Format};
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use crate::circuit::duty::Place;
use crate::door::carry::ShardId;
use crate::flow::congestion_control_enabled;
use crate::network::Parameters;
use crate::slab::Key;

/// Bytes that may wait out of order in one set: 30,000 cells, six times the window at which slow start ends
/// (`cc_ss_max`). Ours; C tor has `cfx_max_oooq_bytes`, which is 2 GiB unless the consensus says less.
pub(crate) const HELD_BYTES_MAX: i32 = 16 * 1024 * 1024;

/// The least that the consensus may make of it: the smallest window.
const HELD_BYTES_MIN: i32 = 64 * 1024;

/// A set's name. Compared in constant time: whoever knows it may join (TROVE-2026-004 compared too little of it).
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct Nonce(pub(crate) [u8; NONCE_BYTES]);

impl PartialEq for Nonce {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Nonce {}

impl std::hash::Hash for Nonce {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// What the consensus says of conflux (param-spec, "Conflux"). `cfx_send_pct` and `cfx_drain_pct` slow down an algorithm
/// that C tor's exits do not run, and ours neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Whether circuits may be linked, unless torrc says something else.
    enabled: bool,
    /// Not without congestion control.
    possible: bool,
    pub(crate) legs_max: usize,
    pub(crate) held_bytes_max: usize,
}

impl Rules {
    pub(crate) fn read(parameters: &Parameters) -> Self {
        let held = parameters.clamped("cfx_max_oooq_bytes", HELD_BYTES_MAX, HELD_BYTES_MIN, HELD_BYTES_MAX);
        Self {
            enabled: parameters.clamped("cfx_enabled", 1, 0, 1) == 1,
            possible: congestion_control_enabled(parameters),
            legs_max: parameters.clamped("cfx_max_legs_set", 8, 3, 255) as usize,
            held_bytes_max: held as usize,
        }
    }
}

impl Rules {
    /// Whether circuits may be linked: torrc `ConfluxEnabled` stands above the consensus.
    pub(crate) fn allows(&self, torrc: Option<bool>) -> bool {
        self.possible && torrc.unwrap_or(self.enabled)
    }
}

/// What a circuit that is a leg knows of its set.
pub(crate) struct LegDuty {
    /// Where the set lives.
    pub(crate) home: ShardId,
    /// Its name there.
    pub(crate) set: Key,
    pub(crate) nonce: Nonce,
    /// When LINKED went; none once LINKED_ACK has come.
    pub(crate) linked_at: Option<Duration>,
    /// DATA that it has taken from a set on another shard.
    pub(crate) taken: u64,
}

/// A circuit that wants to be a leg.
pub(crate) struct Candidate {
    pub(crate) at: Place,
    pub(crate) link: Link,
    /// Who is before us; nobody we know if it is a client.
    pub(crate) peer: Option<RsaIdentity>,
    pub(crate) format: Format,
    /// DATA that its window takes.
    pub(crate) room_cells: u64,
}

/// What legs and sets tell each other, besides cells. `circuit` is the leg's name at its shard, `set` the set's.
pub(crate) enum Errand {
    /// To the home of a nonce: a circuit wants to be a leg of it.
    Link(Candidate),
    /// To a leg: it is one, and this is to be said to the client.
    Linked { circuit: Key, set: Key, told: Link },
    /// To a circuit that wants to be a leg: it must not.
    Refused { circuit: Key },
    /// To the set: the client goes on over this leg.
    Switched { set: Key, circuit: Key, by: u32 },
    /// To the set: BEGIN_DIR came on a leg, on this stream.
    DirectoryAsked { set: Key, circuit: Key, stream_id: u16 },
    /// To the set: how the leg's window is.
    Measured {
        set: Key,
        circuit: Key,
        rtt: Option<Duration>,
        room_cells: u64,
        taken: u64,
    },
    /// To the set: so many cells of the leg's queue are on their way.
    Written { set: Key, circuit: Key, cells: u32 },
    /// To the home of a nonce: the circuit is gone.
    Lost {
        nonce: Nonce,
        circuit: Key,
        /// Whether something that went over it may not have arrived.
        unacknowledged: bool,
        taken: u64,
    },
    /// To a leg: the set has ended.
    Ended {
        circuit: Key,
        set: Key,
        reason: DestroyReason,
    },
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errand of conflux")
    }
}

#[cfg(test)]
mod tests;
