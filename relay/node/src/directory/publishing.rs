//! The loop that tells the authorities about us.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use relay_engine::door::Report;
use relay_engine::network::Parameters;
use relay_formats::facts::Reachable;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::bandwidth::{self, Observed};
use super::http;
use super::memory::Memory;
use super::overload::{Counts, Overload};
use super::publication::{Listing, Publication, Reason};
use super::publish::{self, Circumstances, Uploads};
use super::reachability::{self, Reachability};
use super::stocking;
use crate::config::Config;
use crate::dircache::Service;
use crate::keys::Keys;
use crate::netdoc::Consensus;
use crate::rate::{RateLimits, Way};
use crate::shards::{self, Mailbox};
use crate::state_store::StateStore;
use crate::status::Board;
use crate::traffic::Traffic;

/// How often the process looks whether a descriptor is due (C tor, `CHECK_DESCRIPTOR_INTERVAL`).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often the state file is written (C tor: once an hour where nothing else calls for it).
const REMEMBER_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long a connection to our own ORPort may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The public network's voting interval, until a consensus tells another.
const VOTING_INTERVAL_DEFAULT: Duration = Duration::from_secs(3600);

/// What the loop hears.
pub(super) struct Ears {
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) keys: watch::Receiver<Arc<Keys>>,
    pub(super) consensus: watch::Receiver<Option<Arc<Consensus>>>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) shards: Vec<Mailbox>,
    pub(super) rates: Arc<RateLimits>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) service: Arc<Service>,
    pub(super) board: Arc<Board>,
    pub(super) store: Arc<StateStore>,
}

/// Everything that publishing depends on, and where it stands.
pub(super) struct Publishing {
    ears: Ears,
    started: Instant,
    memory: Memory,
    observed: Observed,
    overload: Overload,
    told_bandwidth: Option<(u64, SystemTime)>,
    remember_at: SystemTime,
    config: Arc<Config>,
    keys: Arc<Keys>,
    consensus: Option<Arc<Consensus>>,
    reachability: Reachability,
    try_reaching_at: SystemTime,
    publication: Publication,
    uploads: Uploads,
    dummy_tap_key: bool,
    troubled: bool,
    hibernation: watch::Receiver<bool>,
}

impl Publishing {
    pub(super) fn start(mut ears: Ears) -> Self {
        let now = SystemTime::now();
        let config = Arc::clone(&ears.config.borrow_and_update());
        let keys = Arc::clone(&ears.keys.borrow_and_update());
        let consensus = ears.consensus.borrow_and_update().clone();
        let memory = Memory::new(Arc::clone(&ears.store));
        let hibernation = ears.board.hibernation();
        let publishing = Self {
            started: Instant::now(),
            observed: memory.observed(now, config.testing_network),
            overload: Overload::default(),
            memory,
            told_bandwidth: None,
            remember_at: now + REMEMBER_EVERY,
            reachability: Reachability::new(&config.advertised, now),
            config,
            keys,
            consensus,
            try_reaching_at: now,
            publication: Publication::default(),
            uploads: Uploads::default(),
            dummy_tap_key: true,
            troubled: false,
            hibernation,
            ears,
        };
        publishing.announce_tests();
        publishing.announce_directory();
        publishing.tell_board();
        publishing
    }

    /// Publishes until one of those whom it hears falls silent for ever.
    pub(super) async fn run(&mut self) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        // What was missed while uploads took long is spread by `Observed`.
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_at = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(look_at) => {}
                _ = second.tick() => {
                    self.note_traffic(SystemTime::now());
                    continue;
                }
                report = self.ears.reports.recv() => match report {
                    Some(report) => self.on_report(&report),
                    None => return,
                },
                changed = self.ears.config.changed() => match changed {
                    Ok(()) => self.on_config(SystemTime::now()),
                    Err(_) => return,
                },
                changed = self.ears.keys.changed() => match changed {
                    Ok(()) => self.on_keys(),
                    Err(_) => return,
                },
                changed = self.hibernation.changed() => match changed {
                    Ok(()) => self.on_hibernation(),
                    Err(_) => return,
                },
                changed = self.ears.consensus.changed() => match changed {
                    Ok(()) => self.on_consensus(),
                    Err(_) => return,
                },
            }
            look_at = tokio::time::Instant::now() + self.look(SystemTime::now()).await;
            self.ears.board.note_addresses(self.told_addresses());
        }
    }

    fn note_traffic(&mut self, now: SystemTime) {
        let (read, written) = self.ears.traffic.sums();
        self.observed.note(now, read, written);
        if now >= self.remember_at {
            self.remember_at = now + REMEMBER_EVERY;
            self.remember();
        }
    }

    /// Writes down what a restart should know.
    pub(super) fn remember(&mut self) {
        self.memory.remember(&self.observed, SystemTime::now());
    }

    /// One look at everything; how long to rest after it.
    async fn look(&mut self, now: SystemTime) -> Duration {
        self.note_overload(now).await;
        if !self.config.publish_server_descriptor {
            return LOOK_EVERY;
        }
        if !self.assume_reachable() {
            self.test_reachability(now).await;
        }
        if self.assume_reachable() || self.reachability.may_publish() {
            self.look_at_bandwidth(now);
            self.make_if_due(now);
            if self.uploads.next().is_some_and(|at| at <= now) {
                let taken = self.uploads.run(&self.config.outbound_bind, now).await;
                self.ears.board.note_accepted(taken, SystemTime::now());
                self.say_taken(taken);
            }
        }
        let next = [self.uploads.next(), self.next_test()].into_iter().flatten().min();
        let until = next.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        until
            .unwrap_or(LOOK_EVERY)
            .clamp(Duration::from_millis(100), LOOK_EVERY)
    }

    /// Compares all counters with those of the last look.
    async fn note_overload(&mut self, now: SystemTime) {
        if !self.config.overload_statistics {
            self.overload = Overload::default();
        } else if let Some(tally) = shards::tally(&self.ears.shards).await {
            let load = &self.ears.traffic.load;
            let counts = Counts {
                memory_reclaims: tally.memory_reclaims,
                onionskins: tally.onionskins_ntor + tally.onionskins_ntor_v3 + tally.onionskins_dropped,
                onionskins_dropped: tally.onionskins_dropped,
                ports_exhausted: load.tcp_ports_exhausted.load(Ordering::Relaxed),
                descriptors_exhausted: load.descriptors_exhausted.load(Ordering::Relaxed),
                read_limited: self.ears.rates.times_reached(Way::Read),
                write_limited: self.ears.rates.times_reached(Way::Write),
            };
            let none = Parameters::default();
            let consensus = self.consensus.as_ref();
            let parameters = consensus.map_or(&none, |consensus| &consensus.parameters);
            if self.overload.note(now, counts, parameters) {
                self.publication.mark(Reason::Overloaded);
            }
        }
        self.ears.board.note_overload(self.overload.facts(now));
    }

    fn look_at_bandwidth(&mut self, now: SystemTime) {
        // What a sleeper tells is 0, and stays 0.
        let Some((told, when)) = self.told_bandwidth.filter(|_| !*self.hibernation.borrow()) else {
            return;
        };
        let before = now.duration_since(when).unwrap_or_default();
        if bandwidth::worth_telling(told, before, self.observed.bytes_per_second(), self.started.elapsed()) {
            self.publication.mark(Reason::BandwidthChanged);
        }
    }

    fn make_if_due(&mut self, now: SystemTime) {
        let interval = self
            .consensus
            .as_ref()
            .map(|consensus| consensus.lifetime.voting_interval());
        let interval = interval.unwrap_or(VOTING_INTERVAL_DEFAULT);
        let Some(reason) = self.publication.due(now, self.listing(), interval) else {
            return;
        };
        let hibernating = *self.hibernation.borrow();
        let circumstances = Circumstances {
            now,
            uptime: self.started.elapsed(),
            observed_bandwidth: if hibernating {
                0
            } else {
                self.observed.bytes_per_second()
            },
            hibernating,
            histories: self.observed.histories(),
            overload_general: self.overload.general(now),
            overload_lines: self.overload.lines(now, &self.config.bandwidth),
            dummy_tap_key: self.dummy_tap_key,
        };
        self.told_bandwidth = Some((circumstances.observed_bandwidth, now));
        // Whether it works or not: the same try again a moment later would end alike.
        self.publication.made(now);
        match publish::make(&self.config, &self.keys, &circumstances) {
            Ok(made) => {
                self.ears
                    .service
                    .change(|store| stocking::show_own(store, &made, self.keys.rsa_identity()));
                tracing::info!("Publishing server descriptor: {}.", reason.text());
                let (authorities, testing) = (&self.config.authorities, self.config.testing_network);
                let voting = authorities.iter().filter(|one| one.v3_identity.is_some()).count();
                let digest = hex::encode_upper(made.server.sha1);
                self.ears.board.note_descriptor(digest, now, hibernating, voting);
                self.uploads = Uploads::begin(made.body(), reason, authorities, testing, now);
                self.troubled = false;
            }
            Err(error) if !self.troubled => {
                tracing::error!("Not publishing: {error}");
                self.troubled = true;
            }
            Err(error) => tracing::debug!("Not publishing: {error}"),
        }
    }

    fn told_addresses(&self) -> impl Iterator<Item = (SocketAddr, Reachable)> {
        self.reachability.told().map(|(address, reachable)| match reachable {
            Reachable::Unknown if self.assumes(&address) => (address, Reachable::Assumed),
            _ => (address, reachable),
        })
    }

    fn tell_board(&self) {
        let us = self.keys.rsa_identity();
        self.ears.board.note_consensus(self.consensus.as_deref(), us);
        self.ears.board.note_addresses(self.told_addresses());
    }

    fn listing(&self) -> Listing {
        let Some(consensus) = &self.consensus else {
            return Listing::Unknown;
        };
        let us = self.keys.rsa_identity();
        match consensus.relays.iter().find(|relay| relay.rsa_identity == us) {
            Some(relay) if relay.stale_descriptor => Listing::Stale,
            Some(_) => Listing::Listed,
            None => Listing::Absent,
        }
    }

    /// Whether no address of ours needs a test.
    fn assume_reachable(&self) -> bool {
        self.assumes_by_default() && self.config.advertised.iter().all(|address| self.assumes(address))
    }

    /// torrc `AssumeReachable`, or the consensus parameter of that name (param-spec, `assume-reachable`).
    fn assumes_by_default(&self) -> bool {
        self.config.assume_reachable || self.parameter("assume-reachable", 0) == 1
    }

    /// As before, but torrc `AssumeReachableIPv6` has the last word on an IPv6 address.
    fn assumes(&self, address: &SocketAddr) -> bool {
        let word = self.config.assume_reachable_ipv6.filter(|_| address.is_ipv6());
        word.unwrap_or_else(|| self.assumes_by_default())
    }

    /// A consensus parameter that is 0 or 1.
    fn parameter(&self, name: &str, default: i32) -> i32 {
        self.consensus
            .as_ref()
            .map_or(default, |consensus| consensus.parameters.clamped(name, default, 0, 1))
    }

    async fn test_reachability(&mut self, now: SystemTime) {
        for address in self.reachability.untested() {
            if self.assumes(&address) {
                self.reachability.assumed(address);
            }
        }
        if now >= self.try_reaching_at {
            self.try_reaching_at = now + reachability::TRY_EVERY;
            for address in self.reachability.untested() {
                if connects(address, &self.config).await && self.reachability.connected(address) {
                    tracing::info!(
                        "A connection from this machine to our own ORPort {address} works. That is weaker than a test from \
                         the outside, which is not built yet. Publishing server descriptor."
                    );
                    self.publication.mark(Reason::ReachabilityChanged);
                }
            }
        }
        let unreachable: Vec<String> = self
            .reachability
            .complaint(now)
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        if !unreachable.is_empty() {
            tracing::warn!(
                "Your server has not managed to confirm reachability for its ORPort(s) at {}. Relays do not publish \
                 descriptors until their ORPort is reachable. Please check your firewalls, ports, address, /etc/hosts \
                 file, etc. If others can reach it and only this machine cannot, set AssumeReachable 1.",
                unreachable.join(", ")
            );
        }
    }

    fn next_test(&self) -> Option<SystemTime> {
        let wanted = !self.assume_reachable() && !self.reachability.untested().is_empty();
        wanted.then_some(self.try_reaching_at)
    }

    /// In C tor's words.
    fn announce_directory(&self) {
        if let Some(reason) = self
            .config
            .keeps_directory_quiet()
            .filter(|_| self.config.directory.cache)
        {
            tracing::info!("Not advertising Directory Service support (Reason: {reason})");
        }
    }

    fn announce_tests(&self) {
        if self.config.publish_server_descriptor && !self.assume_reachable() {
            for address in &self.config.advertised {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                tracing::info!("Now checking whether {family} ORPort {address} is reachable...");
            }
        }
    }

    fn say_taken(&self, taken: usize) {
        if taken > 0 {
            let all = self
                .config
                .authorities
                .iter()
                .filter(|one| one.v3_identity.is_some())
                .count();
            tracing::info!("{taken} of {all} directory authorities accepted our server descriptor just now.");
        }
    }

    fn on_report(&mut self, report: &Report) {
        if let Report::OrPortReachable { address } = report {
            self.reachability.reached(*address);
        }
    }

    fn on_config(&mut self, now: SystemTime) {
        let config = Arc::clone(&self.ears.config.borrow_and_update());
        if config.advertised != self.config.advertised {
            self.reachability = Reachability::new(&config.advertised, now);
            self.try_reaching_at = now;
        }
        if !described_alike(&config, &self.config) {
            self.publication.mark(Reason::SettingsChanged);
        }
        let before = std::mem::replace(&mut self.config, config);
        if before.keeps_directory_quiet() != self.config.keeps_directory_quiet() {
            self.announce_directory();
        }
    }

    /// Asleep, or awake again: then it begins anew, as far as others are concerned.
    fn on_hibernation(&mut self) {
        if !*self.hibernation.borrow_and_update() {
            self.started = Instant::now();
        }
        self.publication.mark(Reason::HibernationChanged);
    }

    fn on_keys(&mut self) {
        self.keys = Arc::clone(&self.ears.keys.borrow_and_update());
        self.publication.mark(Reason::KeysChanged);
    }

    fn on_consensus(&mut self) {
        self.consensus = self.ears.consensus.borrow_and_update().clone();
        self.tell_board();
        let dummy_tap_key = self.parameter("publish-dummy-tap-key", 1) == 1;
        if dummy_tap_key != self.dummy_tap_key {
            self.dummy_tap_key = dummy_tap_key;
            self.publication.mark(Reason::ParameterChanged);
        }
    }
}

/// Whether two configurations lead to the same descriptor, so that a new log level troubles no authority.
fn described_alike(one: &Config, other: &Config) -> bool {
    let described = |config: &Config| {
        let Config {
            nickname,
            contact_info,
            advertised,
            bandwidth,
            my_family,
            authorities,
            directory,
            exit_policy,
            accounting,
            ..
        } = config.clone();
        let publish = config.publish_server_descriptor;
        (
            nickname,
            contact_info,
            advertised,
            bandwidth,
            my_family,
            authorities,
            (directory.cache, directory.extra_infos, accounting),
            exit_policy,
            publish,
        )
    };
    described(one) == described(other)
}

async fn connects(address: SocketAddr, config: &Config) -> bool {
    let connection = tokio::time::timeout(CONNECT_MAX, http::connect(address, &config.outbound_bind)).await;
    matches!(connection, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use relay_formats::torrc::Torrc;

    use super::*;

    fn config(more: &str) -> Config {
        let torrc = include_str!("../../testdata/torrc");
        Config::new(
            &Torrc::parse(&format!("{torrc}DataDirectory /nowhere\n{more}")).unwrap(),
            &[],
        )
        .unwrap()
    }

    #[test]
    fn a_new_log_level_troubles_no_authority_and_a_new_contact_does() {
        assert!(described_alike(
            &config(""),
            &config("Log debug stdout\nShutdownWaitLength 5\n")
        ));
        assert!(!described_alike(&config(""), &config("ContactInfo tor@example.org\n")));
        assert!(!described_alike(&config(""), &config("MaxAdvertisedBandwidth 1 MB\n")));
        assert!(!described_alike(&config(""), &config("ReducedExitPolicy 1\n")));
    }
}
