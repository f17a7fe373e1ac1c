//! Streams that leave the network here: what decides about one, and its socket. A shard joins them with the engine's
//! streams.
//!
//! ```text
//! addresses of a name ─▶ gate ─▶ Allowed ─▶ connect ─▶ gate again ─▶ open
//! system's error ─▶ reason ─▶ END
//! ```

mod gate;
mod pace;
mod reason;
mod rules;
mod socket;

pub use gate::{Allowed, Gate};
pub use reason::reason_of;
pub use rules::{Rules, tell_rules};
pub use socket::{Counted, ExitSocket, Incoming, Stage};
