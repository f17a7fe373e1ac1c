//! torrc text to rules, with the column of whatever is wrong.
//!
//! ```text
//! line    = entry { "," entry }
//! entry   = ( "accept" | "reject" | "accept6" | "reject6" ) spaces target
//! target  = "private" ":" ports  |  address [ "/" mask ] [ ":" ports ]
//! address = "*" | "*4" | "*6" | IPv4 | "[" IPv6 "]"
//! mask    = bits | IPv4 mask (IPv4 only)
//! ports   = "*" | port | port "-" port | nothing
//! ```
//!
//! Stricter than C tor in what can only be a slip: an empty mask (C tor reads `/0`, everything), signs before numbers, text
//! behind a range, masks on IPv4-mapped addresses that C tor turns into others.

use std::net::{IpAddr, Ipv4Addr};

use super::assemble::private_networks;
use super::rule::{Action, Network, PortRange, Rule};

/// What one line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedLine {
    /// Its rules; `*` and `private` have become one rule for each network.
    pub rules: Vec<Rule>,
    /// Entries without effect.
    pub warnings: Vec<Warning>,
}

/// An entry that C tor skips, and so do we.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}", message = Self::MESSAGE)]
pub struct Warning {
    /// Where the entry's address begins, in characters from 1.
    pub column: usize,
}

impl Warning {
    /// What is wrong there.
    pub const MESSAGE: &str = "accept6 and reject6 need an IPv6 address; the entry has no effect. Use accept or reject";
}

/// Why a line is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct BadPolicy {
    /// Where, in characters from 1.
    pub column: usize,
    /// What.
    pub problem: Problem,
}

/// What is wrong at a place in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The entry begins otherwise.
    #[error("an entry begins with accept, reject, accept6 or reject6")]
    Action,
    /// Nothing follows the action.
    #[error("an address is missing, such as *:80, 192.0.2.0/24:* or [2001:db8::]/32:443")]
    NoTarget,
    /// Something follows the address and ports.
    #[error("only one address and range of ports belongs to an entry; put a comma before the next")]
    TwoTargets,
    /// `private` without a colon.
    #[error("private needs ports, such as private:*")]
    PrivatePorts,
    /// A bracket stays open.
    #[error("the bracket of the IPv6 address is never closed")]
    Bracket,
    /// No address.
    #[error("no IP address; an IPv6 address stands in brackets, and * means all")]
    Address,
    /// `*` with a mask.
    #[error("* means all addresses and takes no mask")]
    WildcardMask,
    /// More bits than the address has, or none.
    #[error("no mask: 0 to 32 bits or a mask such as 255.255.0.0 for IPv4, 0 to 128 bits for IPv6")]
    Mask,
    /// A dotted mask with a hole.
    #[error("the mask has ones behind zeros")]
    MaskHole,
    /// No number from 1 to 65535.
    #[error("no port: 1 to 65535, a range such as 80-90, or *")]
    Port,
    /// Port 0.
    #[error("port 0 does not exist")]
    PortZero,
    /// The range's end is before its start.
    #[error("the range of ports runs backwards")]
    PortOrder,
}

/// A piece of the line and where it begins, in bytes.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    start: usize,
}

/// A problem and its byte.
type Found<T> = Result<T, (usize, Problem)>;

impl<'a> Piece<'a> {
    fn trimmed(self) -> Self {
        let text = self.text.trim_start();
        Self {
            text: text.trim_end(),
            start: self.start + self.text.len() - text.len(),
        }
    }

    /// What is before the first `separator`, and what is behind it if there is one.
    fn split(self, separator: impl Fn(char) -> bool) -> (Self, Option<Self>) {
        let Some((place, found)) = self.text.char_indices().find(|(_, c)| separator(*c)) else {
            return (self, None);
        };
        let (head, rest) = self.text.split_at(place);
        let rest = rest.get(found.len_utf8()..).unwrap_or_default();
        let behind = Piece {
            text: rest,
            start: self.start + place + found.len_utf8(),
        };
        (
            Piece {
                text: head,
                start: self.start,
            },
            Some(behind),
        )
    }

    fn bad<T>(self, problem: Problem) -> Found<T> {
        Err((self.start, problem))
    }
}

pub(super) fn line(text: &str) -> Result<ParsedLine, BadPolicy> {
    let mut parsed = ParsedLine::default();
    let column_of = |byte: usize| text.char_indices().take_while(|(place, _)| *place < byte).count() + 1;
    let mut rest = Some(Piece { text, start: 0 });
    while let Some(piece) = rest {
        let (item, behind) = piece.split(|c| c == ',');
        rest = behind;
        let item = item.trimmed();
        if item.text.is_empty() {
            continue;
        }
        match entry(item).map_err(|(byte, problem)| BadPolicy {
            column: column_of(byte),
            problem,
        })? {
            Entry::Rules(rules) => parsed.rules.extend(rules),
            Entry::Idle(byte) => parsed.warnings.push(Warning {
                column: column_of(byte),
            }),
        }
    }
    Ok(parsed)
}

enum Entry {
    Rules(Vec<Rule>),
    /// IPv4 with accept6 or reject6: no effect. Where the address begins.
    Idle(usize),
}

fn entry(item: Piece<'_>) -> Found<Entry> {
    let (word, behind) = item.split(char::is_whitespace);
    let (action, only_v6) = match word.text {
        "accept" => (Action::Accept, false),
        "reject" => (Action::Reject, false),
        "accept6" => (Action::Accept, true),
        "reject6" => (Action::Reject, true),
        _ => return word.bad(Problem::Action),
    };
    let end = Piece {
        text: "",
        start: item.start + item.text.len(),
    };
    let target = behind.unwrap_or(end).trimmed();
    if target.text.is_empty() {
        return end.bad(Problem::NoTarget);
    }
    if let (_, Some(second)) = target.split(char::is_whitespace) {
        return second.trimmed().bad(Problem::TwoTargets);
    }
    let Target {
        networks,
        ports,
        families,
    } = read_target(target)?;
    let networks = match (only_v6, families) {
        (false, _) | (true, Families::V6) => networks,
        (true, Families::Star) => vec![Network::ALL_V6],
        (true, Families::V4OrMixed) => return Ok(Entry::Idle(target.start)),
    };
    Ok(Entry::Rules(
        networks
            .into_iter()
            .map(|network| Rule { action, network, ports })
            .collect(),
    ))
}

struct Target {
    networks: Vec<Network>,
    ports: PortRange,
    families: Families,
}

enum Families {
    /// `*`: both, or IPv6 alone behind accept6 and reject6.
    Star,
    V6,
    V4OrMixed,
}

fn read_target(target: Piece<'_>) -> Found<Target> {
    if target.text.starts_with("private") {
        return read_private(target);
    }
    let (address, mask, ports) = parts(target)?;
    let wildcard = match address.text {
        "*" => Some((vec![Network::ALL_V4, Network::ALL_V6], Families::Star)),
        "*4" => Some((vec![Network::ALL_V4], Families::V4OrMixed)),
        "*6" => Some((vec![Network::ALL_V6], Families::V6)),
        _ => None,
    };
    let (networks, families) = match (wildcard, mask) {
        (Some(_), Some(mask)) => return mask.bad(Problem::WildcardMask),
        (Some(found), None) => found,
        (None, mask) => {
            let network = read_network(address, mask)?;
            (
                vec![network],
                if network.is_v4() {
                    Families::V4OrMixed
                } else {
                    Families::V6
                },
            )
        }
    };
    Ok(Target {
        networks,
        ports: read_ports(ports)?,
        families,
    })
}

fn read_private(target: Piece<'_>) -> Found<Target> {
    match target.split(|c| c == ':') {
        (Piece { text: "private", .. }, Some(ports)) => Ok(Target {
            networks: private_networks().to_vec(),
            ports: read_ports(Some(ports))?,
            families: Families::V4OrMixed,
        }),
        _ => target.bad(Problem::PrivatePorts),
    }
}

/// Address, mask and ports. In an address with brackets neither colons nor slashes separate.
fn parts(target: Piece<'_>) -> Found<(Piece<'_>, Option<Piece<'_>>, Option<Piece<'_>>)> {
    let (address, rest) = match target.text.strip_prefix('[') {
        None => {
            let place = target.text.find(['/', ':']).unwrap_or(target.text.len());
            cut(target, place)
        }
        Some(open) => {
            let inner = Piece {
                text: open,
                start: target.start + 1,
            };
            let (Piece { text, start }, Some(rest)) = inner.split(|c| c == ']') else {
                return target.bad(Problem::Bracket);
            };
            (Piece { text, start }, rest)
        }
    };
    match rest.text.chars().next() {
        None => Ok((address, None, None)),
        Some(':') => Ok((address, None, Some(cut(rest, 1).1))),
        Some('/') => {
            let (mask, ports) = cut(rest, 1).1.split(|c| c == ':');
            Ok((address, Some(mask), ports))
        }
        Some(_) => rest.bad(Problem::Address),
    }
}

fn cut(piece: Piece<'_>, place: usize) -> (Piece<'_>, Piece<'_>) {
    let (head, rest) = piece.text.split_at_checked(place).unwrap_or((piece.text, ""));
    (
        Piece {
            text: head,
            start: piece.start,
        },
        Piece {
            text: rest,
            start: piece.start + head.len(),
        },
    )
}

fn read_network(address: Piece<'_>, mask: Option<Piece<'_>>) -> Found<Network> {
    let Ok(parsed) = address.text.parse::<IpAddr>() else {
        return address.bad(Problem::Address);
    };
    let Some(mask) = mask else {
        return Ok(Network::host(parsed));
    };
    let bits = match (digits(mask.text), parsed) {
        (Some(bits), IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => mapped_bits(bits),
        (Some(bits), _) => u8::try_from(bits).ok(),
        (None, IpAddr::V4(_)) => match mask.text.parse::<Ipv4Addr>() {
            Ok(dotted) if dotted.to_bits().count_ones() == dotted.to_bits().leading_ones() => {
                u8::try_from(dotted.to_bits().leading_ones()).ok()
            }
            Ok(_) => return mask.bad(Problem::MaskHole),
            Err(_) => None,
        },
        (None, IpAddr::V6(_)) => None,
    };
    match bits.map(|bits| Network::new(parsed, bits)) {
        Some(Ok(network)) => Ok(network),
        _ => mask.bad(Problem::Mask),
    }
}

/// Up to 32 bits count within the IPv4 address, as in C tor; from 96 on within the whole. Between the two is no sense.
fn mapped_bits(bits: u32) -> Option<u8> {
    match bits {
        0..=32 => u8::try_from(96 + bits).ok(),
        96..=128 => u8::try_from(bits).ok(),
        _ => None,
    }
}

/// A number without sign. Leading zeros are fine, more than nine digits are not.
fn digits(text: &str) -> Option<u32> {
    let sound = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| sound)
}

fn read_ports(ports: Option<Piece<'_>>) -> Found<PortRange> {
    let Some(ports) = ports.filter(|ports| !ports.text.is_empty() && ports.text != "*") else {
        return Ok(PortRange::ALL);
    };
    let (first, last) = ports.split(|c| c == '-');
    let from = read_port(first)?;
    let to = last.map_or(Ok(from), read_port)?;
    PortRange::new(from, to).map_or_else(|| ports.bad(Problem::PortOrder), Ok)
}

fn read_port(piece: Piece<'_>) -> Found<u16> {
    match digits(piece.text).map(u16::try_from) {
        Some(Ok(0)) => piece.bad(Problem::PortZero),
        Some(Ok(port)) => Ok(port),
        _ => piece.bad(Problem::Port),
    }
}
