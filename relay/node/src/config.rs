//! What each part of the relay needs of its torrc.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::directory::authority::Authority;

/// The relay's configuration. Immutable; a reload makes a new one.
#[derive(Debug, Clone)]
pub struct Config {
    /// torrc `Nickname`.
    pub nickname: String,
    /// torrc `ContactInfo`.
    pub contact_info: Option<String>,
    /// torrc `DataDirectory`.
    pub data_directory: PathBuf,
    /// torrc `KeyDirectory`; `keys` in the data directory where it says nothing.
    pub key_directory: PathBuf,
    /// torrc `CacheDirectory`; the data directory where it says nothing.
    pub cache_directory: PathBuf,
    /// Where to listen for OR connections.
    pub listen: Vec<SocketAddr>,
    /// Where others reach us: at most one a family, IPv4 first. The descriptor and NETINFO say these.
    pub advertised: Vec<SocketAddr>,
    /// Our end of outgoing OR and directory connections, at most one a family.
    pub outbound_bind: Vec<IpAddr>,
    /// torrc `ShutdownWaitLength`.
    pub shutdown_wait: Duration,
    /// torrc `TestingTorNetwork`.
    pub testing_network: bool,
    /// torrc `AssumeReachable`: publish without a self-test.
    pub assume_reachable: bool,
    /// torrc `ExtendAllowPrivateAddresses`.
    pub extend_allow_private_addresses: bool,
    /// torrc `DirAuthority`, one each (`Authority` reads a line's value). Never empty: the public network's authorities
    /// are not built in yet, so a torrc without any is refused.
    pub authorities: Vec<Authority>,
    /// torrc `PublishServerDescriptor`: whether we tell the authorities about ourselves.
    pub publish_server_descriptor: bool,
    /// Bytes a second that the descriptor promises: the smaller of `RelayBandwidthRate` (or `BandwidthRate`) and
    /// `MaxAdvertisedBandwidth`.
    pub bandwidth_rate_bytes: u64,
    /// torrc `RelayBandwidthBurst`, or `BandwidthBurst`.
    pub bandwidth_burst_bytes: u64,
    /// torrc `MyFamily`.
    pub my_family: Vec<relay_formats::fingerprint::RsaIdentity>,
}
