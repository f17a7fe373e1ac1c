//! What a node that hibernates is asked, and what a client hears of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::circuits::Steered;
use super::fetch::Pin;
use super::network::Network;
use super::state::Role;
use super::{DIR_PORT, observe};

/// Books of a C tor with `AccountingMax` (control-spec, GETINFO `accounting/…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// In this interval.
    pub read: u64,
    /// In this interval.
    pub written: u64,
    /// `awake`, `soft` or `hard`.
    pub hibernating: String,
}

impl Network {
    /// What C tor's books say.
    ///
    /// # Errors
    /// It is no C tor, has no `AccountingMax`, or does not answer.
    pub fn books(&self, node: &str) -> anyhow::Result<Books> {
        let mut control = self.control(node)?;
        let mut ask = |key: &str| {
            let value = control.info(key)?;
            value.with_context(|| format!("{node} tells no {key}"))
        };
        let bytes = ask("accounting/bytes")?;
        let (read, written) = bytes.split_once(' ').context("odd books")?;
        Ok(Books {
            read: read.parse()?,
            written: written.parse()?,
            hibernating: ask("accounting/hibernating")?,
        })
    }

    /// The descriptor of this fingerprint as the first authority has it, listed or not.
    ///
    /// # Errors
    /// It has none.
    pub fn descriptor_of(&self, fingerprint: &str) -> anyhow::Result<String> {
        let names = self.state.names(&[Role::Authority]);
        let first = self.state.node(names.first().context("no authority")?)?;
        let path = format!("/tor/server/fp/{fingerprint}");
        observe::page(SocketAddr::from((first.address, DIR_PORT)), &path)
    }

    /// Asks for one circuit over this path, which should come to nothing; what the client hears of its end.
    ///
    /// # Errors
    /// It is built, or nothing is heard in time.
    pub fn refused_circuit(&self, client: &str, path: &[&str], patience: Duration) -> anyhow::Result<String> {
        let path: Vec<String> = path.iter().map(|&name| name.to_owned()).collect();
        let mut steered = Steered::take(self.control(client)?, &path, Pin::Control)?;
        let end = Instant::now() + patience;
        let circuit = steered.launch()?;
        while Instant::now() < end {
            let Some(event) = steered.control.event(Duration::from_millis(200))? else {
                continue;
            };
            let words: Vec<&str> = event.split_whitespace().collect();
            match words.as_slice() {
                ["CIRC", number, "FAILED" | "CLOSED", ..] if *number == circuit => return Ok(event),
                ["CIRC", number, "BUILT", ..] if *number == circuit => bail!("it was built: {event}"),
                _ => {}
            }
        }
        bail!("no word of circuit {circuit} within {} s", patience.as_secs())
    }
}
