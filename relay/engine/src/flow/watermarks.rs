//! High and low water: when a queue has become too long to read more into it, and when it is short enough again.

use crate::network::Parameters;

/// Bytes of a cell's body, the least that `orconn_high` and `orconn_low` may be.
const CELL_BODY_BYTES: i32 = 509;

/// One queue's marks and whether it is blocked. Between the marks it stays what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    high: usize,
    low: usize,
    blocked: bool,
}

impl Watermarks {
    /// Cells waiting on one circuit, `cellq_high` and `cellq_low`: while blocked, nothing is read from its streams, and
    /// Vegas is told so ([`Backlog`](super::Backlog)).
    pub fn cells_of_circuit(parameters: &Parameters) -> Self {
        Self::new(
            parameters.clamped("cellq_high", 256, 1, 1_000),
            parameters.clamped("cellq_low", 10, 1, 1_000),
        )
    }

    /// Bytes waiting on one channel, `orconn_high` and `orconn_low`: while blocked, no circuit's cells are moved into it.
    pub fn bytes_of_channel(parameters: &Parameters) -> Self {
        let read = |name: &str, default| parameters.clamped(name, default, CELL_BODY_BYTES, i32::MAX);
        Self::new(read("orconn_high", 32 * 1024), read("orconn_low", 16 * 1024))
    }

    /// A low mark above the high one counts as the high one.
    fn new(high: i32, low: i32) -> Self {
        let amount = |value: i32| usize::try_from(value).unwrap_or(0);
        Self {
            high: amount(high),
            low: amount(low.min(high)),
            blocked: false,
        }
    }

    /// Notes the queue's length; returns whether it is blocked now. C tor's rule: from `high` on blocked, from `low` down free.
    pub fn note(&mut self, length: usize) -> bool {
        self.blocked = if self.blocked {
            length > self.low
        } else {
            length >= self.high
        };
        self.blocked
    }

    /// How much the queue takes until it is blocked: nothing while it is.
    pub fn room(&self, length: usize) -> usize {
        if self.blocked {
            0
        } else {
            self.high.saturating_sub(length)
        }
    }

    /// Whether it was blocked at the last note.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_blocks_at_high_water_and_stays_blocked_down_to_low_water() {
        let mut cells = Watermarks::cells_of_circuit(&Parameters::default());
        let seen = [255, 256, 255, 11, 10, 255, 256].map(|length| cells.note(length));
        assert_eq!(seen, [false, true, true, true, false, false, true]);
    }

    #[test]
    fn marks_that_cross_cannot_block_for_ever() {
        let crossed = [("cellq_high".to_owned(), 1), ("cellq_low".to_owned(), 1_000)]
            .into_iter()
            .collect();
        let mut cells = Watermarks::cells_of_circuit(&Parameters(crossed));
        assert!(cells.note(1_000) && cells.note(2) && !cells.note(1) && !cells.note(0));
    }
}
