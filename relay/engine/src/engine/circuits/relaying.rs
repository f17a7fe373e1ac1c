//! Cells on their way: on to the next relay, back to the client, or to us.

use std::convert::Infallible;

use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::relay_cells::{BadMessage, RelayCommand, RelayMessage};

use super::super::{Engine, Verdict};
use super::{Body, away_side, client_side, push_cell};
use crate::circuit::duty::Duty;
use crate::circuit::messages::{Circumstances, Deed, deed};
use crate::circuit::{Next, Seat, Side};
use crate::door::{Now, Outbox};
use crate::flow::{FlowError, Tag};
use crate::slab::Key;
use crate::stream::Owner;

impl Engine {
    /// RELAY and RELAY_EARLY: the way that nearly all cells go. No allocation, no lock, one copy.
    #[inline]
    pub(in super::super) fn relay_cell(
        &mut self,
        now: Now,
        seat: Seat,
        command: Command,
        body: &Body,
        outbox: &mut Outbox,
    ) -> Verdict {
        match seat.side {
            Side::Prev => self.forward(now, seat.circuit, command, body, outbox),
            Side::Next => self.backward(seat.circuit, command, body, outbox),
            Side::Guest => self.guest_backward(seat.circuit, command, body, outbox),
        }
    }

    #[inline]
    fn forward(&mut self, now: Now, key: Key, command: Command, body: &Body, outbox: &mut Outbox) -> Verdict {
        let cells_max = self.cells_waiting_out_max;
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        if command == Command::RELAY_EARLY {
            match circuit.early_cells_left.checked_sub(1) {
                Some(left) => circuit.early_cells_left = left,
                None => return self.violation(key),
            }
        }
        // A client that talks before its handshake is answered.
        let Some(layer) = circuit.layer.as_mut() else {
            return self.violation(key);
        };
        // Most go on: crypted on their way into the queue.
        if let Next::Open(leg) = circuit.next
            && !circuit.forward.is_full(cells_max)
        {
            let (seat, queue) = (away_side(key), &mut circuit.forward);
            let pushed = queue.push_made(&mut self.pool, cells_max, command, |room| {
                match layer.receive(command, body, room) {
                    Some(tag) => Err(Box::new((tag, *room))),
                    None => Ok(()),
                }
            });
            let pushed = match pushed {
                Ok(Err(for_us)) => {
                    let (tag, plain) = *for_us;
                    return self.message(now, key, command, tag, &plain, outbox);
                }
                Ok(Ok(())) => Ok(()),
                Err(full) => Err(full),
            };
            self.tally.cells_relayed += 1;
            return push_cell!(self, seat, queue, leg, pushed, outbox);
        }
        let mut plain = [0; BODY_BYTES];
        if let Some(tag) = layer.receive(command, body, &mut plain) {
            return self.message(now, key, command, tag, &plain, outbox);
        }
        let leg = match &mut circuit.next {
            Next::Creating(leg) | Next::Open(leg) => *leg,
            Next::Abroad(abroad) => {
                self.tally.cells_relayed += 1;
                let verdict = Self::carry_forward(abroad, key, cells_max, command, &plain, outbox);
                return match verdict {
                    Verdict::Go => Verdict::Go,
                    _ => self.queue_full(away_side(key)),
                };
            }
            // Nobody behind us, and not for us: for the other side of a rendezvous, or for nobody.
            Next::Nothing | Next::Connecting { .. } | Next::Asked { .. } => {
                return self.cross_over(key, &plain, outbox);
            }
        };
        self.tally.cells_relayed += 1;
        let (seat, queue) = (away_side(key), &mut circuit.forward);
        push_cell!(self, seat, queue, leg, command, &plain, cells_max, outbox)
    }

    #[inline]
    pub(in super::super) fn backward(
        &mut self,
        key: Key,
        command: Command,
        body: &Body,
        outbox: &mut Outbox,
    ) -> Verdict {
        let cells_max = self.cells_waiting_max;
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        // Only clients extend circuits.
        if command == Command::RELAY_EARLY {
            return self.violation(key);
        }
        let Some(layer) = circuit.layer.as_mut() else {
            return self.violation(key);
        };
        self.tally.cells_relayed += 1;
        let (leg, seat, queue) = (circuit.prev, client_side(key), &mut circuit.backward);
        // Crypted on its way into the queue.
        let pushed = queue.push_made(&mut self.pool, cells_max, command, |room| {
            layer.pass(command, body, room);
            Ok::<_, Infallible>(())
        });
        push_cell!(self, seat, queue, leg, pushed.map(|_| ()), outbox)
    }

    /// A message for us.
    #[inline(never)]
    fn message(&mut self, now: Now, key: Key, command: Command, tag: Tag, body: &Body, outbox: &mut Outbox) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let Some(layer) = circuit.layer.as_ref() else {
            return Verdict::Go;
        };
        let message = match RelayMessage::read(body, layer.format()) {
            Ok(message) => message,
            Err(BadMessage::CutShort(_) | BadMessage::UnknownCommand | BadMessage::StreamZero) => {
                return self.violation(key);
            }
        };
        // param-spec `AllowNonearlyExtend`; looked up where it matters alone.
        let any_may_extend = || self.network.parameters.clamped("AllowNonearlyExtend", 0, 0, 1) == 1;
        let services = self.settings.as_ref().map(|settings| &settings.services);
        let how = Circumstances {
            may_extend: command == Command::RELAY_EARLY
                || (message.command == RelayCommand::EXTEND2 && any_may_extend()),
            from_client: self
                .channels
                .get(circuit.prev.channel)
                .is_none_or(|channel| channel.peer().is_none()),
            exits: services.is_some_and(|services| services.exits),
            directory: services.is_some_and(|services| services.directory),
            on_duty: !circuit.duty.is_plain(),
            is_leg: matches!(circuit.duty, Duty::Leg(_)),
        };
        let format = layer.format();
        match deed(&message, how) {
            Deed::Ignore => Verdict::Go,
            Deed::Drop => {
                self.tally.drop_cells += 1;
                Verdict::Go
            }
            Deed::Data => self.data(now, key, &tag, &message, outbox),
            Deed::Begin => self.begin(now, Owner::Circuit(key), &message, outbox),
            Deed::Stream if message.stream_id == 0 => self.sendme(now, key, &message, outbox),
            // No stream of a set has windows, and no circuit that is a leg has streams of its own.
            Deed::Stream if how.is_leg => self.flow_fault(Owner::Circuit(key), FlowError::StreamSendme),
            Deed::Stream => self.stream_message(now, Owner::Circuit(key), &message, outbox),
            Deed::Extend(wish) => self.extend(now, key, &wish, outbox),
            Deed::Truncate => self.truncate(key, outbox),
            Deed::Padding(wish) => self.negotiate_circuit_padding(now, key, &wish, outbox),
            Deed::Conflux => self.conflux(now, key, &message, outbox),
            Deed::InOrder => self.on_leg(now, key, &tag, (&message, format, body), outbox),
            Deed::NoDirectory => self.directory_on_leg(now, key, message.stream_id, outbox),
            Deed::OnionService => self.onion_service(now, key, &message, how.from_client, outbox),
            Deed::Answer(answer, data) => {
                let message = RelayMessage {
                    command: answer,
                    stream_id: message.stream_id,
                    data: &data,
                };
                self.originate(key, &message, outbox)
            }
            Deed::End(_) => self.violation(key),
        }
    }
}
