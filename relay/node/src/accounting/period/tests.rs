use super::*;
use relay_formats::torrc::Torrc;

fn start(text: &str) -> AccountingStart {
    let torrc = format!("ORPort 9001\nAccountingMax 1 GB\nAccountingStart {text}\n");
    Torrc::parse(&torrc).unwrap().accounting.unwrap().start
}

/// `now`, start and end: local times of `zone`.
fn check(zone: &str, begins: &str, now: &str, wanted: [&str; 2]) {
    let zone = TimeZone::get(zone).unwrap();
    let time = |text: &str| -> SystemTime {
        let civil: jiff::civil::DateTime = text.parse().unwrap();
        civil.to_zoned(zone.clone()).unwrap().timestamp().into()
    };
    let interval = Interval::containing(time(now), start(begins), &zone).unwrap();
    let found = [interval.start, interval.end].map(|edge| local_text(edge, &zone));
    assert_eq!(found, wanted.map(str::to_owned), "{begins} at {now}");
    assert!(
        interval.start <= time(now) && time(now) < interval.end,
        "{begins} at {now}"
    );
}

#[test]
fn every_form_begins_at_its_own_edge() {
    let day = |now, wanted| check("UTC", "day 4:30", now, wanted);
    day("2026-11-22T04:30:00", ["2026-11-22 04:30:00", "2026-11-23 04:30:00"]);
    day("2026-11-22T04:29:59", ["2026-11-21 04:30:00", "2026-11-22 04:30:00"]);
    day("2026-01-01T00:00:00", ["2025-12-31 04:30:00", "2026-01-01 04:30:00"]);
    // 22 November 2026 is a Sunday.
    let week = |begins, now, wanted| check("UTC", begins, now, wanted);
    week(
        "week 7 10:00",
        "2026-11-22T10:00:00",
        ["2026-11-22 10:00:00", "2026-11-29 10:00:00"],
    );
    week(
        "week 7 10:00",
        "2026-11-22T09:59:00",
        ["2026-11-15 10:00:00", "2026-11-22 10:00:00"],
    );
    week(
        "week 1 0:00",
        "2026-11-22T12:00:00",
        ["2026-11-16 00:00:00", "2026-11-23 00:00:00"],
    );
    week(
        "week 3 10:00",
        "2027-01-01T00:00:00",
        ["2026-12-30 10:00:00", "2027-01-06 10:00:00"],
    );
    let month = |begins, now, wanted| check("UTC", begins, now, wanted);
    month(
        "month 1 0:00",
        "2026-11-22T12:00:00",
        ["2026-11-01 00:00:00", "2026-12-01 00:00:00"],
    );
    month(
        "month 22 12:00",
        "2026-11-22T12:00:00",
        ["2026-11-22 12:00:00", "2026-12-22 12:00:00"],
    );
    month(
        "month 22 12:00",
        "2026-11-22T11:59:59",
        ["2026-10-22 12:00:00", "2026-11-22 12:00:00"],
    );
    month(
        "month 28 3:00",
        "2026-01-05T00:00:00",
        ["2025-12-28 03:00:00", "2026-01-28 03:00:00"],
    );
}

#[test]
fn months_are_as_long_as_they_are() {
    let day = Duration::from_secs(86_400);
    for (year, lengths) in [
        (2026, [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]),
        (2028, [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]),
    ] {
        for (month, days) in (1..=12).zip(lengths) {
            let civil = jiff::civil::date(year, month, 17).at(5, 0, 0, 0);
            let now = civil.to_zoned(TimeZone::UTC).unwrap().timestamp().into();
            let interval = Interval::containing(now, start("month 1 0:00"), &TimeZone::UTC).unwrap();
            assert_eq!(interval.length(), day * days, "{year}-{month}");
        }
    }
    check(
        "UTC",
        "day 0:00",
        "2028-02-29T23:59:59",
        ["2028-02-29 00:00:00", "2028-03-01 00:00:00"],
    );
    check(
        "UTC",
        "month 28 0:00",
        "2028-02-29T00:00:00",
        ["2028-02-28 00:00:00", "2028-03-28 00:00:00"],
    );
}

#[test]
fn the_day_of_a_change_of_the_clock_is_longer_or_shorter() {
    let hours = |now: &str| {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let civil: jiff::civil::DateTime = now.parse().unwrap();
        let now = civil.to_zoned(zone.clone()).unwrap().timestamp().into();
        let interval = Interval::containing(now, start("day 0:00"), &zone).unwrap();
        interval.length().as_secs() / 3_600
    };
    assert_eq!(hours("2026-03-29T12:00:00"), 23);
    assert_eq!(hours("2026-10-25T12:00:00"), 25);
    assert_eq!(hours("2026-10-26T12:00:00"), 24);
    let berlin = |begins, now, wanted| check("Europe/Berlin", begins, now, wanted);
    berlin(
        "month 1 0:00",
        "2026-03-29T12:00:00",
        ["2026-03-01 00:00:00", "2026-04-01 00:00:00"],
    );
    berlin(
        "week 7 1:00",
        "2026-10-25T00:59:00",
        ["2026-10-18 01:00:00", "2026-10-25 01:00:00"],
    );
}

#[test]
fn an_edge_that_the_clock_skips_comes_an_hour_later_and_one_shown_twice_the_first_time() {
    let berlin = |now, wanted| check("Europe/Berlin", "day 2:30", now, wanted);
    berlin("2026-03-29T12:00:00", ["2026-03-29 03:30:00", "2026-03-30 02:30:00"]);
    berlin("2026-03-28T12:00:00", ["2026-03-28 02:30:00", "2026-03-29 03:30:00"]);
    berlin("2026-10-25T12:00:00", ["2026-10-25 02:30:00", "2026-10-26 02:30:00"]);
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let noon = "2026-10-25T11:00:00Z".parse::<Timestamp>().unwrap();
    let interval = Interval::containing(noon.into(), start("day 2:30"), &zone).unwrap();
    assert_eq!(
        interval.length(),
        Duration::from_secs(25 * 3_600),
        "summer time's half past two counts"
    );
}

#[test]
fn whenever_it_is_an_interval_contains_it_and_joins_the_next() {
    for name in [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
    ] {
        let zone = TimeZone::get(name).unwrap();
        for begins in ["day 2:30", "week 7 2:00", "month 28 1:45"] {
            let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
            for _ in 0..60 {
                let interval = Interval::containing(now, start(begins), &zone).unwrap();
                assert!(now < interval.end, "{name} {begins} {}", local_text(now, &zone));
                let next = Interval::containing(interval.end, start(begins), &zone).unwrap();
                assert_eq!(next.start, interval.end, "{name} {begins} {}", local_text(now, &zone));
                now += Duration::from_secs(149 * 3_600 + 1_234);
            }
        }
    }
}
