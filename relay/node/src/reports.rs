//! What the engine reports, on its way to the directory part; what an operator waits for is logged here.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use relay_engine::door::Report;
use tokio::sync::mpsc;

/// Memory that runs out again is told again after this.
const MEMORY_NEWS_PERIOD: Duration = Duration::from_secs(60);

/// Passes everything on, until either end is gone.
pub async fn pass_on(mut from: mpsc::Receiver<Report>, to: mpsc::Sender<Report>) {
    let (mut reached, mut told_of_memory) = (HashSet::new(), None);
    while let Some(report) = from.recv().await {
        match &report {
            Report::OrPortReachable { address } if reached.insert(*address) => {
                tracing::info!("Self-testing indicates your ORPort {address} is reachable from the outside. Excellent.")
            }
            Report::OrPortReachable { .. } => {}
            Report::ClockSkew {
                seconds,
                from_authority: true,
            } => {
                let (seconds, way) = (seconds.unsigned_abs(), if *seconds > 0 { "behind" } else { "ahead" });
                tracing::warn!("Our clock is {seconds} seconds {way} of a directory authority's. Please set it right.");
            }
            Report::ClockSkew { .. } => {}
            Report::MemoryReclaimed { circuits, bytes } => {
                // A flood must not become one of the log.
                if told_of_memory.is_none_or(|told: Instant| told.elapsed() > MEMORY_NEWS_PERIOD) {
                    told_of_memory = Some(Instant::now());
                    tracing::warn!(
                        "We're low on memory. Killing circuits with over-long queues. (This behavior is controlled by \
                         MaxMemInQueues.) Removed {bytes} bytes by killing {circuits} circuits."
                    );
                }
            }
            Report::ProtocolViolation(what) => tracing::debug!("Protocol violation by a peer: {what}"),
        }
        if to.send(report).await.is_err() {
            return;
        }
    }
}
