//! Over which leg the exit sends (C tor `conflux_decide_circ_*`).

use std::time::Duration;

use relay_wire::conflux::DesiredUx;

use super::set::{Leg, Set};
use crate::circuit::duty::Place;
use crate::stream::Room;

/// How it is decided. C tor has a third way, by the ratio of the round-trip times, which no wish leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// The leg with the shortest round trip, and no other.
    MinRtt,
    /// Among those with room, the one with the shortest.
    LowRtt,
}

impl Algorithm {
    /// C tor `conflux_choose_algorithm`.
    pub(super) fn of(wish: DesiredUx) -> Self {
        match wish {
            DesiredUx::MinLatency | DesiredUx::LowMemLatency | DesiredUx::LowMemThroughput => Self::MinRtt,
            DesiredUx::NoOpinion | DesiredUx::HighThroughput => Self::LowRtt,
        }
    }
}

/// No leg, or one whose numbers do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoWay;

/// Which legs may be used.
#[derive(Clone, Copy)]
enum Used {
    Only(usize),
    /// All that have been measured.
    Measured,
}

impl Set {
    /// A leg that has not been measured waits until it is, unless none is: then it is the first.
    fn used(&self) -> Used {
        let measured = self.legs.iter().enumerate();
        let fastest = measured.filter_map(|(at, leg)| Some((leg.rtt?, at))).min();
        match (fastest, self.algorithm) {
            (None, _) => Used::Only(0),
            (Some((_, at)), Algorithm::MinRtt) => Used::Only(at),
            (Some(_), Algorithm::LowRtt) => Used::Measured,
        }
    }

    /// DATA that may go over all legs that are used. `local` tells of a leg on this shard.
    pub(crate) fn room(&mut self, mut local: impl FnMut(Place) -> Option<Room>) -> Room {
        let used = self.used();
        let (mut usable, mut queue_binds) = (0_u64, false);
        for (at, leg) in self.legs.iter_mut().enumerate() {
            if leg.is_used(at, used)
                && let Some(room) = leg.room(&mut local)
            {
                usable = usable.saturating_add(room.queue.min(room.flow));
                queue_binds |= room.queue < room.flow;
            }
        }
        Room {
            queue: if queue_binds { usable } else { u64::MAX },
            flow: usable,
        }
    }

    /// Legs on this shard whose queue must become shorter before more can go.
    pub(crate) fn held_up(&mut self, mut local: impl FnMut(Place) -> Option<Room>) -> Vec<Place> {
        let here = self.legs.iter().filter(|leg| leg.away.is_none());
        let held_up = here.filter(|leg| local(leg.at).is_some_and(|room| room.queue < room.flow));
        held_up.map(|leg| leg.at).collect()
    }

    /// The leg for the next message, and what SWITCH must say before it, if anything. With no room anywhere it is the leg
    /// that was used last, so that what must go keeps its order.
    pub(crate) fn next_leg(
        &mut self,
        mut local: impl FnMut(Place) -> Option<Room>,
    ) -> Result<(&mut Leg, Option<u32>), NoWay> {
        let used = self.used();
        let mut best: Option<(Duration, usize)> = None;
        for (at, leg) in self.legs.iter_mut().enumerate() {
            let rtt = leg.rtt.unwrap_or_default();
            if leg.is_used(at, used)
                && best.is_none_or(|(shortest, _)| rtt < shortest)
                && leg.room(&mut local).is_some_and(|room| room.queue > 0 && room.flow > 0)
            {
                best = Some((rtt, at));
            }
        }
        let current = self
            .current
            .and_then(|current| self.legs.iter().position(|leg| leg.at == current));
        let first = || self.legs.iter().enumerate().position(|(at, leg)| leg.is_used(at, used));
        let chosen = best.map(|(_, at)| at).or(current).or_else(first).ok_or(NoWay)?;
        let reached = match current.and_then(|current| self.legs.get(current)) {
            Some(leg) => leg.last_sent,
            None => self.last_sent(),
        };
        let leg = self.legs.get_mut(chosen).ok_or(NoWay)?;
        let by = reached.checked_sub(leg.last_sent).ok_or(NoWay)?;
        let by = u32::try_from(by).ok().filter(|by| *by < u32::MAX).ok_or(NoWay)?;
        leg.last_sent = reached;
        self.current = Some(leg.at);
        Ok((leg, (by > 0).then_some(by)))
    }
}

impl Leg {
    fn is_used(&self, at: usize, used: Used) -> bool {
        match used {
            Used::Only(only) => at == only,
            Used::Measured => self.rtt.is_some(),
        }
    }
}
