//! Circuits become legs of conflux sets, and sets end (C tor `conflux_pool.c`). What goes over them stands in `legs.rs`.

use std::time::Duration;

use relay_wire::conflux::{DesiredUx, Link, read_switch};
use relay_wire::relay_cells::{DestroyReason, EndReason, RelayCommand, RelayMessage};

use super::{Engine, Verdict};
use crate::circuit::Circuit;
use crate::circuit::duty::{Duty, Place};
use crate::conflux::{Away, Candidate, Errand, Leg, LegDuty, Loss, Nonce, Refused, Rules, Set};
use crate::door::carry::{Note, ShardId};
use crate::door::{Now, Outbox};
use crate::flow::FlowParameters;
use crate::slab::Key;
use crate::stream::{Desk, Owner};

impl Engine {
    /// CONFLUX_LINK, CONFLUX_LINKED_ACK and CONFLUX_SWITCH.
    pub(super) fn conflux(&mut self, now: Now, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        match message.command {
            RelayCommand::CONFLUX_LINK => self.link(now, key, message.data, outbox),
            RelayCommand::CONFLUX_LINKED_ACK => self.link_acknowledged(now, key, outbox),
            _ => self.switch(now, key, message.data, outbox),
        }
    }

    /// The client wants this circuit to be a leg. It must be good for nothing else, and have congestion control.
    fn link(&mut self, now: Now, key: Key, data: &[u8], outbox: &mut Outbox) -> Verdict {
        let parameters = &self.network.parameters;
        let wanted = self.settings.as_ref().and_then(|settings| settings.extras.conflux);
        let free = self.is_free(key) && Rules::read(parameters).allows(wanted);
        let at = self.place(key);
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let peer = self
            .channels
            .get(circuit.prev.channel)
            .and_then(|channel| channel.peer());
        let peer = peer.map(|peer| peer.rsa());
        let edge = circuit.edge(parameters);
        // TROVE-2026-025: streams would have had two owners.
        let free = free && edge.desk.by_number.is_empty();
        let room_cells = edge.flow.room_cells();
        let (Ok(link), Some(layer), Some(_), true) =
            (Link::read(data), circuit.layer.as_ref(), circuit.sendme_increment, free)
        else {
            return self.violation(key);
        };
        let format = layer.format();
        circuit.duty = Duty::Linking(Nonce(link.nonce));
        let candidate = Candidate {
            at,
            link,
            peer,
            format,
            room_cells,
        };
        let home = self.directory.home(&link.nonce);
        self.tell_conflux(now, home, Errand::Link(candidate), outbox);
        Verdict::Go
    }

    /// The client has LINKED: the time that took is the leg's first measurement.
    fn link_acknowledged(&mut self, now: Now, key: Key, outbox: &mut Outbox) -> Verdict {
        let Some(Duty::Leg(leg)) = self.circuits.get_mut(key).map(|circuit| &mut circuit.duty) else {
            return self.violation(key);
        };
        if let Some(linked_at) = leg.linked_at.take() {
            let rtt = now.steady.saturating_sub(linked_at).max(Duration::from_micros(1));
            self.leg_measured(now, key, Some(rtt), outbox);
        }
        Verdict::Go
    }

    fn switch(&mut self, now: Now, key: Key, data: &[u8], outbox: &mut Outbox) -> Verdict {
        let duty = self.circuits.get(key).map(|circuit| &circuit.duty);
        let (Some(Duty::Leg(leg)), Ok(by)) = (duty, read_switch(data)) else {
            return self.violation(key);
        };
        let (home, set, circuit) = (leg.home, leg.set, key);
        self.tell_conflux(now, home, Errand::Switched { set, circuit, by }, outbox);
        Verdict::Go
    }

    /// Tells the set how a leg's window is, and how long its round trip takes if that is known.
    pub(super) fn leg_measured(&mut self, now: Now, key: Key, rtt: Option<Duration>, outbox: &mut Outbox) {
        let Some(circuit) = self.circuits.get(key) else { return };
        let (Duty::Leg(leg), Some(edge)) = (&circuit.duty, &circuit.edge) else {
            return;
        };
        let errand = Errand::Measured {
            set: leg.set,
            circuit: key,
            rtt,
            room_cells: edge.flow.room_cells(),
            taken: leg.taken,
        };
        self.tell_conflux(now, leg.home, errand, outbox);
    }

    /// BEGIN_DIR on a leg (TROVE-2026-008). Its END has a number, as everything that the set says of streams.
    pub(super) fn directory_on_leg(&mut self, now: Now, key: Key, stream_id: u16, outbox: &mut Outbox) -> Verdict {
        if let Some(Duty::Leg(leg)) = self.circuits.get(key).map(|circuit| &circuit.duty) {
            let (home, set, circuit) = (leg.home, leg.set, key);
            let errand = Errand::DirectoryAsked {
                set,
                circuit,
                stream_id,
            };
            self.tell_conflux(now, home, errand, outbox);
        }
        Verdict::Go
    }

    /// A circuit ends: if it is a leg, or wants to be one, its set learns that.
    pub(super) fn lose_leg(&mut self, now: Now, key: Key, circuit: &mut Circuit, outbox: &mut Outbox) {
        let (home, nonce, taken) = match &circuit.duty {
            Duty::Linking(nonce) => (self.directory.home(&nonce.0), nonce.clone(), 0),
            Duty::Leg(leg) => (leg.home, leg.nonce.clone(), leg.taken),
            _ => return,
        };
        circuit.duty = Duty::Plain;
        let increment = circuit.sendme_increment.unwrap_or_default();
        let edge = circuit.edge.as_ref();
        // C tor looks at the window only; what still waits here is as lost.
        let unacknowledged = circuit.backward.len() > 0 || edge.is_some_and(|edge| edge.has_unacknowledged(increment));
        let errand = Errand::Lost {
            nonce,
            circuit: key,
            unacknowledged,
            taken,
        };
        self.tell_conflux(now, home, errand, outbox);
    }

    fn tell_conflux(&mut self, now: Now, to: ShardId, errand: Errand, outbox: &mut Outbox) {
        let own = self.directory.own();
        if to == own {
            self.run_conflux(now, own, errand, outbox);
        } else {
            outbox.carry.to(to).note(Note::Conflux(Box::new(errand)));
        }
    }

    /// Does what a leg or a set has to say. What ends by it, ends here: nobody holds anything.
    pub(super) fn run_conflux(&mut self, now: Now, from: ShardId, errand: Errand, outbox: &mut Outbox) {
        let leg_at = |circuit| Place { shard: from, circuit };
        let verdict = match errand {
            Errand::Link(candidate) => return self.candidate(now, candidate, outbox),
            Errand::Linked { circuit, set, told } => self.linked(now, from, circuit, set, &told, outbox),
            Errand::Refused { circuit } => self.refused(circuit),
            Errand::Switched { set, circuit, by } => {
                let found = self.sets.get_mut(set);
                match found.map(|found| found.switched(leg_at(circuit), by)) {
                    Some(Err(disorder)) => self.disorder(set, disorder),
                    Some(Ok(())) | None => Verdict::Go,
                }
            }
            Errand::DirectoryAsked {
                set,
                circuit,
                stream_id,
            } => {
                let found = self.sets.get_mut(set);
                match found.and_then(|found| found.leg_mut(leg_at(circuit))) {
                    Some(_) => self.say_end(Owner::Set(set), stream_id, EndReason::NotDirectory, outbox),
                    None => Verdict::Go,
                }
            }
            Errand::Measured {
                set,
                circuit,
                rtt,
                room_cells,
                taken,
            } => {
                let found = self.sets.get_mut(set);
                let Some(leg) = found.and_then(|found| found.leg_mut(leg_at(circuit))) else {
                    return;
                };
                leg.rtt = rtt.or(leg.rtt);
                if let Some(away) = &mut leg.away {
                    away.told(room_cells, taken);
                }
                self.serve_streams(now, Owner::Set(set), outbox)
            }
            Errand::Written { set, circuit, cells } => {
                let found = self.sets.get_mut(set);
                let leg = found.and_then(|found| found.leg_mut(leg_at(circuit)));
                let Some(away) = leg.and_then(|leg| leg.away.as_mut()) else {
                    return;
                };
                away.written(cells);
                self.serve_streams(now, Owner::Set(set), outbox)
            }
            Errand::Lost {
                nonce,
                circuit,
                unacknowledged,
                taken,
            } => self.leg_lost(now, leg_at(circuit), &nonce, (unacknowledged, taken), outbox),
            Errand::Ended { circuit, set, reason } => self.ended_with_set(from, circuit, set, reason),
        };
        self.carry_out(now, verdict, outbox);
    }

    /// A circuit wants to be a leg of a set whose home is here; the first makes it.
    fn candidate(&mut self, now: Now, candidate: Candidate, outbox: &mut Outbox) {
        let Candidate { at, link, .. } = candidate;
        let parameters = &self.network.parameters;
        let rules = Rules::read(parameters);
        let nonce = Nonce(link.nonce);
        let key = match self.set_of.get(&nonce) {
            Some(key) => *key,
            None => {
                let desk = Desk::new(Some(FlowParameters::read(parameters)));
                let key = self.sets.insert(Set::new(nonce.clone(), rules, desk));
                self.set_of.insert(nonce, key);
                key
            }
        };
        let Some(set) = self.sets.get_mut(key) else { return };
        let (shard, circuit) = (at.shard, at.circuit);
        if let Err(refused) = set.admits(&link, rules) {
            let ends = set.legs().is_empty() || refused != Refused::TooManyLegs;
            self.tell_conflux(now, shard, Errand::Refused { circuit }, outbox);
            if ends {
                self.end_set(now, key, DestroyReason::TorProtocol, outbox);
            }
            return;
        }
        // An exit wants to be sent to over the fastest leg only: it keeps as little out of order as can be.
        let told = Link {
            nonce: link.nonce,
            last_seqno_sent: set.last_sent(),
            last_seqno_received: set.order.delivered(),
            desired_ux: DesiredUx::MinLatency,
        };
        let away = (shard != self.directory.own()).then(|| Away::new(parameters, candidate.room_cells));
        set.join(Leg::new(at, candidate.format, candidate.peer, away), link.desired_ux);
        self.tally.conflux_legs_linked += 1;
        let set = key;
        self.tell_conflux(now, shard, Errand::Linked { circuit, set, told }, outbox);
    }

    /// The circuit is a leg now; messages of streams may come on it as soon as the client knows.
    fn linked(&mut self, now: Now, home: ShardId, key: Key, set: Key, told: &Link, outbox: &mut Outbox) -> Verdict {
        let own = self.directory.own();
        // Where it has ended meanwhile, the set has been told or will be.
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let Duty::Linking(nonce) = &circuit.duty else {
            return Verdict::Go;
        };
        let nonce = nonce.clone();
        circuit.duty = Duty::Leg(LegDuty {
            home,
            set,
            nonce,
            linked_at: Some(now.steady),
            taken: 0,
        });
        circuit.backward.count(home != own);
        self.tell(key, RelayCommand::CONFLUX_LINKED, &told.write(), outbox)
    }

    fn refused(&mut self, key: Key) -> Verdict {
        match self.circuits.get_mut(key) {
            Some(circuit) if matches!(circuit.duty, Duty::Linking(_)) => {
                circuit.duty = Duty::Plain;
                self.violation(key)
            }
            _ => Verdict::Go,
        }
    }

    /// What a leg carried may be lost with it, and nothing is sent twice: then the set ends.
    fn leg_lost(
        &mut self,
        now: Now,
        at: Place,
        nonce: &Nonce,
        (unacknowledged, taken): (bool, u64),
        outbox: &mut Outbox,
    ) -> Verdict {
        let Some(&key) = self.set_of.get(nonce) else {
            return Verdict::Go;
        };
        let Some(set) = self.sets.get_mut(key) else {
            return Verdict::Go;
        };
        match set.leave(at, unacknowledged, taken) {
            Loss::Nothing => Verdict::Go,
            Loss::Leg => self.serve_streams(now, Owner::Set(key), outbox),
            Loss::Set => Verdict::EndSet {
                set: key,
                reason: DestroyReason::Finished,
            },
        }
    }

    fn ended_with_set(&mut self, home: ShardId, key: Key, set: Key, reason: DestroyReason) -> Verdict {
        match self.circuits.get_mut(key) {
            Some(circuit) if matches!(&circuit.duty, Duty::Leg(leg) if leg.home == home && leg.set == set) => {
                circuit.duty = Duty::Plain;
                Verdict::end(key, reason)
            }
            _ => Verdict::Go,
        }
    }

    /// Called by [`Engine::carry_out`], when nobody holds the set. It is off all tables before the first leg ends, so
    /// that nobody finds it again on the way (TROVE-2026-014, -016, -017, -026).
    pub(super) fn end_set(&mut self, now: Now, key: Key, reason: DestroyReason, outbox: &mut Outbox) {
        let Some(set) = self.sets.remove(key) else { return };
        self.set_of.remove(&set.nonce);
        self.held_bytes = self.held_bytes.saturating_sub(set.order.bytes() as u64);
        self.close_streams(&set.desk, outbox);
        for leg in set.legs() {
            let Place { shard, circuit } = leg.at;
            let set = key;
            self.tell_conflux(now, shard, Errand::Ended { circuit, set, reason }, outbox);
        }
    }
}
