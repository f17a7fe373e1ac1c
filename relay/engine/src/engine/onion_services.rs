//! Introduction and rendezvous points (rend-spec, "The introduction protocol" and "The rendezvous protocol"; C tor
//! `hs_intropoint.c`, `rendmid.c`): what messages make of circuits. How they find each other stands in `errands.rs`.

use std::collections::HashMap;

use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::onion_service::{COOKIE_BYTES, Cookie, EstablishIntro, INTRO_ESTABLISHED, Introduce1, IntroduceStatus};
use relay_wire::relay_cells::{DestroyReason, RelayCommand, RelayMessage};

use super::{Engine, Verdict};
use crate::circuit::Next;
use crate::circuit::duty::{Duty, Errand, Introduction, Joined, Name, Place};
use crate::crypto::introduction;
use crate::door::carry::{Note, ShardId};
use crate::door::{Now, Outbox};
use crate::slab::Key;

/// Services and waiting clients whose home this shard is: as many as there are circuits at most. Names are chosen by
/// strangers, so the table hashes with a key of its own.
pub(super) type OnionServices = HashMap<Name, Place>;

impl Engine {
    /// ESTABLISH_INTRO, INTRODUCE1, ESTABLISH_RENDEZVOUS, RENDEZVOUS1.
    pub(super) fn onion_service(
        &mut self,
        now: Now,
        key: Key,
        message: &RelayMessage<'_>,
        from_client: bool,
        outbox: &mut Outbox,
    ) -> Verdict {
        match message.command {
            RelayCommand::ESTABLISH_INTRO => self.establish_intro(now, key, message.data, outbox),
            RelayCommand::INTRODUCE1 => self.introduce(now, key, message.data, from_client, outbox),
            RelayCommand::ESTABLISH_RENDEZVOUS => {
                self.establish_rendezvous(now, key, message.data, from_client, outbox)
            }
            _ => self.rendezvous(now, key, message.data, outbox),
        }
    }

    /// Whether the circuit ends here and has no duty yet.
    pub(super) fn is_free(&self, key: Key) -> bool {
        let circuit = self.circuits.get(key);
        circuit.is_some_and(|circuit| circuit.duty.is_plain() && matches!(circuit.next, Next::Nothing))
    }

    /// A service wants to be introduced over this circuit. A newer circuit for the same key takes the older one's place.
    fn establish_intro(&mut self, now: Now, key: Key, data: &[u8], outbox: &mut Outbox) -> Verdict {
        let free = self.is_free(key);
        let wish = EstablishIntro::read(data);
        let counts = &mut self.tally.onion_services;
        let (Some(circuit), Ok(wish), true) = (self.circuits.get_mut(key), wish, free) else {
            match free {
                true => counts.est_intro_malformed += 1,
                false => counts.est_intro_unsuitable_circuit += 1,
            }
            return self.violation(key);
        };
        if !introduction::is_proven(&wish, &circuit.nonce) {
            counts.est_intro_malformed += 1;
            return self.violation(key);
        }
        let introduction = Introduction::new(now.steady, &wish, &self.network.parameters);
        circuit.duty = Duty::Introduction(Box::new(introduction));
        let (name, at) = (Name::Service(wish.auth_key), self.place(key));
        self.send_home(now, name, Errand::Found { name, at }, outbox);
        let verdict = self.tell(key, RelayCommand::INTRO_ESTABLISHED, &INTRO_ESTABLISHED, outbox);
        let counts = &mut self.tally.onion_services;
        match verdict {
            Verdict::Go => counts.est_intro_success += 1,
            _ => counts.est_intro_circuit_dead += 1,
        }
        verdict
    }

    /// A client wants to be introduced to a service. It may ask once on a circuit, and not from one hop away.
    fn introduce(&mut self, now: Now, key: Key, data: &[u8], from_client: bool, outbox: &mut Outbox) -> Verdict {
        let (free, whole) = (self.is_free(key), data.len() >= COOKIE_BYTES);
        let counts = &mut self.tally.onion_services;
        let (Some(circuit), true) = (self.circuits.get_mut(key), free && !from_client && whole) else {
            match (whole, free) {
                (false, _) => counts.intro1_malformed += 1,
                (true, false) => counts.intro1_circuit_reused += 1,
                (true, true) => counts.intro1_single_hop += 1,
            }
            return self.violation(key);
        };
        if std::mem::replace(&mut circuit.introduced, true) {
            counts.intro1_circuit_reused += 1;
            return self.violation(key);
        }
        let Ok(Introduce1 { auth_key }) = Introduce1::read(data) else {
            counts.intro1_malformed += 1;
            let status = IntroduceStatus::BadFormat.write();
            return self.tell(key, RelayCommand::INTRODUCE_ACK, &status, outbox);
        };
        let errand = Errand::Introduce {
            auth_key,
            service: None,
            client: self.place(key),
            data: data.into(),
        };
        self.send_home(now, Name::Service(auth_key), errand, outbox);
        Verdict::Go
    }

    /// A client will wait here for a service. From one hop away it gets no answer where the network says so.
    fn establish_rendezvous(
        &mut self,
        now: Now,
        key: Key,
        data: &[u8],
        from_client: bool,
        outbox: &mut Outbox,
    ) -> Verdict {
        let plain = self.circuits.get(key).is_some_and(|circuit| circuit.duty.is_plain());
        if plain && from_client && self.dos.refuse_single_hop_rendezvous {
            self.tally.dos_single_hop_refused += 1;
            self.tally.onion_services.est_rend_single_hop += 1;
            return Verdict::Go;
        }
        let free = self.is_free(key);
        let (Ok(cookie), Some(circuit), true) = (Cookie::try_from(data), self.circuits.get_mut(key), free) else {
            let counts = &mut self.tally.onion_services;
            match free {
                true => counts.est_rend_malformed += 1,
                false => counts.est_rend_unsuitable_circuit += 1,
            }
            return self.violation(key);
        };
        circuit.duty = Duty::Waiting(cookie);
        let (name, at) = (Name::Client(cookie), self.place(key));
        self.send_home(now, name, Errand::Found { name, at }, outbox);
        Verdict::Go
    }

    /// A service has come and wants the client that waits with this cookie.
    fn rendezvous(&mut self, now: Now, key: Key, data: &[u8], outbox: &mut Outbox) -> Verdict {
        let free = self.is_free(key);
        let cookie = data.split_first_chunk::<COOKIE_BYTES>();
        let (Some((&cookie, rest)), Some(circuit), true) = (cookie, self.circuits.get_mut(key), free) else {
            let counts = &mut self.tally.onion_services;
            match free {
                true => counts.rend1_malformed += 1,
                false => counts.rend1_unsuitable_circuit += 1,
            }
            return self.violation(key);
        };
        circuit.duty = Duty::Joining;
        let errand = Errand::Rendezvous {
            cookie,
            client: None,
            service: self.place(key),
            data: rest.into(),
        };
        self.send_home(now, Name::Client(cookie), errand, outbox);
        Verdict::Go
    }

    /// A cell that is for nobody on its circuit: to the other side of the rendezvous, as if it came from behind there.
    #[inline]
    pub(super) fn cross_over(&mut self, key: Key, body: &[u8; BODY_BYTES], outbox: &mut Outbox) -> Verdict {
        let (own, cells_max) = (self.directory.own(), self.cells_waiting_max);
        let Some(Duty::Joined(joined)) = self.circuits.get_mut(key).map(|circuit| &mut circuit.duty) else {
            return self.violation(key);
        };
        let Place { shard, circuit } = joined.other;
        if shard == own {
            return self.backward(circuit, Command::RELAY, body, outbox);
        }
        if joined.away_cells >= cells_max {
            return Verdict::end(key, DestroyReason::ResourceLimit);
        }
        joined.away_cells += 1;
        outbox.carry.to(shard).cell(Note::Crossed { circuit, other: key }, body);
        Verdict::Go
    }

    /// The same, from another shard.
    #[inline]
    pub(super) fn crossed_over(
        &mut self,
        from: ShardId,
        key: Key,
        other: Key,
        body: &[u8; BODY_BYTES],
        outbox: &mut Outbox,
    ) -> Verdict {
        match self.joined(from, key, other) {
            Some(_) => self.backward(key, Command::RELAY, body, outbox),
            None => Verdict::Go,
        }
    }

    /// The other side has written some of what went over.
    pub(super) fn crossed_written(&mut self, from: ShardId, key: Key, other: Key, cells: u32) {
        if let Some(joined) = self.joined(from, key, other) {
            joined.away_cells = joined.away_cells.saturating_sub(cells);
        }
    }

    /// The circuit's rendezvous, if it is with that one.
    pub(super) fn joined(&mut self, shard: ShardId, key: Key, other: Key) -> Option<&mut Joined> {
        let other = Place { shard, circuit: other };
        match &mut self.circuits.get_mut(key)?.duty {
            Duty::Joined(joined) if joined.other == other => Some(joined),
            _ => None,
        }
    }

    pub(super) fn place(&self, circuit: Key) -> Place {
        let shard = self.directory.own();
        Place { shard, circuit }
    }

    pub(super) fn tell(&mut self, key: Key, command: RelayCommand, data: &[u8], outbox: &mut Outbox) -> Verdict {
        let message = RelayMessage {
            command,
            stream_id: 0,
            data,
        };
        self.originate(key, &message, outbox)
    }
}
