//! A shard: one thread that drives one engine. Sockets on one side, the engine's door on the other.
//!
//! A relay has one for each core, all listening through the first; what their engines carry for each other goes by mailbox.
//!
//! Each round: wait for sockets, the mailbox or a deadline; read and hand over all that is there; do what the engine
//! asks; then write once per link. Bytes per wake-up are what keeps a relay cheap.

mod driver;
mod mailbox;
mod siblings;

pub use driver::{ExitStart, ShardNews, ShardStart, start};
pub use mailbox::{Mailbox, Order};
pub use siblings::{Berth, Place, Siblings, SocketPlace};
