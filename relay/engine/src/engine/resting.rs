//! What circuits give back while nothing goes over them: most of a relay's circuits are idle at most times.
//!
//! All are looked at in turn, some at a time, so that a look never holds up cells for long. Tables that have become far too
//! large shrink on the same occasion.

use std::time::Duration;

use super::Engine;
use crate::timers::Alarm;

/// Each circuit is looked at this often: it rests when it has been idle for that long, or twice that at most.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// Circuits at a time: a tenth of a millisecond.
const CIRCUITS_AT_A_TIME: usize = 1_024;

impl Engine {
    /// Begins to look, where nobody does yet.
    pub(super) fn look_for_rest(&mut self) {
        if self.look_from.is_none() {
            self.look_from = Some(0);
            self.timers.set(self.pool.now() + LOOK_PERIOD, Alarm::Resting);
        }
    }

    pub(super) fn resting_alarm(&mut self, now: Duration) {
        let Some(from) = self.look_from else { return };
        for circuit in self.circuits.some_mut(from, CIRCUITS_AT_A_TIME) {
            if let Some(layer) = &mut circuit.layer {
                layer.rest_if_idle();
            }
        }
        let (next, places) = (from + CIRCUITS_AT_A_TIME, self.circuits.places());
        let through = next >= places;
        self.look_from = Some(if through { 0 } else { next });
        if through {
            self.circuits.trim();
            self.guests.trim();
            self.channels.trim();
            if self.circuits.len() == 0 {
                self.look_from = None;
                return;
            }
        }
        let looks = u32::try_from(places.div_ceil(CIRCUITS_AT_A_TIME)).unwrap_or(u32::MAX);
        self.timers.set(now + LOOK_PERIOD / looks.max(1), Alarm::Resting);
    }
}
