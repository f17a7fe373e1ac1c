//! A client of C tor's that knows no consensus yet, and one relay besides the authorities: all that it learns of the
//! network it must fetch from that relay.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::network::Network;
use super::state;
use super::{OR_PORT, SOCKS_PORT};
use crate::process::{self, Known};

const NAME: &str = "newcomer";

/// The last byte of its address; nodes and source stand below.
const ADDRESS: u8 = 253;

/// Between two looks at its log.
const LOOK: Duration = Duration::from_millis(100);

/// It runs until it is dropped.
pub struct Newcomer {
    process: Known,
    log: PathBuf,
    guard: Ipv4Addr,
}

/// What its log says that it fetched from the relay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fetched {
    /// A whole consensus.
    Consensus,
    /// What changed since the one before.
    ConsensusDiff,
    /// Certificates of authorities.
    Certificates,
    /// Microdescriptors.
    Microdescriptors,
}

impl Network {
    /// Starts the client with a folder of its own. `guard` is a relay's name: its fallback directory, and the only guard
    /// that it may take.
    ///
    /// # Errors
    /// The relay is not in the consensus, or the client does not start.
    pub fn newcomer(&self, guard: &str) -> Result<Newcomer> {
        let consensus = self.consensus()?;
        let entry = consensus.iter().find(|entry| entry.is_called(guard));
        let fingerprint = &entry
            .with_context(|| format!("{guard} is not in the consensus"))?
            .fingerprint;
        let relay = self.state.node(guard)?.address;
        let address = state::address(&self.state.spec.prefix, ADDRESS)?;
        let folder = self.places.state.join(NAME);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let log = folder.join("tor.log");
        let torrc = format!(
            "{authorities}ClientOnly 1\nSocksPort {address}:{SOCKS_PORT}\nOutboundBindAddress {address}\n\
             VirtualAddrNetworkIPv4 10.192.0.0/10\nDataDirectory {data}\nConfluxEnabled 0\n\
             DirAuthorityFallbackRate 0\nFallbackDir {relay} orport={OR_PORT} id={fingerprint}\nEntryNodes {fingerprint}\n\
             ClientBootstrapConsensusAuthorityDownloadInitialDelay 3600\n\
             ClientBootstrapConsensusFallbackDownloadInitialDelay 0\nPathsNeededToBuildCircuits 0.67\n\
             SafeLogging 0\nProtocolWarnings 1\nLog notice [dir]info file {log}\n",
            authorities = super::torrc::for_strangers(&self.state).replace("AssumeReachable 1\n", ""),
            data = folder.join("data").display(),
            log = log.display(),
        );
        fs::write(folder.join("torrc"), torrc)?;
        let mut command = Command::new(&self.state.tor);
        command
            .arg("--defaults-torrc")
            .arg(self.places.state.join("empty"))
            .arg("-f")
            .arg(folder.join("torrc"))
            .arg("--quiet");
        Ok(Newcomer {
            process: process::spawn(&self.places, NAME, None, &mut command)?,
            log,
            guard: relay,
        })
    }
}

impl Newcomer {
    /// Waits until it can use the network; what it fetched for that.
    ///
    /// # Errors
    /// It takes longer than `patience`, or it asked another directory than its guard.
    pub fn await_ready(&self, patience: Duration) -> Result<BTreeSet<Fetched>> {
        self.await_line("Bootstrapped 100%", patience)
    }

    /// Waits until it has fetched a newer consensus as a diff. That may take a dozen of votes.
    ///
    /// # Errors
    /// As [`Self::await_ready`].
    pub fn await_diff(&self, patience: Duration) -> Result<BTreeSet<Fetched>> {
        self.await_line("Applied consensus diff", patience)
    }

    fn await_line(&self, words: &str, patience: Duration) -> Result<BTreeSet<Fetched>> {
        let end = Instant::now() + patience;
        loop {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if log.contains(words) {
                return fetched(&log, self.guard);
            }
            ensure!(self.process.alive(), "the newcomer ended:\n{}", tail(&log));
            if Instant::now() > end {
                bail!("no `{words}` within {} s:\n{}", patience.as_secs(), tail(&log));
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let _ = process::kill_all(std::slice::from_ref(&self.process));
    }
}

/// What came from the guard; an error if anything came from elsewhere.
fn fetched(log: &str, guard: Ipv4Addr) -> Result<BTreeSet<Fetched>> {
    const KINDS: [(&str, Fetched); 4] = [
        ("Received consensus directory", Fetched::Consensus),
        ("Applied consensus diff", Fetched::ConsensusDiff),
        ("Received authority certificates", Fetched::Certificates),
        ("Received answer to microdescriptor request", Fetched::Microdescriptors),
    ];
    let from_guard = format!(" from server {guard}:{OR_PORT}");
    let mut found = BTreeSet::new();
    for line in log.lines() {
        if let Some((_, kind)) = KINDS.iter().find(|(words, _)| line.contains(words)) {
            ensure!(line.contains(&from_guard), "from another directory: {line}");
            found.insert(kind.clone());
        }
    }
    Ok(found)
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(15)..)
        .unwrap_or_default()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_from_the_guard_counts() {
        let guard = Ipv4Addr::new(127, 77, 7, 4);
        let log = "Nov 22 [info] handle_response_fetch_consensus(): Received consensus directory (body size 5771) from server 127.77.7.4:9001\n\
                   Nov 22 [info] handle_response_fetch_certificate(): Received authority certificates (body size 6699) from server 127.77.7.4:9001\n";
        assert_eq!(
            fetched(log, guard).unwrap(),
            BTreeSet::from([Fetched::Consensus, Fetched::Certificates])
        );
        assert!(fetched(log, Ipv4Addr::new(127, 77, 7, 40)).is_err());
    }
}
