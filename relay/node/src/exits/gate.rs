//! Whether a stream may go to an address: the exit policy, and no way back into the network.
//!
//! Asked for each address that a name resolved to, and again for the one that the socket says it is connected to.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use relay_engine::door::{BeginFlags, Refusal};
use relay_engine::network::NetworkView;
use relay_formats::exit_policy::ExitPolicy;
use relay_wire::relay_cells::EndReason;

/// The policy in force and the network of the newest consensus. A newer one makes a new gate.
pub struct Gate {
    policy: Arc<ExitPolicy>,
    /// torrc `IPv6Exit`.
    ipv6_exit: bool,
    /// Whether the consensus allows to go back into the network (`allow-network-reentry`).
    reentry: bool,
    /// ORPorts of relays, all ports of authorities; empty where `reentry`.
    relays: HashSet<SocketAddr>,
}

/// Says: a gate let this address through. Only [`Gate`] makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Allowed(SocketAddr);

impl Allowed {
    /// Where to connect.
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

impl Gate {
    /// The gate of `policy` in `network`.
    pub fn new(policy: Arc<ExitPolicy>, ipv6_exit: bool, network: &NetworkView) -> Self {
        let reentry = network.parameters.clamped("allow-network-reentry", 0, 0, 1) == 1;
        let addresses = network.relays.values().flat_map(|relay| &relay.addresses);
        Self {
            policy,
            ipv6_exit,
            relays: addresses.filter(|_| !reentry).copied().collect(),
            reentry,
        }
    }

    /// The same, closed to further ports of the network's: directory ports stand in no consensus of relays.
    #[must_use]
    pub fn and_closed_to(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let reentry = self.reentry;
        self.relays.extend(addresses.into_iter().filter(|_| !reentry));
        self
    }

    /// The first of `resolved` that the client's `flags` want and the policy allows, of the preferred family first.
    ///
    /// # Errors
    /// What the client is to be told; `ttl_seconds` goes into it.
    pub fn choose(
        &self,
        resolved: &[IpAddr],
        port: u16,
        flags: BeginFlags,
        ttl_seconds: u32,
    ) -> Result<Allowed, Refusal> {
        if flags.ipv4_not_okay && !self.ipv6_exit {
            return Err(Refusal::Reason(EndReason::ExitPolicy));
        }
        let wanted = |address: &&IpAddr| match address {
            IpAddr::V4(_) => !flags.ipv4_not_okay,
            IpAddr::V6(_) => self.ipv6_exit && flags.ipv6_okay,
        };
        let mut wanted: Vec<IpAddr> = resolved.iter().filter(wanted).copied().collect();
        wanted.sort_by_key(|address| address.is_ipv6() != flags.ipv6_preferred);
        let mut refusal = Refusal::Reason(EndReason::ResolveFailed);
        // The first refusal is told: it is of the family that the client would rather have.
        for (nth, address) in wanted.into_iter().enumerate() {
            match self.judge(SocketAddr::new(address, port), ttl_seconds) {
                Ok(allowed) => return Ok(allowed),
                Err(error) if nth == 0 => refusal = error,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// Whether a stream may go to `address`.
    ///
    /// # Errors
    /// What the client is to be told; `ttl_seconds` goes into it.
    pub fn judge(&self, address: SocketAddr, ttl_seconds: u32) -> Result<Allowed, Refusal> {
        let (ip, port) = (address.ip(), address.port());
        let faces = [Some(ip), inner(ip)];
        let mut faces = faces.into_iter().flatten();
        if port == 0 || !faces.clone().all(|face| self.policy.allows(face, port)) {
            return Err(Refusal::ExitPolicy {
                address: ip,
                ttl_seconds,
            });
        }
        if faces.any(|face| self.relays.contains(&SocketAddr::new(face, port))) {
            return Err(Refusal::Reason(EndReason::ConnectRefused));
        }
        Ok(Allowed(address))
    }
}

/// The IPv4 address that an IPv6 one leads to: mapped (RFC 4291 2.5.5.2) or through NAT64's well-known prefix (RFC 6052).
fn inner(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let [_, _, _, _, _, _, high, low] = address.segments();
    let [[a, b], [c, d]] = [high, low].map(u16::to_be_bytes);
    let last = Ipv4Addr::new(a, b, c, d);
    let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low) == address;
    address.to_ipv4_mapped().or(nat64.then_some(last)).map(IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use relay_engine::network::{Parameters, RelayFacts};
    use relay_formats::exit_policy::{Network, Options};
    use relay_formats::fingerprint::RsaIdentity;

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

    fn network() -> NetworkView {
        let relay = RelayFacts {
            ed25519_identity: None,
            addresses: vec![SocketAddr::new(V4, 9001)],
            is_authority: false,
        };
        NetworkView {
            relays: [(RsaIdentity([1; 20]), relay)].into(),
            ..NetworkView::default()
        }
    }

    fn gate(options: Options) -> Gate {
        let ipv6_exit = options.ipv6_exit;
        Gate::new(Arc::new(ExitPolicy::assemble(&options)), ipv6_exit, &network())
    }

    fn exit() -> Options {
        Options {
            exit_relay: Some(true),
            ipv6_exit: true,
            ..Options::default()
        }
    }

    fn flags(ipv6_okay: bool, ipv4_not_okay: bool, ipv6_preferred: bool) -> BeginFlags {
        BeginFlags {
            ipv6_okay,
            ipv4_not_okay,
            ipv6_preferred,
        }
    }

    fn went(result: Result<Allowed, Refusal>) -> Option<IpAddr> {
        result.ok().map(|allowed| allowed.address().ip())
    }

    #[test]
    fn the_client_chooses_the_family() {
        let (gate, both) = (gate(exit()), [V6, V4]);
        assert_eq!(went(gate.choose(&both, 80, flags(false, false, false), 300)), Some(V4));
        assert_eq!(went(gate.choose(&both, 80, flags(true, false, false), 300)), Some(V4));
        assert_eq!(went(gate.choose(&both, 80, flags(true, false, true), 300)), Some(V6));
        assert_eq!(went(gate.choose(&both, 80, flags(true, true, false), 300)), Some(V6));
        let none = gate.choose(&[V6], 80, flags(false, false, false), 300);
        assert!(none == Err(Refusal::Reason(EndReason::ResolveFailed)));
    }

    #[test]
    fn without_ipv6_exit_nobody_goes_there() {
        let gate = gate(Options {
            ipv6_exit: false,
            ..exit()
        });
        assert_eq!(
            went(gate.choose(&[V6, V4], 80, flags(true, false, true), 300)),
            Some(V4)
        );
        let refused = gate.choose(&[V6, V4], 80, flags(true, true, true), 300);
        assert!(refused == Err(Refusal::Reason(EndReason::ExitPolicy)));
    }

    #[test]
    fn a_name_that_leads_home_leads_nowhere() {
        let gate = gate(Options {
            own_addresses: vec!["198.51.100.1".parse().unwrap()],
            cluster: vec![Network::new("203.0.113.0".parse().unwrap(), 24).unwrap()],
            ..exit()
        });
        for home in [
            "127.0.0.1",
            "10.9.8.7",
            "100.64.0.1",
            "169.254.169.254",
            "198.51.100.1",
            "203.0.113.9",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:203.0.113.9",
            "64:ff9b::10.0.0.1",
            "64:ff9b::203.0.113.9",
            "fd00::1",
        ] {
            let address: IpAddr = home.parse().unwrap();
            let refused = gate.choose(&[address], 443, flags(true, false, false), 3_600);
            let told = Err(Refusal::ExitPolicy {
                address,
                ttl_seconds: 3_600,
            });
            assert!(refused == told, "{home}");
        }
    }

    #[test]
    fn an_allowed_address_is_taken_where_the_first_is_refused() {
        let gate = gate(exit());
        let private = "10.0.0.1".parse().unwrap();
        assert_eq!(
            went(gate.choose(&[private, V4], 80, BeginFlags::default(), 300)),
            Some(V4)
        );
    }

    #[test]
    fn in_a_test_network_without_the_private_rule_the_cluster_stays_closed_behind_every_face() {
        let gate = gate(Options {
            reject_private: false,
            cluster: vec![Network::new("10.0.0.0".parse().unwrap(), 8).unwrap()],
            ..exit()
        });
        let goes = |text: &str| gate.judge(SocketAddr::new(text.parse().unwrap(), 80), 300).is_ok();
        assert!(goes("127.0.0.1"));
        assert!(!goes("10.0.0.1") && !goes("::ffff:10.0.0.1") && !goes("64:ff9b::10.0.0.1"));
    }

    #[test]
    fn trove_2667_no_stream_comes_back_into_the_network_unless_the_consensus_lets_it() {
        let closed = gate(exit());
        let relay = SocketAddr::new(V4, 9001);
        assert!(closed.judge(relay, 300) == Err(Refusal::Reason(EndReason::ConnectRefused)));
        assert!(closed.judge(SocketAddr::new(V4, 9002), 300).is_ok());

        let mut network = network();
        network.parameters = Parameters([("allow-network-reentry".to_owned(), 1)].into());
        let open = Gate::new(Arc::new(ExitPolicy::assemble(&exit())), true, &network);
        assert!(open.judge(relay, 300).is_ok());

        let directory = SocketAddr::new(V4, 9030);
        assert!(gate(exit()).judge(directory, 300).is_ok());
        let told = gate(exit()).and_closed_to([directory]).judge(directory, 300);
        assert!(told == Err(Refusal::Reason(EndReason::ConnectRefused)));
        assert!(open.and_closed_to([directory]).judge(directory, 300).is_ok());
    }
}
