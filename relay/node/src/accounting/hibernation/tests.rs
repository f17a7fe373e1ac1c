use std::time::Duration;

use jiff::tz::TimeZone;
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::torrc::Torrc;

use super::*;
use crate::accounting::ledger::Terms;

const TURN: u64 = 2_056;
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

fn midnight() -> SystemTime {
    time_text::parse("2026-11-22 00:00:00").unwrap()
}

fn ledger() -> Ledger {
    let torrc = "ORPort 9001\nAccountingMax 1000 MB\nAccountingStart day 0:00\n";
    let torrc = Torrc::parse(torrc).unwrap();
    let terms = Terms {
        quota: torrc.accounting.unwrap(),
        bytes_per_second_max: torrc.bandwidth.bytes_per_second_max,
        identity: RsaIdentity([7; 20]),
        zone: TimeZone::UTC,
    };
    Ledger::open(terms, None, midnight()).unwrap().0
}

/// Looks, and gives the state and what was said.
fn look(hibernation: &mut Hibernation, ledger: &mut Ledger, now: SystemTime) -> (AccountingState, Vec<String>) {
    let lines = hibernation.consider(now, ledger, TURN).unwrap();
    let notices = lines.into_iter().filter_map(|line| match line {
        Line::Notice(text) => Some(text),
        Line::Warn(_) | Line::Info(_) => None,
    });
    (hibernation.state(), notices.collect())
}

const MB: u64 = 1 << 20;

#[test]
fn a_relay_sleeps_when_its_quota_is_used_up_and_wakes_with_the_next_interval() {
    let (mut hibernation, mut ledger) = (Hibernation::default(), ledger());
    assert_eq!(
        look(&mut hibernation, &mut ledger, midnight()),
        (AccountingState::Awake, vec![])
    );

    ledger.count(midnight(), 949 * MB, 10);
    assert_eq!(
        look(&mut hibernation, &mut ledger, midnight()).0,
        AccountingState::Awake
    );
    ledger.count(midnight(), MB, 0);
    let (state, said) = look(&mut hibernation, &mut ledger, midnight() + MINUTE);
    assert_eq!(state, AccountingState::SoftLimit);
    assert_eq!(
        said,
        ["Bandwidth soft limit reached; commencing hibernation. No new connections will be accepted"]
    );
    assert_eq!(ledger.record().soft_limit.unwrap().bytes, 950 * MB);

    ledger.count(midnight(), 50 * MB, 0);
    let (state, said) = look(&mut hibernation, &mut ledger, midnight() + 2 * MINUTE);
    assert_eq!(state, AccountingState::Dormant);
    assert_eq!(said, ["Going dormant. Blowing away remaining connections."]);
    assert_eq!(
        look(&mut hibernation, &mut ledger, midnight() + DAY - MINUTE).1,
        Vec::<String>::new()
    );

    let (state, said) = look(&mut hibernation, &mut ledger, midnight() + DAY);
    assert_eq!(state, AccountingState::Awake);
    assert_eq!(
        said.last().unwrap(),
        "Hibernation period ended. Resuming normal activity."
    );
    assert_eq!(ledger.used(), 0);
}

#[test]
fn a_restart_after_the_end_of_the_quota_sleeps_at_once() {
    let mut spent = ledger();
    spent.count(midnight(), 1_000 * MB, 0);
    let mut hibernation = Hibernation::default();
    let (state, said) = look(&mut hibernation, &mut spent, midnight() + MINUTE);
    assert_eq!((state, said.len()), (AccountingState::Dormant, 2));
}

#[test]
fn who_knows_what_to_expect_sleeps_until_its_time() {
    let (mut hibernation, mut ledger) = (Hibernation::default(), ledger());
    look(&mut hibernation, &mut ledger, midnight());
    // 900 MB in 50 active minutes: the next day's quota lasts less than an hour.
    for second in 0..=3_000 {
        ledger.count(midnight() + Duration::from_secs(second), 300_000, 0);
    }
    let (state, _) = look(&mut hibernation, &mut ledger, midnight() + DAY - MINUTE);
    assert_eq!(state, AccountingState::Awake);

    ledger.turn(midnight() + DAY).unwrap();
    let wakes_at = ledger.wakes_at();
    assert!(wakes_at > midnight() + DAY, "this relay's time is not the first second");
    let (state, said) = look(&mut hibernation, &mut ledger, midnight() + DAY);
    assert_eq!(state, AccountingState::Dormant);
    assert!(
        said[0].starts_with("Commencing hibernation. We will wake up at 2026-11-23 "),
        "{said:?}"
    );

    assert_eq!(
        look(&mut hibernation, &mut ledger, wakes_at - MINUTE).0,
        AccountingState::Dormant
    );
    let (state, said) = look(&mut hibernation, &mut ledger, wakes_at);
    assert_eq!(state, AccountingState::Awake);
    assert_eq!(said, ["Hibernation period ended. Resuming normal activity."]);
}

#[test]
fn an_interval_that_ends_in_the_soft_phase_ends_that_too() {
    let (mut hibernation, mut ledger) = (Hibernation::default(), ledger());
    look(&mut hibernation, &mut ledger, midnight());
    ledger.count(midnight(), 960 * MB, 0);
    assert_eq!(
        look(&mut hibernation, &mut ledger, midnight()).0,
        AccountingState::SoftLimit
    );
    assert_eq!(
        look(&mut hibernation, &mut ledger, midnight() + DAY).0,
        AccountingState::Awake
    );
}

#[test]
fn a_clock_set_back_leaves_a_sleeper_asleep() {
    let (mut hibernation, mut ledger) = (Hibernation::default(), ledger());
    ledger.count(midnight(), 1_000 * MB, 0);
    look(&mut hibernation, &mut ledger, midnight());
    assert_eq!(
        look(&mut hibernation, &mut ledger, midnight() - 400 * DAY).0,
        AccountingState::Dormant
    );
}
