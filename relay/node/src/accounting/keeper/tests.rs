use std::net::{IpAddr, Ipv4Addr};

use relay_formats::torrc::Torrc;
use tempfile::TempDir;

use super::*;
use crate::rate::{Limits, Way};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const MB: u64 = 1 << 20;

fn config(room: &TempDir, more: &str) -> Config {
    let torrc = include_str!("../../../testdata/torrc");
    let torrc = format!("{torrc}DataDirectory {}\n{more}\n", room.path().display());
    Config::new(&Torrc::parse(&torrc).unwrap(), &[]).unwrap()
}

fn keeper(room: &TempDir, config: &Config) -> (Keeper, Arc<RateLimits>) {
    let limits = Limits {
        bandwidth: config.bandwidth,
        count_private: true,
    };
    let rates = Arc::new(RateLimits::new(Instant::now(), limits));
    let store = Arc::new(StateStore::open(room.path()));
    let board = Arc::new(Board::new(SystemTime::now()));
    let mut keeper = Keeper::new(store, Arc::clone(&rates), board);
    keeper.configure(config, RsaIdentity([1; 20]), SystemTime::now());
    (keeper, rates)
}

/// Moves as much as it may, but no more than `bytes_max`; what it moved.
fn carry(rates: &RateLimits, way: Way, bytes_max: u64) -> u64 {
    let (now, mut moved) = (Instant::now(), 0);
    while moved < bytes_max {
        let Some(share) = rates.share(now, way, PEER, 64 * 1024) else {
            break;
        };
        rates.take(now, way, PEER, share);
        moved += share as u64;
    }
    moved
}

/// Carries as much as it may until the keeper says that it is enough; what it moved.
fn carry_until_dormant(keeper: &mut Keeper, rates: &RateLimits, ways: &[Way]) -> u64 {
    let mut moved = 0;
    for _ in 0..10_000 {
        moved += ways.iter().map(|way| carry(rates, *way, 200 * MB)).sum::<u64>();
        if keeper.look(SystemTime::now()) == AccountingState::Dormant {
            break;
        }
    }
    moved
}

#[test]
fn nobody_moves_more_than_the_quota() {
    for (rule, ways) in [
        ("max", vec![Way::Read]),
        ("out", vec![Way::Write]),
        ("sum", vec![Way::Read, Way::Write]),
    ] {
        let room = tempfile::tempdir().unwrap();
        let config = config(&room, &format!("AccountingMax 60 MB\nAccountingRule {rule}"));
        let (mut keeper, rates) = keeper(&room, &config);
        assert_eq!(keeper.look(SystemTime::now()), AccountingState::Awake);
        let moved = carry_until_dormant(&mut keeper, &rates, &ways);
        assert!(moved <= 60 * MB && moved > 59 * MB, "{rule}: {moved}");
        assert_eq!(carry(&rates, Way::Read, 1) + carry(&rates, Way::Write, 1), 0, "{rule}");
    }
}

/// One way may run while the other has long been written down: the file follows each.
#[test]
fn a_way_that_runs_alone_is_not_held_up_by_the_file() {
    let room = tempfile::tempdir().unwrap();
    let config = config(&room, "AccountingMax 100 MB");
    let (mut keeper, rates) = keeper(&room, &config);
    keeper.look(SystemTime::now());
    for way in [Way::Read, Way::Write] {
        let mut moved = 0;
        for _ in 0..100 {
            moved += carry(&rates, way, MB);
            keeper.look(SystemTime::now());
        }
        assert!(moved > 40 * MB, "{moved}");
    }
}

#[test]
fn who_reaches_the_ceiling_calls_for_a_look_once() {
    let room = tempfile::tempdir().unwrap();
    let (mut keeper, rates) = keeper(&room, &config(&room, "AccountingMax 100 MB"));
    let (tell, told) = std::sync::mpsc::channel();
    rates.on_ceiling(move || tell.send(()).unwrap());
    keeper.look(SystemTime::now());
    carry(&rates, Way::Read, MB / 4);
    assert_eq!(told.try_iter().count(), 0);
    for _ in 0..3 {
        carry(&rates, Way::Read, 10 * MB);
    }
    assert_eq!(told.try_iter().count(), 1);
    keeper.look(SystemTime::now());
    carry(&rates, Way::Read, 10 * MB);
    assert_eq!(told.try_iter().count(), 1);
}

#[test]
fn what_the_rule_does_not_count_goes_on() {
    let room = tempfile::tempdir().unwrap();
    let config = config(&room, "AccountingMax 10 MB\nAccountingRule in");
    let (mut keeper, rates) = keeper(&room, &config);
    keeper.look(SystemTime::now());
    assert!(carry(&rates, Way::Write, 100 * MB) >= 100 * MB);
    assert_eq!(keeper.look(SystemTime::now()), AccountingState::Awake);
}

#[test]
fn a_process_that_is_killed_loses_a_hundredth_of_the_quota_at_most() {
    let room = tempfile::tempdir().unwrap();
    let config = config(&room, "AccountingMax 100 MB");
    let (mut killed, rates) = keeper(&room, &config);
    killed.look(SystemTime::now());
    let mut moved = 0;
    for _ in 0..40 {
        moved += carry(&rates, Way::Read, MB / 2);
        killed.look(SystemTime::now());
    }
    // No look comes any more, and the sockets take what they get.
    moved += carry(&rates, Way::Read, 50 * MB);
    drop(killed);
    let (mut again, _) = keeper(&room, &config);
    again.look(SystemTime::now());
    let known = again.book.as_ref().unwrap().ledger.used();
    assert!(known + MB >= moved && known <= moved + 1_024, "{known} of {moved}");
}

#[test]
fn a_restart_after_the_quota_sleeps_and_a_greater_quota_wakes() {
    let room = tempfile::tempdir().unwrap();
    let small = config(&room, "AccountingMax 10 MB");
    let (mut first, rates) = keeper(&room, &small);
    first.look(SystemTime::now());
    carry_until_dormant(&mut first, &rates, &[Way::Read]);
    assert_eq!(first.look(SystemTime::now()), AccountingState::Dormant);
    let (mut second, rates) = keeper(&room, &small);
    assert_eq!(second.look(SystemTime::now()), AccountingState::Dormant);
    second.configure(
        &config(&room, "AccountingMax 1 GB"),
        RsaIdentity([1; 20]),
        SystemTime::now(),
    );
    assert_eq!(second.look(SystemTime::now()), AccountingState::Awake);
    assert!(carry(&rates, Way::Read, MB) >= MB);
    second.configure(&config(&room, ""), RsaIdentity([1; 20]), SystemTime::now());
    assert!(!second.has_quota());
}
