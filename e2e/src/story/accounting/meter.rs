//! A meter outside of the relays: what the kernel says that their sockets have received and brought to the other side.
//!
//! Looked at every few hundredths of a second, as a socket's counts go with the socket. (Packets on the loopback device would be
//! no measure: a receiver that is slow makes the sender repeat them.)

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::tornet::{CONTROL_PORT, DIR_PORT, METRICS_PORT};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(40);

/// Each socket by its two ends, and what it has received and brought over, at most.
type Sockets = HashMap<(String, String), (u64, u64)>;

/// Counts until it is dropped.
pub(super) struct Meter {
    nodes: Vec<(String, Ipv4Addr)>,
    seen: Arc<Mutex<Sockets>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What went over a node's links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// To the node, read by it or not.
    pub(super) read: u64,
    /// From it, and arrived.
    pub(super) written: u64,
}

impl Moved {
    pub(super) fn both(&self) -> u64 {
        self.read + self.written
    }
}

impl Meter {
    /// Begins to count for these nodes.
    ///
    /// # Errors
    /// There is no `ss`.
    pub(super) fn start(nodes: &[(&str, Ipv4Addr)]) -> Result<Self> {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(name, address)| ((*name).to_owned(), *address))
            .collect();
        let mut sockets = Sockets::new();
        look(&nodes, &mut sockets)?;
        let (seen, over) = (Arc::new(Mutex::new(sockets)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (nodes, seen, over) = (nodes.clone(), Arc::clone(&seen), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    // One that fails is made good by the next.
                    let _ = look(&nodes, &mut seen.lock().unwrap_or_else(PoisonError::into_inner));
                    std::thread::sleep(LOOK);
                }
            }
        });
        Ok(Self {
            nodes,
            seen,
            over,
            thread: Some(thread),
        })
    }

    /// What a node has read and written so far.
    ///
    /// # Errors
    /// `ss` fails.
    pub(super) fn read(&self, node: &str) -> Result<Moved> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        look(&self.nodes, &mut seen)?;
        let (_, address) = self
            .nodes
            .iter()
            .find(|(name, _)| name == node)
            .context("no such node")?;
        let mut sum = Moved::default();
        for ((local, _), (received, acked)) in seen.iter() {
            if ends(local).is_some_and(|(at, _)| at == *address) {
                sum.read += received;
                sum.written += acked;
            }
        }
        Ok(sum)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(nodes: &[(String, Ipv4Addr)], seen: &mut Sockets) -> Result<()> {
    let from: Vec<String> = nodes.iter().map(|(_, address)| format!("src {address}")).collect();
    let output = Command::new("ss")
        .args(["-t", "-i", "-n", "-H", "-O", "-a"])
        .arg(format!("( {} )", from.join(" or ")))
        .output()
        .context("no ss on the PATH: apt-get install iproute2")?;
    ensure!(
        output.status.success(),
        "ss: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .for_each(|line| note(line, seen));
    Ok(())
}

/// `STATE RECV-Q SEND-Q LOCAL PEER … bytes_acked:N bytes_received:N …`. Sockets that are no links do not count.
fn note(line: &str, seen: &mut Sockets) {
    let mut words = line.split_whitespace().skip(3);
    let (Some(local), Some(peer)) = (words.next(), words.next()) else {
        return;
    };
    let foreign = [METRICS_PORT, CONTROL_PORT, DIR_PORT];
    let links = [local, peer]
        .iter()
        .all(|end| ends(end).is_some_and(|(_, port)| !foreign.contains(&port)));
    if !links {
        return;
    }
    let count = seen.entry((local.to_owned(), peer.to_owned())).or_default();
    for word in words {
        let number = |name: &str| word.strip_prefix(name).and_then(|number| number.parse::<u64>().ok());
        if let Some(received) = number("bytes_received:") {
            count.0 = count.0.max(received);
        } else if let Some(acked) = number("bytes_acked:") {
            count.1 = count.1.max(acked);
        }
    }
}

fn ends(text: &str) -> Option<(Ipv4Addr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    Some((address.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_counts_what_it_had_at_most_and_only_if_it_is_a_link() {
        let mut seen = Sockets::new();
        let line = |peer: &str, received: u64| {
            format!(
                "ESTAB 0 0 198.18.201.5:38307 {peer} cubic wscale:10,10 bytes_sent:9 bytes_acked:10 bytes_received:{received} mss:7"
            )
        };
        note(&line("198.18.201.6:9001", 700), &mut seen);
        note(&line("198.18.201.6:9001", 900), &mut seen);
        note(&line("198.18.201.1:9030", 900), &mut seen);
        note("LISTEN 0 4096 198.18.201.5:9001 0.0.0.0:* cubic", &mut seen);
        let found: Vec<_> = seen.values().collect();
        assert_eq!(found, [&(900, 10)]);
    }
}
