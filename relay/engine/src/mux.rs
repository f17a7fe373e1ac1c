//! Cells that wait for their turn to be sent: a pool of cells, queues in it, and a fair choice among circuits.
//!
//! All queues of a shard share one [`Pool`], so that steady work allocates nothing and an idle circuit costs
//! nothing; chunks of the pool that are all free are given back.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, write_header};

/// Cells that may wait on one circuit in one direction, about 1.3 MB. C tor's own default
/// (`RELAY_CIRC_CELL_QUEUE_SIZE_DEFAULT`); the parameter `circ_max_cell_queue_size` may change it.
pub(crate) const CELLS_WAITING_MAX: i32 = 2_500;

/// What a cell in a queue costs.
pub(crate) const CELL_MEMORY_BYTES: u64 = size_of::<WaitingCell>() as u64;

/// As many as fit into 32 KiB, which allocators cut without a rest.
const CHUNK_CELLS: usize = 63;
const CHUNK_BYTES: u64 = CHUNK_CELLS as u64 * CELL_MEMORY_BYTES;
/// All of a chunk's cells in use.
const FULL: u64 = (1 << CHUNK_CELLS) - 1;
/// Free chunks that are kept for the next burst: 2 MiB.
const SPARE_CHUNKS_MAX: usize = 64;
const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct WaitingCell {
    next: u32,
    /// When it came, in milliseconds; counts round after seven weeks.
    since_ms: u32,
    command: u8,
    body: [u8; BODY_BYTES],
}

impl WaitingCell {
    const EMPTY: Self = Self {
        next: NOBODY,
        since_ms: 0,
        command: 0,
        body: [0; BODY_BYTES],
    };
}

struct Chunk {
    /// One bit a cell, the lowest first, set while it is in use.
    used: u64,
    /// Its place in `roomy`, while it is there.
    roomy_at: usize,
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
    /// Chunks with a cell in use.
    chunks_used: usize,
    cells_waiting: usize,
    now: Duration,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            roomy: Vec::new(),
            vacant: Vec::new(),
            spare_chunks: 0,
            chunks_used: 0,
            cells_waiting: 0,
            now: Duration::ZERO,
        }
    }

    /// Tells the time for all that comes next.
    #[inline]
    pub(crate) fn is(&mut self, now: Duration) {
        self.now = now;
    }

    /// As it was told last.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Cells that wait in all queues together.
    pub(crate) fn cells_waiting(&self) -> usize {
        self.cells_waiting
    }

    /// Memory that they take: a chunk is taken whole by its last cell.
    pub(crate) fn bytes_used(&self) -> u64 {
        self.chunks_used as u64 * CHUNK_BYTES
    }

    fn cell(&mut self, at: u32) -> Option<&mut WaitingCell> {
        let chunk = self.chunks.get_mut(at as usize / CHUNK_CELLS)?.as_mut()?;
        chunk.cells.get_mut(at as usize % CHUNK_CELLS)
    }

    /// Takes a cell, and lets `fill` make its body, which holds anything.
    #[inline]
    fn put<T>(&mut self, command: Command, fill: impl FnOnce(&mut [u8; BODY_BYTES]) -> T) -> Option<(u32, T)> {
        let index = match self.roomy.last() {
            Some(&index) => index,
            None => self.grow(),
        };
        let chunk = self.chunks.get_mut(index as usize)?.as_mut()?;
        if chunk.used == 0 {
            self.spare_chunks = self.spare_chunks.saturating_sub(1);
            self.chunks_used += 1;
        }
        let slot = (!chunk.used).trailing_zeros() as usize;
        // Filled where it lies: made first and moved then, it would be copied twice.
        if chunk.cells.len() <= slot {
            chunk.cells.push(WaitingCell::EMPTY);
        }
        let cell = chunk.cells.get_mut(slot)?;
        (cell.next, cell.command) = (NOBODY, command.0);
        cell.since_ms = self.now.as_millis() as u32;
        let filled = fill(&mut cell.body);
        chunk.used |= 1 << slot;
        if chunk.used == FULL {
            self.roomy.pop();
        }
        self.cells_waiting += 1;
        Some((index * CHUNK_CELLS as u32 + slot as u32, filled))
    }

    fn grow(&mut self) -> u32 {
        let chunk = Some(Chunk {
            used: 0,
            roomy_at: self.roomy.len(),
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
        if chunk.used == FULL {
            chunk.roomy_at = self.roomy.len();
            self.roomy.push(index);
        }
        chunk.used &= !(1 << (at as usize % CHUNK_CELLS));
        self.cells_waiting -= 1;
        if chunk.used != 0 {
            return;
        }
        self.chunks_used -= 1;
        self.spare_chunks += 1;
        if self.spare_chunks > SPARE_CHUNKS_MAX {
            let roomy_at = chunk.roomy_at;
            *place = None;
            self.spare_chunks -= 1;
            self.vacant.push(index);
            self.leave_roomy(roomy_at);
        }
    }

    /// The last one takes its place: a queue of 250,000 chunks must be given back as fast as one of ten.
    fn leave_roomy(&mut self, at: usize) {
        if at >= self.roomy.len() {
            return;
        }
        self.roomy.swap_remove(at);
        if let Some(moved) = self.roomy.get(at)
            && let Some(Some(chunk)) = self.chunks.get_mut(*moved as usize)
        {
            chunk.roomy_at = at;
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
    favour: Favour,
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
            favour: Favour::default(),
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
        self.push_made(pool, cells_max, command, |room| room.copy_from_slice(body))
    }

    /// The same for a cell that `make` makes where it will lie, and what `make` says of it.
    #[inline]
    pub(crate) fn push_made<T>(
        &mut self,
        pool: &mut Pool,
        cells_max: u32,
        command: Command,
        make: impl FnOnce(&mut [u8; BODY_BYTES]) -> T,
    ) -> Result<T, Full> {
        if self.length >= cells_max {
            return Err(Full);
        }
        let (at, made) = pool.put(command, make).ok_or(Full)?;
        match pool.cell(self.last) {
            Some(last) if self.length > 0 => last.next = at,
            _ => self.first = at,
        }
        self.last = at;
        self.length += 1;
        Ok(made)
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

    /// How long its first cell has waited; none where there is none.
    pub(crate) fn waits(&self, pool: &Pool) -> Option<Duration> {
        let at = self.first as usize;
        let chunk = pool.chunks.get(at / CHUNK_CELLS)?.as_ref()?;
        let first = chunk.cells.get(at % CHUNK_CELLS).filter(|_| self.length > 0)?;
        Some(Duration::from_millis(
            (pool.now.as_millis() as u32).wrapping_sub(first.since_ms).into(),
        ))
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

    /// How much it has sent of late.
    pub(crate) fn favour(&self) -> Favour {
        self.favour
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

/// Whose turn it is on a channel: circuits with waiting cells, the one that has sent least of late first (C tor's
/// `circuitmux_ewma.c`). `S` names a queue.
pub(crate) struct Round<S> {
    waiting: BinaryHeap<Waiting<S>>,
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
struct Waiting<S> {
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

/// What a queue has sent, each cell at the worth that it had then.
///
/// Instead of letting all old cells fade, later ones are worth more: nothing has to be done for a queue that does not send.
/// Before the worth gets too great for a number, a new age begins, in whose terms all older figures are small.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Favour {
    sent: f64,
    age: u32,
}

impl Favour {
    fn in_age(self, age: u32) -> f64 {
        let ages = age.saturating_sub(self.age);
        self.sent * (-AGE_HALFLIVES * f64::from(ages)).exp2()
    }
}

/// What a cell is worth now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Worth {
    cell: f64,
    age: u32,
}

/// As many doublings as leave room for sums below the greatest number, 2^1024.
const AGE_HALFLIVES: f64 = 512.0;

impl Worth {
    /// `halflife` is the time after which a cell counts half: param-spec `CircuitPriorityHalflifeMsec`.
    pub(crate) fn at(now: Duration, halflife: Duration) -> Self {
        let halflives = now.as_secs_f64() / halflife.as_secs_f64().max(0.001);
        let age = (halflives / AGE_HALFLIVES).floor();
        Self {
            cell: (halflives - age * AGE_HALFLIVES).exp2(),
            age: age as u32,
        }
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

    const HALFLIFE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> (CircIdWidth, Worth) {
        (CircIdWidth::Four, Worth::at(Duration::from_secs(seconds), HALFLIFE))
    }

    /// Two circuits, and who of them is served.
    struct Two {
        pool: Pool,
        queues: [Queue; 2],
        round: Round<usize>,
    }

    impl Two {
        fn new() -> Self {
            Self {
                pool: Pool::new(),
                queues: [Queue::new(), Queue::new()],
                round: Round::new(),
            }
        }

        fn push(&mut self, seat: usize, cells: usize) {
            let queue = &mut self.queues[seat];
            for _ in 0..cells {
                queue.push(&mut self.pool, 100_000, Command::RELAY, &body(1)).unwrap();
            }
            if queue.enters_round() {
                self.round.enter(seat, queue.favour());
            }
        }

        /// The circuits of the next cells, in order.
        fn serve(&mut self, seconds: u64, cells: usize) -> Vec<u8> {
            let mut out = Vec::new();
            let room = cells * 514 + 100;
            self.round
                .serve(&mut self.pool, &mut self.queues, &mut out, room, at(seconds));
            out.chunks(514).map(|cell| cell[3] - 1).collect()
        }
    }

    #[test]
    fn who_has_sent_less_goes_first_however_much_the_other_has_to_say() {
        let mut two = Two::new();
        two.push(0, 1_000);
        assert_eq!(two.serve(1, 500), vec![0; 500]);
        two.push(1, 3);
        assert_eq!(two.serve(1, 5), vec![1, 1, 1, 0, 0]);
        two.push(1, 1);
        assert_eq!(two.serve(2, 3), vec![1, 0, 0]);
    }

    #[test]
    fn equals_share_alike() {
        let mut two = Two::new();
        two.push(0, 400);
        two.push(1, 400);
        let served = two.serve(1, 400);
        let ones = served.iter().filter(|seat| **seat == 1).count();
        assert!((196..=204).contains(&ones), "{ones} of 400");
        let longest = served.chunk_by(|one, other| one == other).map(<[u8]>::len).max();
        assert!(longest <= Some(20), "{longest:?} in a row");
    }

    #[test]
    fn what_was_sent_long_ago_counts_no_more() {
        let mut two = Two::new();
        two.push(0, 1_000);
        two.serve(1, 1_000);
        // Twenty half-lives later its thousand cells weigh less than a hundred fresh ones.
        two.push(1, 100);
        two.serve(601, 100);
        two.push(0, 10);
        two.push(1, 10);
        assert_eq!(two.serve(601, 10), vec![0; 10]);
    }

    #[test]
    fn figures_stay_right_when_an_age_ends() {
        let age = 512 * 30;
        for seconds in [age - 1, 5 * age - 1, 1_000 * age - 1] {
            let mut two = Two::new();
            two.push(0, 300);
            two.serve(seconds, 200);
            two.push(1, 50);
            assert_eq!(two.serve(seconds + 2, 50), vec![1; 50], "before and after {seconds}");
            two.push(1, 100);
            assert_eq!(two.serve(seconds + 3, 100), vec![1; 100]);
            assert!(two.queues.iter().all(|queue| queue.favour.sent.is_finite()));
        }
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
            round.enter(seat, Favour::default());
            round.left(|_| false);
        }
        assert!(round.waiting.len() < 100);
    }
}
