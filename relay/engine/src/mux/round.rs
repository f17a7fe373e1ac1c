//! Whose turn it is on a channel.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use relay_wire::cell::CircIdWidth;

use super::favour::{Favour, Worth};
use super::pool::Pool;
use super::queue::{Queue, TOLD_CELLS};

/// Whose turn it is on a channel: circuits with waiting cells, the one that has sent least of late first (C tor's
/// `circuitmux_ewma.c`). `S` names a queue.
pub(crate) struct Round<S> {
    pub(super) waiting: BinaryHeap<Waiting<S>>,
    /// Counted queues that cells have left; each once between two visits of [`Round::take_untold`].
    untold: Vec<S>,
    /// Entries whose circuit is gone; they go when they are the greater part.
    stale: usize,
    /// The age in which the entries' figures are given.
    age: u32,
    /// Counts entries, so that among equals the one that came first has its turn first.
    arrivals: u64,
}

/// So many cells a circuit may be ahead of the next one before it gives way: short enough for a ping, long enough to spare the
/// heap (our own number).
const LEAD_CELLS: f64 = 8.0;

impl<S: Copy + PartialEq> Round<S> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: BinaryHeap::new(),
            untold: Vec::new(),
            stale: 0,
            age: 0,
            arrivals: 0,
        }
    }

    /// Counted queues that enough cells have left for the other shard to be told.
    pub(crate) fn take_untold(&mut self) -> Option<S> {
        self.untold.pop()
    }

    pub(crate) fn enter(&mut self, seat: S, favour: Favour) {
        self.arrivals += 1;
        self.waiting.push(Waiting {
            sent: favour.in_age(self.age),
            arrival: self.arrivals,
            seat,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out a queue that lives on but is to be served elsewhere.
    pub(crate) fn expel(&mut self, seat: S) {
        self.waiting.retain(|waiting| waiting.seat != seat);
    }

    /// Notes that a queue which stood in the round is gone. `lives` tells which still are there.
    pub(crate) fn left(&mut self, mut lives: impl FnMut(&S) -> bool) {
        self.stale += 1;
        if self.stale > 32 + self.waiting.len() / 2 {
            self.waiting.retain(|waiting| lives(&waiting.seat));
            self.stale = 0;
        }
    }

    /// Appends cells to `out`, which takes `bytes_max` in all.
    pub(crate) fn serve(
        &mut self,
        pool: &mut Pool,
        queues: &mut impl Queues<S>,
        out: &mut Vec<u8>,
        bytes_max: usize,
        (width, worth): (CircIdWidth, Worth),
    ) -> u64 {
        self.grow_older(worth.age);
        let mut cells = 0;
        while out.len() + width.cell_bytes() <= bytes_max {
            let Some(Waiting { sent, seat, .. }) = self.waiting.pop() else {
                break;
            };
            let Some((queue, circ_id)) = queues.queue(seat) else {
                self.stale = self.stale.saturating_sub(1);
                continue;
            };
            let next = self.waiting.peek().map_or(f64::INFINITY, |next| next.sent);
            let (mut sent, gives_way) = (sent, next + LEAD_CELLS * worth.cell);
            while out.len() + width.cell_bytes() <= bytes_max
                && sent < gives_way
                && queue.pop_into(pool, out, width, circ_id)
            {
                sent += worth.cell;
                cells += 1;
                if queue.counted {
                    queue.untold += 1;
                    // Only here it becomes that many, so the name is noted once.
                    if queue.untold == TOLD_CELLS {
                        self.untold.push(seat);
                    }
                }
            }
            queue.favour = Favour { sent, age: worth.age };
            queue.in_round = queue.length > 0;
            if queue.in_round {
                let favour = queue.favour;
                self.enter(seat, favour);
            }
        }
        cells
    }

    /// All figures in the terms of a new age.
    fn grow_older(&mut self, age: u32) {
        if age == self.age {
            return;
        }
        let from = self.age;
        self.age = age;
        let entries = std::mem::take(&mut self.waiting).into_iter();
        let renewed = entries.map(|waiting| Waiting {
            sent: Favour {
                sent: waiting.sent,
                age: from,
            }
            .in_age(age),
            ..waiting
        });
        self.waiting = renewed.collect();
    }
}

/// A queue that waits for its turn.
pub(super) struct Waiting<S> {
    sent: f64,
    arrival: u64,
    seat: S,
}

impl<S> Ord for Waiting<S> {
    /// The greatest is served first.
    fn cmp(&self, other: &Self) -> Ordering {
        let least = other.sent.total_cmp(&self.sent);
        least.then(other.arrival.cmp(&self.arrival))
    }
}

impl<S> PartialOrd for Waiting<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> PartialEq for Waiting<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<S> Eq for Waiting<S> {}

/// Where a round finds the queues that stand in it.
pub(crate) trait Queues<S> {
    /// The queue behind a name and the circuit id that its cells get; none for the name of a dead circuit.
    fn queue(&mut self, seat: S) -> Option<(&mut Queue, u32)>;
}
