//! A client that knows nothing learns the network from our relay: C tor with a new DataDirectory, ours as its only
//! directory and its guard.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::neighbours::{self, Program};
use crate::say;
use crate::tornet::newcomer::Fetched;
use crate::tornet::{Network, Slot, Spec, spec};

/// Ours.
const OURS: &str = "r1";

/// Until the client can use the network.
const READY: Duration = Duration::from_secs(60);

/// Until it asks for a newer consensus: most of the twelve votes for which one is valid.
const DIFF: Duration = Duration::from_secs(300);

/// How much is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct Bootstrap {
    /// The relay's program, started as PROGRAM -f TORRC; the bare name `tor` puts C tor into our slot
    #[arg(long, default_value = "target/debug/relay")]
    pub relay: String,
    /// Clients one after the other
    #[arg(long, default_value_t = 3)]
    pub times: usize,
    /// Wait until the last client fetches a newer consensus, which must come as a diff (up to 5 minutes)
    #[arg(long)]
    pub diff: bool,
}

/// Tells it. Logs stay if something failed.
///
/// # Errors
/// A client does not get ready, asks somebody else, or C tor complains of ours.
pub fn tell(bootstrap: &Bootstrap) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-bootstrap");
    Network::down(&folder)?;
    let program = Program::take(&bootstrap.relay)?;
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
    match told(&network, bootstrap) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.display())
        }
    }
}

fn told(network: &Network, bootstrap: &Bootstrap) -> Result<()> {
    let consensus = network.consensus()?;
    let flags = &neighbours::found(&consensus, OURS)?.flags;
    for flag in ["V2Dir", "Guard", "HSDir", "Fast", "Stable", "Running", "Valid"] {
        ensure!(
            flags.iter().any(|have| have == flag),
            "{OURS} has no flag {flag}: {flags:?}"
        );
    }
    for time in 1..=bootstrap.times {
        let newcomer = network.newcomer(OURS)?;
        let fetched = newcomer.await_ready(READY)?;
        for kind in [Fetched::Consensus, Fetched::Certificates, Fetched::Microdescriptors] {
            ensure!(fetched.contains(&kind), "no {kind:?} was fetched: {fetched:?}");
        }
        say::step(format!(
            "client {time} of {} bootstrapped from {OURS} alone: {fetched:?}",
            bootstrap.times
        ));
        if bootstrap.diff && time == bootstrap.times {
            newcomer.await_diff(DIFF)?;
            say::step(format!("it applied a consensus diff from {OURS}"));
        }
    }
    neighbours::listen(network, &[OURS])
}
