use std::collections::BTreeSet;
use std::time::Duration;

use relay_formats::facts::{
    Accounting, Identity, Listed, MadeDescriptor, Overload, SeenConsensus, SigningKey, Timestamp, VERSION,
};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

use super::*;

/// Every series of C tor 0.4.9.11's relay, from a scrape in a private network.
const C_TOR: &str = include_str!("ctor-series.txt");
const REFERENCE: &str = include_str!("../../../../../docs/reference/metrics.md");

fn facts() -> Facts {
    let at = |seconds| Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    Facts {
        version: VERSION,
        program: String::new(),
        started_at: at(1_000),
        told_at: at(2_000),
        identity: Identity {
            nickname: "r1".to_owned(),
            fingerprint: RsaIdentity([1; 20]),
            ed25519: Ed25519Identity([2; 32]),
        },
        listening: Vec::new(),
        retiring: false,
        addresses: Vec::new(),
        signing_key: SigningKey {
            expires_at: at(3_000),
            offline_master: true,
        },
        families: Vec::new(),
        descriptor: Some(MadeDescriptor {
            digest: String::new(),
            published_at: at(1_500),
            hibernating: false,
            accepted_by: 3,
            authorities: 3,
            accepted_at: None,
        }),
        consensus: Some(SeenConsensus {
            valid_after: at(1_600),
            fresh_until: at(1_700),
            valid_until: at(1_800),
            listed: Some(Listed {
                flags: vec!["Fast".to_owned(), "Running".to_owned()],
                weight: 20,
                addresses: Vec::new(),
                measured: false,
            }),
        }),
        overload: Overload::default(),
        accounting: Some(Accounting {
            state: AccountingState::SoftLimit,
            interval_starts_at: at(0),
            interval_ends_at: at(86_400),
            bytes_max: 100,
            bytes_used: 96,
            bytes_read: 96,
            bytes_written: 90,
            wakes_at: at(0),
        }),
    }
}

fn scrape(tally: Option<&Tally>, facts: &Facts) -> String {
    write(&Sources {
        tally,
        traffic: &Traffic::default(),
        rate_limits_reached: &|way| u64::from(way == Way::Write),
        facts,
        sockets_max: 1_000,
    })
}

/// One that has seen congestion windows of all kinds, so that every mean has a value.
fn busy() -> Tally {
    let mut tally = Tally::default();
    let seen = &mut tally.congestion;
    for mean in [
        &mut seen.exit_cwnd,
        &mut seen.exit_bdp,
        &mut seen.exit_increment,
        &mut seen.close_cwnd,
        &mut seen.close_slow_start_cwnd,
        &mut seen.xon_backlog_bytes,
        &mut seen.xoff_backlog_bytes,
        &mut seen.blocked_percent,
        &mut seen.slow_start_blocked_percent,
        &mut seen.gamma_drop,
        &mut seen.delta_drop,
        &mut seen.alpha_percent,
        &mut seen.beta_percent,
        &mut seen.delta_percent,
        &mut seen.slow_start_queue,
        &mut seen.queue,
        &mut seen.bdp,
    ] {
        mean.note(7);
    }
    tally
}

/// `name{label="value",…}`: all before the blank before the value.
fn series(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series))
        .collect()
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or_default()
}

/// A series, or a family of them by some of their labels: `name{type="Socks"}`.
fn covers(pattern: &str, series: &str) -> bool {
    let labels = |text: &str| -> BTreeSet<String> {
        let inside = text
            .split_once('{')
            .map_or("", |(_, labels)| labels.trim_end_matches('}'));
        let labels = inside.split("\",").filter(|label| !label.is_empty());
        labels.map(|label| label.trim_end_matches('"').to_owned()).collect()
    };
    name(pattern) == name(series) && labels(pattern).is_subset(&labels(series))
}

/// The first cells of a table of the reference: what stands between backquotes.
fn rows(heading: &str) -> Vec<&'static str> {
    let section = REFERENCE.split(heading).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `"));
    cells.filter_map(|rest| rest.split('`').next()).collect()
}

#[test]
fn every_series_of_c_tor_is_here_or_the_reference_says_why_not() {
    let (text, lacking) = (scrape(Some(&busy()), &facts()), rows("## Not here"));
    let ours = series(&text);
    let forgotten: Vec<&str> = C_TOR
        .lines()
        .filter(|theirs| !ours.contains(theirs) && !lacking.iter().any(|row| covers(row, theirs)))
        .collect();
    assert_eq!(forgotten, Vec::<&str>::new());
    let stale: Vec<&&str> = lacking
        .iter()
        .filter(|row| !C_TOR.lines().any(|theirs| covers(row, theirs)) || ours.iter().any(|ours| covers(row, ours)))
        .collect();
    assert_eq!(stale, Vec::<&&str>::new(), "rows about nothing, or about what is here");
}

#[test]
fn what_only_we_have_stands_in_the_reference() {
    let (text, told) = (scrape(Some(&Tally::default()), &facts()), rows("## Only here"));
    let theirs: BTreeSet<&str> = C_TOR.lines().collect();
    let ours: BTreeSet<&str> = series(&text).difference(&theirs).map(|series| name(series)).collect();
    assert_eq!(ours, told.into_iter().collect::<BTreeSet<_>>());
}

#[test]
fn each_series_stands_once_below_its_help_and_type() {
    let text = scrape(Some(&Tally::default()), &facts());
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.count(), series(&text).len());
    let mut family = "";
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => family = rest.split(' ').next().unwrap(),
            None if line.starts_with('#') => {}
            None => assert_eq!(name(line.rsplit_once(' ').unwrap().0), family),
        }
    }
}

#[test]
fn a_count_comes_out_under_its_own_name() {
    let tally = Tally {
        streams_begun: 6,
        streams_directory: 2,
        streams_resolve: 1,
        onionskins_ntor_v3: 5,
        onionskins_dropped: 7,
        onionskins_ntor_dropped: 3,
        circuits_open: 11,
        ..Tally::default()
    };
    let text = scrape(Some(&tally), &facts());
    for line in [
        "tor_relay_streams_total{type=\"BEGIN\"} 3",
        "tor_relay_streams_total{type=\"BEGIN_DIR\"} 2",
        "tor_relay_load_onionskins_total{type=\"ntor\",action=\"dropped\"} 3",
        "tor_relay_load_onionskins_total{type=\"ntor_v3\",action=\"processed\"} 5",
        "tor_relay_load_onionskins_total{type=\"ntor_v3\",action=\"dropped\"} 4",
        "tor_relay_circuits_total{state=\"opened\"} 11",
        "tor_relay_load_global_rate_limit_reached_total{side=\"write\"} 1",
        "tor_relay_load_global_rate_limit_reached_total{side=\"read\"} 0",
        "tor_relay_flag{type=\"Fast\"} 1",
        "tor_relay_flag{type=\"Guard\"} 0",
        "tor_relay_signing_cert_expiry_timestamp 3000",
        "relayfleet_accounting_state{state=\"soft_limit\"} 1",
        "relayfleet_accounting_state{state=\"awake\"} 0",
        "tor_relay_load_socket_total 1000",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut facts = facts();
    (facts.consensus, facts.descriptor, facts.accounting) = (None, None, None);
    facts.signing_key.offline_master = false;
    let text = scrape(None, &facts);
    for absent in [
        "tor_relay_flag",
        "tor_relay_circuits_total",
        "tor_relay_signing_cert_expiry",
        "relayfleet_descriptor",
        "relayfleet_consensus",
        "relayfleet_accounting",
        "tor_relay_streams",
        "tor_relay_congestion_control",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
    assert!(text.contains("tor_relay_traffic_bytes"));
}

#[test]
fn a_mean_of_nothing_is_no_number() {
    let mut tally = Tally::default();
    let gauge = "tor_relay_congestion_control{";
    assert!(!scrape(Some(&tally), &facts()).contains(gauge));
    tally.congestion.queue.note(40);
    let text = scrape(Some(&tally), &facts());
    let told: Vec<&str> = text.lines().filter(|line| line.starts_with(gauge)).collect();
    assert_eq!(
        told,
        ["tor_relay_congestion_control{state=\"cc_estimates\",action=\"queue\"} 40"]
    );
}
