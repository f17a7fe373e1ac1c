//! Where a client wants a stream to go, checked for syntax before any resolver sees it.
//!
//! A name off the network reaches a resolver and, as an answer, comes back to a client; so both ways only letters, digits,
//! `-`, `_` and `.` pass (TROVE-2026-035). What looks like an address in a form that only lenient parsers read
//! (`0x7f.1`, `2130706433`), and names that must never be asked for, are refused too.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which names may be looked up: torrc `ServerDNSAllowNonRFC953Hostnames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Letters, digits, `-`, `_` and `.` (option 0, the default).
    Rfc953,
    /// Any printable ASCII but space and `:` (option 1).
    Printable,
}

/// No name that may be looked up. The text itself is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no valid host name")]
pub struct BadName;

/// Bytes of a name without its last dot (RFC 1035 2.3.4, less the two that only DNS's own form needs).
pub const NAME_BYTES_MAX: usize = 253;
/// Bytes between two dots.
pub const LABEL_BYTES_MAX: usize = 63;

/// An address or a name. `Debug` does not tell which: destinations are never logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Nothing to resolve.
    Address(IpAddr),
    /// To be resolved; valid by its syntax, without a last dot.
    Name(&'a str),
}

impl fmt::Debug for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[destination]")
    }
}

impl<'a> Destination<'a> {
    /// Reads `192.0.2.1`, `[2001:db8::1]`, `2001:db8::1` or a name.
    pub fn read(text: &'a [u8], rule: NameRule) -> Result<Self, BadName> {
        let text = std::str::from_utf8(text).map_err(|_| BadName)?;
        if let Some(open) = text.strip_prefix('[') {
            let inner = open.strip_suffix(']').ok_or(BadName)?;
            return inner
                .parse::<Ipv6Addr>()
                .map(|v6| Self::Address(v6.into()))
                .map_err(|_| BadName);
        }
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => checked_name(text, rule).map(Self::Name),
        }
    }
}

/// The name without its last dot, if it may be looked up or told to a client.
pub fn checked_name(text: &str, rule: NameRule) -> Result<&str, BadName> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let sound = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.split('.').all(|label| is_label(label, rule))
        && !ends_in_a_number(name)
        && !is_special(name);
    if sound { Ok(name) } else { Err(BadName) }
}

fn is_label(label: &str, rule: NameRule) -> bool {
    let allowed = |byte: u8| match rule {
        NameRule::Rfc953 => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
        // With a colon it would be an address with a dot behind it, or one that only lenient readers know (`fe80::1%eth0`).
        NameRule::Printable => byte.is_ascii_graphic() && byte != b':',
    };
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(allowed)
}

/// Top labels are never numbers; an `inet_aton` somewhere would read such a name as an address, past the exit policy.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `.onion` must not reach the DNS (RFC 7686), `.exit` is a word between a client and its own Tor, and `localhost` is us.
fn is_special(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    ["onion", "exit", "localhost"]
        .iter()
        .any(|special| last.eq_ignore_ascii_case(special))
}

/// The address that a reverse name asks for (RFC 1035 3.5, RFC 3596 2.5); `None` for any other name.
pub(crate) fn reverse_address(name: &str) -> Option<Result<IpAddr, BadName>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if let Some(labels) = strip_suffix_ignoring_case(name, ".in-addr.arpa") {
        return Some(reverse_v4(labels).ok_or(BadName));
    }
    let labels = strip_suffix_ignoring_case(name, ".ip6.arpa")?;
    Some(reverse_v6(labels).ok_or(BadName))
}

fn strip_suffix_ignoring_case<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (head, tail) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(head)
}

fn reverse_v4(labels: &str) -> Option<IpAddr> {
    let mut bytes = [0_u8; 4];
    let mut labels = labels.rsplit('.');
    for byte in &mut bytes {
        let label = labels.next()?;
        let plain = label.bytes().all(|digit| digit.is_ascii_digit()) && (label.len() == 1 || !label.starts_with('0'));
        *byte = label.parse().ok().filter(|_| plain)?;
    }
    labels.next().is_none().then(|| Ipv4Addr::from(bytes).into())
}

fn reverse_v6(labels: &str) -> Option<IpAddr> {
    let mut bits = 0_u128;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let (&[digit], true) = (label.as_bytes(), count < 32) else {
            return None;
        };
        bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Destination<'_>, BadName> {
        Destination::read(text.as_bytes(), NameRule::Rfc953)
    }

    #[test]
    fn addresses_and_sound_names_pass() {
        assert_eq!(
            read("192.0.2.1"),
            Ok(Destination::Address(IpAddr::from([192, 0, 2, 1])))
        );
        let v6 = Ok(Destination::Address("2001:db8::1".parse().unwrap()));
        assert_eq!((read("[2001:db8::1]"), read("2001:db8::1")), (v6, v6));
        for name in [
            "example.com",
            "a",
            "_dmarc.example.com",
            "xn--bcher-kva.example",
            "3com.com",
            "1.2.3.4.example",
        ] {
            assert_eq!(read(name), Ok(Destination::Name(name)));
        }
        assert_eq!(read("example.com."), Ok(Destination::Name("example.com")));
    }

    #[test]
    fn trove_2026_035_hostile_names_never_reach_a_resolver() {
        let long = "a".repeat(64);
        let longer = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        let names = [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a\0b",
            "a\nb",
            "ex@mple.com",
            "a/b",
            "bücher.example",
            "%00.example",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "010.0.0.1",
            "300.1.1.1",
            "host.0X1f",
            "[::1",
            "[::1]x",
            "[]",
            "[192.0.2.1]",
            "[example.com]",
            "fe80::1%eth0",
            "x.onion",
            "X.ONION.",
            "y.exit",
            "localhost",
            "a.localhost",
            long.as_str(),
            longer.as_str(),
        ];
        for name in names {
            assert_eq!(read(name), Err(BadName), "{name:?}");
        }
        assert_eq!(Destination::read(b"\xff\xfe", NameRule::Printable), Err(BadName));
    }

    #[test]
    fn the_longest_name_passes() {
        let name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        assert_eq!(
            (name.len(), read(&name)),
            (NAME_BYTES_MAX, Ok(Destination::Name(&name)))
        );
    }

    #[test]
    fn the_lenient_rule_takes_what_prints_and_nothing_else() {
        assert!(checked_name("ex@mple.com", NameRule::Printable).is_ok());
        assert_eq!(checked_name("a b", NameRule::Printable), Err(BadName));
        assert_eq!(checked_name("a\u{7f}b", NameRule::Printable), Err(BadName));
    }

    #[test]
    fn no_rule_takes_an_ipv6_address_for_a_name() {
        for text in ["8::1.", "::ffff:127.0.0.1.", "fe80::1%eth0", "a:b"] {
            for rule in [NameRule::Rfc953, NameRule::Printable] {
                assert_eq!(Destination::read(text.as_bytes(), rule), Err(BadName), "{text}");
            }
        }
    }

    #[test]
    fn a_destination_has_no_voice() {
        assert_eq!(format!("{:?}", read("example.com").unwrap()), "[destination]");
    }

    #[test]
    fn trove_2026_051_reverse_names_read_as_the_address_they_ask_for() {
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.IP6.arpa";
        assert_eq!(
            reverse_address("1.2.0.192.in-addr.arpa"),
            Some(Ok(IpAddr::from([192, 0, 2, 1])))
        );
        assert_eq!(reverse_address(v6), Some(Ok("2001:db8::1".parse().unwrap())));
        assert_eq!(reverse_address("example.com"), None);
        for odd in [
            "2.0.192.in-addr.arpa",
            "1.1.2.0.192.in-addr.arpa",
            "01.2.0.192.in-addr.arpa",
            "+1.2.0.192.in-addr.arpa",
            "256.2.0.192.in-addr.arpa",
            ".2.0.192.in-addr.arpa",
            "1.0.ip6.arpa",
            &format!("0.{v6}"),
            &v6.replace("8.b", "8b"),
        ] {
            assert_eq!(reverse_address(odd), Some(Err(BadName)), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            for rule in [NameRule::Rfc953, NameRule::Printable] {
                if let Ok(Destination::Name(name)) = Destination::read(&text, rule) {
                    prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic()) && name.len() <= NAME_BYTES_MAX);
                    let _ = reverse_address(name);
                }
            }
        }

        #[test]
        fn every_reverse_name_finds_its_address(v4: [u8; 4], v6: [u8; 16]) {
            let name = v4.iter().rev().map(|byte| format!("{byte}.")).collect::<String>() + "in-addr.arpa";
            prop_assert_eq!(reverse_address(&name), Some(Ok(IpAddr::from(v4))));
            let nibbles = v6.iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4)).collect::<String>();
            prop_assert_eq!(reverse_address(&(nibbles + "ip6.arpa")), Some(Ok(IpAddr::from(v6))));
        }
    }
}
