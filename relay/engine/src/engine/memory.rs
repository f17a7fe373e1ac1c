//! What waits in queues, and what happens when it is too much (C tor `cell_queues_check_size`, `circuits_handle_oom`).
//!
//! Counted when an input is through, never in the middle of one: nothing is taken away below a handler's feet
//! (TROVE-2026-043). The circuits whose cells or bytes have waited longest end first, until a tenth of the limit is free.

use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_wire::relay_cells::DestroyReason;

use super::{Engine, Verdict};
use crate::circuit::{Seat, Side};
use crate::door::{Effect, Now, Outbox, Report};
use crate::mux::CELL_MEMORY_BYTES;

/// One who may have to go.
struct Hoarder {
    waited: Duration,
    bytes: u64,
    seat: Seat,
}

impl Engine {
    fn queued_bytes(&self) -> u64 {
        self.pool.cells_waiting() as u64 * CELL_MEMORY_BYTES + self.streams.backlog_bytes
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

    /// Looks whether too much waits, and makes room.
    #[inline]
    pub(super) fn mind_memory(&mut self, now: Now, outbox: &mut Outbox) {
        let all = self.tell_queued();
        let settings = self.settings.as_ref();
        let Some(most) = settings.and_then(|settings| settings.defences.queued_bytes_max) else {
            return;
        };
        if all >= most {
            self.reclaim(now, all - most / 10 * 9, outbox);
        }
    }

    /// Ends circuits until so many bytes are free, or all that waits here is.
    #[cold]
    fn reclaim(&mut self, now: Now, bytes: u64, outbox: &mut Outbox) {
        let mut hoarders = self.hoarders(now.steady);
        hoarders.sort_by_key(|hoarder| std::cmp::Reverse(hoarder.waited));
        let (mut circuits, mut freed) = (0, 0);
        for hoarder in hoarders {
            if freed >= bytes {
                break;
            }
            freed += hoarder.bytes;
            circuits += 1;
            let reason = DestroyReason::ResourceLimit;
            let verdict = match hoarder.seat.side {
                // The reason is for the client, whoever owns the circuit.
                Side::Guest => Verdict::end_seat(hoarder.seat, reason),
                Side::Prev | Side::Next => Verdict::end(hoarder.seat.circuit, reason),
            };
            self.carry_out(now, verdict, outbox);
        }
        if circuits > 0 {
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

    /// All circuits and guests with something that waits.
    fn hoarders(&self, now: Duration) -> Vec<Hoarder> {
        let cells = |cells: usize| cells as u64 * CELL_MEMORY_BYTES;
        let circuits = self.circuits.iter().map(|(key, circuit)| {
            let queues = [&circuit.forward, &circuit.backward];
            let oldest = queues.iter().filter_map(|queue| queue.waits(&self.pool)).max();
            let (backlog, since) = match &circuit.edge {
                Some(edge) if edge.backlog_bytes > 0 => (edge.backlog_bytes as u64, edge.backlog_since),
                _ => (0, now),
            };
            Hoarder {
                waited: oldest.unwrap_or_default().max(now.saturating_sub(since)),
                bytes: cells(circuit.forward.len() + circuit.backward.len()) + backlog,
                seat: Seat {
                    circuit: key,
                    side: Side::Prev,
                },
            }
        });
        let guests = self.guests.iter().map(|(key, guest)| Hoarder {
            waited: guest.queue.waits(&self.pool).unwrap_or_default(),
            bytes: cells(guest.queue.len()),
            seat: Seat {
                circuit: key,
                side: Side::Guest,
            },
        });
        circuits.chain(guests).filter(|hoarder| hoarder.bytes > 0).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let told = self.queued_bytes_told;
        self.commons.queued_bytes.fetch_sub(told, Ordering::Relaxed);
    }
}
