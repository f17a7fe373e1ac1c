//! What decides about a stream that leaves the network here. Pure; the sockets are joined with the engine's streams.
//!
//! ```text
//! addresses of a name ─▶ gate ─▶ Allowed ─▶ connect ─▶ gate again ─▶ open
//! system's error ─▶ reason ─▶ END
//! ```

mod gate;
mod reason;

pub use gate::{Allowed, Gate};
pub use reason::reason_of;
