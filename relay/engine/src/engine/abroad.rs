//! The owner's side of a circuit whose next channel lies on another shard.

use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::relay_cells::DestroyReason;

use super::{Engine, Verdict};
use crate::circuit::extend::Target;
use crate::circuit::{Abroad, Next};
use crate::door::Outbox;
use crate::door::carry::{Note, ShardId, Visit, Wish};
use crate::slab::Key;

impl Engine {
    /// Asks another shard to take the circuit as its guest.
    pub(super) fn ask(
        &mut self,
        key: Key,
        shard: ShardId,
        target: Target,
        create: Box<[u8]>,
        outbox: &mut Outbox,
    ) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let visit = Visit(self.next_visit);
        self.next_visit += 1;
        circuit.next = Next::Asked { visit };
        let wish = Wish {
            owner: self.directory.own(),
            circuit: key,
            visit,
            target,
            create,
            afresh: false,
        };
        outbox.carry.to(shard).note(Note::Extend(Box::new(wish)));
        Verdict::Go
    }

    /// The host has a guest for us.
    pub(super) fn housed(&mut self, host: ShardId, key: Key, visit: Visit, guest: Key, outbox: &mut Outbox) {
        if let Some(circuit) = self.circuits.get_mut(key)
            && matches!(circuit.next, Next::Asked { visit: asked } if asked == visit)
        {
            circuit.next = Next::Abroad(Abroad {
                host,
                guest,
                created: false,
                away_cells: 0,
            });
            circuit.backward.count(true);
            return;
        }
        // The circuit has ended or was truncated meanwhile.
        let told = Some(DestroyReason::Destroyed);
        outbox.carry.to(host).note(Note::Leave { guest, told });
    }

    /// The next relay has answered the host.
    pub(super) fn created_abroad(
        &mut self,
        host: ShardId,
        key: Key,
        guest: Key,
        reply: &[u8],
        outbox: &mut Outbox,
    ) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        match circuit.next.visit_at(host, guest) {
            Some(abroad) => abroad.created = true,
            None => return Verdict::Go,
        }
        self.extended(key, reply, outbox)
    }

    /// A cell for the next relay: to the host. What is there or on its way is bounded like a queue of our own.
    #[inline]
    pub(super) fn carry_forward(
        abroad: &mut Abroad,
        key: Key,
        cells_max: u32,
        command: Command,
        body: &[u8; BODY_BYTES],
        outbox: &mut Outbox,
    ) -> Verdict {
        if abroad.away_cells >= cells_max {
            return Verdict::end(key, DestroyReason::ResourceLimit);
        }
        abroad.away_cells += 1;
        let guest = abroad.guest;
        outbox
            .carry
            .to(abroad.host)
            .cell(Note::Forward { guest, command }, body);
        Verdict::Go
    }

    /// The host has written some of them.
    pub(super) fn forward_written(&mut self, host: ShardId, key: Key, guest: Key, cells: u32) {
        let circuit = self.circuits.get_mut(key);
        if let Some(abroad) = circuit.and_then(|circuit| circuit.next.visit_at(host, guest)) {
            abroad.away_cells = abroad.away_cells.saturating_sub(cells);
        }
    }

    /// A cell from the next relay.
    #[inline]
    pub(super) fn backward_carried(
        &mut self,
        host: ShardId,
        (key, guest): (Key, Key),
        command: Command,
        body: &[u8; BODY_BYTES],
        outbox: &mut Outbox,
    ) -> Verdict {
        let circuit = self.circuits.get_mut(key);
        match circuit.and_then(|circuit| circuit.next.visit_at(host, guest)) {
            Some(_) => self.backward(key, command, body, outbox),
            None => Verdict::Go,
        }
    }

    /// The host has no guest any more.
    pub(super) fn ended_abroad(&mut self, host: ShardId, key: Key, guest: Key, reason: DestroyReason) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        if circuit.next.visit_at(host, guest).is_none() {
            return Verdict::Go;
        }
        circuit.next = Next::Nothing;
        Verdict::EndCircuit {
            circuit: key,
            to_prev: Some(reason),
            to_next: None,
        }
    }

    /// Takes the circuit's leg away from another shard, if it has one there.
    pub(super) fn come_home(next: &Next, told: Option<DestroyReason>, outbox: &mut Outbox) {
        // Who has only been asked learns it when it answers.
        if let Next::Abroad(Abroad { host, guest, .. }) = *next {
            outbox.carry.to(host).note(Note::Leave { guest, told });
        }
    }
}
