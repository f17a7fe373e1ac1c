//! `e2e tornet`: the private Tor network from the command line. Results are JSON on standard output.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use super::fetch::{Direction, Fetch, Pin};
use super::network::Network;
use super::spec::{self, Slot, Spec};
use crate::say;

/// What `e2e tornet` is asked to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The network's folder; one network each
    #[arg(long, global = true, default_value_os_t = spec::folder())]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start a network and wait until it can be used
    Up(Up),
    /// Stop it and remove everything of it
    Down,
    /// Every node: whether it runs, CPU seconds, memory, entry in the consensus
    Status,
    /// The consensus as an authority has it now, or one relay's entry
    Consensus {
        /// Nickname or fingerprint
        relay: Option<String>,
    },
    /// torrc lines that a relay from outside needs to join
    Torrc,
    /// Wait until a relay can be used by the client
    Await {
        /// Nickname or fingerprint
        relay: String,
        /// Seconds
        #[arg(long, default_value_t = 90)]
        patience: u64,
    },
    /// Move bytes over a path and check them
    Fetch(Transfer),
    /// A relay's metrics page
    Metrics {
        /// The node's name
        node: String,
    },
}

#[derive(Debug, clap::Args)]
struct Up {
    #[arg(long, default_value_t = 3)]
    authorities: u8,
    /// That are no exits
    #[arg(long, default_value_t = 3)]
    relays: u8,
    #[arg(long, default_value_t = 2)]
    exits: u8,
    /// NAME=COMMAND: run a command as one of the nodes; {torrc} stands for the torrc's path
    #[arg(long)]
    slot: Vec<Slot>,
    /// First three bytes of the nodes' addresses; 127.X.Y needs no root and is out of pods' reach
    #[arg(long, default_value = spec::PREFIX)]
    prefix: String,
    /// Seconds between votes once the network is up
    #[arg(long, default_value_t = 20)]
    voting_interval: u64,
    /// A consensus parameter, NAME=VALUE
    #[arg(long)]
    parameter: Vec<String>,
    /// NODE:LINE or *:LINE: a further torrc line
    #[arg(long)]
    torrc: Vec<String>,
    /// Make fresh keys
    #[arg(long)]
    fresh_keys: bool,
    /// Seconds until it must be up
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

#[derive(Debug, clap::Args)]
struct Transfer {
    /// Relays by nickname or fingerprint, guard first: r1,ours,e1
    #[arg(long, value_delimiter = ',', required = true)]
    path: Vec<String>,
    /// In total; k, M and G are powers of 1024
    #[arg(long, value_parser = size, default_value = "50M")]
    bytes: u64,
    #[arg(long, default_value_t = 1)]
    streams: usize,
    #[arg(long, default_value_t = 1)]
    circuits: usize,
    #[arg(long, value_enum, default_value_t = Pin::Config)]
    pin: Pin,
    /// From the client to the source
    #[arg(long)]
    upload: bool,
    #[arg(long, default_value = "c1")]
    client: String,
    /// Seconds for everything
    #[arg(long, default_value_t = 300)]
    patience: u64,
}

impl Up {
    fn spec(self) -> anyhow::Result<Spec> {
        let plain = Spec::default();
        let mut torrc = Vec::new();
        for line in self.torrc {
            let (node, line) = line.split_once(':').context("--torrc is NODE:LINE")?;
            torrc.push((node.to_owned(), line.to_owned()));
        }
        Ok(Spec {
            prefix: self.prefix,
            authorities: self.authorities,
            relays: self.relays,
            exits: self.exits,
            slots: self.slot,
            voting_interval: Duration::from_secs(self.voting_interval),
            parameters: self.parameter,
            torrc,
            key_cache: if self.fresh_keys { None } else { plain.key_cache },
            patience: Duration::from_secs(self.patience),
            clients: plain.clients,
        })
    }
}

impl Transfer {
    fn fetch(self) -> Fetch {
        Fetch {
            ports: Vec::new(),
            path: self.path,
            bytes: self.bytes,
            streams: self.streams,
            circuits: self.circuits,
            pin: self.pin,
            direction: if self.upload {
                Direction::Upload
            } else {
                Direction::Download
            },
            client: self.client,
            patience: Duration::from_secs(self.patience),
        }
    }
}

/// Does what was asked.
///
/// # Errors
/// When it could not; for `status`, when a node does not run.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let folder = std::path::absolute(&arguments.dir)?;
    match arguments.command {
        Command::Up(up) => print(&Network::up(&folder, &up.spec()?)?.status())?,
        Command::Down => Network::down(&folder)?,
        Command::Status => {
            let status = Network::open(&folder)?.status();
            print(&status)?;
            if !status.complete {
                bail!("not every node runs; their logs: {}", folder.display());
            }
        }
        Command::Consensus { relay } => consensus(&Network::open(&folder)?, relay.as_deref())?,
        Command::Torrc => say::plain(Network::open(&folder)?.torrc_for_strangers()),
        Command::Await { relay, patience } => {
            print(&Network::open(&folder)?.await_relay(&relay, None, Duration::from_secs(patience))?)?;
        }
        Command::Fetch(transfer) => print(&Network::open(&folder)?.fetch(&transfer.fetch())?)?,
        Command::Metrics { node } => say::plain(Network::open(&folder)?.metrics(&node)?),
    }
    Ok(())
}

fn consensus(network: &Network, relay: Option<&str>) -> anyhow::Result<()> {
    let wanted = |entry: &&super::Listed| relay.is_none_or(|relay| entry.is_called(relay));
    let listed = network.consensus()?;
    let found: Vec<_> = listed.iter().filter(wanted).collect();
    if let (Some(relay), []) = (relay, found.as_slice()) {
        bail!("{relay} is not in the consensus");
    }
    print(&found)
}

fn print(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say::plain(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// `200M`, `1G`, `64k` or plain bytes.
///
/// # Errors
/// When the text is no such size, in words for the command line.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['k', 'K', 'M', 'G']);
    let unit = match text.get(digits.len()..) {
        Some("") => 1,
        Some("k" | "K") => 1 << 10,
        Some("M") => 1 << 20,
        Some("G") => 1_u64 << 30,
        _ => return Err(format!("{text:?} is no size: 200M, 1G, 64k or plain bytes")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no size: 200M, 1G, 64k or plain bytes"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("200M"), Ok(200 << 20));
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("7"), Ok(7));
        for wrong in ["", "M", "1.5G", "-1", "1MM", "99999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
