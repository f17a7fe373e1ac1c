//! Where an EXTEND2 may go: the rules in the order in which C tor asks them (`circuitbuild_relay.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use relay_formats::link_certs::ProvenPeer;
use relay_wire::extend::Extend2;

use crate::channel::handshake::Expected;
use crate::network::NetworkView;
use crate::settings::Settings;

/// The relay that a circuit is to reach, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) relay: Expected,
    pub(crate) address: SocketAddr,
}

/// Why a circuit may not go there; whatever it is, the client broke a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NoIdentity,
    NoAddress,
    PrivateAddress,
    BackToPrevious,
    ToOurselves,
}

/// Applies the rules. `coin` decides where both families would do.
pub(crate) fn target(
    wish: &Extend2<'_>,
    settings: &Settings,
    network: &NetworkView,
    previous: Option<&ProvenPeer>,
    coin: bool,
) -> Result<Target, Refused> {
    let rsa_identity = wish
        .rsa_identity
        .filter(|rsa| rsa.0 != [0; 20])
        .ok_or(Refused::NoIdentity)?;
    let known = network.relays.get(&rsa_identity);
    let ed25519_identity = wish
        .ed25519_identity
        .or_else(|| known.and_then(|relay| relay.ed25519_identity));
    if ed25519_identity.is_some_and(|ed25519| ed25519.0 == [0; 32]) {
        return Err(Refused::NoIdentity);
    }
    let known = known.map(|relay| relay.addresses.as_slice()).unwrap_or_default();
    let of_family = |v4: bool| known.iter().copied().find(|address| address.is_ipv4() == v4);
    let usable = |address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified();
    let named = (
        wish.ipv4.map(SocketAddr::V4).filter(usable),
        wish.ipv6.map(SocketAddr::V6).filter(usable),
    );
    // The consensus adds the other family to an address; it makes none out of nothing, 0.0.0.0 or port 0.
    if named == (None, None) {
        return Err(Refused::NoAddress);
    }
    let ipv4 = named.0.or_else(|| of_family(true));
    let ipv6 = named.1.or_else(|| of_family(false));
    let allowed = |address: &SocketAddr| settings.extend_allow_private_addresses || !is_internal(address.ip());
    if ![ipv4, ipv6].iter().flatten().all(allowed) {
        return Err(Refused::PrivateAddress);
    }
    let previous_is = previous.is_some_and(|peer| {
        peer.rsa() == rsa_identity || ed25519_identity.is_some_and(|ed25519| peer.ed25519() == ed25519)
    });
    if previous_is {
        return Err(Refused::BackToPrevious);
    }
    if rsa_identity == settings.rsa_identity || ed25519_identity == Some(settings.ed25519_identity) {
        return Err(Refused::ToOurselves);
    }
    let we_have_ipv6 = settings.advertised.iter().any(SocketAddr::is_ipv6);
    let address = match (ipv4, ipv6.filter(|_| we_have_ipv6)) {
        (Some(v4), Some(v6)) => Some(if coin { v6 } else { v4 }),
        (v4, v6) => v4.or(v6),
    };
    let address = address.ok_or(Refused::NoAddress)?;
    Ok(Target {
        relay: Expected {
            rsa_identity,
            ed25519_identity,
        },
        address,
    })
}

/// Addresses that no relay of the public network can have (C tor `tor_addr_is_internal`), and multicast.
fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_internal_v4(ip),
        IpAddr::V6(ip) => is_internal_v6(ip),
    }
}

fn is_internal_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    a == 0 || shared || ip.is_private() || ip.is_loopback() || ip.is_link_local() || a >= 224
}

fn is_internal_v6(ip: Ipv6Addr) -> bool {
    if let Some(inner) = ip.to_ipv4_mapped() {
        return is_internal_v4(inner);
    }
    let [first, ..] = ip.segments();
    // fec0::/10, the site-local addresses of old, too.
    let old_site_local = first & 0xffc0 == 0xfec0;
    ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || ip.is_multicast()
        || old_site_local
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::RelayFacts;
    use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
    use relay_wire::create::Create2;

    fn settings(private: bool) -> Settings {
        Settings {
            rsa_identity: RsaIdentity([1; 20]),
            ed25519_identity: Ed25519Identity([1; 32]),
            advertised: vec!["192.0.2.1:9001".parse().unwrap(), "[2001:db8::1]:9001".parse().unwrap()],
            onion_keys: vec![],
            extend_allow_private_addresses: private,
            services: crate::settings::StreamServices::default(),
            defences: crate::settings::Defences::default(),
            extras: crate::settings::Extras::default(),
        }
    }

    fn wish() -> Extend2<'static> {
        Extend2 {
            ipv4: Some("198.51.100.1:443".parse().unwrap()),
            ipv6: None,
            rsa_identity: Some(RsaIdentity([2; 20])),
            ed25519_identity: Some(Ed25519Identity([2; 32])),
            create: Create2 {
                handshake_type: 2,
                data: &[],
            },
        }
    }

    fn asked(wish: &Extend2<'_>) -> Result<Target, Refused> {
        target(wish, &settings(false), &NetworkView::default(), None, true)
    }

    #[test]
    fn a_circuit_goes_where_the_client_says() {
        let found = asked(&wish()).unwrap();
        assert_eq!(found.address, "198.51.100.1:443".parse().unwrap());
        assert_eq!(found.relay.ed25519_identity, Some(Ed25519Identity([2; 32])));
    }

    #[test]
    fn identities_of_nobody_or_of_ourselves_are_refused() {
        assert_eq!(
            asked(&Extend2 {
                rsa_identity: None,
                ..wish()
            }),
            Err(Refused::NoIdentity)
        );
        assert_eq!(
            asked(&Extend2 {
                rsa_identity: Some(RsaIdentity([0; 20])),
                ..wish()
            }),
            Err(Refused::NoIdentity)
        );
        let zeros = Some(Ed25519Identity([0; 32]));
        assert_eq!(
            asked(&Extend2 {
                ed25519_identity: zeros,
                ..wish()
            }),
            Err(Refused::NoIdentity)
        );
        assert_eq!(
            asked(&Extend2 {
                rsa_identity: Some(RsaIdentity([1; 20])),
                ..wish()
            }),
            Err(Refused::ToOurselves)
        );
        let ours = Some(Ed25519Identity([1; 32]));
        assert_eq!(
            asked(&Extend2 {
                ed25519_identity: ours,
                ..wish()
            }),
            Err(Refused::ToOurselves)
        );
    }

    #[test]
    fn private_addresses_are_refused_unless_the_operator_allows_them() {
        for private in [
            "10.1.2.3:1",
            "127.0.0.1:1",
            "100.64.0.1:1",
            "169.254.1.1:1",
            "192.168.0.1:1",
            "224.0.0.1:1",
        ] {
            let wish = Extend2 {
                ipv4: Some(private.parse().unwrap()),
                ..wish()
            };
            assert_eq!(asked(&wish), Err(Refused::PrivateAddress), "{private}");
            assert!(target(&wish, &settings(true), &NetworkView::default(), None, true).is_ok());
        }
        for private in [
            "[::1]:1",
            "[fc00::1]:1",
            "[fe80::1]:1",
            "[fec0::1]:1",
            "[::ffff:10.0.0.1]:1",
            "[ff02::1]:1",
        ] {
            let wish = Extend2 {
                ipv6: Some(private.parse().unwrap()),
                ..wish()
            };
            assert_eq!(asked(&wish), Err(Refused::PrivateAddress), "{private}");
        }
    }

    #[test]
    fn the_consensus_fills_in_what_the_client_leaves_out() {
        let mut network = NetworkView::default();
        let facts = RelayFacts {
            ed25519_identity: Some(Ed25519Identity([3; 32])),
            addresses: vec![
                "203.0.113.5:9001".parse().unwrap(),
                "[2001:db8:5::1]:9001".parse().unwrap(),
            ],
            is_authority: false,
        };
        network.relays.insert(RsaIdentity([2; 20]), facts);
        let bare = Extend2 {
            ed25519_identity: None,
            ..wish()
        };
        let found = target(&bare, &settings(false), &network, None, true).unwrap();
        assert_eq!(found.address, "[2001:db8:5::1]:9001".parse().unwrap());
        assert_eq!(found.relay.ed25519_identity, Some(Ed25519Identity([3; 32])));
        for nowhere in [None, Some("198.51.100.1:0"), Some("0.0.0.0:9001")] {
            let lost = Extend2 {
                ipv4: nowhere.map(|address| address.parse().unwrap()),
                ..bare.clone()
            };
            let refused = target(&lost, &settings(false), &network, None, true);
            assert_eq!(refused, Err(Refused::NoAddress), "{nowhere:?}");
        }
    }

    #[test]
    fn of_two_families_the_coin_chooses_and_ipv6_alone_needs_ours() {
        let v6 = "[2001:db8:1::1]:443";
        let both = Extend2 {
            ipv6: Some(v6.parse().unwrap()),
            ..wish()
        };
        let chosen = |coin| {
            target(&both, &settings(false), &NetworkView::default(), None, coin)
                .unwrap()
                .address
        };
        assert!(chosen(true).is_ipv6() && chosen(false).is_ipv4());
        let alone = Extend2 {
            ipv4: None,
            ..both.clone()
        };
        let without = Settings {
            advertised: vec!["192.0.2.1:9001".parse().unwrap()],
            ..settings(false)
        };
        assert!(target(&alone, &settings(false), &NetworkView::default(), None, false).is_ok());
        assert_eq!(
            target(&alone, &without, &NetworkView::default(), None, true),
            Err(Refused::NoAddress)
        );
    }
}
