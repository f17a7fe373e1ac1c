use relay_formats::torrc::Torrc;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MB: u64 = 1 << 20;

/// 22 November 2026, 00:00 UTC.
fn midnight() -> SystemTime {
    time_text::parse("2026-11-22 00:00:00").unwrap()
}

fn terms(torrc: &str) -> Terms {
    let torrc = Torrc::parse(&format!("ORPort 9001\n{torrc}\n")).unwrap();
    Terms {
        quota: torrc.accounting.unwrap(),
        bytes_per_second_max: torrc.bandwidth.bytes_per_second_max,
        identity: RsaIdentity([7; 20]),
        zone: TimeZone::UTC,
    }
}

fn open(torrc: &str, record: Option<&AccountingRecord>, now: SystemTime) -> (Ledger, Vec<Line>) {
    Ledger::open(terms(torrc), record, now).unwrap()
}

/// A record of the day that begins at midnight.
fn record() -> AccountingRecord {
    AccountingRecord {
        interval_start: midnight(),
        bytes_read: 5_000,
        bytes_written: 4_000,
        seconds_active: 3_600,
        bytes_per_minute_expected: 0,
        soft_limit: None,
    }
}

fn says(lines: &[Line], part: &str) -> bool {
    lines.iter().any(|line| {
        let (Line::Notice(text) | Line::Warn(text) | Line::Info(text)) = line;
        text.contains(part)
    })
}

const DAILY: &str = "AccountingMax 1 GB\nAccountingStart day 0:00";

#[test]
fn a_restart_in_the_same_interval_goes_on_counting() {
    let (ledger, lines) = open(DAILY, Some(&record()), midnight() + 5 * HOUR);
    assert_eq!(ledger.carried(), (5_000, 4_000));
    assert!(says(&lines, "Continuing accounting interval."));
    assert!(says(
        &lines,
        "We have no prior estimate for bandwidth, so we will start out awake"
    ));
    assert_eq!(ledger.record(), record());
}

#[test]
fn a_state_from_the_past_begins_a_new_interval_and_tells_what_to_expect() {
    let (ledger, lines) = open(DAILY, Some(&record()), midnight() + DAY + HOUR);
    assert_eq!(ledger.carried(), (0, 0));
    assert_eq!(ledger.interval().start, midnight() + DAY);
    assert!(says(&lines, "Accounting interval elapsed; starting a new one"));
    // 5,000 bytes in 60 active minutes.
    assert_eq!(ledger.record().bytes_per_minute_expected, 83);
}

#[test]
fn a_state_from_the_future_is_a_mismatch() {
    let future = AccountingRecord {
        interval_start: midnight() + 3 * DAY,
        ..record()
    };
    let (ledger, lines) = open(DAILY, Some(&future), midnight());
    assert_eq!((ledger.carried(), ledger.interval().start), ((0, 0), midnight()));
    assert!(says(
        &lines,
        "Mismatched accounting interval: moved by -300.00%. Starting a fresh one."
    ));
}

#[test]
fn an_edge_that_moved_a_little_keeps_what_was_counted() {
    let (ledger, lines) = open(
        "AccountingMax 1 GB\nAccountingStart day 6:00",
        Some(&record()),
        midnight() + 7 * HOUR,
    );
    assert_eq!(ledger.carried(), (5_000, 4_000));
    assert!(says(&lines, "Accounting interval moved by 25.00%; that's fine."));
    let Interval { start, end } = ledger.interval();
    assert_eq!((start, end), (midnight(), midnight() + 30 * HOUR));
}

#[test]
fn an_interval_turns_at_its_end_and_not_before() {
    let (mut ledger, _) = open(DAILY, Some(&record()), midnight());
    assert!(
        ledger
            .turn(midnight() + DAY - Duration::from_secs(1))
            .unwrap()
            .is_empty()
    );
    assert!(says(&ledger.turn(midnight() + DAY).unwrap(), "elapsed"));
    assert_eq!(ledger.used(), 0);
}

#[test]
fn a_clock_set_back_gives_no_second_quota() {
    let (mut ledger, _) = open(DAILY, Some(&record()), midnight() + 5 * HOUR);
    assert!(ledger.turn(midnight() - 10 * DAY).unwrap().is_empty());
    ledger.count(midnight() - 10 * DAY, 1, 1);
    assert_eq!(
        (ledger.carried(), ledger.record().seconds_active),
        ((5_001, 4_001), 3_600)
    );
}

#[test]
fn only_seconds_with_traffic_are_active_and_gaps_are_not() {
    let (mut ledger, _) = open(DAILY, None, midnight());
    let at = |seconds: u64| midnight() + Duration::from_secs(seconds);
    for second in 0..=5 {
        ledger.count(at(second), 1, 0);
    }
    ledger.count(at(6), 0, 0);
    ledger.count(at(9), 1, 0);
    ledger.count(at(30), 1, 0);
    ledger.count(at(31), 1, 0);
    assert_eq!(ledger.record().seconds_active, 5 + 4 + 1);
}

#[test]
fn the_rule_says_what_is_used() {
    for (rule, used) in [("max", 5_000), ("sum", 9_000), ("in", 5_000), ("out", 4_000)] {
        let (ledger, _) = open(&format!("{DAILY}\nAccountingRule {rule}"), Some(&record()), midnight());
        assert_eq!(ledger.used(), used, "{rule}");
    }
}

#[test]
fn the_soft_limit_leaves_the_least_of_three() {
    let of = |max: &str, expected: u64| {
        let record = AccountingRecord {
            bytes_per_minute_expected: expected,
            ..record()
        };
        let torrc = format!("AccountingMax {max}\nAccountingStart day 0:00");
        open(&torrc, Some(&record), midnight()).0.soft_limit()
    };
    assert_eq!(of("1000 MB", 0), 950 * MB, "a twentieth");
    assert_eq!(of("100 GB", 0), (102_400 - 500) * MB, "500 MiB");
    assert_eq!(of("1000 MB", MB / 18), 1_000 * MB - MB / 18 * 180, "three hours");
    assert_eq!(
        of("1000 MB", MB),
        950 * MB,
        "three hours are more than the quota's twentieth"
    );
}

#[test]
fn after_a_soft_limit_a_second_is_no_minute() {
    // 36 MB in two hours: 5,242 bytes a second (and some) make 314,520 a minute. C tor says 87.
    let hit = AccountingRecord {
        soft_limit: Some(SoftLimitRecord {
            hit_at: midnight() + 2 * HOUR,
            bytes: 36 * MB,
            seconds: 7_200,
        }),
        ..record()
    };
    let (ledger, _) = open(DAILY, Some(&hit), midnight() + DAY);
    assert_eq!(ledger.record().bytes_per_minute_expected, 36 * MB / 7_200 * 60);
}

#[test]
fn what_cannot_be_carried_is_not_expected() {
    let much = AccountingRecord {
        bytes_read: 1 << 50,
        bytes_written: 1 << 50,
        ..record()
    };
    for (rule, factor) in [("max", 60), ("sum", 120)] {
        let torrc = format!("{DAILY}\nBandwidthRate 100 KB\nAccountingRule {rule}");
        let (ledger, _) = open(&torrc, Some(&much), midnight() + DAY);
        assert_eq!(ledger.record().bytes_per_minute_expected, 102_400 * factor, "{rule}");
    }
}

#[test]
fn a_relay_wakes_at_its_own_time_and_early_enough() {
    let busy = AccountingRecord {
        bytes_per_minute_expected: 10 * MB,
        ..record()
    };
    let (ledger, lines) = open(DAILY, Some(&busy), midnight());
    // 1,024 MB at 10 MB a minute: 102 minutes.
    let latest = midnight() + DAY - Duration::from_secs(102 * 60);
    assert!(ledger.wakes_at() > midnight() && ledger.wakes_at() < latest);
    assert_eq!(open(DAILY, Some(&busy), midnight()).0.wakes_at(), ledger.wakes_at());
    let other = Terms {
        identity: RsaIdentity([8; 20]),
        ..terms(DAILY)
    };
    let (other, _) = Ledger::open(other, Some(&busy), midnight()).unwrap();
    assert_ne!(other.wakes_at(), ledger.wakes_at());
    assert!(says(
        &lines,
        "This interval began at 2026-11-22 00:00:00; the scheduled wake-up time is "
    ));
    assert!(says(
        &lines,
        "; the next interval begins at 2026-11-23 00:00:00 (all times local)"
    ));
    let slow = AccountingRecord {
        bytes_per_minute_expected: 1_000,
        ..record()
    };
    assert_eq!(
        open(DAILY, Some(&slow), midnight()).0.wakes_at(),
        midnight(),
        "a day is not enough"
    );
}

#[test]
fn a_quota_is_used_up_when_nobody_can_have_a_turn() {
    let used = AccountingRecord {
        bytes_read: (1 << 30) - 2_056,
        ..record()
    };
    let (mut ledger, _) = open(DAILY, Some(&used), midnight());
    assert!(ledger.soft_limit_reached() && !ledger.hard_limit_reached(2_056));
    ledger.count(midnight(), 1, 0);
    assert!(ledger.hard_limit_reached(2_056));
}
