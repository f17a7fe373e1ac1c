//! What is known of clients' addresses: how many connections they have, how fast they make them and circuits.
//!
//! In memory only, never told to anyone. The table hashes with a key of its own, so that nobody can choose addresses that
//! collide (TROVE-2021-005), and it is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{DosRules, DosTally};

/// Addresses known at once: some 10 MB. A relay sees some thousand clients at a time; who is one too many is not counted,
/// once those that have nothing open and no mark are forgotten (our own number; C tor counts them with its GeoIP cache and
/// leaves the rest to its OOM handler).
const ADDRESSES_MAX: usize = 131_072;

/// Shared by all shards and by whoever accepts connections.
#[derive(Clone)]
pub struct Addresses(Arc<Mutex<Book>>);

struct Book {
    dice: StdRng,
    rules: DosRules,
    known: HashMap<IpAddr, Entry>,
    tally: DosTally,
}

/// One address.
struct Entry {
    connections: u32,
    circuits: Bucket,
    connects: Bucket,
    /// No circuits until then.
    marked_until: Duration,
    /// No connections until then.
    barred_until: Duration,
    full_queues: u32,
}

/// Whole tokens, refilled once a second, as C tor counts them.
struct Bucket {
    tokens: u32,
    refilled: u64,
}

impl Bucket {
    fn new(now: Duration, burst: u32) -> Self {
        Self {
            tokens: burst,
            refilled: now.as_secs(),
        }
    }

    /// Takes one if there is one; says whether it is empty now.
    fn drain(&mut self, now: Duration, rate: u32, burst: u32) -> bool {
        let seconds = now.as_secs().saturating_sub(self.refilled);
        let fresh = seconds.saturating_mul(rate.into());
        self.tokens = (u64::from(self.tokens) + fresh).min(burst.into()) as u32;
        self.refilled += seconds;
        self.tokens = self.tokens.saturating_sub(1);
        self.tokens == 0
    }
}

/// Why a connection is not to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectRefusal {
    /// The address has too many already.
    TooMany,
    /// It has made too many in too short a time.
    TooFast,
}

/// A connection that counts for its address for as long as this lives. Whoever holds the socket holds it.
pub struct Visit {
    book: Addresses,
    address: IpAddr,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(entry) = self.book.lock().known.get_mut(&self.address) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }
}

impl Addresses {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(Book {
            dice: StdRng::from_seed(seed),
            rules: DosRules::default(),
            known: HashMap::new(),
            tally: DosTally::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Whoever panicked with it has ended the relay anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these rules hold.
    pub(crate) fn set_rules(&self, rules: DosRules) {
        self.lock().rules = rules;
    }

    /// A connection has come in: whether it is to be taken, asked before any work is done for it.
    ///
    /// # Errors
    /// It is not, for this reason.
    pub fn connect(&self, now: Duration, address: IpAddr) -> Result<Visit, ConnectRefusal> {
        self.lock().connect(now, address)?;
        Ok(Visit {
            book: self.clone(),
            address,
        })
    }

    /// A client wants a circuit: whether it is refused.
    pub(crate) fn refuses_circuit(&self, now: Duration, address: IpAddr) -> bool {
        self.lock().refuses_circuit(now, address)
    }

    /// A circuit of a client's was ended because its queue away from the client was full.
    pub(crate) fn note_full_queue(&self, now: Duration, address: IpAddr) {
        self.lock().note_full_queue(now, address);
    }

    /// What has been done since the start, as far as it is done here.
    pub fn tally(&self) -> DosTally {
        self.lock().tally
    }

    /// Addresses that are known now.
    pub fn known(&self) -> usize {
        self.lock().known.len()
    }
}

impl Book {
    /// The address's entry; none where the table is full of others.
    fn entry(&mut self, now: Duration, address: IpAddr) -> Option<&mut Entry> {
        if self.known.len() >= ADDRESSES_MAX && !self.known.contains_key(&address) {
            self.known
                .retain(|_, entry| entry.connections > 0 || entry.marked_until > now || entry.barred_until > now);
            if self.known.len() >= ADDRESSES_MAX {
                return None;
            }
        }
        let burst = |burst: Option<u32>| burst.unwrap_or(u32::MAX);
        let circuits = burst(self.rules.circuits.map(|rules| rules.burst));
        let connects = burst(self.rules.connections.map(|rules| rules.burst));
        Some(self.known.entry(address).or_insert_with(|| Entry {
            connections: 0,
            circuits: Bucket::new(now, circuits),
            connects: Bucket::new(now, connects),
            marked_until: Duration::ZERO,
            barred_until: Duration::ZERO,
            full_queues: 0,
        }))
    }

    fn connect(&mut self, now: Duration, address: IpAddr) -> Result<(), ConnectRefusal> {
        let (rules, longer) = (self.rules.connections, self.dice.random_range(0.0..0.5));
        let Some(entry) = self.entry(now, address) else {
            return Ok(());
        };
        let Some(rules) = rules else {
            entry.connections += 1;
            return Ok(());
        };
        let refusal = if entry.connections > rules.concurrent_max {
            Some(ConnectRefusal::TooMany)
        } else if entry.barred_until > now {
            Some(ConnectRefusal::TooFast)
        } else {
            None
        };
        if refusal.is_none() || !rules.closes {
            entry.connections += 1;
            if entry.connects.drain(now, rules.rate, rules.burst) {
                entry.barred_until = now + rules.period.mul_f64(1.0 + longer);
            }
        }
        match refusal {
            Some(ConnectRefusal::TooMany) => self.tally.concurrent_connections_rejected += 1,
            Some(ConnectRefusal::TooFast) => self.tally.connections_rejected += 1,
            None => {}
        }
        refusal.filter(|_| rules.closes).map_or(Ok(()), Err)
    }

    fn refuses_circuit(&mut self, now: Duration, address: IpAddr) -> bool {
        let Some(rules) = self.rules.circuits else { return false };
        let longer = self.dice.random_range(0.0..0.5);
        let Some(entry) = self.entry(now, address) else {
            return false;
        };
        let empty = entry.circuits.drain(now, rules.rate, rules.burst);
        let mut fresh = false;
        if empty && entry.connections >= rules.connections_min {
            fresh = entry.marked_until <= now;
            entry.marked_until = now + rules.period.mul_f64(1.0 + longer);
        }
        let refused = entry.marked_until > now && rules.refuses;
        self.tally.addresses_marked += u64::from(fresh);
        self.tally.circuits_rejected += u64::from(refused);
        refused
    }

    fn note_full_queue(&mut self, now: Duration, address: IpAddr) {
        let Some(rules) = self.rules.circuits else { return };
        let (most, longer) = (self.rules.full_queues_max, self.dice.random_range(0.0..0.5));
        let Some(entry) = self.entry(now, address) else { return };
        entry.full_queues = entry.full_queues.saturating_add(1);
        if entry.full_queues > most {
            entry.full_queues = 0;
            entry.marked_until = now + rules.period.mul_f64(1.0 + longer);
            self.tally.addresses_marked_maxq += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dos::DosOptions;
    use crate::network::Parameters;

    const START: Duration = Duration::from_secs(1_000);

    fn all_on() -> Addresses {
        let on = DosOptions {
            circuit_creation_enabled: Some(true),
            connection_enabled: Some(true),
            ..DosOptions::default()
        };
        let addresses = Addresses::new([1; 32]);
        addresses.set_rules(DosRules::of(&on, &Parameters::default()));
        addresses
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::from(0x7f00_0000_u32.wrapping_add(number).to_be_bytes())
    }

    /// As measured of C tor 0.4.9.11: of 130 connections at once 40 are kept; of 400 circuits over five, 89.
    #[test]
    fn floods_are_cut_where_c_tor_cuts_them() {
        let addresses = all_on();
        let kept: Vec<_> = (0..130)
            .filter_map(|_| addresses.connect(START, client(1)).ok())
            .collect();
        assert_eq!(kept.len(), 40);
        let other: Vec<_> = (0..5)
            .filter_map(|_| addresses.connect(START, client(2)).ok())
            .collect();
        let made = (0..400)
            .filter(|_| !addresses.refuses_circuit(START, client(2)))
            .count();
        assert_eq!((other.len(), made), (5, 89));
        let tally = addresses.tally();
        assert_eq!(
            (
                tally.connections_rejected,
                tally.circuits_rejected,
                tally.addresses_marked
            ),
            (90, 311, 1)
        );
        assert!(
            !addresses.refuses_circuit(START, client(3)),
            "others are not their fault"
        );
    }

    #[test]
    fn few_connections_may_make_as_many_circuits_as_they_like() {
        let addresses = all_on();
        let _two: Vec<_> = (0..2)
            .filter_map(|_| addresses.connect(START, client(1)).ok())
            .collect();
        assert_eq!(
            (0..400).filter(|_| addresses.refuses_circuit(START, client(1))).count(),
            0
        );
    }

    #[test]
    fn a_mark_ends_and_an_abuser_prolongs_it() {
        let addresses = all_on();
        let _three: Vec<_> = (0..3)
            .filter_map(|_| addresses.connect(START, client(1)).ok())
            .collect();
        for _ in 0..200 {
            addresses.refuses_circuit(START, client(1));
        }
        let later = |seconds| START + Duration::from_secs(seconds);
        assert!(addresses.refuses_circuit(later(3_599), client(1)));
        assert!(
            !addresses.refuses_circuit(later(5_401), client(1)),
            "an hour and a half at most"
        );
        for _ in 0..200 {
            addresses.refuses_circuit(later(5_401), client(1));
        }
        assert!(addresses.refuses_circuit(later(9_000), client(1)));
    }

    #[test]
    fn connections_at_the_same_time_are_counted_off_when_they_end() {
        let addresses = all_on();
        let mut open = Vec::new();
        for second in 0..200 {
            if let Ok(visit) = addresses.connect(START + Duration::from_secs(second), client(1)) {
                open.push(visit);
            }
        }
        assert_eq!(open.len(), 101, "C tor too counts before it adds");
        open.truncate(50);
        let late = START + Duration::from_secs(300);
        assert!(addresses.connect(late, client(1)).is_ok());
        drop(open);
        assert_eq!(addresses.lock().known[&client(1)].connections, 0);
    }

    #[test]
    fn who_fills_queues_again_and_again_is_marked() {
        let addresses = all_on();
        for _ in 0..3 {
            addresses.note_full_queue(START, client(1));
        }
        assert!(!addresses.refuses_circuit(START, client(1)));
        addresses.note_full_queue(START, client(1));
        assert!(addresses.refuses_circuit(START, client(1)));
        assert_eq!(addresses.tally().addresses_marked_maxq, 1);
    }

    #[test]
    fn a_flood_of_addresses_does_not_fill_memory() {
        let addresses = all_on();
        let _stays = addresses.connect(START, client(0));
        for number in 1..=(ADDRESSES_MAX as u32 + 100) {
            drop(addresses.connect(START, client(number)));
        }
        assert!(addresses.known() <= ADDRESSES_MAX);
        assert_eq!(addresses.lock().known[&client(0)].connections, 1);
    }
}
