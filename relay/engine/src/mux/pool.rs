//! The memory of cells that wait: chunks that all queues of a shard share.

use std::time::Duration;

use relay_wire::cell::{BODY_BYTES, Command};

/// Cells that may wait on one circuit in one direction, about 1.3 MB. C tor's own default
/// (`RELAY_CIRC_CELL_QUEUE_SIZE_DEFAULT`); the parameter `circ_max_cell_queue_size` may change it.
pub(crate) const CELLS_WAITING_MAX: i32 = 2_500;

/// What a cell in a queue costs.
pub(crate) const CELL_MEMORY_BYTES: u64 = size_of::<WaitingCell>() as u64;

/// As many as fit into 32 KiB, which allocators cut without a rest.
pub(super) const CHUNK_CELLS: usize = 63;
/// A cell's name is its chunk's number with the place in it behind, in as many bits: a shift tells them apart, not a division.
const PLACE_BITS: u32 = 6;
const CHUNK_BYTES: u64 = CHUNK_CELLS as u64 * CELL_MEMORY_BYTES;
/// All of a chunk's cells in use.
const FULL: u64 = (1 << CHUNK_CELLS) - 1;
/// Free chunks that are kept for the next burst: 2 MiB.
pub(super) const SPARE_CHUNKS_MAX: usize = 64;
pub(super) const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy)]
pub(super) struct WaitingCell {
    pub(super) next: u32,
    /// When it came, in milliseconds; counts round after seven weeks.
    pub(super) since_ms: u32,
    pub(super) command: u8,
    pub(super) body: [u8; BODY_BYTES],
}

impl WaitingCell {
    const EMPTY: Self = Self {
        next: NOBODY,
        since_ms: 0,
        command: 0,
        body: [0; BODY_BYTES],
    };
}

/// Of a cell's name: its chunk, its place there.
#[inline]
fn places(at: u32) -> (usize, usize) {
    let place = at & ((1 << PLACE_BITS) - 1);
    ((at >> PLACE_BITS) as usize, place as usize)
}

pub(super) struct Chunk {
    /// One bit a cell, the lowest first, set while it is in use.
    used: u64,
    /// Its place in `roomy`, while it is there.
    roomy_at: usize,
    pub(super) cells: Vec<WaitingCell>,
}

/// The memory behind all queues of a shard.
pub(crate) struct Pool {
    pub(super) chunks: Vec<Option<Chunk>>,
    /// Chunks that exist and have a free cell; the last one is used first.
    roomy: Vec<u32>,
    /// Places in `chunks` without a chunk.
    vacant: Vec<u32>,
    spare_chunks: usize,
    /// Chunks with a cell in use.
    chunks_used: usize,
    cells_waiting: usize,
    now: Duration,
    /// The same in milliseconds, for each cell.
    now_ms: u32,
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
            now_ms: 0,
        }
    }

    /// Tells the time for all that comes next.
    #[inline]
    pub(crate) fn is(&mut self, now: Duration) {
        self.now = now;
        self.now_ms = now.as_millis() as u32;
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

    #[inline]
    pub(super) fn cell(&mut self, at: u32) -> Option<&mut WaitingCell> {
        let (index, slot) = places(at);
        let chunk = self.chunks.get_mut(index)?.as_mut()?;
        chunk.cells.get_mut(slot)
    }

    #[inline]
    pub(super) fn peek(&self, at: u32) -> Option<&WaitingCell> {
        let (index, slot) = places(at);
        self.chunks.get(index)?.as_ref()?.cells.get(slot)
    }

    /// Takes a cell, and lets `fill` make its body, which holds anything. Where `fill` fails the cell stays free.
    #[inline]
    pub(super) fn put<T, E>(
        &mut self,
        command: Command,
        fill: impl FnOnce(&mut [u8; BODY_BYTES]) -> Result<T, E>,
    ) -> Option<Result<(u32, T), E>> {
        let index = match self.roomy.last() {
            Some(&index) => index,
            None => self.grow(),
        };
        let chunk = self.chunks.get_mut(index as usize)?.as_mut()?;
        let slot = (!chunk.used).trailing_zeros() as usize;
        // Filled where it lies: made first and moved then, it would be copied twice.
        if chunk.cells.len() <= slot {
            chunk.cells.push(WaitingCell::EMPTY);
        }
        let cell = chunk.cells.get_mut(slot)?;
        let filled = match fill(&mut cell.body) {
            Ok(filled) => filled,
            Err(error) => return Some(Err(error)),
        };
        (cell.next, cell.command) = (NOBODY, command.0);
        cell.since_ms = self.now_ms;
        if chunk.used == 0 {
            self.spare_chunks = self.spare_chunks.saturating_sub(1);
            self.chunks_used += 1;
        }
        chunk.used |= 1 << slot;
        if chunk.used == FULL {
            self.roomy.pop();
        }
        self.cells_waiting += 1;
        Some(Ok(((index << PLACE_BITS) | slot as u32, filled)))
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

    #[inline]
    pub(super) fn free(&mut self, at: u32) {
        let (index, slot) = places(at);
        let Some(place) = self.chunks.get_mut(index) else {
            return;
        };
        let Some(chunk) = place.as_mut() else { return };
        if chunk.used == FULL {
            chunk.roomy_at = self.roomy.len();
            self.roomy.push(index as u32);
        }
        chunk.used &= !(1 << slot);
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
            self.vacant.push(index as u32);
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
