//! What a network writes down about itself.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::spec::Spec;
use crate::state::{Places, write_whole};

/// What a node is in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A directory authority.
    Authority,
    /// A relay that is no exit.
    Relay,
    /// A relay that lets streams out.
    Exit,
    /// A client.
    Client,
}

/// One node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Node {
    /// Its nickname too.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) address: Ipv4Addr,
    /// What runs instead of C tor.
    pub(crate) slot: Option<Vec<String>>,
}

/// The file `tornet.json`: written before anything that it speaks of is done, so that it can be undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) spec: Spec,
    /// The C tor that runs.
    pub(crate) tor: PathBuf,
    pub(crate) nodes: Vec<Node>,
    /// Addresses that were not on the loopback device before.
    pub(crate) addresses_added: Vec<Ipv4Addr>,
    /// Values of DirAuthority lines.
    pub(crate) authorities: Vec<String>,
    /// Whether a client could use every relay.
    pub(crate) ready: bool,
}

impl State {
    pub(crate) fn read(places: &Places) -> anyhow::Result<Option<Self>> {
        let path = path(places);
        match fs::read(&path) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                    format!("{} is not of this version", path.display())
                })?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(crate) fn write(&self, places: &Places) -> anyhow::Result<()> {
        write_whole(&path(places), &serde_json::to_vec_pretty(self)?)
    }

    /// The node of this name.
    pub(crate) fn node(&self, name: &str) -> anyhow::Result<&Node> {
        match self.nodes.iter().find(|node| node.name == name) {
            Some(node) => Ok(node),
            None => {
                let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
                bail!("no node {name} in this network, only {}", names.join(", "))
            }
        }
    }

    /// Names of the nodes with one of these roles.
    pub(crate) fn names(&self, roles: &[Role]) -> Vec<String> {
        self.nodes
            .iter()
            .filter(|node| roles.contains(&node.role))
            .map(|node| node.name.clone())
            .collect()
    }

    /// Names of everything that must stand in the consensus.
    pub(crate) fn relays(&self) -> Vec<String> {
        self.names(&[Role::Authority, Role::Relay, Role::Exit])
    }

    /// Where the bytes come from that go through the network. Where pods can reach it, it must not be of RFC 2544: exits
    /// refuse to go there, as they refuse private networks. RFC 5737's third network is not used anywhere either.
    pub(crate) fn source_address(&self) -> anyhow::Result<Ipv4Addr> {
        let beside = address(&self.spec.prefix, 254)?;
        let [_, _, network, _] = beside.octets();
        Ok(if beside.is_loopback() {
            beside
        } else {
            Ipv4Addr::new(203, 0, 113, network)
        })
    }
}

/// A node's own folder.
pub(crate) fn node_folder(places: &Places, name: &str) -> PathBuf {
    places.state.join("node").join(name)
}

/// The address with this last byte.
pub(crate) fn address(prefix: &str, last: u8) -> anyhow::Result<Ipv4Addr> {
    format!("{prefix}.{last}")
        .parse()
        .with_context(|| format!("{prefix}.{last} is no address"))
}

fn path(places: &Places) -> PathBuf {
    places.state.join("tornet.json")
}

/// A network's places: all in one folder.
pub(crate) fn places(folder: &Path) -> Places {
    Places {
        state: folder.to_owned(),
        run: folder.join("run"),
    }
}
