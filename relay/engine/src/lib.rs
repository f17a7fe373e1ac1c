//! The sans-io relay: one shard of channels and circuits. Start at [`door`].

pub mod crypto {
    //! Circuit handshakes and relay crypto.
    pub mod cgo;
    pub mod onion;
}
pub mod door;
pub mod network;
pub mod settings;

use std::time::Duration;

pub use door::{Effect, Input, Now, Outbox, Tally};

/// One shard: channels, their circuits, and nothing of the outside world.
pub struct Engine {}

impl Engine {
    /// An engine without channels. `seed` is all the randomness that it will ever have.
    pub fn new(seed: [u8; 32]) -> Self {
        let _ = seed;
        Self {}
    }

    /// Takes one input; all its consequences are in `outbox` when this returns.
    pub fn handle(&mut self, now: Now, input: Input<'_>, outbox: &mut Outbox) {
        let _ = (now, input, outbox);
    }

    /// When the driver must say `Timeout` at the latest, on the steady clock.
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Sums and levels for metrics.
    pub fn tally(&self) -> Tally {
        Tally::default()
    }
}
