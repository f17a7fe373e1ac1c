//! Circuits: made, used, ended.

use std::convert::Infallible;
use std::sync::Arc;

use rand::RngExt;
use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::create::{Create2, created2, write_created2};
use relay_wire::reader::Reader;
use relay_wire::relay_cells::{BadMessage, DestroyReason, RelayCommand, RelayMessage};

use super::{Engine, Verdict};
use crate::channel::CIRCUITS_MAX;
use crate::circuit::duty::Duty;
use crate::circuit::messages::{Circumstances, Deed, deed};
use crate::circuit::onion_queue::Turn;
use crate::circuit::{Circuit, Leg, Next, Seat, Seated, Side};
use crate::crypto::kdf_tor;
use crate::crypto::onion::{Handshake, OnionAnswer};
use crate::door::{Effect, Now, OnionRequest, Outbox, Report, Ticket};
use crate::flow::{FlowError, Tag};
use crate::mux::Queues;
use crate::slab::Key;
use crate::stream::Owner;
use crate::timers::Alarm;

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

impl Engine {
    /// CREATE_FAST and CREATE2. The checks stand in C tor's order (`command_process_create_cell`).
    pub(super) fn create(
        &mut self,
        now: Now,
        key: Key,
        circ_id: u32,
        command: Command,
        body: &[u8],
        outbox: &mut Outbox,
    ) -> Verdict {
        let Some(channel) = self.channels.get_mut(key) else {
            return Verdict::Go;
        };
        // Noted first, whatever becomes of it.
        let client = channel.peer().is_none().then(|| channel.peer_address.ip());
        let flood = client.is_some_and(|client| self.commons.addresses.refuses_circuit(now.steady, client));
        if circ_id == 0 || channel.has_circuit(circ_id) {
            return Verdict::Go;
        }
        if channel.is_choked() {
            return Verdict::CloseChannel {
                channel: key,
                rule: Some("circuits are made but no answer is read"),
            };
        }
        let refusal = if self.retiring {
            Some(DestroyReason::Hibernating)
        } else if flood || channel.circuit_count() >= CIRCUITS_MAX {
            Some(DestroyReason::ResourceLimit)
        } else if !channel.peer_may_choose(circ_id) || command == Command::CREATE {
            Some(DestroyReason::TorProtocol)
        } else {
            None
        };
        if let Some(reason) = refusal {
            channel.destroy(circ_id, reason, outbox);
            return Verdict::Go;
        }
        if let Some(report) = self.reachability(key) {
            outbox.effects.push(Effect::Report(report));
        }
        let refused = match command {
            Command::CREATE_FAST => return self.create_fast(key, circ_id, body, outbox),
            _ => self.create2(now, key, circ_id, body, outbox),
        };
        if let (Err(reason), Some(channel)) = (refused, self.channels.get_mut(key)) {
            channel.destroy(circ_id, reason, outbox);
        }
        Verdict::Go
    }

    /// A circuit that comes over a channel which someone else began to our published address shows that it works.
    fn reachability(&mut self, key: Key) -> Option<Report> {
        let advertised = self.settings.as_ref()?.advertised.as_slice();
        let channel = self.channels.get_mut(key)?;
        if channel.we_began() {
            return None;
        }
        let link = channel.link.as_mut()?;
        if link.reachability_reported {
            return None;
        }
        let address = advertised.iter().find(|ours| Some(ours.ip()) == link.sees_us_at)?;
        link.reachability_reported = true;
        Some(Report::OrPortReachable { address: *address })
    }

    fn seat_new(&mut self, key: Key, circ_id: u32) -> Key {
        let circuit = self.circuits.insert(Circuit::new(Leg { channel: key, circ_id }));
        if let Some(channel) = self.channels.get_mut(key) {
            channel.seat_circuit(circ_id, client_side(circuit));
        }
        circuit
    }

    fn create_fast(&mut self, key: Key, circ_id: u32, body: &[u8], outbox: &mut Outbox) -> Verdict {
        let Ok(client) = Reader::new(body).array() else {
            return Verdict::Go;
        };
        self.tally.onionskins_fast += 1;
        let fast = kdf_tor::answer(&client, &self.dice.random());
        let circuit = self.seat_new(key, circ_id);
        if let Some(circuit) = self.circuits.get_mut(circuit) {
            circuit.open(&fast.keys);
            circuit.made_by_create_fast = true;
        }
        self.look_for_rest();
        self.send_prev(circuit, Command::CREATED_FAST, &fast.reply, outbox)
    }

    fn create2(
        &mut self,
        now: Now,
        key: Key,
        circ_id: u32,
        body: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), DestroyReason> {
        let create = Create2::take(&mut Reader::new(body)).map_err(|_| DestroyReason::TorProtocol)?;
        let handshake = Handshake::of_number(create.handshake_type).ok_or(DestroyReason::TorProtocol)?;
        let settings = self.settings.clone().ok_or(DestroyReason::Internal)?;
        if !self.onions.has_room(key, &self.network.parameters) {
            self.note_dropped(handshake);
            return Err(DestroyReason::ResourceLimit);
        }
        let request = OnionRequest {
            handshake,
            client: create.data.to_vec(),
            settings,
            network: Arc::clone(&self.network),
            seed: self.dice.random(),
        };
        let circuit = self.seat_new(key, circ_id);
        self.onions.push(key, circuit, now.steady, request);
        self.feed_workers(now, outbox);
        Ok(())
    }

    /// Gives the workers what they can take, and ends what has waited for too long.
    pub(super) fn feed_workers(&mut self, now: Now, outbox: &mut Outbox) {
        loop {
            match self.onions.next(now.steady, &self.network.parameters) {
                Turn::Nothing => break,
                Turn::Work(ticket, circuit, request) => {
                    if self.circuits.get(circuit).is_some() {
                        match request.handshake {
                            Handshake::Ntor => self.tally.onionskins_ntor += 1,
                            Handshake::NtorV3 => self.tally.onionskins_ntor_v3 += 1,
                        }
                        outbox.effects.push(Effect::AnswerOnion { ticket, request });
                    } else {
                        self.onions.withdraw(ticket);
                    }
                }
                Turn::TooLate(circuit, handshake) => {
                    self.note_dropped(handshake);
                    self.carry_out(now, Verdict::end(circuit, DestroyReason::ResourceLimit), outbox);
                }
            }
        }
        let due = self.onions.deadline(&self.network.parameters);
        if let Some(due) = due.filter(|_| self.onion_alarm.is_none()) {
            self.onion_alarm = Some(due);
            self.timers.set(due, Alarm::OnionQueue);
        }
    }

    fn note_dropped(&mut self, handshake: Handshake) {
        self.tally.onionskins_dropped += 1;
        self.tally.onionskins_ntor_dropped += u64::from(handshake == Handshake::Ntor);
    }

    pub(super) fn onion_answered(
        &mut self,
        now: Now,
        ticket: Ticket,
        answer: Option<OnionAnswer>,
        outbox: &mut Outbox,
    ) {
        if let Some(key) = self.onions.answered(ticket, now.steady) {
            let verdict = self.open_circuit(key, answer, outbox);
            self.carry_out(now, verdict, outbox);
        }
        self.feed_workers(now, outbox);
    }

    fn open_circuit(&mut self, key: Key, answer: Option<OnionAnswer>, outbox: &mut Outbox) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let Some(answer) = answer else {
            return Verdict::end(key, DestroyReason::TorProtocol);
        };
        circuit.open(&answer.keys);
        self.tally.congestion_circuits_opened += u64::from(circuit.sendme_increment.is_some());
        self.look_for_rest();
        let mut body = Vec::with_capacity(BODY_BYTES);
        write_created2(&mut body, &answer.reply);
        self.send_prev(key, Command::CREATED2, &body, outbox)
    }

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

    /// RELAY and RELAY_EARLY: the way that nearly all cells go. No allocation, no lock, one copy.
    #[inline]
    pub(super) fn relay_cell(
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
    pub(super) fn backward(&mut self, key: Key, command: Command, body: &Body, outbox: &mut Outbox) -> Verdict {
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

    /// The client takes the circuit back to us: what lies behind ends.
    fn truncate(&mut self, key: Key, outbox: &mut Outbox) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let next = std::mem::replace(&mut circuit.next, Next::Nothing);
        circuit.forward.clear(&mut self.pool);
        circuit.forward.leaves_round();
        if circuit.duty.is_plain() {
            circuit.backward.count(false);
        }
        Self::come_home(&next, Some(DestroyReason::Destroyed), outbox);
        if let Next::Connecting { attempt, .. } = next {
            self.attempts.withdraw(attempt, away_side(key));
        }
        if let Some(leg) = next.leg() {
            // The circuit may go on over another channel: this one must not find it in its round then.
            if let Some(channel) = self.channels.get_mut(leg.channel) {
                channel.round.expel(away_side(key));
            }
            self.leave(leg, false, Some(DestroyReason::Destroyed), outbox);
        }
        let data = [DestroyReason::Requested as u8];
        let message = RelayMessage {
            command: RelayCommand::TRUNCATED,
            stream_id: 0,
            data: &data,
        };
        self.originate(key, &message, outbox)
    }

    /// CREATED2: the next relay has answered.
    pub(super) fn created(&mut self, key: Key, circ_id: u32, body: &[u8], outbox: &mut Outbox) -> Verdict {
        let Some(seat) = self.channels.get_mut(key).and_then(|channel| channel.seat(circ_id)) else {
            return Verdict::Go;
        };
        if seat.side == Side::Guest {
            return self.guest_created(seat.circuit, body, outbox);
        }
        let Some(circuit) = self.circuits.get_mut(seat.circuit) else {
            return Verdict::Go;
        };
        let (Side::Next, &Next::Creating(leg)) = (seat.side, &circuit.next) else {
            return self.violation(seat.circuit);
        };
        let Ok(handshake) = created2(body) else {
            return self.violation(seat.circuit);
        };
        circuit.next = Next::Open(leg);
        self.extended(seat.circuit, handshake, outbox)
    }

    /// Hands the client what the next relay answered.
    pub(super) fn extended(&mut self, key: Key, handshake: &[u8], outbox: &mut Outbox) -> Verdict {
        let mut data = Vec::with_capacity(BODY_BYTES);
        write_created2(&mut data, handshake);
        let message = RelayMessage {
            command: RelayCommand::EXTENDED2,
            stream_id: 0,
            data: &data,
        };
        self.originate(key, &message, outbox)
    }

    /// An answer to something that we never send.
    pub(super) fn never_asked(&mut self, key: Key, circ_id: u32) -> Verdict {
        match self.channels.get_mut(key).and_then(|channel| channel.seat(circ_id)) {
            Some(seat) if seat.side == Side::Guest => self.guest_violation(seat.circuit),
            Some(seat) => self.violation(seat.circuit),
            None => Verdict::Go,
        }
    }

    /// DESTROY: the other side is told that it ended, never why (tor#40649).
    pub(super) fn destroyed(&mut self, key: Key, circ_id: u32) -> Verdict {
        self.tally.destroy_cells += 1;
        let told = Some(DestroyReason::Destroyed);
        match self.channels.get_mut(key).and_then(|channel| channel.seat(circ_id)) {
            Some(Seat {
                circuit,
                side: Side::Prev,
            }) => Verdict::EndCircuit {
                circuit,
                to_prev: None,
                to_next: told,
            },
            Some(Seat {
                circuit,
                side: Side::Next,
            }) => Verdict::EndCircuit {
                circuit,
                to_prev: told,
                to_next: None,
            },
            Some(Seat {
                circuit,
                side: Side::Guest,
            }) => Verdict::EndGuest {
                guest: circuit,
                to_owner: told,
                to_next: None,
            },
            None => Verdict::Go,
        }
    }

    /// Called by [`Engine::carry_out`] and by the end of a channel, when nobody holds the circuit.
    pub(super) fn end_circuit(
        &mut self,
        now: Now,
        key: Key,
        to_prev: Option<DestroyReason>,
        to_next: Option<DestroyReason>,
        outbox: &mut Outbox,
    ) {
        let Some(mut circuit) = self.circuits.remove(key) else {
            return;
        };
        self.tally.congestion_circuits_closed += u64::from(circuit.sendme_increment.is_some());
        self.lose_leg(now, key, &mut circuit, outbox);
        if let Some(edge) = circuit.edge.take() {
            if let Some(vegas) = edge.flow.congestion_control() {
                let congestion = &mut self.tally.congestion;
                congestion.note_close(vegas.cwnd_cells(), vegas.in_slow_start());
            }
            self.close_streams(&edge.desk, outbox);
        }
        let duty = std::mem::take(&mut circuit.duty);
        self.end_duty(now, key, duty, to_prev.or(to_next), outbox);
        let (forward, backward) = (circuit.forward.is_in_round(), circuit.backward.is_in_round());
        circuit.forward.clear(&mut self.pool);
        circuit.backward.clear(&mut self.pool);
        self.leave(circuit.prev, backward, to_prev, outbox);
        if let Some(leg) = circuit.next.leg() {
            self.leave(leg, forward, to_next, outbox);
        }
        if let Next::Connecting { attempt, .. } = circuit.next {
            self.attempts.withdraw(attempt, away_side(key));
        }
        Self::come_home(&circuit.next, to_next, outbox);
        for leg in [Some(circuit.prev), circuit.next.leg()].into_iter().flatten() {
            if let Some(channel) = self.channels.get_mut(leg.channel) {
                channel.last_needed = now.steady;
            }
        }
    }

    /// Takes a circuit off a channel, with or without telling.
    pub(super) fn leave(&mut self, leg: Leg, in_round: bool, told: Option<DestroyReason>, outbox: &mut Outbox) {
        let Some(channel) = self.channels.get_mut(leg.channel) else {
            return;
        };
        channel.unseat_circuit(leg.circ_id);
        if in_round {
            let (circuits, guests) = (&mut self.circuits, &mut self.guests);
            let mut seated = Seated { circuits, guests };
            channel.round.left(|seat| {
                let found = seated.queue(*seat);
                found.is_some_and(|(queue, _)| queue.is_in_round())
            });
        }
        if let Some(reason) = told {
            channel.destroy(leg.circ_id, reason, outbox);
        }
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
