//! The host's side of a circuit that lives on another shard.

use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::create::created2;
use relay_wire::relay_cells::DestroyReason;

use super::{Engine, Verdict};
use crate::circuit::duty::Duty;
use crate::circuit::guest::Guest;
use crate::circuit::{Abroad, Next, Seat, Side};
use crate::conflux;
use crate::door::carry::{Note, ShardId, Wish};
use crate::door::{Now, Outbox};
use crate::slab::Key;

fn seat_of(guest: Key) -> Seat {
    Seat {
        circuit: guest,
        side: Side::Guest,
    }
}

impl Engine {
    /// A circuit of another shard is to go on to a relay: over a channel of ours; by way of the relay's home; or, if that is
    /// us, over a channel that the home knows of or makes. A wish that comes back to the home ends its travels there.
    pub(super) fn wished(&mut self, now: Now, mut wish: Box<Wish>, outbox: &mut Outbox) -> Verdict {
        let channel = self.channel_to(now, &wish.target);
        let home = self.directory.home_elsewhere(&wish.target.relay.rsa_identity);
        let onward = match home {
            _ if channel.is_some() || wish.afresh => None,
            None => self.directory.host(&wish.target, wish.owner),
            Some(home) => {
                wish.afresh = true;
                Some(home)
            }
        };
        if let Some(shard) = onward {
            outbox.carry.to(shard).note(Note::Extend(wish));
            return Verdict::Go;
        }
        let Some(seat) = self.seat_for(&wish, outbox) else {
            return Verdict::Go;
        };
        match channel {
            Some(channel) => self.create_next(seat, channel, &wish.create, outbox),
            None => self.await_channel(now, seat, wish.target, wish.create, outbox),
        }
    }

    /// Makes a guest, or finds our own circuit where the wish has come back to its owner.
    fn seat_for(&mut self, wish: &Wish, outbox: &mut Outbox) -> Option<Seat> {
        if wish.owner == self.directory.own() {
            let circuit = self.circuits.get(wish.circuit)?;
            let waits = matches!(circuit.next, Next::Asked { visit } if visit == wish.visit);
            return waits.then_some(Seat {
                circuit: wish.circuit,
                side: Side::Next,
            });
        }
        let guest = self.guests.insert(Guest::new(wish.owner, wish.circuit));
        outbox.carry.to(wish.owner).note(Note::Housed {
            circuit: wish.circuit,
            visit: wish.visit,
            guest,
        });
        Some(seat_of(guest))
    }

    /// CREATED2 for a guest.
    pub(super) fn guest_created(&mut self, key: Key, body: &[u8], outbox: &mut Outbox) -> Verdict {
        let Some(guest) = self.guests.get_mut(key) else {
            return Verdict::Go;
        };
        let &Next::Creating(leg) = &guest.next else {
            return self.guest_violation(key);
        };
        let Ok(reply) = created2(body) else {
            return self.guest_violation(key);
        };
        guest.next = Next::Open(leg);
        outbox.carry.to(guest.owner).note(Note::Created {
            circuit: guest.circuit,
            guest: key,
            reply: reply.into(),
        });
        Verdict::Go
    }

    /// A cell for the next relay, crypted by the owner.
    #[inline]
    pub(super) fn forward_carried(
        &mut self,
        owner: ShardId,
        key: Key,
        command: Command,
        body: &[u8; BODY_BYTES],
        outbox: &mut Outbox,
    ) -> Verdict {
        match self.guests.get(key) {
            Some(guest) if guest.owner == owner => self.queue_next(seat_of(key), command, body, outbox),
            _ => Verdict::Go,
        }
    }

    /// A cell from the next relay, for the owner.
    #[inline]
    pub(super) fn guest_backward(
        &mut self,
        key: Key,
        command: Command,
        body: &[u8; BODY_BYTES],
        outbox: &mut Outbox,
    ) -> Verdict {
        let cells_max = self.cells_waiting_max;
        let Some(guest) = self.guests.get_mut(key) else {
            return Verdict::Go;
        };
        if guest.away_cells >= cells_max {
            return Verdict::end_seat(seat_of(key), DestroyReason::ResourceLimit);
        }
        guest.away_cells += 1;
        let circuit = guest.circuit;
        let note = Note::Backward {
            circuit,
            guest: key,
            command,
        };
        outbox.carry.to(guest.owner).cell(note, body);
        Verdict::Go
    }

    /// The owner has written some of them.
    pub(super) fn backward_written(&mut self, owner: ShardId, key: Key, cells: u32) {
        if let Some(guest) = self.guests.get_mut(key).filter(|guest| guest.owner == owner) {
            guest.away_cells = guest.away_cells.saturating_sub(cells);
        }
    }

    /// The owner has no use for its guest any more.
    pub(super) fn guest_leaves(&self, owner: ShardId, key: Key, told: Option<DestroyReason>) -> Verdict {
        match self.guests.get(key) {
            Some(guest) if guest.owner == owner => Verdict::EndGuest {
                guest: key,
                to_owner: None,
                to_next: told,
            },
            _ => Verdict::Go,
        }
    }

    #[cold]
    pub(super) fn guest_violation(&mut self, key: Key) -> Verdict {
        self.tally.protocol_violations += 1;
        Verdict::end_seat(seat_of(key), DestroyReason::TorProtocol)
    }

    /// Called by [`Engine::carry_out`] and by the end of a channel, when nobody holds the guest.
    pub(super) fn end_guest(
        &mut self,
        now: Now,
        key: Key,
        to_owner: Option<DestroyReason>,
        to_next: Option<DestroyReason>,
        outbox: &mut Outbox,
    ) {
        let Some(mut guest) = self.guests.remove(key) else {
            return;
        };
        let in_round = guest.queue.is_in_round();
        guest.queue.clear(&mut self.pool);
        if let Some(leg) = guest.next.leg() {
            self.leave(leg, in_round, to_next, outbox);
            if let Some(channel) = self.channels.get_mut(leg.channel) {
                channel.last_needed = now.steady;
            }
        }
        if let Next::Connecting { attempt, .. } = guest.next {
            self.attempts.withdraw(attempt, seat_of(key));
        }
        if let Some(reason) = to_owner {
            outbox.carry.to(guest.owner).note(Note::Ended {
                circuit: guest.circuit,
                guest: key,
                reason,
            });
        }
    }

    /// Tells other shards how many of their cells have gone out on a channel.
    pub(super) fn tell_written(&mut self, channel: Key, outbox: &mut Outbox) {
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        while let Some(seat) = channel.round.take_untold() {
            let key = seat.circuit;
            let (to, note) = match seat.side {
                Side::Next => continue,
                Side::Guest => {
                    let Some(guest) = self.guests.get_mut(key) else {
                        continue;
                    };
                    let note = Note::ForwardWritten {
                        circuit: guest.circuit,
                        guest: key,
                        cells: guest.queue.take_untold(),
                    };
                    (guest.owner, note)
                }
                Side::Prev => {
                    let Some(circuit) = self.circuits.get_mut(key) else {
                        continue;
                    };
                    let cells = circuit.backward.take_untold();
                    match (&circuit.next, &circuit.duty) {
                        (&Next::Abroad(Abroad { host, guest, .. }), _) => {
                            (host, Note::BackwardWritten { guest, cells })
                        }
                        (_, Duty::Joined(joined)) => {
                            let (circuit, other) = (joined.other.circuit, key);
                            (joined.other.shard, Note::CrossedWritten { circuit, other, cells })
                        }
                        (_, Duty::Leg(leg)) => {
                            let (set, circuit) = (leg.set, key);
                            let errand = conflux::Errand::Written { set, circuit, cells };
                            (leg.home, Note::Conflux(Box::new(errand)))
                        }
                        _ => continue,
                    }
                }
            };
            outbox.carry.to(to).note(note);
        }
    }
}
