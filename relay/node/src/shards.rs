//! A shard: one thread that drives one engine. Sockets on one side, the engine's door on the other.
//!
//! A relay has one for each core, all listening through the first; what their engines carry for each other goes by mailbox.
//!
//! Each round: wait for sockets, the mailbox or a deadline; read and hand over all that is there; do what the engine
//! asks; then write once per link. Bytes per wake-up are what keeps a relay cheap.

use std::time::Duration;

use relay_engine::Tally;
use tokio::sync::oneshot;

mod crew;
mod driver;
mod mailbox;
mod siblings;

pub use crew::Sharing;
pub use driver::{ExitStart, ShardNews, ShardStart, start};
pub use mailbox::{Mailbox, Order};
pub use siblings::{Berth, Place, Siblings, SocketPlace};

/// A shard that says nothing for so long hangs: its rounds take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all shards have counted together; none if one of them does not answer.
pub async fn tally(shards: &[Mailbox]) -> Option<Tally> {
    let asked: Vec<_> = shards.iter().map(|shard| ask(shard, Order::Count)).collect();
    let mut sum = Tally::default();
    let all = tokio::time::timeout(PATIENCE, async {
        for answer in asked {
            sum += &answer.await.ok()?;
        }
        Some(())
    });
    all.await.ok()??;
    Some(sum)
}

fn ask<T>(shard: &Mailbox, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> oneshot::Receiver<T> {
    let (answer, asked) = oneshot::channel();
    shard.post(order(answer));
    asked
}
