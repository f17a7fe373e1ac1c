//! Whether others can reach our ORPorts. Pure: tells what to try and remembers what came of it.
//!
//! C tor builds a circuit of three hops that ends at itself. We build no circuits yet, so there are two signs, one
//! strong and one weak: a peer made a circuit on a channel that it opened to our published address (the engine tells),
//! or a plain TCP connection to that address works from here. The weak one says nothing about a firewall before us;
//! whoever publishes on it says so in the log.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use relay_formats::facts::Reachable;

/// How often an address that nobody has reached is tried (C tor tests every minute at first).
pub const TRY_EVERY: Duration = Duration::from_secs(60);

/// How often the owner is told that an address cannot be reached (C tor,
/// `TIMEOUT_UNTIL_UNREACHABILITY_COMPLAINT`).
const COMPLAIN_EVERY: Duration = Duration::from_secs(20 * 60);

/// What we know of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Nothing,
    Assumed,
    ConnectedFromHere,
    ReachedFromOutside,
}

/// Our published addresses and what we know of each.
#[derive(Debug)]
pub struct Reachability {
    addresses: Vec<(SocketAddr, Sign)>,
    complain_at: SystemTime,
}

impl Reachability {
    /// Nothing is known of any of them.
    pub fn new(addresses: &[SocketAddr], now: SystemTime) -> Self {
        let addresses = addresses.iter().map(|address| (*address, Sign::Nothing)).collect();
        Self {
            addresses,
            complain_at: now + COMPLAIN_EVERY,
        }
    }

    /// The addresses that are worth a try.
    pub fn untested(&self) -> Vec<SocketAddr> {
        let untested = self.addresses.iter().filter(|(_, sign)| *sign == Sign::Nothing);
        untested.map(|(address, _)| *address).collect()
    }

    /// A plain connection from here worked. Whether that was news.
    pub fn connected(&mut self, address: SocketAddr) -> bool {
        self.learn(address, Sign::ConnectedFromHere)
    }

    /// A peer came to it and made a circuit. Whether that was news.
    pub fn reached(&mut self, address: SocketAddr) -> bool {
        self.learn(address, Sign::ReachedFromOutside)
    }

    /// torrc has the owner's word for it.
    pub fn assumed(&mut self, address: SocketAddr) {
        self.learn(address, Sign::Assumed);
    }

    /// Whether a descriptor may say these addresses: each has given a sign, and there is an IPv4 one, without which the
    /// authorities list nobody.
    pub fn may_publish(&self) -> bool {
        self.addresses.iter().any(|(address, _)| address.is_ipv4()) && self.untested().is_empty()
    }

    /// Addresses about which the owner should hear now; empty until the next complaint is due.
    pub fn complaint(&mut self, now: SystemTime) -> Vec<SocketAddr> {
        if now < self.complain_at {
            return Vec::new();
        }
        self.complain_at = now + COMPLAIN_EVERY;
        self.untested()
    }

    /// What is known of each, for the owner.
    pub fn told(&self) -> impl Iterator<Item = (SocketAddr, Reachable)> {
        self.addresses.iter().map(|(address, sign)| {
            let reachable = match sign {
                Sign::Nothing => Reachable::Unknown,
                Sign::Assumed => Reachable::Assumed,
                Sign::ConnectedFromHere => Reachable::FromHere,
                Sign::ReachedFromOutside => Reachable::FromOutside,
            };
            (*address, reachable)
        })
    }

    fn learn(&mut self, address: SocketAddr, sign: Sign) -> bool {
        let Some((_, known)) = self.addresses.iter_mut().find(|(ours, _)| *ours == address) else {
            return false;
        };
        let news = *known < sign;
        *known = sign.max(*known);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> [SocketAddr; 2] {
        ["192.0.2.1:9001".parse().unwrap(), "[2001:db8::1]:9001".parse().unwrap()]
    }

    #[test]
    fn each_published_address_must_give_a_sign() {
        let [v4, v6] = two();
        let mut reachability = Reachability::new(&[v4, v6], SystemTime::UNIX_EPOCH);

        assert!(reachability.connected(v4));
        assert!(!reachability.may_publish());
        assert_eq!(reachability.untested(), [v6]);
        assert!(reachability.reached(v6));
        assert!(reachability.may_publish());
    }

    #[test]
    fn the_strong_sign_is_news_after_the_weak_one_and_not_the_other_way_round() {
        let [v4, _] = two();
        let mut reachability = Reachability::new(&[v4], SystemTime::UNIX_EPOCH);

        assert!(reachability.connected(v4));
        assert!(!reachability.connected(v4));
        assert!(reachability.reached(v4));
        assert!(!reachability.connected(v4) && !reachability.reached(v4));
    }

    #[test]
    fn an_address_that_is_not_ours_proves_nothing() {
        let [v4, v6] = two();
        let mut reachability = Reachability::new(&[v4], SystemTime::UNIX_EPOCH);
        assert!(!reachability.reached(v6));
        assert!(!reachability.may_publish());
        assert!(
            !Reachability::new(&[v6], SystemTime::UNIX_EPOCH).may_publish(),
            "IPv4 is needed"
        );
    }

    #[test]
    fn the_owner_hears_every_twenty_minutes_and_only_of_what_fails() {
        let [v4, _] = two();
        let start = SystemTime::UNIX_EPOCH;
        let mut reachability = Reachability::new(&[v4], start);
        let minutes = |count: u64| start + Duration::from_secs(60 * count);

        assert!(reachability.complaint(minutes(19)).is_empty());
        assert_eq!(reachability.complaint(minutes(20)), [v4]);
        assert!(reachability.complaint(minutes(39)).is_empty());
        reachability.connected(v4);
        assert!(reachability.complaint(minutes(40)).is_empty());
    }
}
