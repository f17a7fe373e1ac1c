//! What each part of the relay needs of its torrc.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use relay_formats::torrc::{Bandwidth, DirAuthority};

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
    /// torrc `DirAuthority`. Never empty: the public network's authorities are not built in yet, so a torrc without any is
    /// refused.
    pub authorities: Vec<DirAuthority>,
    /// torrc `PublishServerDescriptor`: whether we tell the authorities about ourselves.
    pub publish_server_descriptor: bool,
    /// What the descriptor promises of our bandwidth.
    pub bandwidth: Bandwidth,
    /// torrc `MyFamily`.
    pub my_family: Vec<relay_formats::fingerprint::RsaIdentity>,
}
