//! Circuits: what every part of their lives needs. Apart: how they begin, what they carry, how they end.

use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::relay_cells::{DestroyReason, RelayMessage};

use super::{Engine, Verdict};
use crate::circuit::{Seat, Seated, Side};
use crate::door::Outbox;
use crate::flow::Tag;
use crate::slab::Key;

mod ending;
mod making;
mod relaying;

type Body = [u8; BODY_BYTES];

/// Puts a cell into a queue and whoever owns it into the channel's round. The parts of the engine come one by one, because
/// the caller still holds the circuit.
macro_rules! push_cell {
    ($engine:ident, $seat:expr, $queue:expr, $leg:expr, $command:expr, $body:expr, $max:expr, $outbox:ident) => {{
        let pushed = $queue.push(&mut $engine.pool, $max, $command, $body);
        push_cell!($engine, $seat, $queue, $leg, pushed, $outbox)
    }};
    ($engine:ident, $seat:expr, $queue:expr, $leg:expr, $pushed:expr, $outbox:ident) => {{
        match $pushed {
            Ok(()) => {
                if let Some(channel) = $engine.channels.get_mut($leg.channel) {
                    if $queue.enters_round() {
                        channel.round.enter($seat, $queue.favour());
                    }
                    channel.wake($outbox);
                }
                Verdict::Go
            }
            Err(_) => $engine.queue_full($seat),
        }
    }};
}
use push_cell;

impl Engine {
    /// A cell of our own towards the client, outside relay crypto; `start` and zeros.
    fn send_prev(&mut self, key: Key, command: Command, start: &[u8], outbox: &mut Outbox) -> Verdict {
        let body = padded(start);
        let cells_max = self.cells_waiting_max;
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let leg = circuit.prev;
        let queue = &mut circuit.backward;
        push_cell!(self, client_side(key), queue, leg, command, &body, cells_max, outbox)
    }

    /// A cell of our own to the next relay, outside relay crypto.
    pub(super) fn send_next(&mut self, seat: Seat, command: Command, start: &[u8], outbox: &mut Outbox) -> Verdict {
        self.queue_next(seat, command, &padded(start), outbox)
    }

    /// A cell for the next relay, on a channel of this shard.
    #[inline]
    pub(super) fn queue_next(&mut self, seat: Seat, command: Command, body: &Body, outbox: &mut Outbox) -> Verdict {
        let cells_max = self.cells_waiting_out_max;
        let mut seated = Seated {
            circuits: &mut self.circuits,
            guests: &mut self.guests,
        };
        let Some((next, queue)) = seated.next_of(seat) else {
            return Verdict::Go;
        };
        let Some(leg) = next.leg() else {
            return Verdict::Go;
        };
        push_cell!(self, seat, queue, leg, command, body, cells_max, outbox)
    }

    /// A message of our own for the client.
    pub(super) fn originate(&mut self, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        self.originate_tagged(key, message, outbox).0
    }

    /// The same, with the tag that a SENDME for it must carry; none where nothing was sent.
    pub(super) fn originate_tagged(
        &mut self,
        key: Key,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> (Verdict, Option<Tag>) {
        let cells_max = self.cells_waiting_max;
        let Some(circuit) = self.circuits.get_mut(key) else {
            return (Verdict::Go, None);
        };
        let Some(layer) = circuit.layer.as_mut() else {
            return (Verdict::Go, None);
        };
        let (leg, seat, queue, dice) = (circuit.prev, client_side(key), &mut circuit.backward, &mut self.dice);
        // Made where it will lie: on its way there it would be copied three times.
        let pushed = queue.push_made(&mut self.pool, cells_max, Command::RELAY, |body| {
            layer.originate(message, dice, body)
        });
        let (tag, pushed) = match pushed {
            Ok(Ok(tag)) => (Some(tag), Ok(())),
            Ok(Err(_)) => return (Verdict::end(key, DestroyReason::Internal), None),
            Err(full) => (None, Err(full)),
        };
        let verdict = push_cell!(self, seat, queue, leg, pushed, outbox);
        (verdict, tag)
    }

    /// A queue is at its limit: who reads it ignores its window. Whoever made a client's queue so full, away from the client,
    /// is remembered, as that is how guards are attacked (C tor `dos_note_circ_max_outq`).
    #[cold]
    fn queue_full(&mut self, seat: Seat) -> Verdict {
        self.tally.dos_circuits_killed_max_cell += 1;
        if seat.side == Side::Next {
            self.tally.dos_circuits_killed_max_cell_outq += 1;
            let channel = self.circuits.get(seat.circuit).map(|circuit| circuit.prev.channel);
            let channel = channel.and_then(|channel| self.channels.get(channel));
            if let Some(client) = channel.filter(|channel| channel.peer().is_none()) {
                let address = client.peer_address.ip();
                self.commons.addresses.note_full_queue(self.pool.now(), address);
            }
        }
        Verdict::end_seat(seat, DestroyReason::ResourceLimit)
    }

    #[cold]
    pub(super) fn violation(&mut self, key: Key) -> Verdict {
        self.tally.protocol_violations += 1;
        Verdict::end(key, DestroyReason::TorProtocol)
    }
}

fn client_side(circuit: Key) -> Seat {
    Seat {
        circuit,
        side: Side::Prev,
    }
}

fn away_side(circuit: Key) -> Seat {
    Seat {
        circuit,
        side: Side::Next,
    }
}

fn padded(start: &[u8]) -> Body {
    let mut body = [0; BODY_BYTES];
    body.iter_mut().zip(start).for_each(|(to, from)| *to = *from);
    body
}
