//! `ORPort`, `Address`, `Log`, `DirAuthority`: values of more than one word.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::values;
use crate::fingerprint::RsaIdentity;

/// One `ORPort` line: `[address:]port|auto [NoAdvertise] [NoListen] [IPv4Only] [IPv6Only]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrPort {
    /// Where to listen; without one, on every address of [`Self::families`].
    pub address: Option<IpAddr>,
    /// Port to listen on, and to advertise; `None` for `auto`: whatever the system gives.
    pub port: Option<u16>,
    /// Not `NoAdvertise`.
    pub advertise: bool,
    /// Not `NoListen`.
    pub listen: bool,
    /// Address families that the line is for.
    pub families: Families,
}

/// Address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// None for `0`, which asks for no port.
pub(super) fn or_port(text: &str) -> Result<Option<OrPort>, String> {
    let mut words = text.split_whitespace();
    let place = words.next().ok_or("expected a port, or an address and a port")?;
    let (address, port) = address_and_port(place)?;
    let mut families = match address {
        Some(IpAddr::V4(_)) => Families::V4,
        Some(IpAddr::V6(_)) => Families::V6,
        None => Families::Both,
    };
    let (mut advertise, mut listen) = (true, true);
    for flag in words {
        match flag.to_ascii_lowercase().as_str() {
            "noadvertise" => advertise = false,
            "nolisten" => listen = false,
            "ipv4only" if families != Families::V6 => families = Families::V4,
            "ipv6only" if families != Families::V4 => families = Families::V6,
            "ipv4only" | "ipv6only" => return Err(format!("`{flag}` contradicts what stands before it")),
            _ => return Err(format!("`{flag}` is none of NoAdvertise, NoListen, IPv4Only, IPv6Only")),
        }
    }
    if !advertise && !listen {
        return Err("NoAdvertise with NoListen leaves nothing to do".to_owned());
    }
    if port == Some(0) {
        return if address.is_none() {
            Ok(None)
        } else {
            Err("expected a port from 1 to 65535".to_owned())
        };
    }
    Ok(Some(OrPort {
        address,
        port,
        advertise,
        listen,
        families,
    }))
}

pub(super) fn address_and_port(text: &str) -> Result<(Option<IpAddr>, Option<u16>), String> {
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) => (Some(address), port),
        // A bare IP address: C tor listens there on its default port; rather a clear error than a guess.
        None => (None, text),
    };
    let port = match port {
        _ if port.eq_ignore_ascii_case("auto") => None,
        _ => Some(
            port.parse()
                .map_err(|_| format!("expected a port from 1 to 65535 or auto, found `{port}`"))?,
        ),
    };
    let address = match address {
        Some("*") => Some(IpAddr::from([0, 0, 0, 0])),
        Some(address) if address.contains(':') && !address.starts_with('[') => {
            return Err("an IPv6 address with a port stands in brackets".to_owned());
        }
        Some(address) => Some(values::address(address)?),
        None => None,
    };
    Ok((address, port))
}

/// What `Address` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdvertisedAddress {
    /// An address.
    Ip(IpAddr),
    /// A name to look up.
    Host(String),
}

pub(super) fn advertised_address(text: &str) -> Result<AdvertisedAddress, String> {
    if let Ok(address) = values::address(text) {
        return Ok(AdvertisedAddress::Ip(address));
    }
    let host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let only_digits = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if text.is_empty() || only_digits || text.len() > 253 || !text.chars().all(host) {
        return Err(format!("expected an IP address or a host name, found `{text}`"));
    }
    Ok(AdvertisedAddress::Host(text.to_owned()))
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For the hunt for a fault.
    Debug,
    /// More than an operator wants to read every day.
    Info,
    /// What an operator may want to know.
    Notice,
    /// What an operator should look at.
    Warn,
    /// What ends the relay.
    Err,
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogDestination {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(String),
}

/// One `Log` line: `severity[-severity] [stdout|stderr|file PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The least severity that is written.
    pub from: Severity,
    /// The greatest.
    pub to: Severity,
    /// Where to.
    pub destination: LogDestination,
}

pub(super) fn log_line(text: &str) -> Result<LogLine, String> {
    if text.starts_with('[') || text.contains(",[") {
        return Err("log domains are not built yet; give one severity for all".to_owned());
    }
    let (severities, destination) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (from, to) = match severities.split_once('-') {
        Some((from, to)) => (severity(from)?, severity(if to.is_empty() { "err" } else { to })?),
        None => (severity(severities)?, Severity::Err),
    };
    if from > to {
        return Err("the first severity is above the second".to_owned());
    }
    let destination = destination.trim();
    let (kind, path) = destination.split_once(char::is_whitespace).unwrap_or((destination, ""));
    let destination = match (kind.to_ascii_lowercase().as_str(), path.trim()) {
        ("" | "stdout", "") => LogDestination::Stdout,
        ("stderr", "") => LogDestination::Stderr,
        ("file", path) if !path.is_empty() => LogDestination::File(path.to_owned()),
        ("syslog" | "android", _) => return Err(format!("a log to {kind} is not built yet")),
        _ => return Err(format!("expected stdout, stderr or file PATH, found `{destination}`")),
    };
    Ok(LogLine { from, to, destination })
}

fn severity(text: &str) -> Result<Severity, String> {
    match text.to_ascii_lowercase().as_str() {
        "debug" => Ok(Severity::Debug),
        "info" => Ok(Severity::Info),
        "notice" => Ok(Severity::Notice),
        "warn" | "warning" => Ok(Severity::Warn),
        "err" | "error" => Ok(Severity::Err),
        _ => Err(format!("expected debug, info, notice, warn or err, found `{text}`")),
    }
}

/// One `DirAuthority` line: `[nickname] [flags] address:port fingerprint`.
#[derive(Clone, PartialEq, Eq)]
pub struct DirAuthority {
    /// Its nickname, if the line tells one.
    pub nickname: Option<String>,
    /// Address and directory port.
    pub dir_address: SocketAddr,
    /// Its ORPort at the same address, if told.
    pub or_port: Option<u16>,
    /// Its IPv6 address and ORPort, if told.
    pub ipv6_or_address: Option<SocketAddrV6>,
    /// SHA-1 of its v3 authority identity key, if it votes.
    pub v3_identity: Option<RsaIdentity>,
    /// Its fingerprint as a relay.
    pub identity: RsaIdentity,
}

impl fmt::Debug for DirAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.nickname.as_deref().unwrap_or("-");
        write!(f, "DirAuthority({name} {} {:?})", self.dir_address, self.identity)
    }
}

/// The authority, and the flags that were passed over.
pub(super) fn dir_authority(text: &str) -> Result<(DirAuthority, Vec<String>), String> {
    let mut words = text.split_whitespace().peekable();
    let nickname = words.next_if(|word| word.chars().all(|c| c.is_ascii_alphanumeric()));
    let (mut or_port, mut v3_identity, mut ipv6_or_address, mut ignored) = (None, None, None, Vec::new());
    while let Some(flag) = words.next_if(|word| !word.starts_with(|c: char| c.is_ascii_digit())) {
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        match key.to_ascii_lowercase().as_str() {
            "orport" => {
                or_port = Some(
                    value
                        .parse()
                        .map_err(|_| format!("expected orport=PORT, found `{flag}`"))?,
                )
            }
            "v3ident" => v3_identity = Some(value.parse().map_err(|error| format!("v3ident: {error}"))?),
            "ipv6" => {
                let address = value
                    .parse()
                    .map_err(|_| format!("expected ipv6=[ADDRESS]:PORT, found `{flag}`"))?;
                ipv6_or_address = Some(address);
            }
            "bridge" => return Err("a bridge authority is not built yet".to_owned()),
            _ => ignored.push(flag.to_owned()),
        }
    }
    let place = words.next().ok_or("expected ADDRESS:PORT")?;
    let dir_address = place
        .parse()
        .map_err(|_| format!("expected ADDRESS:PORT, found `{place}`"))?;
    let fingerprint: String = words.collect();
    let identity = fingerprint.parse().map_err(|error| format!("after {place}: {error}"))?;
    let authority = DirAuthority {
        nickname: nickname.map(str::to_owned),
        dir_address,
        or_port,
        ipv6_or_address,
        v3_identity,
        identity,
    };
    Ok((authority, ignored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orport_tells_where_to_listen_and_what_to_advertise() {
        let port = or_port("9001").unwrap().unwrap();
        assert_eq!(
            (port.port, port.families, port.advertise, port.listen),
            (Some(9001), Families::Both, true, true)
        );
        let port = or_port("[2001:db8::1]:443 NoListen").unwrap().unwrap();
        assert_eq!(
            (port.address, port.listen),
            (Some("2001:db8::1".parse().unwrap()), false)
        );
        let port = or_port("auto ipv4only noadvertise").unwrap().unwrap();
        assert_eq!((port.port, port.families, port.advertise), (None, Families::V4, false));
        assert_eq!(or_port("0"), Ok(None));
        for bad in [
            "",
            "x",
            "70000",
            "1.2.3.4",
            "1.2.3.4:0",
            "::1:9001",
            "9001 Fast",
            "1.2.3.4:1 IPv6Only",
            "9001 NoListen NoAdvertise",
            "9001 IPv4Only IPv6Only",
            "unix:/x",
        ] {
            assert!(or_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_an_ip_address_or_a_host_name() {
        assert_eq!(
            advertised_address("192.0.2.1"),
            Ok(AdvertisedAddress::Ip("192.0.2.1".parse().unwrap()))
        );
        assert_eq!(
            advertised_address("[2001:db8::1]"),
            Ok(AdvertisedAddress::Ip("2001:db8::1".parse().unwrap()))
        );
        assert_eq!(
            advertised_address("a-1.example"),
            Ok(AdvertisedAddress::Host("a-1.example".into()))
        );
        for bad in ["", "192.0.2", "a_b", "192.0.2.1:9001"] {
            assert!(advertised_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_line_has_severities_and_a_destination() {
        let line = log_line("notice file /var/log/tor/log file").unwrap();
        assert_eq!((line.from, line.to), (Severity::Notice, Severity::Err));
        assert_eq!(line.destination, LogDestination::File("/var/log/tor/log file".into()));
        assert_eq!(log_line("info-notice stderr").unwrap().to, Severity::Notice);
        assert_eq!(log_line("debug-").unwrap().destination, LogDestination::Stdout);
        for bad in [
            "",
            "loud",
            "warn-info",
            "notice nowhere",
            "notice file",
            "notice syslog",
            "[net]info stdout",
        ] {
            assert!(log_line(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_authority_line_names_addresses_and_keys() {
        let (id, v3) = ("AB".repeat(20), "CD".repeat(20));
        let (line, ignored) = dir_authority(&format!(
            "a1 orport=9001 weight=2 v3ident={v3} ipv6=[::1]:5 127.1.1.1:9030 {id}"
        ))
        .unwrap();
        assert_eq!((line.nickname.as_deref(), line.or_port), (Some("a1"), Some(9001)));
        assert_eq!(line.dir_address, "127.1.1.1:9030".parse().unwrap());
        assert_eq!(
            (line.identity, line.v3_identity),
            (RsaIdentity([0xab; 20]), Some(RsaIdentity([0xcd; 20])))
        );
        assert_eq!(
            (line.ipv6_or_address, ignored),
            (Some("[::1]:5".parse().unwrap()), vec!["weight=2".into()])
        );

        let spaced = ["ABAB"; 10].join(" ");
        assert_eq!(
            dir_authority(&format!("127.1.1.1:9030 {spaced}")).unwrap().0.identity,
            line.identity
        );
        for bad in [
            "",
            "a1",
            "a1 127.1.1.1:9030",
            "a1 127.1.1.1 x",
            "a1 orport=x 127.1.1.1:1 y",
            "bridge 1.1.1.1:1 x",
        ] {
            assert!(dir_authority(bad).is_err(), "{bad}");
        }
    }
}
