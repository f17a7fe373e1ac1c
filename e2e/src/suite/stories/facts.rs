//! What a relay says of itself at its status port (docs/reference/status.md).

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use super::identities::running;
use crate::demo::fleet::Relay;
use crate::tornet::observe;

/// Its facts, with the token that its own torrc names.
pub(super) fn facts(relay: &Relay) -> Result<Value> {
    let inside = Inside::of(relay)?;
    let token = fs::read_to_string(format!("{}{}", inside.root, inside.option("StatusTokenFile")?))?;
    let address = inside.port("StatusPort")?;
    let page = observe::page_for(
        address,
        "/status",
        &format!("Authorization: Bearer {}\r\n", token.trim()),
    )?;
    serde_json::from_str(&page).with_context(|| format!("{} answers {page:?}", relay.name))
}

/// One value at its MetricsPort (docs/reference/metrics.md).
pub(super) fn metric(relay: &Relay, name: &str) -> Result<f64> {
    let page = observe::page(Inside::of(relay)?.port("MetricsPort")?, "/metrics")?;
    observe::sum_of(&page, name).with_context(|| format!("{} has no metric {name}", relay.name))
}

/// What a relay's own torrc says, read in its pod.
struct Inside<'a> {
    relay: &'a Relay,
    root: String,
    torrc: String,
}

impl<'a> Inside<'a> {
    fn of(relay: &'a Relay) -> Result<Self> {
        let process = running(&relay.ed25519)?.with_context(|| format!("no process of {} runs", relay.name))?;
        let root = format!("/proc/{}/root", process.pid);
        let torrc = fs::read_to_string(format!("{root}/etc/relayfleet/config/torrc"))?;
        Ok(Self { relay, root, torrc })
    }

    fn option(&self, name: &str) -> Result<&str> {
        let value = self
            .torrc
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("the torrc of {} has no {name}", self.relay.name))
    }

    /// Where the pod listens.
    fn port(&self, name: &str) -> Result<SocketAddr> {
        let (_, port) = self.option(name)?.rsplit_once(':').context("a port is ADDRESS:PORT")?;
        Ok(SocketAddr::new(self.relay.address.parse()?, port.parse()?))
    }
}

/// Ids of the families whose certificates it has.
pub(super) fn families(relay: &Relay) -> Result<Vec<String>> {
    let facts = facts(relay)?;
    let families = facts.get("families").and_then(Value::as_array);
    let ids = families
        .into_iter()
        .flatten()
        .filter_map(|family| family.get("id")?.as_str());
    Ok(ids.map(str::to_owned).collect())
}
