//! Messages of streams over the legs of conflux sets: put into order on the way in, given a leg on the way out.

use relay_wire::cell::BODY_BYTES;
use relay_wire::relay_cells::{DestroyReason, Format, RelayCommand, RelayMessage};

use super::{Engine, Verdict};
use crate::circuit::Circuit;
use crate::circuit::duty::{Duty, Place};
use crate::circuit::messages::{Circumstances, Deed, deed};
use crate::conflux::{Disorder, Taken};
use crate::door::carry::{Note, ShardId};
use crate::door::{Now, Outbox};
use crate::flow::Tag;
use crate::slab::{Key, Slab};
use crate::stream::{Owner, Room};

type Body = [u8; BODY_BYTES];

/// The room of a leg on this shard.
pub(super) fn room_here(circuits: &mut Slab<Circuit>, at: Place) -> Option<Room> {
    let circuit = circuits.get_mut(at.circuit)?;
    let queued = circuit.backward.len();
    Some(circuit.edge.as_mut()?.room(queued))
}

impl Engine {
    /// A message with a number: acknowledged by its own leg at once, wherever it stands in the order.
    pub(super) fn on_leg(
        &mut self,
        now: Now,
        key: Key,
        tag: &Tag,
        (message, format, body): (&RelayMessage<'_>, Format, &Body),
        outbox: &mut Outbox,
    ) -> Verdict {
        if message.command == RelayCommand::DATA {
            let verdict = self.acknowledge(key, tag, outbox);
            if !matches!(verdict, Verdict::Go) {
                return verdict;
            }
        }
        let Some(Duty::Leg(leg)) = self.circuits.get(key).map(|circuit| &circuit.duty) else {
            return Verdict::Go;
        };
        let (home, set, own) = (leg.home, leg.set, self.directory.own());
        if home == own {
            return self.arrived(now, set, self.place(key), message, outbox);
        }
        let circuit = key;
        outbox
            .carry
            .to(home)
            .cell(Note::LegReceived { set, circuit, format }, body);
        Verdict::Go
    }

    /// The same, from a leg on another shard.
    pub(super) fn leg_received(
        &mut self,
        now: Now,
        shard: ShardId,
        (set, circuit): (Key, Key),
        format: Format,
        body: &Body,
        outbox: &mut Outbox,
    ) -> Verdict {
        match RelayMessage::read(body, format) {
            Ok(message) => self.arrived(now, set, Place { shard, circuit }, &message, outbox),
            // The leg has read it before.
            Err(_) => Verdict::Go,
        }
    }

    /// Takes a message if it is its turn, and all that waited for it.
    fn arrived(&mut self, now: Now, key: Key, at: Place, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        let Some(set) = self.sets.get_mut(key) else {
            return Verdict::Go;
        };
        let before = set.order.bytes();
        match set.arrived(now.steady, at, message) {
            Ok(Some(Taken::Now)) => {}
            Ok(Some(Taken::Later)) => {
                self.held_bytes += (set.order.bytes() - before) as u64;
                return Verdict::Go;
            }
            Ok(None) => return Verdict::Go,
            Err(disorder) => return self.disorder(key, disorder),
        }
        let mut verdict = self.in_turn(now, key, message, outbox);
        // The set is looked up anew each time: what it delivers may end it.
        while matches!(verdict, Verdict::Go) {
            let Some(set) = self.sets.get_mut(key) else { break };
            let before = set.order.bytes();
            let Some(held) = set.order.next() else { break };
            self.held_bytes = self.held_bytes.saturating_sub((before - set.order.bytes()) as u64);
            verdict = self.in_turn(now, key, &held.message(), outbox);
        }
        verdict
    }

    #[cold]
    pub(super) fn disorder(&mut self, set: Key, disorder: Disorder) -> Verdict {
        let reason = disorder.reason();
        self.tally.protocol_violations += u64::from(reason == DestroyReason::TorProtocol);
        Verdict::EndSet { set, reason }
    }

    /// A message whose turn it is.
    fn in_turn(&mut self, now: Now, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        let Some(set) = self.sets.get(key) else {
            return Verdict::Go;
        };
        let services = self.settings.as_ref().map(|settings| &settings.services);
        let how = Circumstances {
            may_extend: false,
            from_client: set.legs().iter().any(|leg| leg.peer.is_none()),
            exits: services.is_some_and(|services| services.exits),
            directory: false,
            on_duty: false,
            is_leg: false,
        };
        let owner = Owner::Set(key);
        match deed(message, how) {
            Deed::Data => self.data_in_turn(now, owner, message, outbox),
            Deed::Begin => self.begin(now, owner, message, outbox),
            Deed::Stream => self.stream_message(now, owner, message, outbox),
            Deed::Answer(command, data) => self.say(owner, command, message.stream_id, &data, outbox),
            Deed::End(reason) => {
                self.tally.protocol_violations += 1;
                Verdict::EndSet { set: key, reason }
            }
            _ => Verdict::Go,
        }
    }

    /// A message of a stream for the client, over the leg whose turn it is. If it cannot go, no later one may: the set
    /// ends, and the leg is not touched again (TROVE-2026-017).
    pub(super) fn say_in_order(&mut self, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        let Some(set) = self.sets.get_mut(key) else {
            return Verdict::Go;
        };
        let broken = |reason| Verdict::EndSet { set: key, reason };
        let circuits = &mut self.circuits;
        let Ok((leg, switch)) = set.next_leg(|at| room_here(circuits, at)) else {
            return broken(DestroyReason::Internal);
        };
        leg.counts_sent();
        let (at, is_away) = (leg.at, leg.away.is_some());
        if let Some(by) = switch {
            self.tally.conflux_switches_sent += 1;
            let message = RelayMessage {
                command: RelayCommand::CONFLUX_SWITCH,
                stream_id: 0,
                data: &relay_wire::conflux::write_switch(by),
            };
            if !self.over_leg(key, at, is_away, &message, outbox) {
                return broken(DestroyReason::ResourceLimit);
            }
        }
        match self.over_leg(key, at, is_away, message, outbox) {
            true => Verdict::Go,
            false => broken(DestroyReason::ResourceLimit),
        }
    }

    /// Whether it went.
    fn over_leg(
        &mut self,
        set: Key,
        at: Place,
        is_away: bool,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> bool {
        if !is_away {
            return matches!(self.originate_counted(at.circuit, message, outbox), Verdict::Go);
        }
        let cells_max = self.cells_waiting_max;
        let leg = self.sets.get_mut(set).and_then(|set| set.leg_mut(at));
        let (Some(away), Ok((body, _))) = (leg.and_then(|leg| leg.away.as_mut()), message.write(Format::V0)) else {
            return false;
        };
        if away.waiting_cells >= cells_max {
            return false;
        }
        away.sends(message.command == RelayCommand::DATA);
        let circuit = at.circuit;
        outbox.carry.to(at.shard).cell(Note::LegSends { circuit, set }, &body);
        true
    }

    /// The same, at the leg's own shard.
    pub(super) fn leg_sends(
        &mut self,
        now: Now,
        home: ShardId,
        (key, set): (Key, Key),
        body: &Body,
        outbox: &mut Outbox,
    ) -> Verdict {
        let duty = self.circuits.get_mut(key).map(|circuit| &mut circuit.duty);
        let Some(Duty::Leg(leg)) =
            duty.filter(|duty| matches!(duty, Duty::Leg(leg) if leg.set == set && leg.home == home))
        else {
            return Verdict::Go;
        };
        let Ok(message) = RelayMessage::read(body, Format::V0) else {
            return Verdict::end(key, DestroyReason::Internal);
        };
        if message.command == RelayCommand::DATA {
            leg.taken += 1;
        }
        let verdict = self.originate_counted(key, &message, outbox);
        self.carry_out(now, verdict, outbox);
        Verdict::Go
    }

    /// A message of our own on one circuit; DATA is told to its flow control.
    pub(super) fn originate_counted(&mut self, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        let now = self.pool.now();
        let (verdict, tag) = self.originate_tagged(key, message, outbox);
        if message.command != RelayCommand::DATA {
            return verdict;
        }
        let edge = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut());
        let (Some(tag), Some(edge), Verdict::Go) = (tag, edge, &verdict) else {
            return verdict;
        };
        match edge.flow.on_data_sent(now, tag) {
            Ok(()) => Verdict::Go,
            Err(error) => self.flow_fault(Owner::Circuit(key), error),
        }
    }
}
