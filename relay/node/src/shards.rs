//! A shard: one thread that drives one engine. Sockets on one side, the engine's door on the other.
//!
//! Each round: wait for sockets, the mailbox or a deadline; read and hand over all that is there; do what the engine
//! asks; then write once per link. Bytes per wake-up are what keeps a relay cheap.

mod driver;
mod mailbox;

pub use driver::{ExitStart, ShardNews, ShardStart, start};
pub use mailbox::{Mailbox, Order};
