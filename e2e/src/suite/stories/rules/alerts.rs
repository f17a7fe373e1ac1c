//! Each alert of the chart beside what it must fire on and what it must not, judged by promtool.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{array, text};
use crate::command::{command, output};

/// Series, each with its values a minute, as promtool writes both.
type Series = &'static [[&'static str; 2]];

/// An alert, the minute by which it fires, series that it fires on, and some that it must leave alone.
const CASES: [(&str, &str, Series, Series); 9] = [
    (
        "RelayfleetNoLeader",
        "11m",
        &[[r#"relayfleet_operator_leader{pod="a"}"#, "0x60"]],
        &[
            [r#"relayfleet_operator_leader{pod="a"}"#, "0x60"],
            [r#"relayfleet_operator_leader{pod="b"}"#, "1x60"],
        ],
    ),
    (
        "RelayfleetRoundsFail",
        "35m",
        &[[
            r#"relayfleet_operator_reconciles_total{kind="Relay",result="error"}"#,
            "0+1x60",
        ]],
        &[[
            r#"relayfleet_operator_reconciles_total{kind="Relay",result="ok"}"#,
            "0+1x60",
        ]],
    ),
    (
        "RelayfleetRelaysNotReady",
        "31m",
        &[[r#"relayfleet_operator_relays{ready="False"}"#, "2x60"]],
        &[
            [r#"relayfleet_operator_relays{ready="False"}"#, "0x60"],
            [r#"relayfleet_operator_relays{ready="True"}"#, "5x60"],
        ],
    ),
    (
        "RelayfleetFamiliesNotReady",
        "31m",
        &[[r#"relayfleet_operator_families{ready="Unknown"}"#, "1x60"]],
        &[[r#"relayfleet_operator_families{ready="True"}"#, "1x60"]],
    ),
    (
        "RelayfleetIdentityInDanger",
        "11m",
        &[[
            r#"relayfleet_operator_relay_conditions{type="IdentityBound",status="False"}"#,
            "1x60",
        ]],
        &[
            [
                r#"relayfleet_operator_relay_conditions{type="IdentityBound",status="True"}"#,
                "1x60",
            ],
            [
                r#"relayfleet_operator_relay_conditions{type="Ready",status="False"}"#,
                "1x60",
            ],
        ],
    ),
    (
        "RelayfleetIdentityConflict",
        "6m",
        &[[
            r#"relayfleet_operator_relay_conditions{type="IdentityConflict",status="True"}"#,
            "1x60",
        ]],
        &[[
            r#"relayfleet_operator_relay_conditions{type="IdentityConflict",status="False"}"#,
            "1x60",
        ]],
    ),
    (
        "RelayfleetQueueLong",
        "16m",
        &[[r#"relayfleet_operator_queue{kind="Relay"}"#, "51x60"]],
        &[[r#"relayfleet_operator_queue{kind="Relay"}"#, "50x60"]],
    ),
    (
        "RelayfleetSigningKeyEnds",
        "31m",
        // In promtool's time it is 1970.
        &[[r#"tor_relay_signing_cert_expiry_timestamp{pod="a"}"#, "90000x60"]],
        &[[r#"tor_relay_signing_cert_expiry_timestamp{pod="a"}"#, "300000x60"]],
    ),
    (
        "RelayfleetRelayOverloaded",
        "100m",
        &[[
            r#"tor_relay_load_onionskins_total{pod="a",action="dropped"}"#,
            "0+5x120",
        ]],
        &[
            [r#"tor_relay_load_onionskins_total{pod="a",action="dropped"}"#, "7x120"],
            [
                r#"tor_relay_load_onionskins_total{pod="a",action="processed"}"#,
                "0+5x120",
            ],
        ],
    ),
];

/// How many alerts there are. An alert without a case fails.
pub(super) fn hold(rules: &Value) -> Result<usize> {
    let folder = TempDir::with_prefix("relayfleet-rules-")?;
    let (file, tests) = (folder.path().join("rules.yml"), folder.path().join("tests.yml"));
    fs::write(&file, rules.to_string())?;
    output(command("promtool", ["check", "rules"]).arg(&file))?;

    let named: BTreeSet<&str> = all(rules).map(|rule| text(rule, "/alert")).collect();
    let cases: BTreeSet<&str> = CASES.iter().map(|(name, ..)| *name).collect();
    ensure!(
        named == cases,
        "the chart has {named:?}, this story cases for {cases:?}"
    );
    let case = |name: &str, at: &str, series: &[[&str; 2]], fires: bool| {
        let series: Vec<Value> = series
            .iter()
            .map(|[series, values]| json!({"series": series, "values": values}))
            .collect();
        // Which text it has is a person's to judge; that it fires is seen in the series that Prometheus keeps of it.
        let expected = if fires { "1" } else { "0" };
        json!({
            "interval": "1m",
            "name": format!("{name} {}", if fires { "fires" } else { "is silent" }),
            "input_series": series,
            "promql_expr_test": [{
                "expr": format!("count(ALERTS{{alertname={name:?},alertstate=\"firing\"}}) > bool 0 or vector(0)"),
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": expected.parse::<u8>().unwrap_or_default()}],
            }],
        })
    };
    let both = CASES
        .iter()
        .flat_map(|(name, at, bad, good)| [case(name, at, bad, true), case(name, at, good, false)]);
    let suite = json!({
        "rule_files": [file],
        "evaluation_interval": "1m",
        "tests": both.collect::<Vec<_>>(),
    });
    fs::write(&tests, suite.to_string())?;
    output(command("promtool", ["test", "rules"]).arg(&tests))?;
    Ok(named.len())
}

fn all(rules: &Value) -> impl Iterator<Item = &Value> {
    array(rules, "/groups").iter().flat_map(|group| array(group, "/rules"))
}
