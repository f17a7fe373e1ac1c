//! What waits in queues, and what happens when it is too much (C tor `cell_queues_check_size`, `circuits_handle_oom`).
//!
//! Counted when an input is through, never in the middle of one: nothing is taken away below a handler's feet
//! (TROVE-2026-043). The circuits whose cells or bytes have waited longest end first, and channels that have begun a long
//! cell, until a tenth of the limit is free. A shard that holds little leaves it to those that hold much: what waits with
//! it is young or somebody's who does no harm.

use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_wire::relay_cells::DestroyReason;

use super::{Engine, Verdict};
use crate::circuit::{Seat, Side};
use crate::door::carry::{Note, ShardId};
use crate::door::{Effect, Now, Outbox, Report};
use crate::mux::CELL_MEMORY_BYTES;
use crate::slab::Key;

/// Beginnings of cells that are no hoard: a cell of fixed length.
const CELL_BYTES: usize = 514;

/// One who may have to go.
struct Hoarder {
    waited: Duration,
    bytes: u64,
    who: Who,
}

enum Who {
    Circuit(Seat),
    Channel(Key),
    /// A conflux set: its streams' bytes, and what waits out of order. The queues are its legs'.
    Set(Key),
}

impl Engine {
    fn queued_bytes(&self) -> u64 {
        self.pool.bytes_used() + self.streams.backlog_bytes + self.unread_bytes + self.held_bytes
    }

    /// Tells the other shards how much waits here.
    fn tell_queued(&mut self) -> u64 {
        let (own, told) = (self.queued_bytes(), self.queued_bytes_told);
        let all = &self.commons.queued_bytes;
        let before = match own.checked_sub(told) {
            Some(more) => all.fetch_add(more, Ordering::Relaxed).saturating_add(more),
            None => all.fetch_sub(told - own, Ordering::Relaxed).saturating_sub(told - own),
        };
        self.queued_bytes_told = own;
        before
    }

    /// Whether a good part of what waits does so here: half of an even share.
    fn holds_much(&self, all: u64) -> bool {
        let shards = u64::from(self.directory.shards().get());
        self.queued_bytes_told.saturating_mul(2 * shards) >= all
    }

    /// Wakes the others, so that whoever holds much looks at it as well; once for each time that memory is full.
    fn tell_full(&mut self, outbox: &mut Outbox) {
        if std::mem::replace(&mut self.full_told, true) {
            return;
        }
        let own = self.directory.own();
        for shard in (0..self.directory.shards().get())
            .map(ShardId)
            .filter(|shard| *shard != own)
        {
            outbox.carry.to(shard).note(Note::MemoryFull);
        }
    }

    /// Looks whether too much waits, and makes room.
    #[inline]
    pub(super) fn mind_memory(&mut self, now: Now, outbox: &mut Outbox) {
        let engines = self.tell_queued();
        let all = engines.saturating_add(self.commons.held_bytes());
        let settings = self.settings.as_ref();
        let Some(most) = settings.and_then(|settings| settings.defences.queued_bytes_max) else {
            return;
        };
        if all < most {
            self.full_told = false;
            return;
        }
        if self.holds_much(engines) {
            self.reclaim(now, all - most / 10 * 9, outbox);
        }
        self.tell_full(outbox);
    }

    /// Ends circuits until so many bytes are free, or all that waits here is.
    #[cold]
    fn reclaim(&mut self, now: Now, bytes: u64, outbox: &mut Outbox) {
        let mut hoarders = self.hoarders(now.steady);
        hoarders.sort_by_key(|hoarder| std::cmp::Reverse(hoarder.waited));
        let (mut circuits, mut channels, mut freed) = (0, 0, 0);
        for hoarder in hoarders {
            if freed >= bytes {
                break;
            }
            freed += hoarder.bytes;
            let reason = DestroyReason::ResourceLimit;
            let verdict = match hoarder.who {
                // The reason is for the client, whoever owns the circuit.
                Who::Circuit(seat) => {
                    circuits += 1;
                    Verdict::end_seat(seat, reason)
                }
                Who::Channel(channel) => {
                    channels += 1;
                    Verdict::CloseChannel { channel, rule: None }
                }
                // Its legs are circuits, and end with it.
                Who::Set(set) => {
                    circuits += 1;
                    Verdict::EndSet { set, reason }
                }
            };
            self.carry_out(now, verdict, outbox);
        }
        if circuits + channels > 0 {
            self.tally.memory_reclaims += 1;
            self.tally.memory_circuits_ended += circuits;
            self.tally.memory_bytes_reclaimed += freed;
            let bytes = freed;
            outbox
                .effects
                .push(Effect::Report(Report::MemoryReclaimed { circuits, bytes }));
        }
        self.tell_queued();
    }

    /// All circuits, guests and channels with something that waits.
    fn hoarders(&self, now: Duration) -> Vec<Hoarder> {
        let cells = |cells: usize| cells as u64 * CELL_MEMORY_BYTES;
        let circuits = self.circuits.iter().map(|(key, circuit)| {
            let queues = [&circuit.forward, &circuit.backward];
            let oldest = queues.iter().filter_map(|queue| queue.waits(&self.pool)).max();
            let (backlog, since) = match &circuit.edge {
                Some(edge) if edge.desk.backlog_bytes > 0 => (edge.desk.backlog_bytes as u64, edge.desk.backlog_since),
                _ => (0, now),
            };
            Hoarder {
                waited: oldest.unwrap_or_default().max(now.saturating_sub(since)),
                bytes: cells(circuit.forward.len() + circuit.backward.len()) + backlog,
                who: Who::Circuit(Seat {
                    circuit: key,
                    side: Side::Prev,
                }),
            }
        });
        let guests = self.guests.iter().map(|(key, guest)| Hoarder {
            waited: guest.queue.waits(&self.pool).unwrap_or_default(),
            bytes: cells(guest.queue.len()),
            who: Who::Circuit(Seat {
                circuit: key,
                side: Side::Guest,
            }),
        });
        let long = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.unread.len() > CELL_BYTES);
        let channels = long.map(|(key, channel)| Hoarder {
            waited: now.saturating_sub(channel.unread_since),
            bytes: channel.unread.len() as u64,
            who: Who::Channel(key),
        });
        let sets = self.sets.iter().map(|(key, set)| {
            let (backlog, held) = (set.desk.backlog_bytes as u64, set.order.bytes() as u64);
            let waits = [(backlog, set.desk.backlog_since), (held, set.order.since())];
            let waited = waits
                .iter()
                .filter(|(bytes, _)| *bytes > 0)
                .map(|(_, since)| now.saturating_sub(*since));
            Hoarder {
                waited: waited.max().unwrap_or_default(),
                bytes: backlog + held,
                who: Who::Set(key),
            }
        });
        let all = circuits.chain(guests).chain(channels).chain(sets);
        all.filter(|hoarder| hoarder.bytes > 0).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let told = self.queued_bytes_told;
        self.commons.queued_bytes.fetch_sub(told, Ordering::Relaxed);
    }
}
