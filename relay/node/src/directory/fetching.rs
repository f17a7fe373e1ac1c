//! The loop that keeps the network view fresh.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use relay_engine::network::NetworkView;
use tokio::sync::watch;

use super::cache::Cache;
use super::fetch::{Directory, FetchError};
use super::protocols::{self, Demand};
use super::schedule::{self, Backoff};
use crate::config::Config;
use crate::netdoc::Consensus;

/// Fetches for as long as the network wants a relay like us; ends when it does not.
pub(super) async fn run(
    mut config: watch::Receiver<Arc<Config>>,
    network: watch::Sender<Arc<NetworkView>>,
    news: watch::Sender<Option<Arc<Consensus>>>,
) {
    loop {
        let current = Arc::clone(&config.borrow_and_update());
        let mut fetching = Fetching::start(&current, &network, &news);
        // Other authorities: begin again with what the cache has.
        let elsewhere = config.wait_for(|new| new.authorities != current.authorities);
        tokio::select! {
            () = fetching.run() => return,
            changed = elsewhere => if changed.is_err() { return },
        }
    }
}

struct Fetching<'a> {
    directory: Directory,
    network: &'a watch::Sender<Arc<NetworkView>>,
    news: &'a watch::Sender<Option<Arc<Consensus>>>,
    backoff: Backoff,
    told: Option<Demand>,
    without: bool,
}

impl<'a> Fetching<'a> {
    fn start(
        config: &Config,
        network: &'a watch::Sender<Arc<NetworkView>>,
        news: &'a watch::Sender<Option<Arc<Consensus>>>,
    ) -> Self {
        let cache = Cache::new(&config.cache_directory);
        let bind = config.outbound_bind.clone();
        let directory = Directory::open(config.authorities.clone(), bind, cache, SystemTime::now());
        let backoff = Backoff::for_documents(config.testing_network);
        let fetching = Self {
            directory,
            network,
            news,
            backoff,
            told: None,
            without: false,
        };
        fetching.tell();
        fetching
    }

    /// Ends when the consensus demands protocols that this build does not know.
    async fn run(&mut self) {
        loop {
            let wait = match self.consensus_due() {
                true => self.round().await,
                false => self.microdescriptors().await,
            };
            if !self.demand_is_met() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn consensus_due(&self) -> bool {
        let fresh_until = self
            .directory
            .consensus()
            .map(|consensus| consensus.lifetime.fresh_until);
        fresh_until.is_none_or(|fresh_until| fresh_until <= SystemTime::now())
    }

    /// One try for a newer consensus; how long to wait after it.
    async fn round(&mut self) -> Duration {
        match self.directory.fetch_consensus(SystemTime::now()).await {
            Ok(true) => {
                self.backoff.reset();
                self.say_new();
                self.tell();
                self.microdescriptors().await
            }
            Ok(false) => self.backoff.next(&mut rand::rng()),
            Err(error) => {
                let wait = self.backoff.next(&mut rand::rng());
                self.say_none(&error, wait);
                wait
            }
        }
    }

    /// Fetches what the consensus names and we lack; how long to wait after it.
    async fn microdescriptors(&mut self) -> Duration {
        if self.directory.microdescriptors_missing() > 0 && self.directory.fetch_microdescriptors().await > 0 {
            self.backoff.reset();
            self.tell();
        }
        let missing = self.directory.microdescriptors_missing();
        match (missing, self.directory.consensus()) {
            (0, Some(consensus)) => {
                let when = schedule::next_consensus_fetch(&consensus.lifetime, &mut rand::rng());
                // At least a second: a clock beyond the consensus's end must not make us ask without pause.
                when.duration_since(SystemTime::now())
                    .unwrap_or_default()
                    .max(Duration::from_secs(1))
            }
            _ => {
                tracing::debug!("{missing} microdescriptors are missing.");
                self.backoff.next(&mut rand::rng())
            }
        }
    }

    fn tell(&self) {
        self.network.send_replace(Arc::new(self.directory.view()));
        self.news
            .send_replace(self.directory.consensus().cloned().map(Arc::new));
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
        let demand = match protocols::demand(consensus) {
            Ok(demand) => demand,
            Err(error) => {
                tracing::error!("Bug: our own list of subprotocols cannot be read: {error}");
                return false;
            }
        };
        let news = self.told.as_ref() != Some(&demand);
        match &demand {
            Demand::Met => {}
            Demand::Warn(text) if news => tracing::warn!("{text}"),
            Demand::Warn(_) => {}
            Demand::Stop(text) => {
                tracing::error!("{text}");
                return false;
            }
        }
        self.told = Some(demand);
        true
    }
}
