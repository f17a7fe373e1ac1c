//! Our relay among strangers: a node of a network of C tor, bytes through it, and nobody complains.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::say;
use crate::tornet::{Direction, Fetch, Fetched, Network, Slot, Spec, observe, spec};

/// The node that is not C tor.
const OURS: &str = "r2";

/// The path that leads through it.
const PATH: [&str; 3] = ["r1", OURS, "e1"];

/// Cells that broke the protocol of a circuit, as C tor counts them.
const VIOLATIONS: &str = "tor_relay_circ_proto_violation_total";

/// How much is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct Slotted {
    /// The relay's program, started as PROGRAM -f TORRC
    #[arg(long, default_value = "target/debug/relay")]
    pub relay: String,
    /// Downloads one after the other
    #[arg(long, default_value_t = 10)]
    pub times: usize,
    /// Bytes of each
    #[arg(long, value_parser = crate::tornet::size, default_value = "200M")]
    pub bytes: u64,
    /// At the same time
    #[arg(long, default_value_t = 8)]
    pub streams: usize,
}

/// Runs the relay as a slot of a network of its own, on 127.x.y.N: `times` downloads and an upload through it, then
/// looks whether any C tor has counted a violation or warned of it. Logs stay if something failed.
///
/// # Errors
/// When a transfer fails, C tor counts a violation, or a warning names our relay.
pub fn tell(slotted: &Slotted) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-slot");
    Network::down(&folder)?;
    let relay = program(&slotted.relay)?;
    let slot = Slot {
        node: OURS.into(),
        command: vec![relay, "-f".into(), "{torrc}".into()],
    };
    let network = Network::up(
        &folder,
        &Spec {
            prefix: prefix(),
            slots: vec![slot],
            ..Spec::default()
        },
    )?;
    let told = carry(&network, slotted).and_then(|()| listen(&network));
    match told {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

fn carry(network: &Network, slotted: &Slotted) -> Result<()> {
    let down = Fetch {
        patience: patience(slotted.bytes),
        ..Fetch::over(&PATH, slotted.bytes, slotted.streams)
    };
    for time in 1..=slotted.times {
        let fetched = network
            .fetch(&down)
            .with_context(|| format!("download {time} of {}", slotted.times))?;
        say::step(format!("download {time} of {}: {}", slotted.times, in_words(&fetched)));
    }
    let up = Fetch {
        direction: Direction::Upload,
        ..down
    };
    let fetched = network.fetch(&up).context("upload")?;
    say::step(format!("upload: {}", in_words(&fetched)));
    Ok(())
}

/// What the neighbours say.
fn listen(network: &Network) -> Result<()> {
    for name in network.c_tor_relays() {
        let page = network.metrics(&name)?;
        let violations = observe::sum_of(&page, VIOLATIONS).with_context(|| format!("{name} shows no {VIOLATIONS}"))?;
        ensure!(
            violations == 0.0,
            "{name} counted {violations} violations of the circuit protocol"
        );
    }
    let complaints = network.complaints();
    let consensus = network.consensus()?;
    let ours = consensus
        .iter()
        .find(|entry| entry.is_called(OURS))
        .context("our relay left the consensus")?;
    let names = [OURS, &ours.fingerprint, &ours.address];
    let about_us: Vec<String> = complaints
        .iter()
        .filter(|(_, line)| names.iter().any(|name| mentions(line, name)))
        .map(|(node, line)| format!("{node}: {line}"))
        .collect();
    ensure!(
        about_us.is_empty(),
        "C tor warns of our relay:\n{}",
        about_us.join("\n")
    );
    say::step(format!(
        "no violation counted, no warning about {OURS} ({} {})",
        ours.fingerprint,
        ours.flags.join(" ")
    ));
    Ok(())
}

/// Whether a line names something as a word of its own: `r2`, and not `r20`.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// A slowest pace of 1 MiB a second on a busy machine, and a minute for the circuits.
fn patience(bytes: u64) -> Duration {
    Duration::from_secs(60 + (bytes >> 20))
}

fn in_words(fetched: &Fetched) -> String {
    let cpu: Vec<String> = fetched
        .path
        .iter()
        .map(|name| {
            format!(
                "{name} {:.2}",
                fetched.cpu_seconds.get(name).copied().unwrap_or_default()
            )
        })
        .collect();
    let memory = fetched.rss_kib.get(OURS).copied().unwrap_or_default() / 1024;
    format!(
        "{} MiB in {} streams, {:.1} s, {:.1} MiB/s; CPU seconds: {}; {OURS} has {memory} MiB",
        fetched.bytes >> 20,
        fetched.streams,
        fetched.seconds,
        fetched.mib_per_second,
        cpu.join(", ")
    )
}

/// Absolute, as the node starts in a folder of its own; a bare name is looked up on the PATH.
fn program(relay: &str) -> Result<String> {
    if !relay.contains('/') {
        return Ok(relay.to_owned());
    }
    let path = Path::new(relay)
        .canonicalize()
        .with_context(|| format!("no relay at {relay}: build it first"))?;
    path.into_os_string()
        .into_string()
        .ok()
        .context("the relay's path is not text")
}

/// The process number keeps two stories apart that are told at the same time.
fn prefix() -> String {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}", 100 + high % 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_about_us_only_if_it_names_us_whole() {
        assert!(mentions("[warn] Bad cell from 127.100.3.5:9001 ($AB~r2).", "r2"));
        assert!(mentions("[warn] Bad cell from 127.100.3.5:9001.", "127.100.3.5"));
        assert!(!mentions(
            "[warn] Bad cell from 127.100.3.50:9001 ($AB~r20).",
            "127.100.3.5"
        ));
        assert!(!mentions("[warn] Bad cell from 127.100.3.50:9001 ($AB~r20).", "r2"));
        assert!(!mentions("[warn] err2 happened", "r2"));
    }
}
