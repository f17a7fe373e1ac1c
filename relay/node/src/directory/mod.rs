//! The relay's dealings with directory authorities: fetches the consensus, publishes the descriptor.
//!
//! Runs on a small runtime of its own; gives the engine what it needs through a `watch` channel.
//!
//! Four loops: `fetching` tells `publishing` each new consensus, and `stocking` and `diffing` what the directory server is to
//! serve. Below them: `fetch` owns the documents, `publish` the uploads; `schedule`, `publication` and `reachability` decide and know no clock; `http` and
//! `cache` do. Whatever a stranger wrote goes through `crate::netdoc` first.

pub mod authority;
pub mod bandwidth;
pub mod cache;
pub mod diffing;
pub mod fetch;
mod fetching;
pub mod history;
pub mod http;
pub mod inflate;
pub mod memory;
pub mod overload;
pub mod protocols;
pub mod publication;
pub mod publish;
mod publishing;
pub mod reachability;
pub mod schedule;
pub mod stocking;
#[cfg(test)]
mod test_server;
pub mod view;

use std::sync::Arc;

use relay_engine::door::Report;
use relay_engine::network::NetworkView;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::dircache::Service;
use crate::keys::Keys;
use crate::rate::RateLimits;
use crate::shards::Mailbox;
use crate::state_store::StateStore;
use crate::status::Board;
use crate::traffic::Traffic;
use fetching::Told;
use publishing::{Ears, Publishing};

/// What the directory part is given.
pub struct DirectoryContext {
    /// The configuration; a new value after each reload.
    pub config: watch::Receiver<Arc<Config>>,
    /// Our keys; a new value after each rotation of the signing or onion key, which calls for a new descriptor.
    pub keys: watch::Receiver<Arc<Keys>>,
    /// Where the newest consensus goes; the shards are told at once.
    pub network: watch::Sender<Arc<NetworkView>>,
    /// The directory server: gets every document that we have fetched or made.
    pub service: Arc<Service>,
    /// What the engine reports. Bounded; the driver drops reports rather than wait.
    pub reports: mpsc::Receiver<Report>,
    /// Whom to ask what the engine has counted.
    pub shards: Vec<Mailbox>,
    /// How often the relay's rates were reached.
    pub rates: Arc<RateLimits>,
    /// Bytes that went over our links.
    pub traffic: Arc<Traffic>,
    /// Where it writes what the owner may want to know.
    pub board: Arc<Board>,
    /// What outlives the process.
    pub store: Arc<StateStore>,
    /// Turns `true` when the relay is about to stop.
    pub shutdown: watch::Receiver<bool>,
}

/// Runs until `shutdown` says so, or until the network demands what this build cannot do (then the log says what).
pub async fn run(context: DirectoryContext) {
    let DirectoryContext {
        config,
        keys,
        network,
        service,
        reports,
        shards,
        rates,
        traffic,
        board,
        store,
        mut shutdown,
    } = context;
    let (news, consensus) = watch::channel(None);
    let ears = Ears {
        config: config.clone(),
        keys,
        consensus,
        reports,
        shards,
        rates,
        traffic,
        service: Arc::clone(&service),
        board,
        store,
    };
    let (stock, in_stock) = watch::channel(Arc::default());
    let told = Told { network, news, stock };
    let diffing = diffing::run(in_stock.clone(), config.clone(), Arc::clone(&service));
    let stocking = stocking::run(in_stock, config.clone(), service);
    let mut publishing = Publishing::start(ears);
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = fetching::run(config, told) => {}
        () = stocking => {}
        () = diffing => {}
        () = publishing.run() => {}
    }
    publishing.remember();
}
