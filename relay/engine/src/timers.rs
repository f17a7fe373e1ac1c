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

/// With room for so many alarms it is left as it is: 20 KiB.
const KEPT: usize = 512;

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
        let due = self.due.pop();
        // What many alarms took is given back.
        if self.due.capacity() > KEPT && self.due.len() < self.due.capacity() / 8 {
            self.due.shrink_to(self.due.len() * 2);
        }
        due.map(|Reverse((_, alarm))| alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_alarms_took_is_given_back_when_they_have_rung() {
        let mut timers = Timers::default();
        for second in 0..10_000 {
            timers.set(Duration::from_secs(second), Alarm::OnionQueue);
        }
        let most = timers.due.capacity();
        let rung = std::iter::from_fn(|| timers.pop(Duration::from_secs(9_989))).count();
        assert!(most >= 10_000 && timers.due.capacity() <= KEPT);
        assert_eq!((rung, timers.next()), (9_990, Some(Duration::from_secs(9_990))));
    }
}
