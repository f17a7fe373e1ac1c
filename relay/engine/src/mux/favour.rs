//! How much a circuit has sent of late.

use std::time::Duration;

/// What a queue has sent, each cell at the worth that it had then.
///
/// Instead of letting all old cells fade, later ones are worth more: nothing has to be done for a queue that does not send.
/// Before the worth gets too great for a number, a new age begins, in whose terms all older figures are small.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Favour {
    pub(super) sent: f64,
    pub(super) age: u32,
}

impl Favour {
    pub(super) fn in_age(self, age: u32) -> f64 {
        let ages = age.saturating_sub(self.age);
        self.sent * (-AGE_HALFLIVES * f64::from(ages)).exp2()
    }
}

/// What a cell is worth now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Worth {
    pub(super) cell: f64,
    pub(super) age: u32,
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
