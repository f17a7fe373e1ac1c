//! Conflux: circuits of C tor's client that carry the same streams to one exit, as its control port tells of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::SOCKS_PORT;
use super::control::Control;
use super::fetch::{Direction, serve, stream_through};
use super::network::Network;
use super::onion::fingerprint;
use super::source::{Brake, Source};

/// One circuit that is linked with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedCircuit {
    /// The client's number of it.
    pub number: String,
    /// Fingerprints, guard first.
    pub path: Vec<String>,
    /// The same for all circuits of a set.
    pub set: String,
}

/// What went over which circuit of a client.
pub struct Carried {
    control: Control,
}

impl Network {
    /// The client's circuits with purpose CONFLUX_LINKED.
    ///
    /// # Errors
    /// Its control port does not answer.
    pub fn linked_circuits(&self, client: &str) -> anyhow::Result<Vec<LinkedCircuit>> {
        let status = self.control(client)?.info("circuit-status")?.unwrap_or_default();
        Ok(linked(&status))
    }

    /// Counts from now on what goes over each of a client's circuits.
    ///
    /// # Errors
    /// Its control port does not answer.
    pub fn circuit_bandwidth(&self, client: &str) -> anyhow::Result<Carried> {
        let mut control = self.control(client)?;
        control.command("SETEVENTS CIRC_BW STREAM")?;
        Ok(Carried { control })
    }

    /// Moves bytes through a client that chooses its circuits itself; gives the digest, the same at both ends.
    ///
    /// # Errors
    /// The stream fails, or bytes are lost or changed.
    pub fn transfer(
        &self,
        client: &str,
        direction: Direction,
        bytes: u64,
        patience: Duration,
    ) -> anyhow::Result<String> {
        let node = self.state.node(client)?;
        let socks = SocketAddr::from((node.address, SOCKS_PORT));
        let source = Source::listen(self.state.source_address()?, &[], 0)?;
        let (brake, end) = (Brake::default(), Instant::now() + patience);
        let (near, far) = std::thread::scope(|scope| {
            let far = scope.spawn(|| serve(&source, direction, bytes, &brake));
            let near = scope.spawn(|| stream_through(&source, socks, direction, 0, bytes, &brake));
            while !(near.is_finished() && far.is_finished()) {
                if Instant::now() > end {
                    brake.pull();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (near.join(), far.join())
        });
        let (Ok(near), Ok(far)) = (near, far) else {
            bail!("a thread of the transfer broke")
        };
        let (near, far) = (near?, far?);
        ensure!(
            near == far,
            "the bytes changed under way: {far} at the source, {near} at the client"
        );
        Ok(near)
    }
}

/// Bytes read and written, by the circuit's number.
pub type BytesByCircuit = BTreeMap<String, (u64, u64)>;

impl Carried {
    /// Bytes read and written over each circuit since this was asked last, and the circuits that streams were on.
    ///
    /// # Errors
    /// The control port is gone.
    pub fn take(&mut self, wait: Duration) -> anyhow::Result<(BytesByCircuit, Vec<String>)> {
        let (mut sums, mut streams) = (BytesByCircuit::new(), Vec::new());
        while let Some(event) = self.control.event(wait)? {
            if let Some((number, read, written)) = bandwidth(&event) {
                let sum = sums.entry(number).or_default();
                *sum = (sum.0 + read, sum.1 + written);
            }
            streams.extend(stream_circuit(&event));
        }
        Ok((sums, streams))
    }
}

/// `number BUILT $fingerprint~nickname,… … PURPOSE=CONFLUX_LINKED … CONFLUX_ID=…` (control-spec "circuit-status").
fn linked(status: &str) -> Vec<LinkedCircuit> {
    let found = status.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (number, state, path) = (words.next()?, words.next()?, words.next()?);
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        if state != "BUILT" || value("PURPOSE=") != Some("CONFLUX_LINKED") {
            return None;
        }
        Some(LinkedCircuit {
            number: number.to_owned(),
            path: path.split(',').map(fingerprint).collect(),
            set: value("CONFLUX_ID=").unwrap_or_default().to_owned(),
        })
    });
    found.collect()
}

/// `CIRC_BW ID=number READ=bytes WRITTEN=bytes …` (control-spec "CIRC_BW").
fn bandwidth(event: &str) -> Option<(String, u64, u64)> {
    let rest = event.strip_prefix("CIRC_BW ")?;
    let value = |key: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(key));
    Some((
        value("ID=")?.to_owned(),
        value("READ=")?.parse().ok()?,
        value("WRITTEN=")?.parse().ok()?,
    ))
}

/// `STREAM number SUCCEEDED circuit target` (control-spec "STREAM").
fn stream_circuit(event: &str) -> Option<String> {
    let words: Vec<&str> = event.split_whitespace().collect();
    match words.as_slice() {
        ["STREAM", _, "SUCCEEDED", circuit, ..] => Some((*circuit).to_owned()),
        _ => None,
    }
}

/// The set among them whose circuits all end at this relay and that has at least two.
///
/// # Errors
/// There is none.
pub fn set_to<'a>(circuits: &'a [LinkedCircuit], exit: &str) -> anyhow::Result<Vec<&'a LinkedCircuit>> {
    let mut sets: BTreeMap<&str, Vec<&LinkedCircuit>> = BTreeMap::new();
    for circuit in circuits {
        sets.entry(&circuit.set).or_default().push(circuit);
    }
    let ends_there = |circuit: &&LinkedCircuit| circuit.path.last().is_some_and(|last| last.eq_ignore_ascii_case(exit));
    let whole = |set: &Vec<&LinkedCircuit>| set.len() >= 2 && set.iter().all(ends_there);
    sets.into_values().find(whole).context("no linked set ends there")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "7 BUILT $AA~r1,$BB~r2,$EE~e1 BUILD_FLAGS=NEED_CAPACITY PURPOSE=CONFLUX_LINKED CONFLUX_ID=F00 CONFLUX_RTT=9\n\
                          8 BUILT $CC~r3,$DD~r4,$EE~e1 BUILD_FLAGS=NEED_CAPACITY PURPOSE=CONFLUX_LINKED CONFLUX_ID=F00 CONFLUX_RTT=8\n\
                          9 BUILT $CC~r3,$DD~r4,$EE~e1 PURPOSE=CONFLUX_UNLINKED CONFLUX_ID=F01\n\
                          10 EXTENDED $CC~r3 PURPOSE=GENERAL\n";

    #[test]
    fn linked_circuits_and_their_sets_are_found() {
        let circuits = linked(STATUS);
        let numbers: Vec<&str> = circuits.iter().map(|circuit| circuit.number.as_str()).collect();
        assert_eq!(numbers, ["7", "8"]);
        assert_eq!(set_to(&circuits, "ee").unwrap().len(), 2);
        assert!(set_to(&circuits, "DD").is_err());
        assert!(set_to(&circuits[..1], "EE").is_err());
    }

    #[test]
    fn what_went_over_a_circuit_and_where_streams_are_is_read() {
        let event = "CIRC_BW ID=7 READ=509 WRITTEN=1018 TIME=2026 DELIVERED_READ=498";
        assert_eq!(bandwidth(event), Some(("7".into(), 509, 1018)));
        assert_eq!(bandwidth("CIRC 7 BUILT"), None);
        assert_eq!(
            stream_circuit("STREAM 3 SUCCEEDED 7 127.0.0.1:80").as_deref(),
            Some("7")
        );
        assert_eq!(stream_circuit("STREAM 3 CLOSED 7 127.0.0.1:80 REASON=DONE"), None);
    }
}
