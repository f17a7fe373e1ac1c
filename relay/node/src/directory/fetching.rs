//! The loop that keeps the network view fresh.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use relay_engine::network::NetworkView;
use relay_formats::torrc::DirectoryOptions;
use tokio::sync::watch;

use super::cache::Cache;
use super::fetch::{Directory, FetchError, Keeps, Stock};
use super::protocols::{self, Demand};
use super::schedule::{self, Backoff};
use crate::config::Config;
use crate::netdoc::Consensus;

/// Whom the loop tells.
pub(super) struct Told {
    /// The engine, by way of the supervisor.
    pub(super) network: watch::Sender<Arc<NetworkView>>,
    /// Who publishes our descriptor.
    pub(super) news: watch::Sender<Option<Arc<Consensus>>>,
    /// Who serves what we have fetched.
    pub(super) stock: watch::Sender<Arc<Stock>>,
}

/// Fetches for as long as the network wants a relay like us; ends when it does not.
pub(super) async fn run(mut config: watch::Receiver<Arc<Config>>, told: Told) {
    loop {
        let current = Arc::clone(&config.borrow_and_update());
        let mut fetching = Fetching::start(&current, &told);
        // Other authorities, or other documents: begin again with what the cache has.
        let elsewhere = config.wait_for(|new| new.authorities != current.authorities || keeps(new) != keeps(&current));
        tokio::select! {
            () = fetching.run() => return,
            changed = elsewhere => if changed.is_err() { return },
        }
    }
}

fn keeps(config: &Config) -> Keeps {
    let DirectoryOptions { cache, extra_infos, .. } = config.directory;
    Keeps {
        as_cache: cache,
        extra_infos: cache && extra_infos,
    }
}

struct Fetching<'a> {
    directory: Directory,
    config: &'a Config,
    told: &'a Told,
    /// When to ask for a newer consensus.
    consensus_at: SystemTime,
    consensus_backoff: Backoff,
    /// For all that a consensus names.
    belongings_backoff: Backoff,
    demand: Option<Demand>,
    without: bool,
}

impl<'a> Fetching<'a> {
    fn start(config: &'a Config, told: &'a Told) -> Self {
        let now = SystemTime::now();
        let cache = Cache::new(&config.cache_directory);
        let bind = config.outbound_bind.clone();
        let directory = Directory::open(config.authorities.clone(), bind, cache, keeps(config), now);
        let backoff = Backoff::for_documents(config.testing_network);
        let held = directory.consensus().map(|consensus| &consensus.lifetime);
        let fresh = held.filter(|lifetime| lifetime.fresh_until > now);
        let fetching = Self {
            consensus_at: fresh.map_or(now, |fresh| schedule::next_consensus_fetch(fresh, &mut rand::rng())),
            directory,
            config,
            told,
            consensus_backoff: backoff.clone(),
            belongings_backoff: backoff,
            demand: None,
            without: false,
        };
        fetching.tell();
        fetching
    }

    /// Ends when the consensus demands protocols that this build does not know.
    async fn run(&mut self) {
        loop {
            if SystemTime::now() >= self.consensus_at {
                self.fetch_consensus().await;
            }
            let mut again_at = self.consensus_at;
            if !self.fetch_belongings().await {
                again_at = again_at.min(SystemTime::now() + self.belongings_backoff.next(&mut rand::rng()));
            }
            if !self.demand_is_met() {
                return;
            }
            // At least a second: a clock beyond the consensus's end must not make us ask without pause.
            let wait = again_at.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::time::sleep(wait.max(Duration::from_secs(1))).await;
        }
    }

    /// One try for a newer consensus; says when the next one is due.
    async fn fetch_consensus(&mut self) {
        let now = SystemTime::now();
        self.consensus_at = match self.directory.fetch_consensus(now).await {
            Ok(true) => {
                self.consensus_backoff.reset();
                self.belongings_backoff.reset();
                self.say_new();
                self.tell();
                let consensus = self.directory.consensus();
                consensus.map_or(now, |consensus| {
                    schedule::next_consensus_fetch(&consensus.lifetime, &mut rand::rng())
                })
            }
            Ok(false) => SystemTime::now() + self.consensus_backoff.next(&mut rand::rng()),
            Err(error) => {
                let wait = self.consensus_backoff.next(&mut rand::rng());
                self.say_none(&error, wait);
                SystemTime::now() + wait
            }
        };
    }

    /// Fetches what the consensus names and we lack. Whether nothing is lacking any more.
    async fn fetch_belongings(&mut self) -> bool {
        let now = SystemTime::now();
        let lacking = self.directory.microdescriptors_missing() > 0;
        let mut came = lacking && self.directory.fetch_microdescriptors(now).await > 0;
        if came {
            // The engine knows no relay's Ed25519 identity before.
            self.tell();
        }
        if !self.directory.cache_is_complete() && self.directory.fetch_for_cache(now).await {
            came = true;
            self.tell();
        }
        if came {
            self.belongings_backoff.reset();
        }
        let missing = self.directory.microdescriptors_missing();
        if missing > 0 {
            tracing::debug!("{missing} microdescriptors are missing.");
        }
        missing == 0 && self.directory.cache_is_complete()
    }

    fn tell(&self) {
        let Told { network, news, stock } = self.told;
        network.send_replace(Arc::new(self.directory.view()));
        news.send_replace(self.directory.consensus().cloned().map(Arc::new));
        stock.send_replace(Arc::new(self.directory.stock()));
    }

    /// Aloud once, until a consensus has come again: on a new private network this happens every second.
    fn say_none(&mut self, error: &FetchError, wait: Duration) {
        let seconds = wait.as_secs();
        match std::mem::replace(&mut self.without, true) {
            false => tracing::info!(
                "No authority has a good newer consensus for us yet (the last says: {error}). Asking again."
            ),
            true => tracing::debug!("Still no newer consensus: {error}. Asking again in {seconds} seconds."),
        }
    }

    fn say_new(&mut self) {
        self.without = false;
        if let Some(consensus) = self.directory.consensus() {
            let left = consensus
                .lifetime
                .valid_until
                .duration_since(SystemTime::now())
                .unwrap_or_default();
            let relays = consensus.relays.len();
            tracing::debug!(
                "A new consensus lists {relays} relays; valid for {} seconds.",
                left.as_secs()
            );
        }
    }

    /// Tells each demand once; `false` where it means the end.
    fn demand_is_met(&mut self) -> bool {
        let Some(consensus) = self.directory.consensus() else {
            return true;
        };
        let demand = match protocols::demand(consensus, self.config) {
            Ok(demand) => demand,
            Err(error) => {
                tracing::error!("Bug: our own list of subprotocols cannot be read: {error}");
                return false;
            }
        };
        let news = self.demand.as_ref() != Some(&demand);
        match &demand {
            Demand::Met => {}
            Demand::Warn(text) if news => tracing::warn!("{text}"),
            Demand::Warn(_) => {}
            Demand::Stop(text) => {
                tracing::error!("{text}");
                return false;
            }
        }
        self.demand = Some(demand);
        true
    }
}
