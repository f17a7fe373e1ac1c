//! What a policy says when it is boiled down: the ports open to nearly everyone, and whether the Exit flag is due.

use std::net::{IpAddr, Ipv4Addr};

use super::IpFamily;
use super::assemble::private_networks;
use super::rule::{Action, PortRange, Rule};

/// No port is open.
pub(super) const NOTHING: &str = "reject 1-65535";
const EVERYTHING: &str = "accept 1-65535";
/// Longest summary, prefix and space included (C tor `MAX_EXITPOLICY_SUMMARY_LEN`).
const SUMMARY_BYTES_MAX: usize = 1_000;
/// A port counts as closed when more than two /8 of IPv4 refuse it.
const IPV4_REJECTS_MAX: u64 = 1 << 25;
/// A port counts as closed when more than one /16 of IPv6 refuses it, counted in /64.
const IPV6_REJECTS_MAX: u64 = 1 << 48;

/// Neighbouring ports with one fate.
#[derive(Clone, Copy)]
struct Span {
    ports: PortRange,
    /// Addresses (IPv6: /64 networks) that refuse them so far.
    rejects: u64,
    accepted: bool,
}

/// C tor's `policy_summarize`, which authorities put into microdescriptors and relays into `ipv6-policy`.
pub(super) fn summarize(rules: &[Rule], family: IpFamily) -> String {
    let mut spans = vec![Span {
        ports: PortRange::ALL,
        rejects: 0,
        accepted: false,
    }];
    for rule in rules.iter().filter(|rule| rule.network.family() == family) {
        match rule.action {
            Action::Accept if rule.network.prefix_bits() > 0 => {}
            Action::Accept => over(&mut spans, rule.ports, |span| {
                span.accepted |= span.rejects <= rejects_max(family)
            }),
            Action::Reject if private_networks().contains(&rule.network) => {}
            Action::Reject => {
                let rejects = weight(rule.network.prefix_bits(), family);
                over(&mut spans, rule.ports, |span| {
                    span.rejects = span.rejects.saturating_add(rejects)
                });
            }
        }
    }
    shorter(&list(&spans, true), &list(&spans, false))
}

fn rejects_max(family: IpFamily) -> u64 {
    match family {
        IpFamily::V4 => IPV4_REJECTS_MAX,
        IpFamily::V6 => IPV6_REJECTS_MAX,
    }
}

/// How many addresses (IPv6: /64) a network has; below one /64 nothing, above the number's end its end.
fn weight(prefix_bits: u8, family: IpFamily) -> u64 {
    let width_bits = match family {
        IpFamily::V4 => 32_u32,
        IpFamily::V6 => 64,
    };
    match width_bits.checked_sub(u32::from(prefix_bits)) {
        None => 0,
        Some(bits) => 1_u64.checked_shl(bits).unwrap_or(u64::MAX),
    }
}

/// Does `change` to all spans of these ports, having cut spans at their ends.
fn over(spans: &mut Vec<Span>, ports: PortRange, change: impl Fn(&mut Span)) {
    let pieces = spans.iter().flat_map(|span| cut(span, ports)).flatten();
    *spans = pieces.collect();
    spans
        .iter_mut()
        .filter(|span| ports.contains(span.ports.first))
        .for_each(change);
}

/// The span's parts before, within and behind the ports.
fn cut(span: &Span, ports: PortRange) -> [Option<Span>; 3] {
    let part = |first: Option<u16>, last: Option<u16>| {
        let ports = PortRange::new(first?.max(span.ports.first), last?.min(span.ports.last))?;
        Some(Span { ports, ..*span })
    };
    [
        part(Some(1), ports.first.checked_sub(1)),
        part(Some(ports.first), Some(ports.last)),
        part(ports.last.checked_add(1), Some(u16::MAX)),
    ]
}

/// The ports of one fate, neighbours joined.
fn list(spans: &[Span], accepted: bool) -> String {
    let alike = spans.chunk_by(|one, next| one.accepted == next.accepted);
    let wanted = alike.filter(|run| run.iter().all(|span| span.accepted == accepted));
    let texts = wanted.filter_map(|run| match (run.first()?.ports.first, run.last()?.ports.last) {
        (first, last) if first == last => Some(format!("{first}")),
        (first, last) => Some(format!("{first}-{last}")),
    });
    texts.collect::<Vec<_>>().join(",")
}

fn shorter(accepts: &str, rejects: &str) -> String {
    let room = SUMMARY_BYTES_MAX - "accept ".len();
    match (accepts, rejects) {
        ("", _) => NOTHING.to_owned(),
        (_, "") => EVERYTHING.to_owned(),
        _ if accepts.len() > room && rejects.len() > room => format!("accept {}", whole_items(accepts, room)),
        _ if rejects.len() < accepts.len() => format!("reject {rejects}"),
        _ => format!("accept {accepts}"),
    }
}

/// As many items as fit; too few ports are safe, wrong ones are not.
fn whole_items(items: &str, room: usize) -> &str {
    let end = items
        .char_indices()
        .take_while(|(place, _)| *place <= room)
        .filter(|(_, c)| *c == ',')
        .last();
    end.and_then(|(place, _)| items.get(..place)).unwrap_or_default()
}

/// Whether nothing of the family is open (C tor's `policy_is_reject_star`). One narrow accept is enough for a no.
pub(super) fn is_reject_all(rules: &[Rule], family: IpFamily) -> bool {
    for rule in rules.iter().filter(|rule| rule.network.family() == family) {
        match rule.action {
            Action::Accept => return false,
            Action::Reject if rule.is_catch_all() => return true,
            Action::Reject => {}
        }
    }
    true
}

/// Whether the port is open to a whole /8 of IPv4 that is public and of which no earlier rule refuses a part.
pub(super) fn opens_a_slash_8(rules: &[Rule], port: u16) -> bool {
    (0..=u8::MAX)
        .filter(|first| is_public_slash_8(*first))
        .any(|first| opens(rules, first, port))
}

fn opens(rules: &[Rule], first: u8, port: u16) -> bool {
    let about = rules
        .iter()
        .filter(|rule| rule.network.is_v4() && rule.ports.contains(port));
    for rule in about {
        let touches = super::Network::v4([first, 0, 0, 0], 8).intersects(&rule.network);
        match rule.action {
            Action::Accept if touches && rule.network.prefix_bits() <= 8 => return true,
            Action::Reject if touches => return false,
            _ => {}
        }
    }
    false
}

/// As C tor sees it: the block's first address is public.
fn is_public_slash_8(first: u8) -> bool {
    let start = IpAddr::V4(Ipv4Addr::new(first, 0, 0, 0));
    !private_networks().iter().any(|network| network.contains(start))
}
