//! Whole seas: clients, relays and destinations joined by links that are slow, stall, break and overtake each other.
//!
//! Relays have one shard, two or three. Whatever the weather: nobody panics, nothing is left behind, and every byte arrives, or the client is told by END,
//! DESTROY or the end of its link that it will not.
//!
//! ```text
//! cargo test -p relay-simnet --test seas                                   as many seeds as a debug build does in seconds
//! RELAYFLEET_SEEDS=1000 cargo test --release -p relay-simnet --test seas -- --nocapture
//! RELAYFLEET_SEED=17 cargo test -p relay-simnet --test seas                one of them alone
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that looks in vain is to fail"
)]

mod people;
mod sea;
mod world;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use relay_simnet::keys::Keys;

/// What a debug build does in a few seconds.
const SEEDS_DEFAULT: u64 = 12;

/// Relays of a sea. Making keys takes a second, so all seas share them.
fn keys() -> Vec<Arc<Keys>> {
    static KEYS: OnceLock<Vec<Arc<Keys>>> = OnceLock::new();
    let relay = |number: u8| {
        let address = SocketAddr::from(([192, 0, 2, number], 9001));
        Arc::new(Keys::new(number.into(), address).expect("keys"))
    };
    KEYS.get_or_init(|| (1..=5).map(relay).collect()).clone()
}

/// What happened in a sea, or in many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Log {
    streams: u64,
    streams_complete: u64,
    bytes_up: u64,
    bytes_down: u64,
    /// Streams that a client ended by itself before all was there.
    left: u64,
    /// Streams that ended with their client's link.
    links_cut: u64,
    crashes: u64,
    ends: BTreeMap<u8, u64>,
    destroys: BTreeMap<u8, u64>,
    /// All that clients were told, and when, as one number.
    story: u64,
}

impl Log {
    fn tell(&mut self, when: Duration, what: &impl std::fmt::Debug) {
        let mut hasher = DefaultHasher::new();
        (self.story, when, format!("{what:?}")).hash(&mut hasher);
        self.story = hasher.finish();
    }

    fn add(&mut self, other: &Self) {
        self.streams += other.streams;
        self.streams_complete += other.streams_complete;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.left += other.left;
        self.links_cut += other.links_cut;
        self.crashes += other.crashes;
        for (reason, count) in &other.ends {
            *self.ends.entry(*reason).or_default() += count;
        }
        for (reason, count) in &other.destroys {
            *self.destroys.entry(*reason).or_default() += count;
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

#[test]
fn every_byte_arrives_or_the_client_is_told_why_not() {
    let only = number("RELAYFLEET_SEED");
    let seeds = number("RELAYFLEET_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let range = only.map_or(0..seeds, |seed| seed..seed + 1);
    keys();
    let (next, log) = (AtomicU64::new(range.start), Mutex::new(Log::default()));
    let sail = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= range.end {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| sea::sail(seed))) {
                Ok(one) => log.lock().unwrap().add(&one),
                Err(panic) => {
                    println!(
                        "seed {seed} failed; alone: RELAYFLEET_SEED={seed} cargo test -p relay-simnet --test seas"
                    );
                    resume_unwind(panic);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let sailors: Vec<_> = (0..2).map(|_| scope.spawn(sail)).collect();
        for sailor in sailors {
            if let Err(panic) = sailor.join() {
                resume_unwind(panic);
            }
        }
    });
    let log = log.into_inner().unwrap();
    println!(
        "{} seeds, leaks 0: {} streams, {} with every byte at its end; {} bytes up, {} down; {} left by their client, {} ended \
         with its link; {} relays crashed; END by reason {:?}; DESTROY by reason {:?}",
        range.end - range.start,
        log.streams,
        log.streams_complete,
        log.bytes_up,
        log.bytes_down,
        log.left,
        log.links_cut,
        log.crashes,
        log.ends,
        log.destroys
    );
    if only.is_none() && seeds >= SEEDS_DEFAULT {
        // A sea on which nothing happens shows nothing.
        assert!(log.streams_complete > seeds && log.left > 0, "{log:?}");
        assert!(log.ends.len() > 3 && !log.destroys.is_empty(), "{log:?}");
    }
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    for seed in [3, 4, 5] {
        assert_eq!(sea::sail(seed), sea::sail(seed));
    }
}
