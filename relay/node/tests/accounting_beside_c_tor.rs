//! C tor and ours, given the same state file, clock and zone, find the same interval and wake at the same time.
//!
//! Needs C tor and Debian's `libfaketime`, so it is run by hand:
//! `cargo test -p relay-node --test accounting_beside_c_tor -- --ignored`

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::state::StateFile;
use relay_formats::torrc::Torrc;
use relay_node::accounting::Line;
use relay_node::accounting::ledger::{Ledger, Terms};

const LIBFAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Zone, local time, torrc lines, state file.
struct Case {
    zone: &'static str,
    now: &'static str,
    torrc: &'static str,
    state: &'static str,
}

const fn case(zone: &'static str, now: &'static str, torrc: &'static str, state: &'static str) -> Case {
    Case {
        zone,
        now,
        torrc,
        state,
    }
}

/// An interval of long ago. (Without a state file C tor begins at the end of the last month, before it has read its own
/// `AccountingStart`, and then finds that near enough.)
const OLD: &str = "AccountingIntervalStart 2020-01-01 00:00:00\n";
/// A day of 1 GiB that was spent evenly, and an expectation that makes the next one sleep.
const SPENT: &str = "AccountingIntervalStart 2026-11-21 00:00:00\nAccountingBytesReadInInterval 900000000\n\
    AccountingBytesWrittenInInterval 800000000\nAccountingSecondsActive 9000\n";
const EXPECTING: &str = "AccountingIntervalStart 2026-11-22 00:00:00\nAccountingBytesReadInInterval 1024\n\
    AccountingBytesWrittenInInterval 1024\nAccountingExpectedUsage 3000000\n";

const CASES: &[Case] = &[
    case("UTC", "2026-11-22 12:00:00", "AccountingStart day 0:00", OLD),
    case("UTC", "2026-11-22 12:00:00", "AccountingStart day 13:30", OLD),
    case("UTC", "2026-11-22 12:00:00", "AccountingStart week 7 12:00", OLD),
    case("UTC", "2026-11-22 12:00:00", "AccountingStart week 7 12:01", OLD),
    case("UTC", "2027-01-01 00:00:00", "AccountingStart week 3 10:00", OLD),
    case("UTC", "2026-11-22 12:00:00", "", OLD),
    case("UTC", "2028-02-29 12:00:00", "AccountingStart month 28 3:00", OLD),
    case("UTC", "2028-03-01 00:00:00", "AccountingStart day 0:00", OLD),
    case("UTC", "2026-01-05 00:00:00", "AccountingStart month 28 3:00", OLD),
    case("Europe/Berlin", "2026-03-29 12:00:00", "AccountingStart day 0:00", OLD),
    case("Europe/Berlin", "2026-03-29 12:00:00", "AccountingStart day 2:30", OLD),
    case("Europe/Berlin", "2026-10-25 12:00:00", "AccountingStart day 0:00", OLD),
    case("Europe/Berlin", "2026-10-25 12:00:00", "AccountingStart day 2:30", OLD),
    case(
        "Europe/Berlin",
        "2026-10-25 00:30:00",
        "AccountingStart week 7 1:00",
        "",
    ),
    case(
        "America/New_York",
        "2026-03-08 12:00:00",
        "AccountingStart day 2:15",
        "",
    ),
    case("America/New_York", "2026-11-01 12:00:00", "", OLD),
    case("Asia/Kathmandu", "2026-11-22 00:10:00", "AccountingStart day 0:05", OLD),
    case("UTC", "2026-11-22 12:00:00", "AccountingStart day 0:00", SPENT),
    case(
        "UTC",
        "2026-11-22 12:00:00",
        "AccountingStart day 0:00\nAccountingRule sum",
        SPENT,
    ),
    case(
        "UTC",
        "2026-11-22 12:00:00",
        "AccountingStart day 0:00\nAccountingRule out",
        SPENT,
    ),
    case(
        "UTC",
        "2026-11-22 12:00:00",
        "AccountingStart day 0:00\nRelayBandwidthRate 80 KB",
        SPENT,
    ),
    case("UTC", "2026-11-22 12:00:00", "AccountingStart day 0:00", EXPECTING),
    case("UTC", "2026-11-22 01:00:00", "AccountingStart day 0:00", EXPECTING),
    case("UTC", "2026-11-22 12:00:00", "AccountingStart day 6:00", EXPECTING),
    case("UTC", "2026-11-19 12:00:00", "AccountingStart day 0:00", EXPECTING),
    case("UTC", "2026-12-24 12:00:00", "AccountingStart day 0:00", EXPECTING),
];

/// What C tor says when it opens its books, and who it is.
fn c_tor(room: &Path, case: &Case) -> (String, RsaIdentity) {
    let data = room.join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("state"), case.state).unwrap();
    let torrc = format!(
        "DataDirectory {}\nORPort 127.0.0.1:9001 NoListen\nORPort 127.0.0.1:9002 NoAdvertise\nAddress 127.0.0.1\n\
         AssumeReachable 1\nSocksPort 0\nDisableNetwork 1\nExitRelay 0\nLog notice stdout\nAccountingMax 1 GB\n{}\n",
        data.display(),
        case.torrc
    );
    std::fs::write(room.join("torrc"), torrc).unwrap();
    // Not the program `faketime`, which would be in our way when it comes to ending tor.
    let mut child = Command::new("tor")
        .arg("-f")
        .arg(room.join("torrc"))
        .env("LD_PRELOAD", LIBFAKETIME)
        .env("FAKETIME", format!("@{}", case.now))
        .env("TZ", case.zone)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.contains("Bootstrapped"))
        .collect();
    // A new relay says it twice; the last word counts.
    let mut said = lines.iter().filter_map(|line| line.split_once("[notice] "));
    let said = said.rfind(|(_, text)| text.starts_with("Configured hibernation."));
    let text = said
        .unwrap_or_else(|| panic!("C tor opens no books: {lines:#?}"))
        .1
        .to_owned();
    let _ = child.kill();
    child.wait().unwrap();
    let fingerprint = std::fs::read_to_string(data.join("fingerprint")).unwrap();
    let identity = fingerprint.split_whitespace().nth(1).unwrap().parse().unwrap();
    (text, identity)
}

fn ours(case: &Case, identity: RsaIdentity) -> String {
    let zone = TimeZone::get(case.zone).unwrap();
    let now: DateTime = case.now.parse().unwrap();
    let now = now.to_zoned(zone.clone()).unwrap().timestamp().into();
    let torrc = format!("ORPort 9001\nAccountingMax 1 GB\n{}\n", case.torrc);
    let torrc = Torrc::parse(&torrc).unwrap();
    let relayed = torrc.bandwidth.relayed.map(|relayed| relayed.bytes_per_second_max);
    let terms = Terms {
        quota: torrc.accounting.unwrap(),
        bytes_per_second_max: relayed.unwrap_or(torrc.bandwidth.bytes_per_second_max),
        identity,
        zone,
    };
    let record = StateFile::parse(case.state).unwrap().accounting().unwrap();
    let (_, lines) = Ledger::open(terms, record.as_ref(), now).unwrap();
    let said = lines.into_iter().find_map(|line| match line {
        Line::Notice(text) => Some(text),
        Line::Warn(_) | Line::Info(_) => None,
    });
    said.unwrap_or_default()
}

#[test]
#[ignore = "needs C tor and faketime"]
fn both_open_the_same_books() {
    let room = tempfile::tempdir().unwrap();
    let mut different = Vec::new();
    for case in CASES {
        let (theirs, identity) = c_tor(room.path(), case);
        assert!(
            theirs.starts_with("Configured hibernation."),
            "C tor said nothing at {}",
            case.now
        );
        let ours = ours(case, identity);
        if ours != theirs {
            different.push(format!(
                "{} {} {}\n  C tor: {theirs}\n  ours:  {ours}",
                case.zone, case.now, case.torrc
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
