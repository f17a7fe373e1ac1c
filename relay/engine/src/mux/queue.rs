//! The cells of one circuit in one direction, in a pool.

use std::convert::Infallible;
use std::time::Duration;

use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, write_header};

use super::favour::Favour;
use super::pool::{NOBODY, Pool};

/// Cells of one circuit in one direction.
pub(crate) struct Queue {
    first: u32,
    last: u32,
    pub(super) length: u32,
    /// Whether the circuit stands in its channel's round.
    pub(super) in_round: bool,
    /// Whether another shard fills it and is to be told what leaves it.
    pub(super) counted: bool,
    /// Cells that have left it and are not told yet.
    pub(super) untold: u32,
    pub(super) favour: Favour,
}

/// So many cells leave a queue before the shard that fills it is told: one TLS record's worth (our own number).
pub(super) const TOLD_CELLS: u32 = 31;

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
        let made = self.push_made(pool, cells_max, command, |room| {
            room.copy_from_slice(body);
            Ok::<_, Infallible>(())
        });
        made.map(|_| ())
    }

    /// The same for a cell that `make` makes where it will lie, and what `make` says of it. Where `make` fails there is none.
    #[inline]
    pub(crate) fn push_made<T, E>(
        &mut self,
        pool: &mut Pool,
        cells_max: u32,
        command: Command,
        make: impl FnOnce(&mut [u8; BODY_BYTES]) -> Result<T, E>,
    ) -> Result<Result<T, E>, Full> {
        if self.is_full(cells_max) {
            return Err(Full);
        }
        let (at, made) = match pool.put(command, make).ok_or(Full)? {
            Ok(put) => put,
            Err(error) => return Ok(Err(error)),
        };
        match pool.cell(self.last) {
            Some(last) if self.length > 0 => last.next = at,
            _ => self.first = at,
        }
        self.last = at;
        self.length += 1;
        Ok(Ok(made))
    }

    /// Whether it takes no cell more.
    #[inline]
    pub(crate) fn is_full(&self, cells_max: u32) -> bool {
        self.length >= cells_max
    }

    /// Appends the first cell to `out` as it goes over the wire.
    #[inline]
    pub(super) fn pop_into(&mut self, pool: &mut Pool, out: &mut Vec<u8>, width: CircIdWidth, circ_id: u32) -> bool {
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
        let first = pool.peek(self.first).filter(|_| self.length > 0)?;
        Some(Duration::from_millis(
            (pool.now().as_millis() as u32).wrapping_sub(first.since_ms).into(),
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
