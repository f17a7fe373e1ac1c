//! Our relay among strangers: a node of a network of C tor, bytes through it, and nobody complains.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::neighbours::{self, Program};
use crate::say;
use crate::tornet::{Direction, Fetch, Fetched, Network, Slot, Spec, spec};

/// The node that is not C tor.
const OURS: &str = "r2";

/// The path that leads through it.
const PATH: [&str; 3] = ["r1", OURS, "e1"];

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
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&slotted.relay)?;
    let slot = Slot {
        node: OURS.into(),
        command: program.command(),
    };
    let network = Network::up(
        &folder,
        &Spec {
            prefix: neighbours::prefix(),
            slots: vec![slot],
            ..Spec::default()
        },
    )?;
    let told = carry(&network, slotted).and_then(|()| neighbours::listen(&network, &[OURS]));
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
