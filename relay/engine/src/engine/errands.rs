//! How clients and onion services find each other across shards. An errand to our own shard is run at once.

use std::collections::hash_map::Entry;

use relay_wire::onion_service::IntroduceStatus;
use relay_wire::relay_cells::{DestroyReason, RelayCommand};

use super::{Engine, Verdict};
use crate::circuit::duty::{Duty, Errand, Joined, Name, Place};
use crate::door::carry::{Note, ShardId};
use crate::door::{Now, Outbox};
use crate::slab::Key;

impl Engine {
    /// To the shard that knows where a name is.
    pub(super) fn send_home(&mut self, now: Now, name: Name, errand: Errand, outbox: &mut Outbox) {
        self.send(now, self.directory.home(name.bytes()), errand, outbox);
    }

    fn send(&mut self, now: Now, to: ShardId, errand: Errand, outbox: &mut Outbox) {
        if to == self.directory.own() {
            self.run(now, errand, outbox);
        } else {
            outbox.carry.to(to).note(Note::Errand(Box::new(errand)));
        }
    }

    /// Does what an errand says. What ends by it, ends here: nobody holds anything.
    pub(super) fn run(&mut self, now: Now, errand: Errand, outbox: &mut Outbox) {
        let verdict = match errand {
            Errand::Found { name, at } => return self.found(now, name, at, outbox),
            Errand::Lost { name, at } => {
                if let Entry::Occupied(place) = self.onion_services.entry(name)
                    && *place.get() == at
                {
                    place.remove();
                }
                return;
            }
            Errand::CookieTaken { circuit, granted } => self.cookie_taken(circuit, granted, outbox),
            Errand::Introduce {
                auth_key,
                service: None,
                client,
                data,
            } => {
                let Some(&Place { shard, circuit }) = self.onion_services.get(&Name::Service(auth_key)) else {
                    self.tally.onion_services.intro1_unknown_service += 1;
                    return self.introduced(now, client, IntroduceStatus::UnknownId, outbox);
                };
                let service = Some(circuit);
                let errand = Errand::Introduce {
                    auth_key,
                    service,
                    client,
                    data,
                };
                return self.send(now, shard, errand, outbox);
            }
            Errand::Introduce {
                service: Some(service),
                client,
                data,
                ..
            } => {
                let status = self.pass_on(now, service, &data, outbox);
                return self.introduced(now, client, status, outbox);
            }
            Errand::Introduced { circuit, status } => {
                self.tell(circuit, RelayCommand::INTRODUCE_ACK, &status.write(), outbox)
            }
            Errand::Rendezvous {
                cookie,
                client: None,
                service,
                data,
            } => {
                // Found and taken away in one step: no cookie serves twice.
                let Some(Place { shard, circuit }) = self.onion_services.remove(&Name::Client(cookie)) else {
                    self.tally.onion_services.rend1_unknown_cookie += 1;
                    return self.met(now, service, None, outbox);
                };
                let client = Some(circuit);
                let errand = Errand::Rendezvous {
                    cookie,
                    client,
                    service,
                    data,
                };
                return self.send(now, shard, errand, outbox);
            }
            Errand::Rendezvous {
                client: Some(client),
                service,
                data,
                ..
            } => {
                let place = self.join_client(now, client, service, &data, outbox);
                return self.met(now, service, place, outbox);
            }
            Errand::Met { circuit, client } => self.join_service(now, circuit, client, outbox),
            Errand::Parted { circuit, other, reason } => self.parted(circuit, other, reason),
        };
        self.carry_out(now, verdict, outbox);
    }

    /// A newer circuit of a service takes the older one's place; a cookie belongs to the first who names it.
    fn found(&mut self, now: Now, name: Name, at: Place, outbox: &mut Outbox) {
        let Name::Client(_) = name else {
            self.onion_services.insert(name, at);
            return;
        };
        let granted = match self.onion_services.entry(name) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(at);
                true
            }
        };
        let circuit = at.circuit;
        self.send(now, at.shard, Errand::CookieTaken { circuit, granted }, outbox);
    }

    fn cookie_taken(&mut self, key: Key, granted: bool, outbox: &mut Outbox) -> Verdict {
        if !granted {
            self.tally.onion_services.est_rend_duplicate_cookie += 1;
            return self.violation(key);
        }
        let verdict = self.tell(key, RelayCommand::RENDEZVOUS_ESTABLISHED, &[], outbox);
        let counts = &mut self.tally.onion_services;
        match verdict {
            Verdict::Go => counts.est_rend_success += 1,
            _ => counts.est_rend_circuit_dead += 1,
        }
        verdict
    }

    fn introduced(&mut self, now: Now, client: Place, status: IntroduceStatus, outbox: &mut Outbox) {
        let circuit = client.circuit;
        self.send(now, client.shard, Errand::Introduced { circuit, status }, outbox);
    }

    fn met(&mut self, now: Now, service: Place, client: Option<Place>, outbox: &mut Outbox) {
        let circuit = service.circuit;
        self.send(now, service.shard, Errand::Met { circuit, client }, outbox);
    }

    /// INTRODUCE2, if the service may be asked so often. Who may not ask is told that there is no such service, as C tor
    /// does.
    fn pass_on(&mut self, now: Now, service: Key, data: &[u8], outbox: &mut Outbox) -> IntroduceStatus {
        let admitted = match self.circuits.get_mut(service).map(|circuit| &mut circuit.duty) {
            Some(Duty::Introduction(introduction)) => introduction.admits(now.steady),
            _ => false,
        };
        if !admitted {
            self.tally.dos_introduce2_rejected += 1;
            self.tally.onion_services.intro1_rate_limited += 1;
            return IntroduceStatus::UnknownId;
        }
        match self.tell(service, RelayCommand::INTRODUCE2, data, outbox) {
            Verdict::Go => {
                self.tally.onion_services.intro1_success += 1;
                IntroduceStatus::Success
            }
            verdict => {
                self.tally.onion_services.intro1_circuit_dead += 1;
                self.carry_out(now, verdict, outbox);
                IntroduceStatus::CannotRelay
            }
        }
    }

    /// The client's side of a rendezvous; says where it is, if it still waits.
    fn join_client(&mut self, now: Now, key: Key, service: Place, data: &[u8], outbox: &mut Outbox) -> Option<Place> {
        let waits = |duty: &Duty| matches!(duty, Duty::Waiting(_));
        if !self.circuits.get(key).is_some_and(|circuit| waits(&circuit.duty)) {
            self.tally.onion_services.rend1_unknown_cookie += 1;
            return None;
        }
        match self.tell(key, RelayCommand::RENDEZVOUS2, data, outbox) {
            Verdict::Go => {
                self.join(key, service);
                self.tally.onion_services.rend1_success += 1;
                Some(self.place(key))
            }
            verdict => {
                self.tally.onion_services.rend1_circuit_dead += 1;
                self.carry_out(now, verdict, outbox);
                None
            }
        }
    }

    /// The service's side: its client is there, or there is none.
    fn join_service(&mut self, now: Now, key: Key, client: Option<Place>, outbox: &mut Outbox) -> Verdict {
        let joining = |duty: &Duty| matches!(duty, Duty::Joining);
        let waits = self.circuits.get(key).is_some_and(|circuit| joining(&circuit.duty));
        match (waits, client) {
            (true, Some(client)) => {
                self.join(key, client);
                Verdict::Go
            }
            (true, None) => self.violation(key),
            (false, Some(client)) => {
                let reason = DestroyReason::Destroyed;
                self.part(now, client, self.place(key), reason, outbox);
                Verdict::Go
            }
            (false, None) => Verdict::Go,
        }
    }

    fn join(&mut self, key: Key, other: Place) {
        let counts = other.shard != self.directory.own();
        if let Some(circuit) = self.circuits.get_mut(key) {
            circuit.duty = Duty::Joined(Joined { other, away_cells: 0 });
            circuit.backward.count(counts);
        }
    }

    fn part(&mut self, now: Now, from: Place, who: Place, reason: DestroyReason, outbox: &mut Outbox) {
        let errand = Errand::Parted {
            circuit: from.circuit,
            other: who,
            reason,
        };
        self.send(now, from.shard, errand, outbox);
    }

    fn parted(&mut self, key: Key, other: Place, reason: DestroyReason) -> Verdict {
        if self.joined(other.shard, key, other.circuit).is_none() {
            return Verdict::Go;
        }
        if let Some(circuit) = self.circuits.get_mut(key) {
            circuit.duty = Duty::Plain;
        }
        Verdict::EndCircuit {
            circuit: key,
            to_prev: Some(reason),
            to_next: None,
        }
    }

    /// The circuit is gone: nobody finds it any more, and who was joined to it goes too.
    pub(super) fn end_duty(
        &mut self,
        now: Now,
        key: Key,
        duty: Duty,
        reason: Option<DestroyReason>,
        outbox: &mut Outbox,
    ) {
        let at = self.place(key);
        let name = match duty {
            // What becomes of a set when it loses a leg stands in `conflux.rs`.
            Duty::Plain | Duty::Joining | Duty::Linking(_) | Duty::Leg(_) => return,
            Duty::Introduction(introduction) => Name::Service(introduction.auth_key),
            Duty::Waiting(cookie) => Name::Client(cookie),
            Duty::Joined(joined) => {
                let reason = reason.unwrap_or(DestroyReason::Destroyed);
                return self.part(now, joined.other, at, reason, outbox);
            }
        };
        self.send_home(now, name, Errand::Lost { name, at }, outbox);
    }
}
