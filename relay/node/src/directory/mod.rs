//! The relay's dealings with directory authorities: fetches the consensus, publishes the descriptor.
//!
//! Runs on a small runtime of its own; gives the engine what it needs through a `watch` channel.

pub mod authority;
pub mod cache;
pub mod fetch;
pub mod http;
pub mod inflate;
pub mod schedule;
#[cfg(test)]
mod test_server;
pub mod view;

use std::sync::Arc;

use relay_engine::door::Report;
use relay_engine::network::NetworkView;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::keys::Keys;

/// What the directory part is given.
pub struct DirectoryContext {
    /// The configuration; a new value after each reload.
    pub config: watch::Receiver<Arc<Config>>,
    /// Our keys; a new value after each rotation of the signing or onion key, which calls for a new descriptor.
    pub keys: watch::Receiver<Arc<Keys>>,
    /// Where the newest consensus goes; the shards are told at once.
    pub network: watch::Sender<Arc<NetworkView>>,
    /// What the engine reports. Bounded; the driver drops reports rather than wait.
    pub reports: mpsc::Receiver<Report>,
    /// Turns `true` when the relay is about to stop.
    pub shutdown: watch::Receiver<bool>,
}

/// Runs until `shutdown` says so.
pub async fn run(mut context: DirectoryContext) {
    tracing::info!("The directory part has started.");
    while !*context.shutdown.borrow() {
        tokio::select! {
            changed = context.shutdown.changed() => if changed.is_err() { return },
            report = context.reports.recv() => match report {
                Some(report) => tracing::debug!(?report, "The engine reports."),
                None => return,
            },
        }
    }
}
