//! Where we listen, and where others reach us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use relay_formats::torrc::{AdvertisedAddress, Families, OrPort, Torrc};

/// One address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// torrc names this address. The other family of a bare `ORPort 9001` may be missing without harm.
    pub wanted: bool,
    /// Which ORPort line it comes from.
    pub or_port: usize,
}

/// Why an address of ours cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// torrc `Address` names a host that nobody knows.
    #[error("Could not resolve local Address '{host}': {error}")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver says.
        error: std::io::Error,
    },
}

/// Where torrc wants us to listen.
pub fn listen(torrc: &Torrc) -> Vec<Listen> {
    let mut all = Vec::new();
    for (or_port, line) in torrc.or_ports.iter().enumerate().filter(|(_, line)| line.listen) {
        let port = line.port.unwrap_or(0);
        let mut add = |address: IpAddr, wanted| {
            if !(torrc.ipv6_disabled && address.is_ipv6()) {
                all.push(Listen {
                    address: SocketAddr::new(address, port),
                    wanted,
                    or_port,
                });
            }
        };
        match (line.address, line.families) {
            (Some(address), _) => add(address, true),
            (None, Families::V4) => add(Ipv4Addr::UNSPECIFIED.into(), true),
            (None, Families::V6) => add(Ipv6Addr::UNSPECIFIED.into(), true),
            (None, Families::Both) => {
                add(Ipv4Addr::UNSPECIFIED.into(), true);
                add(Ipv6Addr::UNSPECIFIED.into(), false);
            }
        }
    }
    all
}

/// Where others reach us: at most one address a family, IPv4 first. C tor's order: `Address`, the address of ORPort,
/// the address of the interface that leads outside. `ports` as in `Config::new`.
///
/// # Errors
/// `Address` names a host that nobody knows.
pub fn advertised(torrc: &Torrc, ports: &[u16]) -> Result<Vec<SocketAddr>, AddressError> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        if ipv6 && torrc.ipv6_disabled {
            continue;
        }
        let serves = |line: &OrPort| line.advertise && line.families != if ipv6 { Families::V4 } else { Families::V6 };
        let Some((at, line)) = torrc.or_ports.iter().enumerate().find(|(_, line)| serves(line)) else {
            continue;
        };
        let port = line.port.unwrap_or_else(|| ports.get(at).copied().unwrap_or(0));
        if let Some(address) = our_address(torrc, line, ipv6)? {
            found.push(SocketAddr::new(address, port));
        }
    }
    Ok(found)
}

fn our_address(torrc: &Torrc, line: &OrPort, ipv6: bool) -> Result<Option<IpAddr>, AddressError> {
    for address in &torrc.addresses {
        match address {
            AdvertisedAddress::Ip(address) if address.is_ipv6() == ipv6 => return Ok(Some(*address)),
            AdvertisedAddress::Ip(_) => {}
            AdvertisedAddress::Host(host) => {
                let unknown = |error| AddressError::Unknown {
                    host: host.clone(),
                    error,
                };
                let mut all = (host.as_str(), 0).to_socket_addrs().map_err(unknown)?;
                if let Some(address) = all.find(|address| address.is_ipv6() == ipv6) {
                    return Ok(Some(address.ip()));
                }
            }
        }
    }
    let usable = |address: &IpAddr| !address.is_unspecified() && (torrc.testing_tor_network || is_public(*address));
    if let Some(address) = line.address.filter(|address| address.is_ipv6() == ipv6).filter(usable) {
        return Ok(Some(address));
    }
    Ok(interface_address(ipv6).filter(usable))
}

/// The address that packets to the outside would carry. Connecting a UDP socket sends none.
fn interface_address(ipv6: bool) -> Option<IpAddr> {
    // Documentation addresses (RFC 5737, RFC 3849): routed like any public one, and nobody's.
    let (from, towards): (SocketAddr, SocketAddr) = if ipv6 {
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        )
    } else {
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        )
    };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The addresses of the machine's interfaces.
pub(super) fn of_interfaces() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    interfaces.filter_map(address).collect()
}

/// Not private, local or reserved, as far as a relay on the public network must care (C tor, `tor_addr_is_internal`).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(address.is_private() || address.is_loopback() || address.is_link_local() || a == 0 || a >= 224 || shared)
        }
        IpAddr::V6(address) => {
            let embedded = address.to_ipv4_mapped().is_some();
            !(address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || embedded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torrc(text: &str) -> Torrc {
        Torrc::parse(text).unwrap()
    }

    fn addresses(text: &str) -> Vec<String> {
        advertised(&torrc(text), &[])
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_bare_port_listens_on_both_families_and_needs_only_one() {
        let all = listen(&torrc("ORPort 9001"));
        let seen: Vec<(String, bool)> = all.iter().map(|one| (one.address.to_string(), one.wanted)).collect();
        assert_eq!(
            seen,
            [("0.0.0.0:9001".to_owned(), true), ("[::]:9001".to_owned(), false)]
        );
    }

    #[test]
    fn no_listen_and_disabled_ipv6_are_kept() {
        let all = listen(&torrc(
            "ORPort 443 NoListen\nORPort 9001 NoAdvertise\nAddressDisableIPv6 1",
        ));
        let seen: Vec<String> = all.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(seen, ["0.0.0.0:9001"]);
    }

    #[test]
    fn address_comes_before_the_orports_own() {
        let text = "Address 192.0.2.7\nORPort 127.0.0.1:9001\nTestingTorNetwork 1\nAddressDisableIPv6 1";
        let with_authority = format!(
            "{text}\nDirAuthority a orport=1 v3ident={0} 127.0.0.1:2 {0}",
            "AB".repeat(20)
        );
        assert_eq!(addresses(&with_authority), ["192.0.2.7:9001"]);
    }

    #[test]
    fn the_port_that_is_advertised_may_not_be_the_one_we_listen_on() {
        let text = "Address 192.0.2.7\nORPort 443 NoListen IPv4Only\nORPort 9001 NoAdvertise IPv4Only";
        assert_eq!(addresses(text), ["192.0.2.7:443"]);
    }

    /// tor#41276: a relay that said it was at 0.0.0.0.
    #[test]
    fn trove_41276_private_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "::",
            "10.1.2.3",
            "127.0.0.1",
            "100.64.0.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "100.128.0.1", "2001:4860:4860::8888"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }
}
