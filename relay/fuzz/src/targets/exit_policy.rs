//! Exit policies: torrc's lines, the policy in force, and what is told of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use relay_formats::exit_policy::{Action, ExitPolicy, IpFamily, Network, Options, Rule, first_match};

use crate::tape::Tape;

/// Two bytes of options, then the lines.
pub(super) fn exit_policy(data: &[u8]) {
    let mut tape = Tape::new(data);
    let (switches, probe) = (tape.u8(), tape.u8());
    let text = String::from_utf8_lossy(tape.rest());
    let mut lines = Vec::new();
    for line in text.split('\n') {
        match ExitPolicy::parse_line(line) {
            Ok(parsed) => {
                let width = line.chars().count() + 1;
                assert!(
                    parsed
                        .warnings
                        .iter()
                        .all(|warning| (1..=width).contains(&warning.column))
                );
                // `private` is the word that stands for the most networks.
                assert!(parsed.rules.len() <= 12 * (line.len() + 1));
                lines.extend(parsed.rules);
            }
            Err(bad) => {
                let width = line.chars().count() + 1;
                assert!((1..=width).contains(&bad.column), "column {} of {width}", bad.column);
            }
        }
    }
    for rule in &lines {
        let written = rule.to_string();
        let again = ExitPolicy::parse_line(&written).expect("we wrote it").rules;
        assert_eq!(again, [*rule], "{written}");
    }
    if lines.len() <= 200 {
        in_force(lines, switches, probe);
    }
}

fn in_force(lines: Vec<Rule>, switches: u8, probe: u8) {
    let own: IpAddr = [203, 0, 113, probe].into();
    let options = Options {
        exit_relay: [None, Some(true), Some(true), Some(false)][usize::from(switches & 3)],
        ipv6_exit: switches & 4 != 0,
        reduced: switches & 8 != 0,
        bridge_relay: switches & 16 != 0,
        reject_private: switches & 32 != 0,
        own_addresses: vec![own],
        cluster: vec![Network::new([10, probe, 0, 0].into(), 16).expect("sixteen bits")],
        lines,
        ..Options::default()
    };
    let policy = ExitPolicy::assemble(&options);
    let default = ExitPolicy::assemble(&Options {
        lines: Vec::new(),
        exit_relay: Some(options.is_exit()),
        ..options.clone()
    });
    for (address, port) in questions(&options.lines, own) {
        let verdict = first_match(policy.rules(), address, port);
        let expected = match first_match(&options.lines, address, port) {
            _ if port == 0 => continue,
            _ if !options.is_exit() || refused_first(&options, address) => Action::Reject,
            Some(action) => action,
            None => first_match(default.rules(), address, port).expect("a policy is whole"),
        };
        assert_eq!(verdict, Some(expected), "{address} {port}");
        if policy.allows(address, port) {
            assert_eq!(expected, Action::Accept);
        }
        assert!(!policy.allows(address, 0));
    }
    told(&policy);
}

/// What stands before the owner's lines.
fn refused_first(options: &Options, address: IpAddr) -> bool {
    let private = relay_formats::exit_policy::private_networks();
    let around = options.reject_private
        && (private
            .iter()
            .chain(&options.extra_private)
            .any(|network| network.contains(address))
            || options.own_addresses.contains(&address));
    around || address.is_ipv6() && !options.ipv6_exit || options.cluster.iter().any(|network| network.contains(address))
}

/// The borders of each rule, and some places that matter.
fn questions(lines: &[Rule], own: IpAddr) -> Vec<(IpAddr, u16)> {
    let mut questions: Vec<(IpAddr, u16)> = vec![
        (own, 80),
        ([8, 8, 8, 8].into(), 25),
        ([127, 0, 0, 1].into(), 443),
        ([10, 1, 2, 3].into(), 443),
        (Ipv6Addr::LOCALHOST.into(), 443),
        ("2001:db8::1".parse().expect("an address"), 6667),
        ("::ffff:127.0.0.1".parse().expect("an address"), 80),
    ];
    for rule in lines {
        let (first, last) = ends(&rule.network);
        let (lowest, highest) = span(&rule.ports.to_string());
        for port in [lowest, highest, highest.wrapping_add(1)] {
            questions.extend([(first, port), (last, port)]);
        }
    }
    questions
}

/// The first and the last port of `80`, `80-90` or `*`.
fn span(text: &str) -> (u16, u16) {
    let text = if text == "*" { "1-65535" } else { text };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    (first.parse().expect("a port"), last.parse().expect("a port"))
}

fn ends(network: &Network) -> (IpAddr, IpAddr) {
    let bits = u32::from(network.prefix_bits());
    match network.address() {
        IpAddr::V4(v4) => {
            let last = v4.to_bits() | u32::MAX.checked_shr(bits).unwrap_or(0);
            (v4.into(), Ipv4Addr::from_bits(last).into())
        }
        IpAddr::V6(v6) => {
            let last = v6.to_bits() | u128::MAX.checked_shr(bits).unwrap_or(0);
            (v6.into(), Ipv6Addr::from_bits(last).into())
        }
    }
}

/// What the descriptor says is the policy of IPv4, and summaries are short.
fn told(policy: &ExitPolicy) {
    let (mut rules, lines) = (Vec::new(), policy.descriptor_lines());
    for line in &lines {
        // A descriptor's `*` is torrc's `*4`.
        let parsed = ExitPolicy::parse_line(&line.replace(" *:", " *4:")).expect("we wrote it");
        rules.extend(parsed.rules);
    }
    let v4: Vec<Rule> = policy
        .rules()
        .iter()
        .copied()
        .filter(|rule| rule.network.is_v4())
        .collect();
    assert_eq!(rules, v4);
    for family in [IpFamily::V4, IpFamily::V6] {
        let summary = policy.summary(family);
        assert!(summary.len() <= 1_000, "{} bytes", summary.len());
        let (word, ports) = summary.split_once(' ').expect("a word and ports");
        assert!(["accept", "reject"].contains(&word));
        let mut beyond = 0;
        for range in ports.split(',') {
            let (first, last) = span(range);
            assert!(beyond < first && first <= last, "{summary}");
            beyond = last;
        }
    }
    if policy.is_reject_all() {
        assert!(!policy.is_general_exit() && policy.ipv6_policy().is_none());
    }
}
