//! Relays of ours at every position of C tor's circuits: bytes both ways with matching digests, the flags that C tor's
//! own relays have, and nobody complains.

mod listing;
mod position;
mod sets;

use anyhow::{Result, bail, ensure};

pub use position::Position;

use super::neighbours::{self, Program};
use crate::say;
use crate::tornet::{Network, Pin, Slot, Spec, spec};

/// How much is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct Carried {
    /// The relay's program, started as PROGRAM -f TORRC; the bare name `tor` puts C tor into our slots
    #[arg(long, default_value = "target/programs/relay")]
    pub relay: String,
    /// Transfers of each set
    #[arg(long, default_value_t = 20)]
    pub times: usize,
    /// Bytes of each transfer
    #[arg(long, value_parser = crate::tornet::size, default_value = "100M")]
    pub bytes: u64,
    /// Streams of the sets with many at the same time
    #[arg(long, default_value_t = 32)]
    pub streams: usize,
    /// Where ours stand on the path
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Position::ALL)]
    pub positions: Vec<Position>,
    /// How the path is forced upon the client
    #[arg(long, value_enum, default_value_t = Pin::Config)]
    pub pin: Pin,
    /// Further torrc line of our relays
    #[arg(long)]
    pub torrc: Vec<String>,
    /// Only carry: ask no consensus for flags and subprotocols
    #[arg(long)]
    pub no_listing: bool,
}

/// Runs a network of C tor with relays of ours in it, on 127.x.y.N; for each position the sets of transfers; then what
/// the consensus and the neighbours' logs and counters say of ours. Logs stay if something failed.
///
/// # Errors
/// A transfer failed, a relay of ours is not listed as C tor's are, or C tor complains.
pub fn tell(carried: &Carried) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-carry");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&carried.relay)?;
    let ours = position::ours(&carried.positions);
    let slots = ours.iter().map(|node| Slot {
        node: (*node).to_owned(),
        command: program.command(),
    });
    let mut torrc = listing::torrc(&folder);
    for line in &carried.torrc {
        torrc.extend(ours.iter().map(|node| ((*node).to_owned(), line.clone())));
    }
    let network = Network::up(
        &folder,
        &Spec {
            prefix: neighbours::prefix(),
            relays: 4,
            slots: slots.collect(),
            torrc,
            ..Spec::default()
        },
    )?;
    match told(&network, carried, &ours, program.is_ours()) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

/// What fails does not keep the rest from being looked at.
fn told(network: &Network, carried: &Carried, ours: &[&str], is_ours: bool) -> Result<()> {
    let before: Vec<_> = ours.iter().map(|name| network.process(name)).collect();
    let mut troubles = Vec::new();
    let (mut fetches, mut failures) = (0, 0);
    for position in &carried.positions {
        let counts = sets::run(network, carried, *position);
        fetches += counts.fetches;
        failures += counts.failures;
    }
    if !carried.no_listing {
        troubles.extend(listing::check(network, ours, is_ours).err());
    }
    troubles.extend(neighbours::listen(network, ours).err());
    for (name, before) in ours.iter().zip(before) {
        if network.process(name) != before {
            troubles.push(anyhow::anyhow!("{name} ended under way"));
        }
    }
    for trouble in &troubles {
        say::step(format!("FAILED: {trouble:#}"));
    }
    say::plain(format!("{fetches} fetches, {failures} failures"));
    ensure!(failures == 0, "{failures} of {fetches} transfers failed");
    ensure!(fetches > 0, "nothing was carried");
    match troubles.into_iter().next() {
        None => Ok(()),
        Some(trouble) => Err(trouble),
    }
}
