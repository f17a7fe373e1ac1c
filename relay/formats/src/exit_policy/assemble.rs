//! From options to the list in force, and the lists that Tor's network knows by heart.

use std::net::IpAddr;

use super::refine::without_redundancies;
use super::rule::{Action, Network, PortRange, Rule};

/// What decides about the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// torrc `ExitRelay`; `None` is `auto`: an exit if an option asks for one.
    pub exit_relay: Option<bool>,
    /// torrc `BridgeRelay`: a bridge's own lines are followed by `reject *:*`.
    pub bridge_relay: bool,
    /// torrc `IPv6Exit`.
    pub ipv6_exit: bool,
    /// torrc `ExitPolicy`, all lines in order.
    pub lines: Vec<Rule>,
    /// torrc `ReducedExitPolicy`.
    pub reduced: bool,
    /// torrc `ExitPolicyRejectPrivate`.
    pub reject_private: bool,
    /// Networks that `ExitPolicyRejectPrivate` covers beyond C tor's list: [`extra_private`] unless a test network uses them.
    pub extra_private: Vec<Network>,
    /// Our published addresses and those we bind to; refused with `ExitPolicyRejectPrivate`.
    pub own_addresses: Vec<IpAddr>,
    /// torrc `ExitPolicyRejectLocalInterfaces`.
    pub reject_local_interfaces: bool,
    /// The addresses of the machine's interfaces and of `OutboundBindAddress`; refused with `reject_local_interfaces`.
    pub local_addresses: Vec<IpAddr>,
    /// Pods, services and nodes of the cluster around us. Refused whatever the other options say.
    pub cluster: Vec<Network>,
}

/// A torrc without one word on exits.
impl Default for Options {
    fn default() -> Self {
        Self {
            exit_relay: None,
            bridge_relay: false,
            ipv6_exit: false,
            lines: Vec::new(),
            reduced: false,
            reject_private: true,
            extra_private: extra_private(),
            own_addresses: Vec::new(),
            reject_local_interfaces: false,
            local_addresses: Vec::new(),
            cluster: Vec::new(),
        }
    }
}

impl Options {
    /// Whether there is an exit at all: `ExitRelay 1`, or `auto` and some option of an exit is set.
    pub fn is_exit(&self) -> bool {
        self.exit_relay
            .unwrap_or(self.ipv6_exit || self.reduced || !self.lines.is_empty())
    }
}

/// What `private` stands for. Authorities leave exactly these out of summaries, so the list is C tor's own (`private_nets`).
/// `[::]/8` holds the IPv4-mapped addresses and NAT64's 64:ff9b::/96 and 64:ff9b:1::/48.
const PRIVATE: [Network; 12] = [
    Network::v4([0, 0, 0, 0], 8),
    Network::v4([169, 254, 0, 0], 16),
    Network::v4([127, 0, 0, 0], 8),
    Network::v4([192, 168, 0, 0], 16),
    Network::v4([10, 0, 0, 0], 8),
    Network::v4([172, 16, 0, 0], 12),
    Network::v6([0, 0], 8),
    Network::v6([0xfc00, 0], 7),
    Network::v6([0xfe80, 0], 10),
    Network::v6([0xfec0, 0], 10),
    Network::v6([0xff00, 0], 8),
    Network::v6([0, 0], 127),
];

/// The networks of the word `private` in a policy (tor(1), "ExitPolicy").
pub fn private_networks() -> &'static [Network] {
    &PRIVATE
}

/// What `ExitPolicyRejectPrivate` covers here and not in C tor: shared address space, which managed clusters give their pods
/// (RFC 6598), and benchmark networks (RFC 2544).
pub fn extra_private() -> Vec<Network> {
    vec![Network::v4([100, 64, 0, 0], 10), Network::v4([198, 18, 0, 0], 15)]
}

/// Ports of C tor's `DEFAULT_EXIT_POLICY`, all rejected; what remains is accepted.
const DEFAULT_REJECTS: &[(u16, u16)] = &[
    (25, 25),
    (119, 119),
    (135, 139),
    (445, 445),
    (563, 563),
    (1214, 1214),
    (4661, 4666),
    (6346, 6429),
    (6699, 6699),
    (6881, 6999),
];

/// Ports of C tor's `REDUCED_EXIT_POLICY`, all accepted; what remains is rejected. 18080-18081 and 18089 are in the code
/// since 0.4.9.4, though not in the manual.
const REDUCED_ACCEPTS: &[(u16, u16)] = &[
    (20, 23),
    (43, 43),
    (53, 53),
    (79, 81),
    (88, 88),
    (110, 110),
    (143, 143),
    (194, 194),
    (220, 220),
    (389, 389),
    (443, 443),
    (464, 464),
    (465, 465),
    (531, 531),
    (543, 544),
    (554, 554),
    (563, 563),
    (587, 587),
    (636, 636),
    (706, 706),
    (749, 749),
    (873, 873),
    (902, 904),
    (981, 981),
    (989, 995),
    (1194, 1194),
    (1220, 1220),
    (1293, 1293),
    (1500, 1500),
    (1533, 1533),
    (1677, 1677),
    (1723, 1723),
    (1755, 1755),
    (1863, 1863),
    (2082, 2083),
    (2086, 2087),
    (2095, 2096),
    (2102, 2104),
    (3128, 3128),
    (3389, 3389),
    (3690, 3690),
    (4321, 4321),
    (4643, 4643),
    (5050, 5050),
    (5190, 5190),
    (5222, 5223),
    (5228, 5228),
    (5900, 5900),
    (6660, 6669),
    (6679, 6679),
    (6697, 6697),
    (8000, 8000),
    (8008, 8008),
    (8074, 8074),
    (8080, 8080),
    (8082, 8082),
    (8087, 8088),
    (8232, 8233),
    (8332, 8333),
    (8443, 8443),
    (8888, 8888),
    (9418, 9418),
    (9999, 9999),
    (10000, 10000),
    (11371, 11371),
    (18080, 18081),
    (18089, 18089),
    (19294, 19294),
    (19638, 19638),
    (50002, 50002),
    (64738, 64738),
];

/// The rules in C tor's order, without redundant ones.
pub(super) fn rules(options: &Options) -> Vec<Rule> {
    let mut rules = Vec::new();
    if options.is_exit() {
        if !options.ipv6_exit {
            rules.push(Rule::all_v6(Action::Reject));
        }
        rules.extend(refused_around_us(options).into_iter().map(Rule::reject));
        rules.extend(&options.lines);
        rules.extend(tail(options));
    }
    rules.extend([Rule::all_v4(Action::Reject), Rule::all_v6(Action::Reject)]);
    without_redundancies(rules)
}

fn refused_around_us(options: &Options) -> Vec<Network> {
    let mut networks = Vec::new();
    if options.reject_private {
        networks.extend(PRIVATE);
        networks.extend(&options.extra_private);
        networks.extend(public_hosts(&options.own_addresses));
    }
    if options.reject_local_interfaces {
        networks.extend(public_hosts(&options.local_addresses));
    }
    networks.extend(&options.cluster);
    networks
}

/// Private addresses are the business of `ExitPolicyRejectPrivate` alone, as in C tor (`tor_addr_is_public_for_reject`).
fn public_hosts(addresses: &[IpAddr]) -> impl Iterator<Item = Network> {
    let is_public = |address: &&IpAddr| !PRIVATE.iter().any(|network| network.contains(**address));
    addresses
        .iter()
        .filter(is_public)
        .map(|address| Network::host(*address))
}

fn tail(options: &Options) -> Vec<Rule> {
    if options.bridge_relay {
        return Vec::new();
    }
    if options.reduced {
        return both_families(Action::Accept, REDUCED_ACCEPTS);
    }
    let mut rules = both_families(Action::Reject, DEFAULT_REJECTS);
    rules.extend([Rule::all_v4(Action::Accept), Rule::all_v6(Action::Accept)]);
    rules
}

fn both_families(action: Action, ports: &[(u16, u16)]) -> Vec<Rule> {
    let ranges = ports.iter().map(|&(first, last)| PortRange { first, last });
    ranges
        .flat_map(|ports| [Network::ALL_V4, Network::ALL_V6].map(|network| Rule { action, network, ports }))
        .collect()
}
