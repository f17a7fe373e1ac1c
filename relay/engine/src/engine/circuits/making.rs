//! How circuits begin: what the one before asks for, and what the one behind answers.

use std::sync::Arc;

use rand::RngExt;
use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::create::{Create2, created2, write_created2};
use relay_wire::reader::Reader;
use relay_wire::relay_cells::{DestroyReason, RelayCommand, RelayMessage};

use super::super::{Engine, Verdict};
use super::client_side;
use crate::channel::CIRCUITS_MAX;
use crate::circuit::onion_queue::Turn;
use crate::circuit::{Circuit, Leg, Next, Side};
use crate::crypto::kdf_tor;
use crate::crypto::onion::{Handshake, OnionAnswer};
use crate::door::{Effect, Now, OnionRequest, Outbox, Report, Ticket};
use crate::slab::Key;
use crate::timers::Alarm;

impl Engine {
    /// CREATE_FAST and CREATE2. The checks stand in C tor's order (`command_process_create_cell`).
    pub(in super::super) fn create(
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
    pub(in super::super) fn feed_workers(&mut self, now: Now, outbox: &mut Outbox) {
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

    pub(in super::super) fn onion_answered(
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

    /// CREATED2: the next relay has answered.
    pub(in super::super) fn created(&mut self, key: Key, circ_id: u32, body: &[u8], outbox: &mut Outbox) -> Verdict {
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
    pub(in super::super) fn extended(&mut self, key: Key, handshake: &[u8], outbox: &mut Outbox) -> Verdict {
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
    pub(in super::super) fn never_asked(&mut self, key: Key, circ_id: u32) -> Verdict {
        match self.channels.get_mut(key).and_then(|channel| channel.seat(circ_id)) {
            Some(seat) if seat.side == Side::Guest => self.guest_violation(seat.circuit),
            Some(seat) => self.violation(seat.circuit),
            None => Verdict::Go,
        }
    }
}
