//! What time it is for a shard: looked at when something begins, not at every step of it.

use std::time::{Duration, Instant, SystemTime};

use relay_engine::door::Now;

use super::Driver;

pub(super) struct Clock {
    born: Instant,
    at: Instant,
    /// When the round began, and what the wall's clock said then.
    round: (Instant, SystemTime),
}

impl Clock {
    pub(super) fn new() -> Self {
        let born = Instant::now();
        Self {
            born,
            at: born,
            round: (born, SystemTime::now()),
        }
    }
}

impl Driver {
    /// A round begins.
    pub(super) fn look_at_clocks(&mut self) {
        let at = Instant::now();
        (self.clock.at, self.clock.round) = (at, (at, SystemTime::now()));
    }

    /// Something begins that the last look is too old for: a read, a write, post.
    pub(super) fn look_at_clock(&mut self) {
        self.clock.at = Instant::now();
    }

    /// As of the last look.
    pub(super) fn instant(&self) -> Instant {
        self.clock.at
    }

    /// As of the last look, on the driver's steady clock.
    pub(super) fn now(&self) -> Duration {
        self.on_steady_clock(self.clock.at)
    }

    /// What the driver's steady clock shows at `instant`.
    pub(super) fn on_steady_clock(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.clock.born)
    }

    /// The same for the engine.
    pub(super) fn engine_now(&self) -> Now {
        let (began, wall) = self.clock.round;
        Now {
            steady: self.now(),
            wall: wall + self.clock.at.saturating_duration_since(began),
        }
    }
}
