//! How circuits end, whole or behind us.

use relay_wire::relay_cells::{DestroyReason, RelayCommand, RelayMessage};

use super::super::{Engine, Verdict};
use super::away_side;
use crate::circuit::{Leg, Next, Seat, Seated, Side};
use crate::door::{Now, Outbox};
use crate::mux::Queues;
use crate::slab::Key;

impl Engine {
    /// The client takes the circuit back to us: what lies behind ends.
    pub(super) fn truncate(&mut self, key: Key, outbox: &mut Outbox) -> Verdict {
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

    /// DESTROY: the other side is told that it ended, never why (tor#40649).
    pub(in super::super) fn destroyed(&mut self, key: Key, circ_id: u32) -> Verdict {
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
    pub(in super::super) fn end_circuit(
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
    pub(in super::super) fn leave(
        &mut self,
        leg: Leg,
        in_round: bool,
        told: Option<DestroyReason>,
        outbox: &mut Outbox,
    ) {
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
