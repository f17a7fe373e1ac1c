//! What must happen at a time. A timer is never taken back: whoever it wakes looks whether it still matters.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::door::{AttemptId, StreamId};
use crate::slab::Key;

/// Whom a timer wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// A channel: handshake too slow, idle too long, time for padding.
    Channel(Key),
    /// A wish for a channel that nobody answered.
    Attempt(AttemptId),
    /// The oldest handshake that waits for its answer.
    OnionQueue,
    /// A circuit whose padding machine is to send its next cell.
    CircuitPadding(Key),
    /// Circuits over which nothing goes.
    Resting,
    /// A stream whose client told a rate.
    Stream(StreamId),
}

/// All timers of a shard.
#[derive(Default)]
pub(crate) struct Timers {
    due: BinaryHeap<Reverse<(Duration, Alarm)>>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Duration, alarm: Alarm) {
        self.due.push(Reverse((at, alarm)));
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// The next alarm whose time has come.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        self.due.pop().map(|Reverse((_, alarm))| alarm)
    }
}
