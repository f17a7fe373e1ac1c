//! A quota of 60 MiB under a load that would push far more: C tor and ours side by side. Ours is killed in the middle, sleeps
//! when it has used up its quota, which the consensus sees, wakes with the next interval, and refuses circuits from the soft
//! limit on.

mod meter;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use self::meter::{Meter, Moved};
use super::neighbours::{self, Program};
use crate::say;
use crate::tornet::{Fetch, Listed, METRICS_PORT, Network, Pin, Slot, Spec, observe, spec};

/// Ours, with a quota.
const OURS: &str = "r2";
/// C tor with the same one.
const THEIRS: &str = "r3";
/// First hop of the load, without a quota.
const GUARD: &str = "r1";
/// The same, for what comes after the sleep: C tor does not try again for a minute where it could not connect.
const NEIGHBOUR: &str = "r4";
/// Last hop.
const EXIT: &str = "e1";

const QUOTA: u64 = 60 << 20;
/// What may be moved beyond it, of all.
const OVERSHOOT_PERCENT_MAX: f64 = 2.0;
/// What a process that is killed may forget, of all: the half of a hundredth by which it is ahead of its file, and what lay
/// unread in the kernel.
const FORGOTTEN_PERCENT_MAX: f64 = 1.5;

/// What is pushed at once, in as many streams, each on a circuit of its own.
const LOAD_BYTES: u64 = 400 << 20;
const STREAMS: usize = 4;

/// Until a relay has used up its quota.
const USED_UP: Duration = Duration::from_secs(150);
/// Until the consensus knows of a change: an upload and a vote every 10 s.
const VOTED: Duration = Duration::from_secs(60);

/// How it is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Quotas {
    /// The relay's program, started as PROGRAM -f TORRC
    #[arg(long, default_value = "target/programs/relay")]
    pub relay: String,
    /// Seconds from the start to the end of the interval, at least: until then both quotas must be used up
    #[arg(long, default_value_t = 110)]
    pub interval: u64,
}

/// Tells it. Logs stay if something failed.
///
/// # Errors
/// More than the quota was moved, a kill was forgotten, or sleep and wake were not seen.
pub fn tell(quotas: &Quotas) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-accounting");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&quotas.relay)?;
    let ends = next_minute(SystemTime::now() + Duration::from_secs(quotas.interval));
    // Addresses of the loopback network would not do: C tor sends from 127.0.0.1 there, where nobody can tell whose it is.
    let prefix = format!("198.18.{}", 201 + std::process::id() % 50);
    let mut torrc = Vec::new();
    for node in [OURS, THEIRS] {
        for line in [
            format!("AccountingMax {QUOTA} bytes"),
            "AccountingRule sum".to_owned(),
            format!("AccountingStart day {}", local_minute(ends)?),
        ] {
            torrc.push((node.to_owned(), line));
        }
    }
    // Nodes are numbered in order: three authorities, then r1.
    torrc.push((OURS.to_owned(), format!("MetricsPort {prefix}.5:{METRICS_PORT}")));
    torrc.push((OURS.to_owned(), format!("MetricsPortPolicy accept {prefix}.0/24")));
    let network = Network::up(
        &folder,
        &Spec {
            prefix,
            relays: 4,
            exits: 1,
            slots: vec![Slot {
                node: OURS.to_owned(),
                command: program.command(),
            }],
            voting_interval: Duration::from_secs(10),
            torrc,
            ..Spec::default()
        },
    )?;
    match told(&network, ends) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

fn told(network: &Network, ends: SystemTime) -> Result<()> {
    let consensus = network.consensus()?;
    let (ours, theirs) = (found(&consensus, OURS)?, found(&consensus, THEIRS)?);
    no_directory_service(network, &consensus)?;
    let address = |name| Ok::<_, anyhow::Error>(v4(network.or_port(name)?));
    let meter = Meter::start(&[(OURS, address(OURS)?), (THEIRS, address(THEIRS)?)])?;
    press_theirs(network, &meter)?;
    press_ours(network, &meter)?;
    let asleep = SystemTime::now();
    ensure!(
        asleep < ends,
        "the interval ended before the quota did; a busy machine needs a longer --interval"
    );

    await_absence(network, &ours)?;
    say::step(format!(
        "the consensus lists {OURS} no more, and its descriptor says `hibernating 1`; of {THEIRS} (C tor) the authorities \
         have {}",
        match says_it_hibernates(network, &theirs) {
            true => "the same",
            false => "no such descriptor",
        }
    ));
    let refused = TcpStream::connect_timeout(&network.or_port(OURS)?, Duration::from_secs(2));
    ensure!(refused.is_err(), "{OURS} takes connections in its sleep");

    sleep_until(ends);
    let woke = Instant::now();
    network.await_relay(OURS, None, VOTED + Duration::from_secs(30))?;
    ensure!(
        !says_it_hibernates(network, &ours),
        "{OURS} still says that it hibernates"
    );
    say::step(format!(
        "{OURS} is Running again {:.0} s after the new interval began",
        woke.elapsed().as_secs_f64()
    ));
    refuses(network)
}

/// As C tor's, so ours; those without a quota do offer it.
fn no_directory_service(network: &Network, consensus: &[Listed]) -> Result<()> {
    for (name, offered) in [(OURS, false), (THEIRS, false), (GUARD, true)] {
        let text = network.descriptor(name)?;
        ensure!(
            text.contains("\ntunnelled-dir-server\n") == offered,
            "the descriptor of {name} should {} directory service",
            if offered { "offer" } else { "not offer" }
        );
        ensure!(found(consensus, name)?.has("V2Dir") == offered, "{name} and V2Dir");
    }
    say::step(format!(
        "{OURS} and {THEIRS} offer no directory service, as they have a quota"
    ));
    Ok(())
}

/// Load without end through this relay, until it is over; it pauses while the relay is down.
fn load(network: &Network, middle: &str, over: &AtomicBool, pause: &AtomicBool) {
    let fetch = Fetch {
        circuits: STREAMS,
        pin: Pin::Control,
        patience: USED_UP,
        ..Fetch::over(&[GUARD, middle, EXIT], LOAD_BYTES, STREAMS)
    };
    while !over.load(Ordering::Relaxed) {
        if !pause.load(Ordering::Relaxed) {
            // Cut in the middle by the end of the quota, or by our kill.
            let _ = network.fetch(&fetch);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn pressed<T>(network: &Network, middle: &str, watch: impl FnOnce(&AtomicBool) -> Result<T>) -> Result<T> {
    let (over, pause) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| load(network, middle, &over, &pause));
        let watched = watch(&pause);
        over.store(true, Ordering::Relaxed);
        watched
    })
}

fn press_theirs(network: &Network, meter: &Meter) -> Result<()> {
    let end = Instant::now() + USED_UP;
    let books = pressed(network, THEIRS, |_| {
        loop {
            let books = network.books(THEIRS)?;
            if books.hibernating == "hard" {
                return Ok(books);
            }
            ensure!(Instant::now() < end, "{THEIRS} does not use up its quota: {books:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    })?;
    report(THEIRS, "C tor", books.read + books.written, meter.read(THEIRS)?);
    Ok(())
}

fn press_ours(network: &Network, meter: &Meter) -> Result<()> {
    let ledger = pressed(network, OURS, |pause| {
        await_used(network, QUOTA / 2)?;
        pause.store(true, Ordering::Relaxed);
        network.kill(OURS)?;
        let moved = meter.read(OURS)?;
        let kept = on_disk(network)?;
        let forgotten = percent(moved.both().saturating_sub(kept));
        say::step(format!(
            "{OURS} was killed (SIGKILL) when its sockets had moved {} bytes; {kept} stand in its state file: {forgotten:.2} % of the \
             quota forgotten",
            moved.both()
        ));
        ensure!(forgotten <= FORGOTTEN_PERCENT_MAX, "too much is forgotten");
        network.start_again(OURS)?;
        let (used, _) = await_used(network, 1)?;
        ensure!(
            used >= kept,
            "after the restart {used} bytes are known, on disk there were {kept}"
        );
        pause.store(false, Ordering::Relaxed);
        let end = Instant::now() + USED_UP;
        loop {
            let (used, state) = standing(network)?;
            if state == "dormant" {
                return Ok(used);
            }
            ensure!(
                Instant::now() < end,
                "{OURS} does not use up its quota: {used} bytes, {state}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    })?;
    let moved = meter.read(OURS)?;
    report(OURS, "ours", ledger, moved);
    ensure!(ledger >= QUOTA * 95 / 100, "it slept before its quota was used up");
    for (what, bytes) in [("its ledger", ledger), ("its sockets", moved.both())] {
        let overshoot = over_by(bytes);
        ensure!(
            overshoot <= OVERSHOOT_PERCENT_MAX,
            "by {what} the quota was overshot by {overshoot:.2} %"
        );
    }
    Ok(())
}

fn report(name: &str, who: &str, ledger: u64, moved: Moved) {
    say::step(format!(
        "{name} ({who}) sleeps: quota {QUOTA}, its ledger {ledger} ({:+.2} %), its links' sockets {} ({:+.2} %; {} \
         read, {} written)",
        over_by(ledger),
        moved.both(),
        over_by(moved.both()),
        moved.read,
        moved.written
    ));
}

fn percent(bytes: u64) -> f64 {
    bytes as f64 * 100.0 / QUOTA as f64
}

fn over_by(bytes: u64) -> f64 {
    percent(bytes) - 100.0
}

/// Small transfers up to the soft limit; then new circuits are refused and the old link lives.
fn refuses(network: &Network) -> Result<()> {
    // As first hop: a relay before it would tell the client no more than that the circuit was destroyed. The link stays, so that
    // there is somebody to refuse.
    let path = [OURS, NEIGHBOUR, EXIT];
    // Five hundredths lie between the two limits: 3 MiB, and 1 MiB through it is twice that in its books.
    through(network, path, 20 << 20)?;
    let end = Instant::now() + USED_UP;
    loop {
        let (used, state) = through(network, path, 1 << 20)?;
        if used >= QUOTA / 20 * 19 {
            ensure!(state != "dormant", "{OURS} sleeps before anybody could be refused");
            break;
        }
        ensure!(Instant::now() < end, "{OURS} does not come near its quota");
    }
    let end = Instant::now() + Duration::from_secs(10);
    while standing(network)?.1 != "soft_limit" {
        ensure!(Instant::now() < end, "{OURS} does not see its soft limit");
        std::thread::sleep(Duration::from_millis(100));
    }
    let event = network.refused_circuit("c1", &path, Duration::from_secs(20))?;
    ensure!(
        event.contains("REMOTE_REASON=HIBERNATING"),
        "refused otherwise: {event}"
    );
    let refused = TcpStream::connect_timeout(&network.or_port(OURS)?, Duration::from_secs(2));
    ensure!(refused.is_err(), "{OURS} takes connections beyond its soft limit");
    say::step(format!(
        "beyond the soft limit {OURS} takes no connection and refuses circuits: {event}"
    ));
    Ok(())
}

fn through(network: &Network, path: [&str; 3], bytes: u64) -> Result<(u64, String)> {
    network.fetch(&Fetch {
        pin: Pin::Control,
        patience: Duration::from_secs(300),
        ..Fetch::over(&path, bytes, 1)
    })?;
    standing(network)
}

/// What ours says of itself: bytes used, and its state.
fn standing(network: &Network) -> Result<(u64, String)> {
    let page = network.metrics(OURS)?;
    let used = observe::sum_of(&page, "relayfleet_accounting_used_bytes").context("it tells no bytes")?;
    let mut states = page.lines().filter_map(|line| {
        let (state, on) = line
            .strip_prefix("relayfleet_accounting_state{state=\"")?
            .split_once("\"} ")?;
        (on == "1").then(|| state.to_owned())
    });
    Ok((used as u64, states.next().context("it tells no state")?))
}

fn await_used(network: &Network, bytes: u64) -> Result<(u64, String)> {
    let end = Instant::now() + USED_UP;
    loop {
        // It may just be starting.
        match standing(network) {
            Ok(standing) if standing.0 >= bytes => return Ok(standing),
            Ok(standing) => ensure!(Instant::now() < end, "{OURS} carries too little: {standing:?}"),
            Err(error) => ensure!(Instant::now() < end, "{OURS} tells nothing: {error:#}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The ledger as a new process will find it.
fn on_disk(network: &Network) -> Result<u64> {
    let path = network.node_folder(OURS).join("data/state");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let value = |key: &str| -> Result<u64> {
        let found = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(found
            .with_context(|| format!("no {key} in the state file"))?
            .trim()
            .parse()?)
    };
    Ok(value("AccountingBytesReadInInterval")? + value("AccountingBytesWrittenInInterval")?)
}

fn await_absence(network: &Network, relay: &Listed) -> Result<()> {
    let end = Instant::now() + VOTED;
    loop {
        let listed = network
            .consensus()?
            .iter()
            .any(|entry| entry.is_called(&relay.nickname) && entry.is_usable());
        if !listed && says_it_hibernates(network, relay) {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{} sleeps, and the consensus does not see it",
            relay.nickname
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn says_it_hibernates(network: &Network, relay: &Listed) -> bool {
    let text = network.descriptor_of(&relay.fingerprint);
    text.is_ok_and(|text| text.contains("\nhibernating 1\n"))
}

fn found(consensus: &[Listed], name: &str) -> Result<Listed> {
    neighbours::found(consensus, name).cloned()
}

fn v4(address: SocketAddr) -> std::net::Ipv4Addr {
    match address {
        SocketAddr::V4(v4) => *v4.ip(),
        SocketAddr::V6(_) => std::net::Ipv4Addr::UNSPECIFIED,
    }
}

fn next_minute(time: SystemTime) -> SystemTime {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UNIX_EPOCH + Duration::from_secs(seconds.div_ceil(60) * 60)
}

/// `HH:MM` as the machine's zone has it, which is what both relays go by.
fn local_minute(time: SystemTime) -> Result<String> {
    let seconds = time.duration_since(UNIX_EPOCH)?.as_secs();
    let output = Command::new("date")
        .args(["-d", &format!("@{seconds}"), "+%H:%M"])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn sleep_until(time: SystemTime) {
    std::thread::sleep(time.duration_since(SystemTime::now()).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_ends_with_a_minute_of_the_clock() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(next_minute(at(61)), at(120));
        assert_eq!(next_minute(at(120)), at(120));
    }
}
