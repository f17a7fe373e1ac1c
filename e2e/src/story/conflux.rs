//! C tor's client links circuits to an exit of ours, and bytes come whole over them, both ways.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::neighbours::{self, Program};
use crate::say;
use crate::tornet::conflux::{Carried, LinkedCircuit, set_to};
use crate::tornet::{Direction, Network, Slot, Spec, spec};

/// Two legs that share neither guard nor middle, and some to choose from.
const RELAYS: u8 = 5;

/// The only exit, and ours.
const OURS: &str = "e1";

const CLIENT: &str = "c1";

/// Until the client has linked circuits of its own accord.
const LINKED: Duration = Duration::from_secs(120);

/// How much.
#[derive(Debug, Clone, clap::Args)]
pub struct Linked {
    /// The relay's program, started as PROGRAM -f TORRC; the bare name `tor` puts C tor into our slot
    #[arg(long, default_value = "target/programs/relay")]
    pub relay: String,
    /// Transfers each way, each over a set of its own
    #[arg(long, default_value_t = 10)]
    pub times: usize,
    /// Bytes of each
    #[arg(long, value_parser = crate::tornet::size, default_value = "100M")]
    pub bytes: u64,
    /// Shards of the exit; 0 leaves it to the relay
    #[arg(long, default_value_t = 0)]
    pub shards: u16,
}

/// Tells it. Logs stay if something failed.
///
/// # Errors
/// No circuits are linked, a transfer fails, or C tor complains.
pub fn tell(story: &Linked) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-conflux");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&story.relay)?;
    let line = |node: &str, line: String| (node.to_owned(), line);
    let mut torrc = vec![
        line(CLIENT, "ConfluxEnabled 1".to_owned()),
        line(OURS, "ConfluxEnabled 1".to_owned()),
        // Sets are made before streams ask for them, or not at all.
        line(CLIENT, "__DisablePredictedCircuits 0".to_owned()),
    ];
    if story.shards > 0 {
        torrc.push(line(OURS, format!("NumCPUs {}", story.shards)));
    }
    let network = Network::up(
        &folder,
        &Spec {
            prefix: neighbours::prefix(),
            relays: RELAYS,
            exits: 1,
            slots: vec![Slot {
                node: OURS.into(),
                command: program.command(),
            }],
            torrc,
            ..Spec::default()
        },
    )?;
    let told = carry(&network, story).and_then(|()| neighbours::listen(&network, &[OURS]));
    match told {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

fn carry(network: &Network, story: &Linked) -> Result<()> {
    let consensus = network.consensus()?;
    let exit = neighbours::found(&consensus, OURS)?.fingerprint.clone();
    let mut both = 0;
    for time in 1..=story.times {
        for direction in [Direction::Download, Direction::Upload] {
            let set = await_set(network, &exit)?;
            let mut carried = network.circuit_bandwidth(CLIENT)?;
            let began = Instant::now();
            let patience = Duration::from_secs(60 + (story.bytes >> 20) * 2);
            let digest = network.transfer(CLIENT, direction, story.bytes, patience)?;
            let seconds = began.elapsed().as_secs_f64();
            let shares = shares(&mut carried, &network.linked_circuits(CLIENT)?, &set, direction)?;
            both += usize::from(shares.values().filter(|bytes| **bytes > story.bytes / 100).count() > 1);
            let shares: Vec<String> = shares
                .iter()
                .map(|(number, bytes)| format!("circuit {number} {} MiB", bytes >> 20))
                .collect();
            say::step(format!(
                "{time} of {}, {direction:?}: {} MiB in {seconds:.1} s over {}; sha256 {digest}",
                story.times,
                story.bytes >> 20,
                shares.join(", ")
            ));
        }
        // The next one links circuits anew.
        network.forget_circuits(CLIENT)?;
    }
    say::step(format!("{both} of {} transfers used both legs", 2 * story.times));
    Ok(())
}

/// Waits until the client has a linked set that ends at our exit.
fn await_set(network: &Network, exit: &str) -> Result<Vec<LinkedCircuit>> {
    let began = Instant::now();
    loop {
        let circuits = network.linked_circuits(CLIENT)?;
        match set_to(&circuits, exit) {
            Ok(set) => {
                let paths: Vec<String> = set
                    .iter()
                    .map(|leg| format!("circuit {} CONFLUX_LINKED {} hops", leg.number, leg.path.len()))
                    .collect();
                say::step(format!(
                    "set {}: {}",
                    set.first().map_or("", |leg| leg.set.as_str()),
                    paths.join(", ")
                ));
                return Ok(circuits);
            }
            Err(error) if began.elapsed() > LINKED => {
                bail!("{error:#} after {} s", LINKED.as_secs());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// What went over each circuit of the set that the stream was on.
fn shares(
    carried: &mut Carried,
    now: &[LinkedCircuit],
    before: &[LinkedCircuit],
    direction: Direction,
) -> Result<BTreeMap<String, u64>> {
    // Tor tells once a second.
    let (sums, streams) = carried.take(Duration::from_millis(1_500))?;
    let known: Vec<&LinkedCircuit> = now.iter().chain(before).collect();
    let of_stream = |circuit: &&&LinkedCircuit| streams.contains(&circuit.number);
    let Some(set) = known.iter().find(of_stream).map(|circuit| circuit.set.clone()) else {
        bail!("the stream was on circuit {streams:?}, which is not linked");
    };
    ensure!(!set.is_empty(), "tor tells no CONFLUX_ID");
    let legs = known.iter().filter(|circuit| circuit.set == set);
    let share = |number: &String| {
        let (read, written) = sums.get(number).copied().unwrap_or_default();
        match direction {
            Direction::Download => read,
            Direction::Upload => written,
        }
    };
    Ok(legs.map(|leg| (leg.number.clone(), share(&leg.number))).collect())
}
