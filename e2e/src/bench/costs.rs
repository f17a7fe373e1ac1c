//! What a relay pays for a circuit handshake and a link, and how long a single cell waits behind many others.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::lean::Lean;
use super::memory;
use super::plan::{Layout, Place, Subject};
use super::report::Spread;
use crate::say;
use crate::tornet::Network;

/// Handshakes of one measurement: half a second of C tor's.
const HANDSHAKES: f64 = 3_000.0;
/// Links that are opened to measure what one costs.
const LINKS: f64 = 1_000.0;
/// Cells that go by while single ones are timed: four seconds of C tor's at least, hundreds of single cells.
const CELLS_BESIDE_PINGS: &str = "400000";

/// What is measured: its name, unit, how often, and how.
struct Cost {
    name: &'static str,
    of: fn(&Lean, &Network, &str) -> Result<f64>,
}

const COSTS: [Cost; 5] = [
    Cost {
        name: "ntor handshake, CPU µs",
        of: |lean, network, node| onionskin(lean, network, node, "ntor"),
    },
    Cost {
        name: "ntor-v3 handshake, CPU µs",
        of: |lean, network, node| onionskin(lean, network, node, "ntor-v3"),
    },
    Cost {
        name: "accepted link, CPU ms",
        of: |lean, network, node| {
            let (cpu, _) = links(lean, network, node)?;
            Ok(cpu * 1e3 / LINKS)
        },
    },
    Cost {
        name: "link handshake of one, wall ms",
        of: |lean, network, node| {
            let (_, done) = links(lean, network, node)?;
            done.get("one_link_milliseconds")
                .and_then(Value::as_f64)
                .context("no time")
        },
    },
    Cost {
        name: "single cell beside 32 bulk circuits, p99 ms",
        of: |lean, network, node| {
            let what = ["carry", "--ping", "--circuits", "32", "--cells", CELLS_BESIDE_PINGS];
            let (_, done) = cost(lean, network, node, what)?;
            done.get("ping_p99_milliseconds")
                .and_then(Value::as_f64)
                .context("no ping")
        },
    },
];

/// A table: a row for each cost.
pub(super) fn measured(network: &Network, layout: &Layout, lean: &Lean, rounds: usize) -> Result<String> {
    let mut text =
        String::from("| cost | C tor: median [min-max] | ours | ours/C tor | C tor/C tor |\n|---|---|---|---|---|\n");
    for (name, found) in memory::measured(network, layout, lean)? {
        let _ = writeln!(text, "{}", row(&name, &found));
    }
    for cost in &COSTS {
        let mut found: Vec<(Subject, Vec<f64>)> = layout.measured().into_iter().map(|one| (one, Vec::new())).collect();
        for round in 0..rounds {
            let count = found.len();
            for at in (0..count).map(|at| (at + round) % count) {
                let Some((subject, values)) = found.get_mut(at) else {
                    continue;
                };
                let node = layout.node(Place::Guard, *subject).context("no such node")?;
                let value = (cost.of)(lean, network, &node).with_context(|| format!("{} of {subject}", cost.name))?;
                say::step(format!("{}: {subject} {value:.2}", cost.name));
                values.push(value);
            }
        }
        let _ = writeln!(text, "{}", row(cost.name, &found));
    }
    Ok(text)
}

fn row(name: &str, found: &[(Subject, Vec<f64>)]) -> String {
    let of = |subject| {
        found
            .iter()
            .find(|(one, _)| *one == subject)
            .map(|(_, values)| values.as_slice())
    };
    let spread = |values: Option<&[f64]>| {
        let spread = Spread::of(values.unwrap_or_default().iter().copied());
        spread.map_or_else(
            || "–".to_owned(),
            |Spread { least, median, most }| format!("{median:.2} [{least:.2}-{most:.2}]"),
        )
    };
    let ratio = |subject| {
        let (ours, theirs) = (of(subject)?, of(Subject::CTor)?);
        let pairs = ours.iter().zip(theirs).map(|(one, other)| one / other);
        Spread::of(pairs).map(|spread| format!("{:.2}", spread.median))
    };
    format!(
        "| {name} | {} | {} | {} | {} |",
        spread(of(Subject::CTor)),
        spread(of(Subject::Ours)),
        ratio(Subject::Ours).unwrap_or_else(|| "–".into()),
        ratio(Subject::Control).unwrap_or_else(|| "–".into())
    )
}

fn onionskin(lean: &Lean, network: &Network, node: &str, handshake: &str) -> Result<f64> {
    let count = HANDSHAKES.to_string();
    let what = ["onion", "--handshake", handshake, "--count", &count];
    Ok(cost(lean, network, node, what)?.0 * 1e6 / HANDSHAKES)
}

fn links(lean: &Lean, network: &Network, node: &str) -> Result<(f64, Value)> {
    let count = LINKS.to_string();
    cost(lean, network, node, ["idle", "--as-client", "--count", &count])
}

/// CPU seconds of the relay, and what the load said.
fn cost<'a>(
    lean: &Lean,
    network: &Network,
    node: &str,
    what: impl IntoIterator<Item = &'a str>,
) -> Result<(f64, Value)> {
    let mut running = lean.start(network, node, what)?;
    let before = network.usage(node).context("the relay under test ended")?;
    let said = running.once()?;
    // The relay may still be busy with the last of it.
    std::thread::sleep(Duration::from_millis(200));
    let after = network.usage(node).context("the relay under test ended")?;
    running.end()?;
    Ok((after.since(Some(&before)), said))
}
