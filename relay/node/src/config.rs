//! What each part of the relay needs of its torrc.

mod addresses;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_engine::settings::{Defences, Extras};
use relay_formats::exit_policy::{Action, ExitPolicy, Rule};
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::nickname::Nickname;
use relay_formats::torrc::{
    AccountingRule, Bandwidth, DirAuthority, DirectoryOptions, Exits, FamilyIds, LogLine, Quota, ServerDns,
    ServicePort, Torrc,
};

pub(crate) use addresses::is_public;
pub use addresses::{AddressError, Listen, advertised, listen};

use crate::keys::{FamilyChoice, KeyPlan};
use crate::limits;

/// The relay's configuration. Immutable; a reload makes a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// torrc `Nickname`.
    pub nickname: Nickname,
    /// torrc `ContactInfo`.
    pub contact_info: Option<String>,
    /// torrc `DataDirectory`.
    pub data_directory: PathBuf,
    /// torrc `KeyDirectory`; `keys` in the data directory where it says nothing.
    pub key_directory: PathBuf,
    /// torrc `CacheDirectory`; the data directory where it says nothing.
    pub cache_directory: PathBuf,
    /// torrc `FamilyKeyDirectory`; the key directory where it says nothing.
    pub family_key_directory: PathBuf,
    /// torrc `SigningKeyDirectory`; the key directory where it says nothing.
    pub signing_key_directory: PathBuf,
    /// torrc `FamilyDirectory`.
    pub family_directory: Option<PathBuf>,
    /// Where to listen for OR connections.
    pub listen: Vec<Listen>,
    /// Where others reach us: at most one a family, IPv4 first. The descriptor and NETINFO say these.
    pub advertised: Vec<SocketAddr>,
    /// Our end of outgoing OR and directory connections, at most one a family.
    pub outbound_bind: Vec<IpAddr>,
    /// torrc's options of exits.
    pub exits: Exits,
    /// How the engine stands up to floods.
    pub defences: Defences,
    /// Conflux and padding.
    pub extras: Extras,
    /// Where streams may leave the network here; for most relays nowhere.
    pub exit_policy: Arc<ExitPolicy>,
    /// torrc `NumCPUs`: threads that carry cells, each with links and circuits of its own. As many as the process may have
    /// processors where torrc does not say.
    pub shards: NonZeroU16,
    /// torrc `ShutdownWaitLength`.
    pub shutdown_wait: Duration,
    /// torrc `SSLKeyLifetime`; none draws one.
    pub tls_certificate_lifetime: Option<Duration>,
    /// torrc `SigningKeyLifetime`.
    pub signing_key_lifetime: Duration,
    /// torrc `OfflineMasterKey`.
    pub offline_master_key: bool,
    /// torrc `FamilyId`.
    pub families: FamilyChoice,
    /// torrc `TestingTorNetwork`.
    pub testing_network: bool,
    /// torrc `AssumeReachable`: publish without a self-test.
    pub assume_reachable: bool,
    /// torrc `AssumeReachableIPv6`; none asks `assume_reachable`.
    pub assume_reachable_ipv6: Option<bool>,
    /// torrc `ExtendAllowPrivateAddresses`.
    pub extend_allow_private_addresses: bool,
    /// torrc `DirAuthority`. Never empty: the public network's authorities are not built in yet, so a torrc without any is
    /// refused.
    pub authorities: Vec<DirAuthority>,
    /// What we serve as a directory cache.
    pub directory: DirectoryOptions,
    /// torrc `PublishServerDescriptor`: whether we tell the authorities about ourselves.
    pub publish_server_descriptor: bool,
    /// What the descriptor promises of our bandwidth, and what the shards keep to.
    pub bandwidth: Bandwidth,
    /// torrc `CountPrivateBandwidth`: peers in private networks are held to `bandwidth` too.
    pub count_private_bandwidth: bool,
    /// torrc `HeartbeatPeriod`.
    pub heartbeat_period: Option<Duration>,
    /// torrc `OverloadStatistics`.
    pub overload_statistics: bool,
    /// torrc `User`. It is the one that we run as, or there is no configuration.
    pub user: Option<String>,
    /// torrc `Log`.
    pub logs: Vec<LogLine>,
    /// torrc `MyFamily`.
    pub my_family: Vec<RsaIdentity>,
    /// torrc `AccountingMax` and its kin.
    pub accounting: Option<Quota>,
    /// torrc `MetricsPort`.
    pub metrics_ports: Vec<ServicePort>,
    /// torrc `MetricsPortPolicy`.
    pub metrics_policy: Vec<Rule>,
    /// torrc `StatusPort`.
    pub status_ports: Vec<ServicePort>,
    /// torrc `StatusTokenFile`.
    pub status_token_file: Option<PathBuf>,
}

/// Why a torrc, though well written, makes no relay.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No place for keys.
    #[error("DataDirectory is not set, and there is no home directory to keep .tor in.")]
    NoDataDirectory,
    /// An address of ours cannot be found out.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Something that torrc may say and that this build cannot do.
    #[error("{0}")]
    NotBuilt(String),
}

impl Config {
    /// What `torrc` says, with names looked up. `ports` are the ports that `auto` has become: one for each ORPort line,
    /// 0 where nothing listens yet.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(torrc: &Torrc, ports: &[u16]) -> Result<Self, ConfigError> {
        let data_directory = torrc
            .data_directory
            .clone()
            .or_else(home)
            .ok_or(ConfigError::NoDataDirectory)?;
        let advertised = advertised(torrc, ports)?;
        let key_directory = torrc
            .key_directory
            .clone()
            .unwrap_or_else(|| data_directory.join("keys"));
        Ok(Self {
            nickname: torrc.nickname.clone(),
            contact_info: torrc.contact_info.clone(),
            cache_directory: torrc.cache_directory.clone().unwrap_or_else(|| data_directory.clone()),
            family_key_directory: torrc
                .family_key_directory
                .clone()
                .unwrap_or_else(|| key_directory.clone()),
            signing_key_directory: torrc
                .signing_key_directory
                .clone()
                .unwrap_or_else(|| key_directory.clone()),
            family_directory: torrc.family_directory.clone(),
            key_directory,
            data_directory,
            listen: listen(torrc),
            exit_policy: Arc::new(exit_policy(torrc, &advertised)),
            exits: torrc.exits.clone(),
            defences: Defences {
                dos: torrc.dos,
                queued_bytes_max: Some(limits::queued_bytes_max(torrc.max_mem_in_queues)),
            },
            extras: Extras {
                conflux: torrc.conflux_enabled,
                circuit_padding: torrc.circuit_padding,
                connection_padding: torrc.connection_padding,
            },
            advertised,
            outbound_bind: torrc.outbound_bind.clone(),
            shards: torrc.cpus.unwrap_or_else(processors),
            shutdown_wait: torrc.shutdown_wait,
            tls_certificate_lifetime: torrc.tls_certificate_lifetime,
            signing_key_lifetime: torrc.signing_key_lifetime,
            offline_master_key: torrc.offline_master_key,
            families: match &torrc.family_ids {
                FamilyIds::Named(ids) => FamilyChoice::Named(ids.clone()),
                FamilyIds::AllPresent => FamilyChoice::AllFound,
            },
            testing_network: torrc.testing_tor_network,
            assume_reachable: torrc.assume_reachable,
            assume_reachable_ipv6: torrc.assume_reachable_ipv6,
            extend_allow_private_addresses: torrc.extend_allow_private_addresses,
            user: torrc.user.clone().map(right_user).transpose()?,
            logs: torrc.logs.clone(),
            my_family: torrc.my_family.clone(),
            accounting: torrc.accounting,
            metrics_ports: torrc.metrics_ports.clone(),
            metrics_policy: torrc.metrics_policy.clone(),
            status_ports: torrc.status_ports.clone(),
            status_token_file: torrc.status_token_file.clone(),
            authorities: authorities(&torrc.dir_authorities)?,
            directory: torrc.directory.clone(),
            publish_server_descriptor: torrc.publish_server_descriptor,
            bandwidth: torrc.bandwidth,
            count_private_bandwidth: torrc.count_private_bandwidth,
            heartbeat_period: torrc.heartbeat_period,
            overload_statistics: torrc.overload_statistics,
        })
    }

    /// Whether a connection from `address` may read the metrics. As in C tor the ports of the policy's entries do not count,
    /// and whom no entry names may not.
    pub fn may_read_metrics(&self, address: IpAddr) -> bool {
        let mut rules = self.metrics_policy.iter();
        let decides = rules.find(|rule| rule.network.contains(address.to_canonical()));
        decides.is_some_and(|rule| rule.action == Action::Accept)
    }

    /// Why the descriptor does not offer directory service, though we answer who asks. As in C tor: what a quota lets us
    /// carry should not go to directory requests, unless it could never be used up (`router_should_be_dirserver`).
    pub fn keeps_directory_quiet(&self) -> Option<&'static str> {
        let quota = self.accounting.filter(|quota| quota.rule != AccountingRule::In)?;
        let carried_max = match quota.rule {
            AccountingRule::Sum => quota.bytes_max / 2,
            AccountingRule::Max | AccountingRule::In | AccountingRule::Out => quota.bytes_max,
        };
        let reached = self.bandwidth.advertised_rate() >= carried_max / quota.start.unit.seconds();
        reached.then_some("AccountingMax enabled")
    }

    /// How the DNS is asked. Only an exit has a reason to look whether its servers lie.
    pub fn server_dns(&self) -> ServerDns {
        let dns = self.exits.dns.clone();
        ServerDns {
            detect_hijacking: dns.detect_hijacking && !self.exit_policy.is_reject_all(),
            ..dns
        }
    }

    /// The same relay, but no exit.
    #[must_use]
    pub fn without_exit(&self) -> Self {
        Self {
            exit_policy: Arc::new(ExitPolicy::reject_all()),
            ..self.clone()
        }
    }

    /// What loading the keys needs to know.
    pub fn key_plan(&self) -> KeyPlan {
        KeyPlan {
            key_directory: self.key_directory.clone(),
            signing_directory: self.signing_key_directory.clone(),
            data_directory: self.data_directory.clone(),
            nickname: self.nickname.clone(),
            offline_master: self.offline_master_key,
            signing_lifetime: self.signing_key_lifetime,
            families: self.families.clone(),
            family_key_directory: self.family_key_directory.clone(),
            family_directory: self.family_directory.clone(),
        }
    }

    /// `next`, but for what a running relay cannot change.
    #[must_use]
    pub fn with_changes_of(&self, next: Self) -> Self {
        Self {
            data_directory: self.data_directory.clone(),
            key_directory: self.key_directory.clone(),
            signing_key_directory: self.signing_key_directory.clone(),
            cache_directory: self.cache_directory.clone(),
            listen: self.listen.clone(),
            outbound_bind: self.outbound_bind.clone(),
            shards: self.shards,
            user: self.user.clone(),
            testing_network: self.testing_network,
            metrics_ports: self.metrics_ports.clone(),
            status_ports: self.status_ports.clone(),
            ..next
        }
    }

    /// What a running relay cannot change from `self` to `next`; each by its torrc name.
    pub fn fixed_changes(&self, next: &Self) -> Vec<&'static str> {
        let checks = [
            ("DataDirectory", self.data_directory != next.data_directory),
            ("KeyDirectory", self.key_directory != next.key_directory),
            (
                "SigningKeyDirectory",
                self.signing_key_directory != next.signing_key_directory,
            ),
            ("CacheDirectory", self.cache_directory != next.cache_directory),
            ("ORPort", self.listen != next.listen),
            ("OutboundBindAddress", self.outbound_bind != next.outbound_bind),
            ("NumCPUs", self.shards != next.shards),
            ("User", self.user != next.user),
            ("MetricsPort", self.metrics_ports != next.metrics_ports),
            ("StatusPort", self.status_ports != next.status_ports),
            ("TestingTorNetwork", self.testing_network != next.testing_network),
        ];
        checks
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(name, _)| name)
            .collect()
    }
}

fn exit_policy(torrc: &Torrc, advertised: &[SocketAddr]) -> ExitPolicy {
    let advertised: Vec<IpAddr> = advertised.iter().map(SocketAddr::ip).collect();
    ExitPolicy::assemble(&torrc.exit_policy_options(&advertised, &addresses::of_interfaces()))
}

/// As many as our cgroup and affinity let us have; one where the system does not tell.
fn processors() -> NonZeroU16 {
    let found = std::thread::available_parallelism().ok();
    let found = found.and_then(|found| NonZeroU16::try_from(found).ok());
    found.unwrap_or(NonZeroU16::MIN)
}

/// `~/.tor`, C tor's default.
fn home() -> Option<PathBuf> {
    std::env::home_dir()
        .filter(|home| home.is_absolute())
        .map(|home| home.join(".tor"))
}

/// C tor starts as root and becomes `User`. We never were root: this only sees to it that the owner's wish holds.
fn right_user(wanted: String) -> Result<String, ConfigError> {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if uid_of(&accounts, &wanted) == Some(rustix::process::getuid().as_raw()) {
        return Ok(wanted);
    }
    let what = format!("User {wanted}: the relay does not change its user. Start it as {wanted}, or leave User out.");
    Err(ConfigError::NotBuilt(what))
}

/// The number of an account in the text of a passwd(5) file.
fn uid_of(accounts: &str, name: &str) -> Option<u32> {
    let mut accounts = accounts.lines().map(|line| line.split(':'));
    accounts.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
}

fn authorities(lines: &[DirAuthority]) -> Result<Vec<DirAuthority>, ConfigError> {
    if lines.is_empty() {
        let what = "The public network's directory authorities are not built in yet: torrc needs DirAuthority lines.";
        return Err(ConfigError::NotBuilt(what.to_owned()));
    }
    Ok(lines.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_its_whole_name() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\ntorn:x:7:7::/:\ntor:x:100:65533:tor:/var/lib/tor:\nodd:x\n";
        let found = ["tor", "root", "odd", "to", ""].map(|name| uid_of(accounts, name));
        assert_eq!(found, [Some(100), Some(0), None, None, None]);
    }

    #[test]
    fn a_relay_that_should_run_as_somebody_else_does_not_start() {
        let error = right_user("no such user".to_owned()).unwrap_err();
        assert!(error.to_string().contains("does not change its user"), "{error}");
    }
}
