//! Bytes over a chosen path: through C tor's client, checked by digest, with what it cost each process.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::circuits::Steered;
use super::network::Network;
use super::source::{ASK, Brake, Source, receive, send};
use super::state::{Role, node_folder};
use super::{SOCKS_PORT, observe};
use crate::process::Known;

/// How a path is forced upon the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// EntryNodes, MiddleNodes and ExitNodes, and tor builds its own circuits: what ordinary clients do. C tor 0.4.9
    /// then asks only the exit for congestion control and CGO.
    Config,
    /// EXTENDCIRCUIT with an explicit path. C tor takes every hop of such a circuit for a possible exit, and asks it
    /// for congestion control and CGO if it advertises them. Any number of relays.
    Control,
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the source to the client.
    Download,
    /// From the client to the source.
    Upload,
}

/// A transfer to be.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Relays by nickname or fingerprint, guard first.
    pub path: Vec<String>,
    /// In total, over all streams.
    pub bytes: u64,
    /// At the same time.
    pub streams: usize,
    /// Over which the streams are spread.
    pub circuits: usize,
    /// How the path is forced.
    pub pin: Pin,
    /// Which way.
    pub direction: Direction,
    /// The client's node name.
    pub client: String,
    /// For everything together.
    pub patience: Duration,
    /// Where the bytes come from: the first of these ports that is free, or any.
    pub ports: Vec<u16>,
}

/// Ports that Tor's reduced exit policy allows, for paths whose exit has it.
pub const WEB_PORTS: [u16; 6] = [443, 80, 8080, 8443, 8008, 8888];

impl Fetch {
    /// A download over this path: one circuit, as many streams as asked for, pinned by configuration.
    #[must_use]
    pub fn over(path: &[&str], bytes: u64, streams: usize) -> Self {
        Self {
            path: path.iter().map(|&name| name.to_owned()).collect(),
            bytes,
            streams,
            circuits: 1,
            pin: Pin::Config,
            direction: Direction::Download,
            client: "c1".into(),
            patience: Duration::from_secs(300),
            ports: Vec::new(),
        }
    }
}

/// A transfer that went well: every stream arrived whole.
#[derive(Debug, Clone, Serialize)]
pub struct Fetched {
    /// Nicknames, guard first.
    pub path: Vec<String>,
    /// How the path was forced.
    pub pin: Pin,
    /// Which way the bytes went.
    pub direction: Direction,
    /// In total.
    pub bytes: u64,
    /// At the same time.
    pub streams: usize,
    /// Over which the streams were spread.
    pub circuits: usize,
    /// Attempts to build a circuit that failed before enough were there.
    pub circuit_failures: usize,
    /// Until the circuits were there.
    pub circuit_build_seconds: f64,
    /// From then until the last byte.
    pub seconds: f64,
    /// 2^20 bytes a second.
    pub mib_per_second: f64,
    /// SHA-256 of each stream, the same at both ends.
    pub sha256: Vec<String>,
    /// CPU seconds that each node's process used meanwhile.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// Memory of each node's process afterwards, KiB.
    pub rss_kib: BTreeMap<String, u64>,
}

/// What a thread at one end of a stream reports.
struct End {
    stream: usize,
    digest: anyhow::Result<String>,
}

impl Network {
    /// Moves bytes over a path and checks them.
    ///
    /// # Errors
    /// When a circuit or stream fails, bytes are lost or changed, or it takes too long.
    pub fn fetch(&self, fetch: &Fetch) -> anyhow::Result<Fetched> {
        ensure!(
            fetch.streams >= 1 && fetch.circuits >= 1,
            "a transfer needs a stream and a circuit"
        );
        let client = self.state.node(&fetch.client)?;
        ensure!(client.role == Role::Client, "{} is no client", fetch.client);
        // The pins hold for the whole client: one transfer at a time.
        let _lock = self.lock_client(&fetch.client)?;
        let end = Instant::now() + fetch.patience;

        let mut steered = Steered::take(self.control(&fetch.client)?, &fetch.path, fetch.pin)?;
        let began = Instant::now();
        let (circuits, circuit_failures) = steered.build(fetch.circuits, fetch.patience)?;
        let circuit_build_seconds = began.elapsed().as_secs_f64();

        let address = self.state.source_address()?;
        let sources: Vec<Source> = (0..fetch.streams as u64)
            .map(|number| Source::listen(address, &fetch.ports, number))
            .collect::<anyhow::Result<_>>()?;
        let mut wanted = HashMap::new();
        for (source, circuit) in sources.iter().zip(circuits.iter().cycle()) {
            wanted.insert(source.address()?.to_string(), circuit.clone());
        }
        let before = self.used();
        let began = Instant::now();
        let socks = SocketAddr::from((client.address, SOCKS_PORT));
        let sha256 = run(fetch, &sources, socks, &mut steered, &wanted, end)
            .with_context(|| format!("{} bytes through {}", fetch.bytes, steered.path().join(",")))?;
        let seconds = began.elapsed().as_secs_f64();
        let after = self.used();

        let spent = |(name, usage): (&String, &observe::Usage)| (name.clone(), round(usage.since(before.get(name))));
        Ok(Fetched {
            path: steered.path(),
            pin: fetch.pin,
            direction: fetch.direction,
            bytes: fetch.bytes,
            streams: fetch.streams,
            circuits: fetch.circuits,
            circuit_failures,
            circuit_build_seconds: round(circuit_build_seconds),
            seconds: round(seconds),
            mib_per_second: round(fetch.bytes as f64 / seconds / f64::from(1 << 20)),
            sha256,
            cpu_seconds: after.iter().map(spent).collect(),
            rss_kib: after
                .iter()
                .map(|(name, usage)| (name.clone(), usage.rss_kib))
                .collect(),
        })
    }

    fn lock_client(&self, client: &str) -> anyhow::Result<File> {
        let path = node_folder(&self.places, client).join("lock");
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        file.lock().context("cannot lock")?;
        Ok(file)
    }

    fn used(&self) -> BTreeMap<String, observe::Usage> {
        let nodes = self.state.nodes.iter();
        let used = nodes.filter_map(|node| {
            let Known { pid, .. } = self.process(&node.name)?;
            Some((node.name.clone(), observe::usage(pid)?))
        });
        used.collect()
    }
}

/// All streams at once, two threads each; this thread attaches them to circuits. Gives their digests.
fn run(
    fetch: &Fetch,
    sources: &[Source],
    socks: SocketAddr,
    steered: &mut Steered,
    wanted: &HashMap<String, String>,
    end: Instant,
) -> anyhow::Result<Vec<String>> {
    let brake = Brake::default();
    let (report, reports) = mpsc::channel();
    std::thread::scope(|scope| {
        for (stream, source) in sources.iter().enumerate() {
            let (brake, bytes, direction) = (&brake, share(fetch, stream), fetch.direction);
            let tell = move |report: Sender<End>, digest| drop(report.send(End { stream, digest }));
            let (near, far) = (report.clone(), report.clone());
            scope.spawn(move || tell(far, serve(source, direction, bytes, brake)));
            scope.spawn(move || tell(near, stream_through(source, socks, direction, stream, bytes, brake)));
        }
        drop(report);
        let outcome = collect(fetch, steered, wanted, &reports, end);
        if outcome.is_err() {
            brake.pull();
        }
        outcome
    })
}

pub(super) fn serve(source: &Source, direction: Direction, bytes: u64, brake: &Brake) -> anyhow::Result<String> {
    match direction {
        Direction::Download => source.give(bytes, brake),
        Direction::Upload => source.take(bytes, brake),
    }
}

/// Attaches streams and takes reports until both ends of every stream have spoken and agree.
fn collect(
    fetch: &Fetch,
    steered: &mut Steered,
    wanted: &HashMap<String, String>,
    reports: &Receiver<End>,
    end: Instant,
) -> anyhow::Result<Vec<String>> {
    let mut digests: Vec<Vec<String>> = vec![Vec::new(); fetch.streams];
    let mut left = 2 * fetch.streams;
    while left > 0 {
        steered.attach(wanted, Duration::from_millis(20))?;
        for End { stream, digest } in reports.try_iter() {
            let digest = digest.with_context(|| format!("stream {} of {}", stream + 1, fetch.streams))?;
            digests.get_mut(stream).context("an odd report")?.push(digest);
            left -= 1;
        }
        if Instant::now() > end {
            bail!("not through after {} s", fetch.patience.as_secs());
        }
    }
    let mut agreed = Vec::new();
    for (stream, digests) in digests.into_iter().enumerate() {
        match digests.as_slice() {
            [one, other] if one == other => agreed.push(one.clone()),
            _ => bail!(
                "stream {} changed under way: its ends have the digests {digests:?}",
                stream + 1
            ),
        }
    }
    Ok(agreed)
}

/// Of the bytes; the first streams take what does not divide.
fn share(fetch: &Fetch, stream: usize) -> u64 {
    let (streams, stream) = (fetch.streams as u64, stream as u64);
    fetch.bytes / streams + u64::from(stream < fetch.bytes % streams)
}

/// One stream as an application sees it: SOCKS 5 to the client, then bytes.
pub(super) fn stream_through(
    source: &Source,
    socks: SocketAddr,
    direction: Direction,
    number: usize,
    bytes: u64,
    brake: &Brake,
) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(socks).context("the client takes no streams")?;
    brake.watch(&stream)?;
    stream.set_nodelay(true)?;
    ask_socks(&mut stream, source.address()?)?;
    match direction {
        Direction::Download => {
            stream.write_all(ASK).context("the client takes no bytes")?;
            receive(&mut stream, bytes)
        }
        Direction::Upload => {
            let digest = send(&mut stream, number as u64, bytes)?;
            // No half close: to C tor's client the end of an application's bytes is the end of the stream.
            let mut confirmed = vec![0; digest.len()];
            stream
                .read_exact(&mut confirmed)
                .context("the source did not confirm the bytes")?;
            ensure!(
                confirmed == digest.as_bytes(),
                "the source took other bytes than were sent"
            );
            Ok(digest)
        }
    }
}

/// No authentication, CONNECT to an IPv4 address (RFC 1928).
fn ask_socks(stream: &mut TcpStream, target: SocketAddr) -> anyhow::Result<()> {
    let SocketAddr::V4(target) = target else {
        bail!("a source with an IPv6 address")
    };
    stream.write_all(&[5, 1, 0])?;
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting)?;
    ensure!(greeting == [5, 0], "the client refuses SOCKS 5");
    let mut request = vec![5, 1, 0, 1];
    request.extend(target.ip().octets());
    request.extend(target.port().to_be_bytes());
    stream.write_all(&request)?;
    let mut reply = [0; 10];
    stream
        .read_exact(&mut reply)
        .context("the client closed before it answered")?;
    let [5, code, ..] = reply else {
        bail!("the client answers no SOCKS 5")
    };
    ensure!(code == 0, "the client could not connect: SOCKS code {code}");
    Ok(())
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_streams_are_the_whole() {
        for (bytes, streams) in [(10, 3), (0, 2), (7, 8), (50 << 20, 8)] {
            let fetch = Fetch::over(&["r1", "r2", "e1"], bytes, streams);
            assert_eq!((0..streams).map(|stream| share(&fetch, stream)).sum::<u64>(), bytes);
        }
    }
}
