//! Cells that wait for their turn to be sent: a pool of cells, queues in it, and a fair choice among circuits.
//!
//! All queues of a shard share one [`Pool`], so that steady work allocates nothing and an idle circuit costs
//! nothing; chunks of the pool that are all free are given back.

use std::collections::VecDeque;

use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, write_header};

/// Cells that may wait on one circuit in one direction, about 1.3 MB. C tor's own default
/// (`RELAY_CIRC_CELL_QUEUE_SIZE_DEFAULT`); the parameter `circ_max_cell_queue_size` may change it.
pub(crate) const CELLS_WAITING_MAX: i32 = 2_500;

const CHUNK_CELLS: usize = 64;
/// Free chunks that are kept for the next burst: 2 MiB.
const SPARE_CHUNKS_MAX: usize = 64;
const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct WaitingCell {
    next: u32,
    command: u8,
    body: [u8; BODY_BYTES],
}

struct Chunk {
    /// One bit a cell, set while it is in use.
    used: u64,
    cells: Vec<WaitingCell>,
}

/// The memory behind all queues of a shard.
pub(crate) struct Pool {
    chunks: Vec<Option<Chunk>>,
    /// Chunks that exist and have a free cell; the last one is used first.
    roomy: Vec<u32>,
    /// Places in `chunks` without a chunk.
    vacant: Vec<u32>,
    spare_chunks: usize,
    cells_waiting: usize,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            roomy: Vec::new(),
            vacant: Vec::new(),
            spare_chunks: 0,
            cells_waiting: 0,
        }
    }

    /// Cells that wait in all queues together.
    pub(crate) fn cells_waiting(&self) -> usize {
        self.cells_waiting
    }

    fn cell(&mut self, at: u32) -> Option<&mut WaitingCell> {
        let chunk = self.chunks.get_mut(at as usize / CHUNK_CELLS)?.as_mut()?;
        chunk.cells.get_mut(at as usize % CHUNK_CELLS)
    }

    fn put(&mut self, command: Command, body: &[u8; BODY_BYTES]) -> u32 {
        let index = match self.roomy.last() {
            Some(&index) => index,
            None => self.grow(),
        };
        let cell = WaitingCell {
            next: NOBODY,
            command: command.0,
            body: *body,
        };
        let Some(chunk) = self.chunks.get_mut(index as usize).and_then(Option::as_mut) else {
            return NOBODY;
        };
        if chunk.used == 0 {
            self.spare_chunks = self.spare_chunks.saturating_sub(1);
        }
        let slot = (!chunk.used).trailing_zeros() as usize;
        match chunk.cells.get_mut(slot) {
            Some(place) => *place = cell,
            None => chunk.cells.push(cell),
        }
        chunk.used |= 1 << slot;
        if chunk.used == u64::MAX {
            self.roomy.pop();
        }
        self.cells_waiting += 1;
        index * CHUNK_CELLS as u32 + slot as u32
    }

    fn grow(&mut self) -> u32 {
        let chunk = Some(Chunk {
            used: 0,
            cells: Vec::with_capacity(CHUNK_CELLS),
        });
        let index = match self.vacant.pop() {
            Some(index) => {
                if let Some(place) = self.chunks.get_mut(index as usize) {
                    *place = chunk;
                }
                index
            }
            None => {
                self.chunks.push(chunk);
                self.chunks.len() as u32 - 1
            }
        };
        self.spare_chunks += 1;
        self.roomy.push(index);
        index
    }

    fn free(&mut self, at: u32) {
        let index = at / CHUNK_CELLS as u32;
        let Some(place) = self.chunks.get_mut(index as usize) else {
            return;
        };
        let Some(chunk) = place.as_mut() else { return };
        if chunk.used == u64::MAX {
            self.roomy.push(index);
        }
        chunk.used &= !(1 << (at as usize % CHUNK_CELLS));
        self.cells_waiting -= 1;
        if chunk.used != 0 {
            return;
        }
        self.spare_chunks += 1;
        if self.spare_chunks > SPARE_CHUNKS_MAX {
            *place = None;
            self.spare_chunks -= 1;
            self.vacant.push(index);
            self.roomy.retain(|roomy| *roomy != index);
        }
    }
}

/// Cells of one circuit in one direction.
pub(crate) struct Queue {
    first: u32,
    last: u32,
    length: u32,
    /// Whether the circuit stands in its channel's round.
    in_round: bool,
    /// Whether another shard fills it and is to be told what leaves it.
    counted: bool,
    /// Cells that have left it and are not told yet.
    untold: u32,
}

/// So many cells leave a queue before the shard that fills it is told: one TLS record's worth (our own number).
const TOLD_CELLS: u32 = 31;

/// A queue is at its limit: who reads it ignores its window, and the circuit must go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            first: NOBODY,
            last: NOBODY,
            length: 0,
            in_round: false,
            counted: false,
            untold: 0,
        }
    }

    /// A queue that another shard fills.
    pub(crate) fn counted() -> Self {
        Self {
            counted: true,
            ..Self::new()
        }
    }

    /// Says whether another shard fills it from now on.
    pub(crate) fn count(&mut self, counted: bool) {
        (self.counted, self.untold) = (counted, 0);
    }

    /// Cells that have left it since this was asked last.
    pub(crate) fn take_untold(&mut self) -> u32 {
        std::mem::take(&mut self.untold)
    }

    #[inline]
    pub(crate) fn push(
        &mut self,
        pool: &mut Pool,
        cells_max: u32,
        command: Command,
        body: &[u8; BODY_BYTES],
    ) -> Result<(), Full> {
        if self.length >= cells_max {
            return Err(Full);
        }
        let at = pool.put(command, body);
        match pool.cell(self.last) {
            Some(last) if self.length > 0 => last.next = at,
            _ => self.first = at,
        }
        self.last = at;
        self.length += 1;
        Ok(())
    }

    /// Appends the first cell to `out` as it goes over the wire.
    #[inline]
    fn pop_into(&mut self, pool: &mut Pool, out: &mut Vec<u8>, width: CircIdWidth, circ_id: u32) -> bool {
        let at = self.first;
        if self.length == 0 {
            return false;
        }
        let Some(cell) = pool.cell(at) else { return false };
        write_header(out, width, circ_id, Command(cell.command));
        out.extend_from_slice(&cell.body);
        self.first = cell.next;
        self.length -= 1;
        pool.free(at);
        true
    }

    /// Cells that wait in it.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }

    /// Drops all cells.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        while self.length > 0 {
            let at = self.first;
            let Some(cell) = pool.cell(at) else { break };
            self.first = cell.next;
            self.length -= 1;
            pool.free(at);
        }
        self.length = 0;
    }

    /// Says that the circuit must be put into its channel's round, once.
    #[inline]
    pub(crate) fn enters_round(&mut self) -> bool {
        !std::mem::replace(&mut self.in_round, true)
    }

    /// The name in the round is to be dead, though the circuit lives on.
    pub(crate) fn leaves_round(&mut self) {
        self.in_round = false;
    }

    pub(crate) fn is_in_round(&self) -> bool {
        self.in_round
    }
}

/// Whose turn it is on a channel: circuits with waiting cells, one cell each in turn. `S` names a queue.
pub(crate) struct Round<S> {
    waiting: VecDeque<S>,
    /// Counted queues that cells have left; each once between two visits of [`Round::take_untold`].
    untold: Vec<S>,
    /// Entries whose circuit is gone; they go when they are the greater part.
    stale: usize,
}

impl<S: Copy + PartialEq> Round<S> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            untold: Vec::new(),
            stale: 0,
        }
    }

    /// Counted queues that enough cells have left for the other shard to be told.
    pub(crate) fn take_untold(&mut self) -> Option<S> {
        self.untold.pop()
    }

    pub(crate) fn enter(&mut self, seat: S) {
        self.waiting.push_back(seat);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out a queue that lives on but is to be served elsewhere.
    pub(crate) fn expel(&mut self, seat: S) {
        self.waiting.retain(|waiting| *waiting != seat);
    }

    /// Notes that a queue which stood in the round is gone. `lives` tells which still are there.
    pub(crate) fn left(&mut self, lives: impl FnMut(&S) -> bool) {
        self.stale += 1;
        if self.stale > 32 + self.waiting.len() / 2 {
            self.waiting.retain(lives);
            self.stale = 0;
        }
    }

    /// Appends cells to `out`, which takes `bytes_max` in all, one of each circuit in turn.
    pub(crate) fn serve(
        &mut self,
        pool: &mut Pool,
        queues: &mut impl Queues<S>,
        out: &mut Vec<u8>,
        bytes_max: usize,
        width: CircIdWidth,
    ) -> u64 {
        let mut cells = 0;
        while out.len() + width.cell_bytes() <= bytes_max {
            let Some(seat) = self.waiting.pop_front() else { break };
            let Some((queue, circ_id)) = queues.queue(seat) else {
                self.stale = self.stale.saturating_sub(1);
                continue;
            };
            cells += u64::from(queue.pop_into(pool, out, width, circ_id));
            if queue.counted {
                queue.untold += 1;
                // Only here it becomes that many, so the name is noted once.
                if queue.untold == TOLD_CELLS {
                    self.untold.push(seat);
                }
            }
            queue.in_round = queue.length > 0;
            if queue.in_round {
                self.waiting.push_back(seat);
            }
        }
        cells
    }
}

/// Where a round finds the queues that stand in it.
pub(crate) trait Queues<S> {
    /// The queue behind a name and the circuit id that its cells get; none for the name of a dead circuit.
    fn queue(&mut self, seat: S) -> Option<(&mut Queue, u32)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(mark: u8) -> [u8; BODY_BYTES] {
        [mark; BODY_BYTES]
    }

    impl Queues<usize> for [Queue; 2] {
        fn queue(&mut self, seat: usize) -> Option<(&mut Queue, u32)> {
            self.get_mut(seat).map(|queue| (queue, seat as u32 + 1))
        }
    }

    #[test]
    fn circuits_take_turns_however_much_one_has_to_say() {
        let mut pool = Pool::new();
        let mut queues = [Queue::new(), Queue::new()];
        let mut round = Round::new();
        for (seat, marks) in [(0_usize, &[1_u8, 2, 3][..]), (1, &[9])] {
            for mark in marks {
                queues[seat].push(&mut pool, 10, Command::RELAY, &body(*mark)).unwrap();
            }
            assert!(queues[seat].enters_round());
            round.enter(seat);
        }
        let mut out = Vec::new();
        let sent = round.serve(&mut pool, &mut queues, &mut out, 3 * 514 + 100, CircIdWidth::Four);
        assert_eq!(sent, 3);
        let marks: Vec<_> = out.chunks(514).map(|cell| (cell[3], cell[5])).collect();
        assert_eq!(marks, vec![(1, 1), (2, 9), (1, 2)]);
        assert!(!queues[1].is_in_round() && queues[0].is_in_round());
        assert_eq!((queues[0].length, pool.cells_waiting()), (1, 1));
    }

    #[test]
    fn a_full_queue_takes_no_more_and_gives_its_memory_back() {
        let mut pool = Pool::new();
        let mut queue = Queue::new();
        let cells_max = (CHUNK_CELLS * (SPARE_CHUNKS_MAX + 5)) as u32;
        for _ in 0..cells_max {
            queue.push(&mut pool, cells_max, Command::RELAY, &body(1)).unwrap();
        }
        assert_eq!(queue.push(&mut pool, cells_max, Command::RELAY, &body(1)), Err(Full));
        queue.clear(&mut pool);
        assert_eq!(pool.cells_waiting(), 0);
        assert_eq!(pool.chunks.iter().flatten().count(), SPARE_CHUNKS_MAX);
        for round in 0..3_u8 {
            for _ in 0..cells_max {
                queue.push(&mut pool, cells_max, Command::RELAY, &body(round)).unwrap();
            }
            let mut out = Vec::new();
            while queue.pop_into(&mut pool, &mut out, CircIdWidth::Two, 7) {}
            assert_eq!(out.len(), cells_max as usize * 512);
            assert!(out.chunks(512).all(|cell| cell[3] == round));
        }
    }

    #[test]
    fn names_of_dead_circuits_do_not_pile_up() {
        let mut round = Round::new();
        for seat in 0..10_000 {
            round.enter(seat);
            round.left(|_| false);
        }
        assert!(round.waiting.len() < 100);
    }
}
