//! An onion service of C tor's, reached by C tor's client, while every relay that it needs is ours: introduction points,
//! rendezvous points and directories, and the middles that pad the client's circuits to them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::neighbours::{self, Program};
use crate::command::await_yes;
use crate::say;
use crate::tornet::onion::Site;
use crate::tornet::padding::{self, Padded};
use crate::tornet::{Network, Slot, Spec, spec};

/// Ours. An onion service's circuits have up to four hops before the last one, all different, from either side.
const RELAYS: u8 = 7;

/// The node that serves, and the one that comes.
const SERVICE: &str = "c2";
const CLIENT: &str = "c1";

/// Until the service is reached for the first time: it must upload its descriptor before.
const FIRST: Duration = Duration::from_secs(120);

/// Until the last circuits have had their padding, which takes a tenth of a second where nobody is busy.
const PADDED: Duration = Duration::from_secs(20);

/// How much.
#[derive(Debug, Clone, clap::Args)]
pub struct Onions {
    /// The relay's program, started as PROGRAM -f TORRC; the bare name `tor` puts C tor into our slots
    #[arg(long, default_value = "target/programs/relay")]
    pub relay: String,
    /// Fetches, each over a rendezvous of its own
    #[arg(long, default_value_t = 5)]
    pub times: usize,
    /// Bytes of each
    #[arg(long, value_parser = crate::tornet::size, default_value = "5M")]
    pub bytes: u64,
}

/// Tells it. Logs stay if something failed.
///
/// # Errors
/// The service is not reached, a part was played by a relay that is not ours, or C tor complains.
pub fn tell(onions: &Onions) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-onion");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&onions.relay)?;
    let prefix = neighbours::prefix();
    let ours: Vec<String> = (1..=RELAYS).map(|number| format!("r{number}")).collect();
    let slots = ours.iter().map(|node| Slot {
        node: node.clone(),
        command: program.command(),
    });
    let mut torrc = Vec::new();
    // Nodes are numbered in order: three authorities, the relays, the exit.
    let of_ours: Vec<String> = (0..RELAYS).map(|at| format!("{prefix}.{}", 4 + at)).collect();
    let others = format!("{prefix}.1,{prefix}.2,{prefix}.3,{prefix}.{}", 4 + RELAYS);
    for node in [SERVICE, CLIENT] {
        torrc.push((node.to_owned(), format!("ExcludeNodes {others}")));
        // A service introduces itself only once its tor has built a circuit of its own accord.
        torrc.push((node.to_owned(), "__DisablePredictedCircuits 0".to_owned()));
    }
    let (line, padding_log) = padding::told_in(&folder, CLIENT);
    torrc.push((CLIENT.to_owned(), line));
    for authority in ["a1", "a2", "a3"] {
        let mut add = |line: String| torrc.push((authority.to_owned(), line));
        add(format!("TestingDirAuthVoteHSDir {}", of_ours.join(",")));
        add("TestingDirAuthVoteHSDirIsStrict 1".to_owned());
    }
    let network = Network::up(
        &folder,
        &Spec {
            prefix,
            relays: RELAYS,
            exits: 1,
            clients: 2,
            slots: slots.collect(),
            torrc,
            ..Spec::default()
        },
    )?;
    match told(&network, onions, &ours).and_then(|()| padded(&padding_log)) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

fn told(network: &Network, onions: &Onions, ours: &[String]) -> Result<()> {
    let site = Site::listen(network)?;
    let mut uploads = network.descriptor_events(SERVICE)?;
    let mut downloads = network.descriptor_events(CLIENT)?;
    let onion = network.serve_onion(SERVICE, &site)?;
    let mut rendezvous = BTreeSet::new();
    for time in 1..=onions.times {
        let began = Instant::now();
        let digest = loop {
            match network.onion_fetch(CLIENT, &onion, &site, onions.bytes, Duration::from_secs(60)) {
                Ok(digest) => break digest,
                Err(_) if time == 1 && began.elapsed() < FIRST => std::thread::sleep(Duration::from_secs(1)),
                Err(error) => return Err(error),
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        say::step(format!(
            "{time} of {}: {} bytes in {seconds:.1} s, sha256 {digest}",
            onions.times, onions.bytes
        ));
        rendezvous.extend(network.last_hops(SERVICE, &["HS_SERVICE_REND"])?);
        // The next one needs a rendezvous of its own.
        network.forget_circuits(CLIENT)?;
    }
    let introductions = network.last_hops(SERVICE, &["HS_SERVICE_INTRO"])?;
    check(network, "introduction points", &introductions, ours)?;
    check(network, "rendezvous points", &rendezvous, ours)?;
    check(
        network,
        "directories that took the descriptor",
        uploads.directories()?,
        ours,
    )?;
    check(
        network,
        "directories that gave the descriptor",
        downloads.directories()?,
        ours,
    )?;
    let names: Vec<&str> = ours.iter().map(String::as_str).collect();
    neighbours::listen(network, &names)
}

/// Whether a circuit had all that its machine has.
type IsWhole = fn(&Padded) -> bool;

/// Whether circuits of both kinds were padded to their end, and no middle refused. Fewer than fetches: C tor heeds NEWNYM every
/// 10 seconds only, so quick fetches share a rendezvous.
fn padded(log: &Path) -> Result<()> {
    // C tor draws 7 to 9 for an introduction (10 is beyond what it can draw), and one for a rendezvous.
    let introduced: IsWhole = |circuit| (7..=9).contains(&circuit.came) && circuit.ended > 0;
    let met: IsWhole = |circuit| (circuit.sent, circuit.came) == (1, 1);
    let kinds = [
        (padding::INTRODUCTION, "introductions", introduced),
        (padding::RENDEZVOUS, "rendezvous", met),
    ];
    let of = |kind: &str| -> Result<Vec<Padded>> {
        let circuits = padding::read(log)?.into_values();
        Ok(circuits
            .filter(|circuit| circuit.machine == kind && circuit.asked > 0)
            .collect())
    };
    for (machine, name, is_whole) in kinds {
        let whole = |circuits: &[Padded]| circuits.iter().filter(|one| is_whole(one)).count();
        let all = || of(machine).is_ok_and(|circuits| !circuits.is_empty() && whole(&circuits) == circuits.len());
        // A circuit that ends early keeps the others from nothing.
        let _ = await_yes("padding", PADDED, all);
        let circuits = of(machine)?;
        let sum = |of: fn(&Padded) -> u32| circuits.iter().map(of).sum::<u32>();
        let refused = sum(|one| one.refused);
        say::step(format!(
            "padding of {name} ({machine}): {} circuits asked our middles for it, {refused} were refused, {} had all; DROP cells: \
             {} by the client, {} by our middles; {} ends told",
            circuits.len(),
            whole(&circuits),
            sum(|one| one.sent),
            sum(|one| one.came),
            sum(|one| one.ended),
        ));
        ensure!(refused == 0, "a middle refused the padding machine of {name}");
        ensure!(
            whole(&circuits) * 2 > circuits.len(),
            "too few circuits had the padding of {name}: {circuits:?}"
        );
    }
    Ok(())
}

fn check(network: &Network, what: &str, found: &BTreeSet<String>, ours: &[String]) -> Result<()> {
    let consensus = network.consensus()?;
    let name = |fingerprint: &String| {
        let entry = consensus.iter().find(|entry| entry.is_called(fingerprint));
        entry.map_or_else(|| fingerprint.clone(), |entry| entry.nickname.clone())
    };
    let names: Vec<String> = found.iter().map(name).collect();
    say::step(format!("{what}: {}", names.join(" ")));
    ensure!(!names.is_empty(), "no {what} seen");
    if let Some(foreign) = names.iter().find(|name| !ours.contains(name)) {
        bail!("{foreign} is among the {what} and is not ours");
    }
    Ok(())
}
