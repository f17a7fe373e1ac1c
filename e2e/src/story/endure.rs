//! Mixed load for half an hour: streams that come whole and streams that are cut, circuits that come and go and that ours
//! extend, an onion service, neighbours that are killed. Memory stays what it was, and nothing is left open.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::neighbours::{self, Program};
use crate::say;
use crate::tornet::observe::Usage;
use crate::tornet::onion::Site;
use crate::tornet::{Direction, Fetch, Network, Pin, Slot, Spec, spec};

/// Ours: one that is no exit, and one that is.
const OURS: [&str; 2] = ["r3", "e2"];

/// The neighbour that is killed again and again.
const VICTIM: &str = "r2";

/// Who serves an onion service, and who reads from it, over new circuits each time.
const SERVICE: &str = "c3";
const READER: &str = "c4";

/// Streams that share a circuit, and its window.
const STREAMS_A_CIRCUIT: usize = 4;

/// Between two looks at memory and descriptors.
const LOOK: Duration = Duration::from_secs(5);

/// Between two kills: long enough for the client to build circuits through the victim meanwhile.
const BETWEEN_KILLS: Duration = Duration::from_secs(20);

/// How long until channels without circuits are closed (relays keep them for some minutes) and all is given back.
const QUIET: Duration = Duration::from_secs(6 * 60);

/// Descriptors more than before that count as the living neighbours': one link each way with every other node.
const DESCRIPTORS_MORE_MAX: usize = 20;

/// How much.
#[derive(Debug, Clone, clap::Args)]
pub struct Endured {
    /// The relay's program, started as PROGRAM -f TORRC; the bare name `tor` puts C tor into our slots
    #[arg(long, default_value = "target/programs/relay")]
    pub relay: String,
    /// Minutes of load
    #[arg(long, default_value_t = 30)]
    pub minutes: u64,
    /// How far memory may grow from the first fifth of the time to its end, in percent
    #[arg(long, default_value_t = 10)]
    pub growth_percent_max: u64,
    /// Further torrc line of our relays
    #[arg(long)]
    pub torrc: Vec<String>,
}

/// What the loads did.
#[derive(Default)]
struct Deeds {
    over: AtomicBool,
    fetched: AtomicUsize,
    cut: AtomicUsize,
    circuits: AtomicUsize,
    extended: AtomicUsize,
    onions: AtomicUsize,
    kills: AtomicUsize,
}

impl Deeds {
    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn more(counter: &AtomicUsize, by: usize) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// A look at one of ours.
struct Look {
    at: Duration,
    usage: Usage,
}

/// Tells it. Logs stay if something failed.
///
/// # Errors
/// A relay of ours ended, a stream that nobody cut did not come whole, memory grew, or something was left open.
pub fn tell(endured: &Endured) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-endure");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&endured.relay)?;
    let slots = OURS.map(|node| Slot {
        node: node.to_owned(),
        command: program.command(),
    });
    let of_ours = |line: &String| OURS.map(|node| (node.to_owned(), line.clone()));
    let mut torrc: Vec<_> = endured.torrc.iter().flat_map(of_ours).collect();
    // A service introduces itself only once its tor has built a circuit of its own accord.
    torrc.extend([SERVICE, READER].map(|node| (node.to_owned(), "__DisablePredictedCircuits 0".to_owned())));
    // With the victim as their guard they would be cut off for half of the time. It is the second relay after three
    // authorities.
    let prefix = neighbours::prefix();
    torrc.extend([SERVICE, READER].map(|node| (node.to_owned(), format!("ExcludeNodes {prefix}.5"))));
    let network = Network::up(
        &folder,
        &Spec {
            prefix,
            relays: 4,
            clients: 4,
            slots: slots.to_vec(),
            torrc,
            ..Spec::default()
        },
    )?;
    match told(&network, endured) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

fn told(network: &Network, endured: &Endured) -> Result<()> {
    // A first transfer, so that what is there in any case is there before it is counted.
    await_bytes(network)?;
    let before = OURS.map(|name| network.usage(name));
    let deeds = Deeds::default();
    let length = Duration::from_secs(60 * endured.minutes);
    let looks = std::thread::scope(|scope| {
        let loads = [
            scope.spawn(|| whole_streams(network, &deeds)),
            scope.spawn(|| cut_streams_and_circuits(network, &deeds)),
            scope.spawn(|| onion_service(network, &deeds)),
            scope.spawn(|| kills(network, &deeds)),
        ];
        let looks = watch(network, length, &deeds);
        deeds.over.store(true, Ordering::Relaxed);
        for load in loads {
            load.join()
                .map_err(|_| anyhow::anyhow!("a load broke (message above)"))??;
        }
        looks
    })?;
    say::step(done(&deeds));
    for (what, counter) in [
        ("stream came whole", &deeds.fetched),
        ("stream was cut", &deeds.cut),
        ("circuit came and went", &deeds.circuits),
        ("circuit was extended by ours", &deeds.extended),
        ("onion service was reached", &deeds.onions),
        ("neighbour was killed", &deeds.kills),
    ] {
        ensure!(counter.load(Ordering::Relaxed) > 0, "no {what}: that was no mixed load");
    }
    for (name, looks) in OURS.into_iter().zip(&looks) {
        judge_memory(name, looks, length, endured.growth_percent_max)?;
    }
    for (name, before) in OURS.into_iter().zip(before) {
        await_quiet(network, name, &before.with_context(|| format!("{name} ended"))?)?;
    }
    Ok(())
}

fn fetch(path: [&str; 3], client: &str, bytes: u64, streams: usize) -> Fetch {
    Fetch {
        client: client.to_owned(),
        circuits: streams.div_ceil(STREAMS_A_CIRCUIT),
        patience: Duration::from_secs(120),
        // No guard flag is needed, and every hop is asked for everything that it speaks.
        pin: Pin::Control,
        ..Fetch::over(&path, bytes, streams)
    }
}

fn await_bytes(network: &Network) -> Result<()> {
    let began = Instant::now();
    loop {
        match network.fetch(&fetch(["r3", "r1", "e2"], "c1", 1 << 20, 4)) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > Duration::from_secs(60) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// Ours at every position, both ways, from one stream to many. The victim is on none of these paths: all must come.
fn whole_streams(network: &Network, deeds: &Deeds) -> Result<()> {
    let paths = [
        ["r3", "r1", "e1"],
        ["r1", "r3", "e2"],
        ["r4", "r3", "e1"],
        ["r3", "r4", "e2"],
    ];
    for (round, path) in paths.iter().cycle().enumerate() {
        if deeds.over() {
            break;
        }
        let streams = 1 << (round % 6);
        let direction = if round % 3 == 0 {
            Direction::Upload
        } else {
            Direction::Download
        };
        let whole = Fetch {
            direction,
            ..fetch(*path, "c1", 4 << 20, streams)
        };
        if let Err(error) = network.fetch(&whole) {
            deeds.over.store(true, Ordering::Relaxed);
            return Err(error).with_context(|| format!("a stream over {} that nobody cut", path.join(",")));
        }
        Deeds::more(&deeds.fetched, streams);
    }
    Ok(())
}

/// Transfers that are given up in the middle, and circuits without any stream; the victim takes part, so anything may
/// fail here.
fn cut_streams_and_circuits(network: &Network, deeds: &Deeds) -> Result<()> {
    let paths = [[VICTIM, "r3", "e2"], ["r3", VICTIM, "e2"], ["r3", "r4", "e2"]];
    for path in paths.iter().cycle() {
        if deeds.over() {
            break;
        }
        let cut = Fetch {
            patience: Duration::from_secs(2),
            ..fetch(*path, "c2", 1 << 30, 16)
        };
        match network.fetch(&cut) {
            // Streams were open and bytes were flowing: that is what was to be cut.
            Err(error) if format!("{error:#}").contains("not through after") => Deeds::more(&deeds.cut, 16),
            _ => {}
        }
        let many = Fetch {
            circuits: 24,
            patience: Duration::from_secs(10),
            ..fetch(*path, "c2", 24, 24)
        };
        if network.fetch(&many).is_ok() {
            Deeds::more(&deeds.circuits, 24);
            if path.iter().take(2).any(|node| OURS.contains(node)) {
                Deeds::more(&deeds.extended, 24);
            }
        }
    }
    Ok(())
}

/// All relays but the victim take parts in it, ours among them.
fn onion_service(network: &Network, deeds: &Deeds) -> Result<()> {
    let site = Site::listen(network)?;
    let onion = network.serve_onion(SERVICE, &site)?;
    while !deeds.over() {
        match network.onion_fetch(READER, &onion, &site, 1 << 20, Duration::from_secs(30)) {
            Ok(_) => Deeds::more(&deeds.onions, 1),
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
        // The next one needs a rendezvous of its own.
        network.forget_circuits(READER)?;
    }
    Ok(())
}

fn kills(network: &Network, deeds: &Deeds) -> Result<()> {
    let mut last = Instant::now();
    while !deeds.over() {
        std::thread::sleep(Duration::from_millis(200));
        if last.elapsed() < BETWEEN_KILLS {
            continue;
        }
        network.kill(VICTIM)?;
        std::thread::sleep(Duration::from_secs(1));
        network.start_again(VICTIM)?;
        Deeds::more(&deeds.kills, 1);
        last = Instant::now();
    }
    Ok(())
}

fn watch(network: &Network, length: Duration, deeds: &Deeds) -> Result<[Vec<Look>; 2]> {
    let began = Instant::now();
    let mut looks: [Vec<Look>; 2] = Default::default();
    let mut told = Duration::ZERO;
    while began.elapsed() < length && !deeds.over() {
        std::thread::sleep(LOOK);
        let at = began.elapsed();
        for (name, looks) in OURS.into_iter().zip(&mut looks) {
            let usage = network.usage(name).with_context(|| format!("{name} ended under load"));
            if usage.is_err() {
                deeds.over.store(true, Ordering::Relaxed);
            }
            looks.push(Look { at, usage: usage? });
        }
        if at - told > Duration::from_secs(60) {
            told = at;
            let ours: Vec<String> = OURS
                .into_iter()
                .zip(&looks)
                .filter_map(|(name, looks)| Some(in_words(name, &looks.last()?.usage)))
                .collect();
            say::step(format!("{}; {}", ours.join("; "), done(deeds)));
        }
    }
    Ok(looks)
}

fn in_words(name: &str, usage: &Usage) -> String {
    format!(
        "{name}: {:.1} MiB, {} descriptors, {} threads",
        usage.rss_kib as f64 / 1024.0,
        usage.descriptors,
        usage.threads
    )
}

fn done(deeds: &Deeds) -> String {
    let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    format!(
        "{} streams whole, {} cut, {} circuits come and gone, {} of them extended by ours, {} onion service fetches, {} kills",
        of(&deeds.fetched),
        of(&deeds.cut),
        of(&deeds.circuits),
        of(&deeds.extended),
        of(&deeds.onions),
        of(&deeds.kills)
    )
}

/// The most of the second fifth against the most of the last: peaks, as one moment's load is not another's.
fn judge_memory(name: &str, looks: &[Look], length: Duration, percent_max: u64) -> Result<()> {
    let most = |from: Duration, to: Duration| {
        let there = looks.iter().filter(|look| look.at >= from && look.at < to);
        there.map(|look| look.usage.rss_kib).max()
    };
    let fifth = length / 5;
    let early = most(fifth, 2 * fifth).context("too short to judge memory")?;
    let late = most(4 * fifth, 2 * length).context("too short to judge memory")?;
    say::step(format!("{name}: at most {early} KiB early and {late} KiB late"));
    ensure!(
        late * 100 <= early * (100 + percent_max),
        "{name} grew from {early} to {late} KiB, more than {percent_max} %"
    );
    Ok(())
}

fn await_quiet(network: &Network, name: &str, before: &Usage) -> Result<()> {
    let end = Instant::now() + QUIET;
    loop {
        let usage = network.usage(name).with_context(|| format!("{name} ended"))?;
        let more = usage.descriptors.saturating_sub(before.descriptors);
        if more <= DESCRIPTORS_MORE_MAX && usage.threads <= before.threads {
            say::step(format!(
                "quiet: {} ({} descriptors before)",
                in_words(name, &usage),
                before.descriptors
            ));
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "left open: {}; before: {} descriptors, {} threads",
                in_words(name, &usage),
                before.descriptors,
                before.threads
            );
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(rss: impl Fn(u64) -> u64) -> Vec<Look> {
        (0..100)
            .map(|second| Look {
                at: Duration::from_secs(second),
                usage: Usage {
                    pid: 1,
                    user_seconds: 0.0,
                    system_seconds: 0.0,
                    run_seconds: 0.0,
                    rss_kib: rss(second),
                    rss_peak_kib: 0,
                    threads: 1,
                    descriptors: 1,
                },
            })
            .collect()
    }

    #[test]
    fn memory_that_grows_on_is_told_and_a_warm_up_is_not() {
        let judge = |rss: &dyn Fn(u64) -> u64| judge_memory("r3", &looks(rss), Duration::from_secs(100), 10);
        judge(&|second| if second < 15 { 5_000 } else { 20_000 }).unwrap();
        judge(&|second| 20_000 + second % 7 * 100).unwrap();
        assert!(judge(&|second| 20_000 + 60 * second).is_err());
    }
}
