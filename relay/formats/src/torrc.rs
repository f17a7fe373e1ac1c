//! torrc: the relay's settings as its owner writes them, in C tor's own language.
//!
//! Every option of C tor 0.4.9.11 is known (`options`): honoured, taken with a warning that it changes nothing
//! here, or refused as not built. All mistakes are told at once, each with line and column.
//! `%include` is refused; the text must be whole.

mod accounting;
mod dos;
mod exits;
mod families;
mod lines;
mod options;
mod ports;
mod rates;
mod reading;
mod services;
mod values;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

pub use accounting::{AccountingRule, AccountingStart, AccountingUnit, Quota};
pub use dos::DosOptions;
pub use exits::{Exits, ServerDns};
pub use ports::{AdvertisedAddress, DirAuthority, Families, LogDestination, LogLine, OrPort, Severity};
pub use services::ServicePort;

use crate::exit_policy::Rule;
use crate::fingerprint::{Ed25519Identity, RsaIdentity};
use crate::nickname::Nickname;

/// A place in the text; both count from 1, columns in characters. Line 0 is the command line; its columns are options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// What is wrong, or worth a warning, at one place of a torrc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrcError {
    /// Where; none if something is missing altogether.
    pub place: Option<Place>,
    /// What.
    pub message: String,
}

impl TorrcError {
    fn at(place: Place, message: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            message: message.into(),
        }
    }
}

/// `line 3, column 9: ...`
impl fmt::Display for TorrcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            None => {}
            Some(Place { line: 0, column }) => write!(f, "command line, option {column}: ")?,
            Some(Place { line, column }) => write!(f, "line {line}, column {column}: ")?,
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong with a torrc, in the order of its lines; one line of text each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrcErrors(pub Vec<TorrcError>);

impl fmt::Display for TorrcErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for TorrcErrors {}

/// The settings of a relay, checked: past [`Torrc::parse`] nobody checks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torrc {
    /// `Nickname`; `Unnamed` without one.
    pub nickname: Nickname,
    /// `ContactInfo`, as written.
    pub contact_info: Option<String>,
    /// `ORPort` lines, at least one.
    pub or_ports: Vec<OrPort>,
    /// `Address` lines, at most one a family and host names.
    pub addresses: Vec<AdvertisedAddress>,
    /// `AddressDisableIPv6`: find, bind and advertise no IPv6 address.
    pub ipv6_disabled: bool,
    /// `OutboundBindAddressOR`, else `OutboundBindAddress`: at most one a family.
    pub outbound_bind: Vec<IpAddr>,
    /// `ExitPolicy` and its kin.
    pub exits: Exits,
    /// `DoS*`.
    pub dos: DosOptions,
    /// `ConfluxEnabled`; `None` is `auto`: the consensus decides.
    pub conflux_enabled: Option<bool>,
    /// `CircuitPadding`: 1 unless told otherwise.
    pub circuit_padding: bool,
    /// `ConnectionPadding`; `None` is `auto`.
    pub connection_padding: Option<bool>,
    /// `MaxMemInQueues`, 64 MB at least; `None` leaves it to the machine's memory.
    pub max_mem_in_queues: Option<u64>,
    /// `AssumeReachable`: publish without a self-test. 1 in a testing network unless told otherwise.
    pub assume_reachable: bool,
    /// `AssumeReachableIPv6`; `None` is `auto`.
    pub assume_reachable_ipv6: Option<bool>,
    /// What it serves as a directory cache.
    pub directory: DirectoryOptions,
    /// `PublishServerDescriptor`: whether to upload descriptors at all.
    pub publish_server_descriptor: bool,
    /// `ExtendAllowPrivateAddresses`; 1 in a testing network unless told otherwise.
    pub extend_allow_private_addresses: bool,
    /// `TestingTorNetwork`.
    pub testing_tor_network: bool,
    /// `DataDirectory`; without one the process decides.
    pub data_directory: Option<PathBuf>,
    /// `CacheDirectory`; without one, `data_directory`.
    pub cache_directory: Option<PathBuf>,
    /// `KeyDirectory`; without one, `keys` in `data_directory`.
    pub key_directory: Option<PathBuf>,
    /// `FamilyKeyDirectory`; without one, the key directory.
    pub family_key_directory: Option<PathBuf>,
    /// `FamilyDirectory`, an option of ours: where a family's keeper puts its bundles (`family_bundle`).
    pub family_directory: Option<PathBuf>,
    /// `SigningKeyDirectory`, an option of ours: where the signing key and its certificate come from, and are looked at for
    /// newer ones. Only with `OfflineMasterKey`.
    pub signing_key_directory: Option<PathBuf>,
    /// `User` to become after the start.
    pub user: Option<String>,
    /// `Log` lines; without one, notice to standard output.
    pub logs: Vec<LogLine>,
    /// `NumCPUs`, as many threads carry cells; `None` (0, or nothing said) means one for each processor. 512 at most.
    pub cpus: Option<NonZeroU16>,
    /// `ShutdownWaitLength`; 30 seconds without one.
    pub shutdown_wait: Duration,
    /// `SSLKeyLifetime`; `None` draws one.
    pub tls_certificate_lifetime: Option<Duration>,
    /// `DirAuthority` lines; empty means the public network's.
    pub dir_authorities: Vec<DirAuthority>,
    /// `Bandwidth*`, `RelayBandwidth*`, `MaxAdvertisedBandwidth`, `PerConnBW*`.
    pub bandwidth: Bandwidth,
    /// `CountPrivateBandwidth`: peers in private networks are held to `bandwidth` too. 1 in a testing network unless told
    /// otherwise.
    pub count_private_bandwidth: bool,
    /// `HeartbeatPeriod`; none without heartbeats.
    pub heartbeat_period: Option<Duration>,
    /// `OverloadStatistics`: whether the documents tell of overload.
    pub overload_statistics: bool,
    /// `MyFamily`, sorted, each once; our own fingerprint may be among them.
    pub my_family: Vec<RsaIdentity>,
    /// `FamilyId`.
    pub family_ids: FamilyIds,
    /// `OfflineMasterKey`: never read or make the master secret key.
    pub offline_master_key: bool,
    /// `SigningKeyLifetime`; 30 days without one, 2 days at least.
    pub signing_key_lifetime: Duration,
    /// `AccountingMax`, `AccountingRule` and `AccountingStart`; none without a quota.
    pub accounting: Option<Quota>,
    /// `MetricsPort` lines.
    pub metrics_ports: Vec<ServicePort>,
    /// `MetricsPortPolicy` lines: the first that names an address decides about it; without one it may not read.
    pub metrics_policy: Vec<Rule>,
    /// `StatusPort` lines: probes for everybody, facts for who has the token.
    pub status_ports: Vec<ServicePort>,
    /// `StatusTokenFile`: the token stands in there. Without one nobody gets the facts.
    pub status_token_file: Option<PathBuf>,
    /// What was taken without effect, and other things the owner should know.
    pub warnings: Vec<TorrcError>,
}

/// What torrc says of the directory cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// `DirCache`: whether to be one. 1 unless told otherwise.
    pub cache: bool,
    /// `DownloadExtraInfo`: whether to keep extra-infos too.
    pub extra_infos: bool,
    /// `MaxConsensusAgeForDiffs`: how old a consensus may be that diffs lead from; `None` leaves it to the consensus.
    pub diffs_age_max: Option<Duration>,
    /// `MaxHSDirCacheBytes`: memory for onion services' descriptors; `None` leaves it to the process.
    pub onion_services_bytes_max: Option<u64>,
    /// `DirPortFrontPage`: the page that who asks for `/` gets.
    pub front_page: Option<PathBuf>,
}

/// Limits in bytes a second, and bytes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// `BandwidthRate` for all traffic; raised to `relay_rate` if that is greater. 75 KiB to 2 GiB - 1.
    pub bytes_per_second_max: u64,
    /// `BandwidthBurst`; raised likewise.
    pub bytes_burst_max: u64,
    /// `RelayBandwidthRate` and `RelayBandwidthBurst` for relayed traffic; each stands in for the other.
    pub relayed: Option<RelayedBandwidth>,
    /// `MaxAdvertisedBandwidth`.
    pub advertised_max: u64,
    /// `PerConnBWRate` and `PerConnBWBurst`.
    pub link: LinkBandwidth,
}

/// What each link may move whose peer is no relay of the consensus, each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkBandwidth {
    /// `PerConnBWRate`: 1 to 2 GiB - 1; without one (0) the consensus says it.
    pub bytes_per_second_max: Option<u64>,
    /// `PerConnBWBurst`, which may be below the rate; without one (0) the consensus says it.
    pub bytes_burst_max: Option<u64>,
}

/// The part of [`Bandwidth`] for relayed traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayedBandwidth {
    /// `RelayBandwidthRate`: 75 KiB to 2 GiB - 1.
    pub bytes_per_second_max: u64,
    /// `RelayBandwidthBurst`, not below the rate.
    pub bytes_burst_max: u64,
}

impl Bandwidth {
    /// The first number of the descriptor's `bandwidth` line.
    pub fn advertised_rate(&self) -> u64 {
        let relayed = self.relayed.map_or(u64::MAX, |relayed| relayed.bytes_per_second_max);
        self.bytes_per_second_max.min(self.advertised_max).min(relayed)
    }

    /// The second number of the descriptor's `bandwidth` line.
    pub fn advertised_burst(&self) -> u64 {
        let relayed = self.relayed.map_or(u64::MAX, |relayed| relayed.bytes_burst_max);
        self.bytes_burst_max.min(relayed)
    }
}

/// The families that this relay proves to be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FamilyIds {
    /// These; each needs its key. Often none.
    Named(Vec<Ed25519Identity>),
    /// `*`: every family whose key is in the directory.
    AllPresent,
}

impl Torrc {
    /// Reads a whole torrc.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn parse(text: &str) -> Result<Self, TorrcErrors> {
        Self::parse_with(text, &[])
    }

    /// The same with options from the command line, each a name without its dashes, and a value. They overrule
    /// the text, also where an option is a list; only `+Name` adds to the text's list.
    ///
    /// # Errors
    /// Everything that is wrong with either.
    pub fn parse_with(text: &str, command_line: &[(String, String)]) -> Result<Self, TorrcErrors> {
        reading::read(text, command_line)
    }
}

#[cfg(test)]
mod tests;
