//! What is asked of a network before it starts.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::state::Places;

/// A network to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The first three bytes of every node's address, as text: `198.18.200`. Below 127 no root is needed, but pods
    /// cannot reach it. Addresses that are private in Tor's eyes will not do.
    pub prefix: String,
    /// Directory authorities, named a1, a2, …
    pub authorities: u8,
    /// Relays that are no exits, named r1, r2, …
    pub relays: u8,
    /// Exits, named e1, e2, …
    pub exits: u8,
    /// Clients, named c1, c2, …
    pub clients: u8,
    /// Nodes that are somebody else's.
    pub slots: Vec<Slot>,
    /// Between two votes once the network is up; C tor takes no less than 10 s.
    pub voting_interval: Duration,
    /// Consensus parameters, `name=value`.
    pub parameters: Vec<String>,
    /// Further torrc lines: a node's name or `*`, and the line.
    pub torrc: Vec<(String, String)>,
    /// C tor's keys are kept here between networks, as making them takes seconds; `None`: fresh ones every time.
    pub key_cache: Option<PathBuf>,
    /// How long it may take until a client can use every relay.
    pub patience: Duration,
}

/// A command that runs as one of the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The node's name.
    pub node: String,
    /// Program and arguments; `{torrc}` stands for the path of the node's torrc, `{empty}` for that of an empty file.
    pub command: Vec<String>,
}

/// Addresses that pods can reach, that Tor takes for public and that are routed nowhere (RFC 2544).
pub const PREFIX: &str = "198.18.200";

impl Default for Spec {
    /// Three authorities, three relays, two exits, a client.
    fn default() -> Self {
        Self {
            prefix: PREFIX.into(),
            authorities: 3,
            relays: 3,
            exits: 2,
            clients: 1,
            slots: Vec::new(),
            voting_interval: Duration::from_secs(20),
            parameters: Vec::new(),
            torrc: Vec::new(),
            key_cache: Some(cache().join("tor-keys")),
            patience: Duration::from_secs(120),
        }
    }
}

impl Spec {
    /// # Errors
    /// Says what would not work and why.
    pub fn check(&self) -> anyhow::Result<()> {
        let bytes: Vec<&str> = self.prefix.split('.').collect();
        ensure!(
            bytes.len() == 3 && bytes.iter().all(|byte| byte.parse::<u8>().is_ok()),
            "the prefix {:?} is not three numbers like {PREFIX}",
            self.prefix
        );
        ensure!(
            self.authorities >= 1 && self.exits >= 1,
            "a network needs an authority and an exit"
        );
        let nodes = [self.authorities, self.relays, self.exits, self.clients]
            .map(u32::from)
            .iter()
            .sum::<u32>();
        ensure!(nodes <= 250, "{nodes} nodes are more than one prefix holds (250)");
        ensure!(
            self.voting_interval >= Duration::from_secs(10),
            "C tor votes every 10 s at most"
        );
        Ok(())
    }
}

impl FromStr for Slot {
    type Err = anyhow::Error;

    /// `r2=relay -f {torrc}`: words are split at spaces; without `{torrc}` the end is `-f` and the path.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (node, command) = text.split_once('=').context("a slot is NAME=COMMAND")?;
        let mut command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if command.is_empty() {
            bail!("the slot {node} names no command");
        }
        if !command.iter().any(|word| word.contains("{torrc}")) {
            command.extend(["-f".to_owned(), "{torrc}".to_owned()]);
        }
        Ok(Self {
            node: node.to_owned(),
            command,
        })
    }
}

/// What a machine pays for once: `RELAYFLEET_CACHE`, or `~/.cache/relayfleet`.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    std::env::var_os("RELAYFLEET_CACHE").map_or_else(|| home().join(".cache/relayfleet"), PathBuf::from)
}

/// Where a network of this machine keeps its files unless told otherwise: beside the cluster's folder, not in it, as
/// each may end without the other.
#[must_use]
pub fn folder() -> PathBuf {
    let mut name = Places::default().state.into_os_string();
    name.push("-tornet");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_without_torrc_gets_it_appended() {
        let plain: Slot = "r2=/bin/relay --quiet".parse().unwrap();
        assert_eq!(plain.command, ["/bin/relay", "--quiet", "-f", "{torrc}"]);

        let told: Slot = "r2=relay --config={torrc}".parse().unwrap();
        assert_eq!(told.command, ["relay", "--config={torrc}"]);
    }

    #[test]
    fn a_slot_without_command_is_refused() {
        assert!("r2=".parse::<Slot>().is_err());
        assert!("r2".parse::<Slot>().is_err());
    }

    #[test]
    fn a_network_that_cannot_be_is_refused_before_it_starts() {
        let wrong = [
            Spec {
                prefix: "198.18".into(),
                ..Spec::default()
            },
            Spec {
                prefix: "198.18.300".into(),
                ..Spec::default()
            },
            Spec {
                authorities: 0,
                ..Spec::default()
            },
            Spec {
                relays: 250,
                ..Spec::default()
            },
            Spec {
                voting_interval: Duration::from_secs(5),
                ..Spec::default()
            },
        ];
        for spec in wrong {
            assert!(spec.check().is_err(), "{spec:?}");
        }
        Spec::default().check().unwrap();
    }
}
