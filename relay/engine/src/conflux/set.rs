//! A set and its legs.

use std::time::Duration;

use relay_formats::fingerprint::RsaIdentity;
use relay_wire::conflux::{DesiredUx, Link};
use relay_wire::relay_cells::{Format, RelayMessage, V0_DATA_BYTES_MAX, V1_DATA_BYTES_MAX};

use super::order::{Disorder, Order, Taken};
use super::schedule::Algorithm;
use super::{Nonce, Rules};
use crate::circuit::duty::Place;
use crate::flow::Watermarks;
use crate::network::Parameters;
use crate::stream::{Desk, Room};

/// Cells that a leg on another shard has written without having told: below it tells at once
/// ([`Queue`](crate::mux::Queue) counts to 31).
const UNTOLD_CELLS_MAX: u32 = 30;

/// Circuits that carry the same streams.
pub(crate) struct Set {
    pub(crate) nonce: Nonce,
    pub(crate) desk: Desk,
    /// At most `legs_max`, in the order in which they came.
    pub(super) legs: Vec<Leg>,
    /// The leg that was sent on last.
    pub(super) current: Option<Place>,
    pub(super) algorithm: Algorithm,
    pub(crate) order: Order,
}

/// One circuit of a set, as the set sees it.
pub(crate) struct Leg {
    pub(crate) at: Place,
    /// Number of the last message that went over it.
    pub(super) last_sent: u64,
    /// Whether any has.
    carried: bool,
    /// Number of the last message that came over it, or of the last that the client sent before it went on here.
    last_received: u64,
    /// `None` until LINKED_ACK has come.
    pub(crate) rtt: Option<Duration>,
    /// Who is before us on it.
    pub(crate) peer: Option<RsaIdentity>,
    format: Format,
    /// Where it lives on another shard.
    pub(crate) away: Option<Away>,
}

/// What is known of a leg on another shard.
pub(crate) struct Away {
    room_told: u64,
    taken_told: u64,
    /// DATA that was sent to it.
    sent: u64,
    /// Cells that it has not written yet, those in the mailbox included.
    pub(crate) waiting_cells: u32,
    queue: Watermarks,
}

impl Away {
    /// Nothing has been sent to it yet.
    pub(crate) fn new(parameters: &Parameters, room_cells: u64) -> Self {
        Self {
            room_told: room_cells,
            taken_told: 0,
            sent: 0,
            waiting_cells: 0,
            queue: Watermarks::cells_of_circuit(parameters),
        }
    }

    /// It has told how its window is.
    pub(crate) fn told(&mut self, room_cells: u64, taken: u64) {
        (self.room_told, self.taken_told) = (room_cells, taken);
    }

    /// So many of its cells are on their way.
    pub(crate) fn written(&mut self, cells: u32) {
        self.waiting_cells = self.waiting_cells.saturating_sub(cells);
    }

    /// A message goes to it.
    pub(crate) fn sends(&mut self, is_data: bool) {
        self.waiting_cells += 1;
        self.sent += u64::from(is_data);
    }

    fn room(&mut self) -> Room {
        let waiting = self.waiting_cells.saturating_sub(UNTOLD_CELLS_MAX) as usize;
        self.queue.note(waiting);
        let under_way = self.sent.saturating_sub(self.taken_told);
        Room {
            queue: self.queue.room(waiting) as u64,
            flow: self.room_told.saturating_sub(under_way),
        }
    }
}

impl Leg {
    /// A leg that has carried nothing yet.
    pub(crate) fn new(at: Place, format: Format, peer: Option<RsaIdentity>, away: Option<Away>) -> Self {
        Self {
            at,
            last_sent: 0,
            carried: false,
            last_received: 0,
            rtt: None,
            peer,
            format,
            away,
        }
    }

    pub(super) fn room(&mut self, mut local: impl FnMut(Place) -> Option<Room>) -> Option<Room> {
        match &mut self.away {
            Some(away) => Some(away.room()),
            None => local(self.at),
        }
    }

    /// A message with a number goes over it.
    pub(crate) fn counts_sent(&mut self) {
        self.last_sent += 1;
        self.carried = true;
    }
}

/// Why a circuit must not become a leg. It ends; where the numbers are wrong, the set too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("a set has so many legs and no more")]
    TooManyLegs,
    #[error("the client has sent what we have not got")]
    DataLost,
    #[error("the client says that it has got what we have not sent")]
    Forged,
}

/// What the loss of a leg means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It was none.
    Nothing,
    /// The others go on.
    Leg,
    /// The set ends: it was the last one, or what it carried is lost.
    Set,
}

impl Set {
    /// A set without legs.
    pub(crate) fn new(nonce: Nonce, rules: Rules, desk: Desk) -> Self {
        Self {
            nonce,
            desk,
            legs: Vec::new(),
            current: None,
            algorithm: Algorithm::of(DesiredUx::NoOpinion),
            order: Order::new(rules.held_bytes_max),
        }
    }

    /// The highest number that went over any leg.
    pub(crate) fn last_sent(&self) -> u64 {
        self.legs.iter().map(|leg| leg.last_sent).max().unwrap_or(0)
    }

    fn last_received(&self) -> u64 {
        self.legs.iter().map(|leg| leg.last_received).max().unwrap_or(0)
    }

    pub(crate) fn legs(&self) -> &[Leg] {
        &self.legs
    }

    pub(crate) fn leg_mut(&mut self, at: Place) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.at == at)
    }

    /// Whether a circuit may join with this LINK. Nothing is sent twice here, so what one end lacks is lost.
    pub(crate) fn admits(&self, link: &Link, rules: Rules) -> Result<(), Refused> {
        if self.legs.len() >= rules.legs_max {
            return Err(Refused::TooManyLegs);
        }
        if link.last_seqno_sent > self.order.delivered() {
            return Err(Refused::DataLost);
        }
        if link.last_seqno_received > self.last_sent() {
            return Err(Refused::Forged);
        }
        Ok(())
    }

    /// Takes a leg. It begins with the numbers that LINKED will tell the client, which the client begins with too.
    pub(crate) fn join(&mut self, mut leg: Leg, wish: DesiredUx) {
        leg.last_sent = self.last_sent();
        leg.last_received = self.order.delivered();
        self.algorithm = Algorithm::of(wish);
        self.legs.push(leg);
    }

    /// A leg has ended. `unacknowledged`: what we sent over it may not have arrived; `taken`: DATA that it had from us.
    /// As in C tor the set ends with the leg that is in use, or whose numbers no other has reached.
    pub(crate) fn leave(&mut self, at: Place, unacknowledged: bool, taken: u64) -> Loss {
        let Some(index) = self.legs.iter().position(|leg| leg.at == at) else {
            return Loss::Nothing;
        };
        let leg = self.legs.remove(index);
        let on_its_way = leg.away.as_ref().is_some_and(|away| away.sent != taken);
        let alone = leg.last_sent > self.last_sent() || leg.last_received > self.last_received();
        let unacknowledged = unacknowledged && leg.carried;
        if self.legs.is_empty() || unacknowledged || on_its_way || alone || self.current == Some(at) {
            return Loss::Set;
        }
        Loss::Leg
    }

    /// A message with a number has come over a leg.
    pub(crate) fn arrived(
        &mut self,
        now: Duration,
        at: Place,
        message: &RelayMessage<'_>,
    ) -> Result<Option<Taken>, Disorder> {
        let Some(leg) = self.leg_mut(at) else {
            return Ok(None);
        };
        let number = leg.last_received.checked_add(1).ok_or(Disorder::TooMuch)?;
        leg.last_received = number;
        self.order.take(now, number, message).map(Some)
    }

    /// The client goes on over this leg, so much further.
    pub(crate) fn switched(&mut self, at: Place, by: u32) -> Result<(), Disorder> {
        if let Some(leg) = self.leg_mut(at) {
            leg.last_received = leg.last_received.checked_add(by.into()).ok_or(Disorder::TooMuch)?;
        }
        Ok(())
    }

    /// Bytes that a DATA may have, whichever leg it goes over.
    pub(crate) fn data_bytes_max(&self) -> usize {
        match self.legs.iter().all(|leg| leg.format == Format::V0) {
            true => V0_DATA_BYTES_MAX,
            false => V1_DATA_BYTES_MAX,
        }
    }
}
