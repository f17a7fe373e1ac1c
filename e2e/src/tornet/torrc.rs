//! The torrcs of a network's nodes.

use std::path::Path;

use super::state::{Node, Role, State};
use super::{CONTROL_PORT, DIR_PORT, METRICS_PORT, OR_PORT, SOCKS_PORT};

/// Between the first votes, in seconds; the phases then are a quarter of it (dir-spec "Voting schedule"; C tor
/// refuses less).
pub(crate) const INITIAL_VOTING_SECONDS: u64 = 5;

/// C tor's least interval, in seconds. The network raises it once every relay is listed.
const VOTING_SECONDS_MIN: u64 = 10;

/// Times at which votes happen: this many seconds after every multiple of the interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VotingOffset(pub(crate) u64);

/// Options of one torrc in order, so that later ones may repeat earlier ones.
#[derive(Default)]
struct Torrc(String);

impl Torrc {
    fn set(&mut self, option: &str, value: impl std::fmt::Display) -> &mut Self {
        self.0.push_str(&format!("{option} {value}\n"));
        self
    }
}

/// What any relay needs, C tor or not, inside or outside, to take part: no address, port, name or folder in it.
pub(crate) fn for_strangers(state: &State) -> String {
    let mut torrc = Torrc::default();
    torrc.set("TestingTorNetwork", 1).set("AssumeReachable", 1);
    for line in &state.authorities {
        torrc.set("DirAuthority", line);
    }
    torrc.0
}

/// The whole torrc of a node. `folder` is the node's own, `empty` an empty file.
pub(crate) fn of(state: &State, node: &Node, folder: &Path, empty: &Path, offset: VotingOffset) -> String {
    let mut torrc = Torrc(for_strangers(state));
    torrc
        .set("Nickname", &node.name)
        .set("DataDirectory", folder.join("data").display());
    // From 127/8 the kernel lets nothing off the machine, whatever an exit policy says.
    torrc.set("OutboundBindAddress", node.address);
    torrc.set("Log", format!("notice file {}", folder.join("tor.log").display()));
    match node.role {
        Role::Client => client(&mut torrc, node),
        Role::Relay => relay(&mut torrc, node),
        Role::Exit => exit(&mut torrc, node, empty),
        Role::Authority => authority(&mut torrc, state, node, offset),
    }
    if node.slot.is_none() {
        c_tor_only(&mut torrc, state, node);
    }
    for (_, line) in state
        .spec
        .torrc
        .iter()
        .filter(|(who, _)| who == "*" || *who == node.name)
    {
        torrc.0.push_str(&format!("{line}\n"));
    }
    torrc.0
}

/// What a stranger in a slot need not know.
fn c_tor_only(torrc: &mut Torrc, state: &State, node: &Node) {
    torrc
        .set("ControlPort", format!("{}:{CONTROL_PORT}", node.address))
        .set("CookieAuthentication", 1)
        .set("LogTimeGranularity", 1)
        .set("SafeLogging", 0)
        .set("ProtocolWarnings", 1)
        .set("AvoidDiskWrites", 1)
        .set("PathsNeededToBuildCircuits", 0.67)
        // Authorities and clients keep circuits ready for onion services; in so small a network they lead to a relay
        // and back, which that relay counts as a violation of the protocol.
        .set("__DisablePredictedCircuits", 1)
        // Ask the authorities, not caches that may not have it yet.
        .set("FetchDirInfoEarly", 1)
        .set("FetchDirInfoExtraEarly", 1);
    if node.role != Role::Client {
        let (a, b, c, _) = octets(node);
        torrc.set("MetricsPort", format!("{}:{METRICS_PORT}", node.address));
        // Lines add up, and the first word counts.
        if !has_own(state, node, "MetricsPortPolicy ") {
            let policy = format!("accept {a}.{b}.{c}.0/24,accept 127.0.0.0/8");
            torrc.set("MetricsPortPolicy", policy);
        }
    }
    debug_assert!(!state.authorities.is_empty(), "authorities come before torrcs");
}

/// Whether a story has given this node a line of its own that begins so.
fn has_own(state: &State, node: &Node, start: &str) -> bool {
    let mut lines = state.spec.torrc.iter();
    lines.any(|(who, line)| *who == node.name && line.starts_with(start))
}

fn octets(node: &Node) -> (u8, u8, u8, u8) {
    let [a, b, c, d] = node.address.octets();
    (a, b, c, d)
}

fn client(torrc: &mut Torrc, node: &Node) {
    torrc
        .set("ClientOnly", 1)
        .set("SocksPort", format!("{}:{SOCKS_PORT}", node.address))
        // Its default, 127.192.0.0/10, would take streams to a source there for names that it never gave out.
        .set("VirtualAddrNetworkIPv4", "10.192.0.0/10")
        // One circuit per stream, and no limits that depend on the machine's load.
        .set("ConfluxEnabled", 0)
        .set("LearnCircuitBuildTimeout", 0)
        .set("CircuitBuildTimeout", 60)
        .set("MaxCircuitDirtiness", "1 hour")
        // After six failures tor launches nothing until this is over.
        .set("NewCircuitPeriod", 1)
        .set("MaxClientCircuitsPending", 1024)
        .set("ConnectionPadding", 0);
}

fn relay(torrc: &mut Torrc, node: &Node) {
    torrc
        .set("SocksPort", 0)
        .set("Address", node.address)
        .set("ORPort", format!("{}:{OR_PORT}", node.address))
        .set("ContactInfo", format!("{}@tornet.invalid", node.name))
        .set("ShutdownWaitLength", 0);
    if node.role != Role::Exit {
        torrc.set("ExitRelay", 0);
    }
}

fn exit(torrc: &mut Torrc, node: &Node, empty: &Path) {
    relay(torrc, node);
    torrc
        .set("ExitRelay", 1)
        .set("ExitPolicyRejectPrivate", 0)
        // Microdescriptors summarise policies; only one that accepts nearly everything counts as usable.
        .set("ExitPolicy", "accept *:*")
        // It would ask the machine's name server.
        .set("ServerDNSDetectHijacking", 0);
    if node.slot.is_none() {
        torrc
            .set("ServerDNSAllowBrokenConfig", 1)
            .set("ServerDNSResolvConfFile", empty.display());
    }
}

fn authority(torrc: &mut Torrc, state: &State, node: &Node, VotingOffset(offset): VotingOffset) {
    relay(torrc, node);
    let exits: Vec<String> = state
        .nodes
        .iter()
        .filter(|node| node.role == Role::Exit)
        .map(|node| node.address.to_string())
        .collect();
    torrc
        .set("DirPort", format!("{}:{DIR_PORT}", node.address))
        .set("AuthoritativeDirectory", 1)
        .set("V3AuthoritativeDirectory", 1)
        .set("AuthDirTestReachability", 0)
        .set("TestingDirAuthVoteGuard", "*")
        .set("TestingDirAuthVoteExit", exits.join(","))
        .set("TestingMinExitFlagThreshold", 0)
        // Fast and Stable for everybody: self-measured bandwidth and uptime are noise here, and guards need both.
        .set("AuthDirFastGuarantee", "1 byte")
        .set("AuthDirVoteStableGuaranteeMinUptime", 0)
        .set("AuthDirVoteStableGuaranteeMTBF", 0)
        .set("TestingV3AuthInitialVotingInterval", INITIAL_VOTING_SECONDS)
        .set("TestingV3AuthInitialVoteDelay", 2)
        .set("TestingV3AuthInitialDistDelay", 2)
        .set("TestingV3AuthVotingStartOffset", offset)
        .set("V3AuthVotingInterval", VOTING_SECONDS_MIN)
        .set("V3AuthVoteDelay", 2)
        .set("V3AuthDistDelay", 2)
        // A busy machine may miss a vote or two.
        .set("V3AuthNIntervalsValid", 12);
    // C tor joins the sets of repeated lines, so a story that wants fewer must find none here.
    if !has_own(state, node, "TestingDirAuthVoteHSDir ") {
        torrc.set("TestingDirAuthVoteHSDir", "*");
    }
    if !state.spec.parameters.is_empty() {
        torrc.set("ConsensusParams", state.spec.parameters.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::spec::Spec;
    use super::*;

    fn node(name: &str, role: Role, last: u8) -> Node {
        Node {
            name: name.into(),
            role,
            address: Ipv4Addr::new(198, 18, 200, last),
            slot: None,
        }
    }

    fn network() -> State {
        State {
            spec: Spec {
                torrc: vec![("r1".into(), "RelayBandwidthRate 1 MB".into())],
                ..Spec::default()
            },
            tor: "/usr/bin/tor".into(),
            nodes: vec![
                node("a1", Role::Authority, 1),
                node("r1", Role::Relay, 2),
                Node {
                    slot: Some(vec!["relay".into()]),
                    ..node("r2", Role::Relay, 3)
                },
                node("e1", Role::Exit, 4),
                node("c1", Role::Client, 5),
            ],
            addresses_added: Vec::new(),
            authorities: vec!["a1 orport=9001 v3ident=AA 198.18.200.1:9030 BB".into()],
            ready: false,
        }
    }

    fn torrc(name: &str) -> String {
        let state = network();
        of(
            &state,
            state.node(name).unwrap(),
            Path::new("/n"),
            Path::new("/empty"),
            VotingOffset(3),
        )
    }

    fn has(torrc: &str, option: &str) -> bool {
        torrc.lines().any(|line| line.split(' ').next() == Some(option))
    }

    #[test]
    fn strangers_learn_the_authorities_and_nothing_of_any_node() {
        let text = for_strangers(&network());
        assert!(text.contains("DirAuthority a1 orport=9001"));
        for option in [
            "Nickname",
            "Address",
            "ORPort",
            "DataDirectory",
            "Log",
            "OutboundBindAddress",
        ] {
            assert!(!has(&text, option), "{option}");
        }
    }

    #[test]
    fn a_slot_gets_what_every_relay_knows_and_no_more() {
        let text = torrc("r2");
        for option in [
            "Nickname",
            "ORPort",
            "Address",
            "DataDirectory",
            "DirAuthority",
            "ContactInfo",
            "Log",
        ] {
            assert!(has(&text, option), "{option}");
        }
        for option in [
            "ControlPort",
            "CookieAuthentication",
            "AvoidDiskWrites",
            "FetchDirInfoEarly",
            "SafeLogging",
        ] {
            assert!(!has(&text, option), "{option} is harness talk");
        }
    }

    #[test]
    fn every_node_sends_from_its_own_address_alone() {
        for (name, last) in [("a1", 1), ("r1", 2), ("r2", 3), ("e1", 4), ("c1", 5)] {
            assert!(
                torrc(name).contains(&format!("OutboundBindAddress 198.18.200.{last}\n")),
                "{name}"
            );
        }
    }

    #[test]
    fn only_authorities_vote_only_exits_let_out_only_clients_take_streams() {
        for name in ["a1", "r1", "r2", "e1", "c1"] {
            let text = torrc(name);
            assert_eq!(has(&text, "V3AuthVotingInterval"), name == "a1", "{name}");
            assert_eq!(text.contains("ExitRelay 1\n"), name == "e1", "{name}");
            assert_eq!(text.contains("SocksPort 198"), name == "c1", "{name}");
        }
        assert!(torrc("a1").contains("TestingDirAuthVoteExit 198.18.200.4\n"));
    }

    #[test]
    fn a_further_line_goes_to_its_node_alone() {
        assert!(torrc("r1").contains("RelayBandwidthRate 1 MB\n"));
        assert!(!torrc("e1").contains("RelayBandwidthRate"));
    }
}
