//! One rule: an action for a network and a range of ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::IpFamily;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Action {
    Accept,
    Reject,
}

/// Addresses of one family that begin with the same bits. Host bits are kept as they were written (C tor prints
/// them so), and not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why there is no such network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// No address before the slash.
    #[error("no IP address")]
    Address,
    /// More bits than the address has, or no number.
    #[error("no prefix length that the address has")]
    Prefix,
}

impl Network {
    /// All of IPv4.
    pub const ALL_V4: Self = Self::v4([0, 0, 0, 0], 0);
    /// All of IPv6.
    pub const ALL_V6: Self = Self::v6([0, 0], 0);

    pub(super) const fn v4([a, b, c, d]: [u8; 4], prefix_bits: u8) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix_bits,
        }
    }

    pub(super) const fn v6([first, second]: [u16; 2], prefix_bits: u8) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)),
            prefix_bits,
        }
    }

    /// A network of at most 32 (IPv4) or 128 (IPv6) bits.
    pub fn new(address: IpAddr, prefix_bits: u8) -> Result<Self, BadNetwork> {
        if prefix_bits > width_bits(address) {
            return Err(BadNetwork::Prefix);
        }
        Ok(match (prefix_bits, address) {
            (0, IpAddr::V4(_)) => Self::ALL_V4,
            (0, IpAddr::V6(_)) => Self::ALL_V6,
            _ => Self { address, prefix_bits },
        })
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            prefix_bits: width_bits(address),
        }
    }

    /// How many bits are compared.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// The address as it was written, host bits included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it is of IPv4.
    pub fn is_v4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Its family.
    pub fn family(&self) -> IpFamily {
        if self.is_v4() { IpFamily::V4 } else { IpFamily::V6 }
    }

    /// Whether the address is in it. An IPv6 address that carries an IPv4 address is still an IPv6 address here.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(&Self::host(address))
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix_bits <= other.prefix_bits && self.same_start(other, self.prefix_bits)
    }

    /// Whether some address is in both.
    pub fn intersects(&self, other: &Self) -> bool {
        self.same_start(other, self.prefix_bits.min(other.prefix_bits))
    }

    fn same_start(&self, other: &Self, bits: u8) -> bool {
        self.is_v4() == other.is_v4() && leading(self.address, bits) == leading(other.address, bits)
    }
}

fn width_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `bits` bits of the address, to be compared with those of the same family.
fn leading(address: IpAddr, bits: u8) -> u128 {
    let left_aligned = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    left_aligned.checked_shr(128 - u32::from(bits.min(128))).unwrap_or(0)
}

impl FromStr for Network {
    type Err = BadNetwork;
    /// `10.0.0.0/8`, `fd00::/8`, `[fd00::]/8`, or one address.
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        let address: IpAddr = bare.parse().map_err(|_| BadNetwork::Address)?;
        match prefix {
            None => Ok(Self::host(address)),
            Some(prefix) => Self::new(address, prefix.parse().map_err(|_| BadNetwork::Prefix)?),
        }
    }
}

/// As C tor writes it: IPv6 in brackets, a full prefix left out.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}")?,
            IpAddr::V6(address) => write!(f, "[{address}]")?,
        }
        if self.prefix_bits < width_bits(self.address) {
            write!(f, "/{}", self.prefix_bits)?;
        }
        Ok(())
    }
}

/// Ports from `first` to `last`, both in it. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// `None` for port 0 or a range that runs backwards.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// Whether the port is in it.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    fn intersects(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// `*`, `80` or `80-90`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (1, u16::MAX) => f.write_str("*"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// One rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub action: Action,
    /// About which addresses.
    pub network: Network,
    /// And which ports.
    pub ports: PortRange,
}

impl Rule {
    pub(super) const fn all_v4(action: Action) -> Self {
        Self {
            action,
            network: Network::ALL_V4,
            ports: PortRange::ALL,
        }
    }

    pub(super) const fn all_v6(action: Action) -> Self {
        Self {
            action,
            network: Network::ALL_V6,
            ports: PortRange::ALL,
        }
    }

    pub(super) fn reject(network: Network) -> Self {
        Self {
            action: Action::Reject,
            network,
            ports: PortRange::ALL,
        }
    }

    /// Whether nothing of its family is left for later rules.
    pub(super) fn is_catch_all(&self) -> bool {
        self.network.prefix_bits == 0 && self.ports == PortRange::ALL
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        self.network.covers(&other.network) && self.ports.covers(&other.ports)
    }

    pub(super) fn intersects(&self, other: &Self) -> bool {
        self.network.intersects(&other.network) && self.ports.intersects(&other.ports)
    }

    /// Whether it decides about this address and port.
    pub fn matches(&self, address: IpAddr, port: u16) -> bool {
        self.ports.contains(port) && self.network.contains(address)
    }

    fn word(&self) -> &'static str {
        match self.action {
            Action::Accept => "accept",
            Action::Reject => "reject",
        }
    }

    /// As a descriptor has it: `*` for a whole family, and `accept6`, `reject6` for IPv6.
    pub(super) fn descriptor_line(&self) -> String {
        let (word, ports) = (self.word(), self.ports);
        let six = if self.network.is_v4() { "" } else { "6" };
        match self.network.prefix_bits {
            0 => format!("{word}{six} *:{ports}"),
            _ => format!("{word}{six} {}:{ports}", self.network),
        }
    }
}

/// As torrc has it: `*4` and `*6` for a whole family. What this writes, the parser reads as the same rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, ports) = (self.word(), self.ports);
        match (self.network.prefix_bits, self.network.is_v4()) {
            (0, true) => write!(f, "{word} *4:{ports}"),
            (0, false) => write!(f, "{word} *6:{ports}"),
            _ => write!(f, "{word} {}:{ports}", self.network),
        }
    }
}

/// What the first rule that matches says; `None` where none does.
pub fn first_match(rules: &[Rule], address: IpAddr, port: u16) -> Option<Action> {
    rules
        .iter()
        .find(|rule| rule.matches(address, port))
        .map(|rule| rule.action)
}
