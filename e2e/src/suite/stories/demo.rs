//! The demo itself: run, killed, run again, taken away.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::Form;
use crate::cluster;
use crate::command::{await_yes, command, last_words_of};
use crate::demo::Demo;
use crate::demo::fleet::{Fleet, PATIENCE};
use crate::say;
use crate::snapshot::{self, Snapshot};
use crate::suite::logs;
use crate::tornet::{Network, spec};

/// A killed run gets at most so long: long enough to be anywhere between nothing and relays that start.
const KILLED_WITHIN: Duration = Duration::from_secs(25);

/// Runs the demo as a person would and gives what it left running.
pub(super) fn runs_to_its_end() -> Result<Demo> {
    let log = logs().join("demo.log");
    let status = demo(&log)?.status()?;
    ensure!(
        status.success(),
        "e2e/demo failed ({status})\n{}the whole log: {}",
        last_words_of(&log),
        log.display()
    );
    let said = std::fs::read_to_string(&log)?;
    for part in ["Nodes", "Pods", "Relays", "Running", "family", "sha256", "KUBECONFIG="] {
        ensure!(said.contains(part), "the demo shows no {part}; see {}", log.display());
    }
    running()
}

/// The demo that is up.
pub(super) fn running() -> Result<Demo> {
    let cluster = cluster::running()?;
    let fleet = Fleet::of(&cluster);
    Ok(Demo {
        fleet,
        cluster,
        network: Network::open(&spec::folder())?,
    })
}

/// SIGKILL asks nobody; the next run clears away what it left, or goes on with it.
pub(super) fn killed_three_times() -> Result<()> {
    for round in 1..=3 {
        let log = logs().join(format!("demo-killed-{round}.log"));
        let mut child = demo(&log)?.spawn().context("cannot start the demo")?;
        let moment = random_moment();
        std::thread::sleep(moment);
        if let Some(status) = child.try_wait()? {
            ensure!(
                status.success(),
                "round {round} failed by itself ({status})\n{}",
                last_words_of(&log)
            );
        }
        child.kill()?;
        child.wait()?;
        let last = last_words_of(&log).lines().last().unwrap_or_default().trim().to_owned();
        say::step(format!("killed after {:.1} s: {last}", moment.as_secs_f64()));
    }
    Ok(())
}

/// The cluster is the same one, its pods are the same pods.
pub(super) fn a_second_run_changes_nothing(demo: &Demo, _: Form) -> Result<()> {
    let uids = || -> Result<Vec<String>> {
        let all = demo.cluster.kubectl([
            "get",
            "nodes,pods,relays",
            "-A",
            "-o",
            "jsonpath={.items[*].metadata.uid}",
        ])?;
        Ok(all.split_whitespace().map(str::to_owned).collect())
    };
    // The stories before leave pods that are ending.
    let ending = "jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.metadata.name} {end}";
    await_yes("all pods that were to end to be gone", PATIENCE, || {
        let said = demo.cluster.kubectl(["get", "pods", "-A", "-o", ending]);
        said.is_ok_and(|names| names.trim().is_empty())
    })?;
    let before = uids()?;
    let began = say::elapsed();
    runs_to_its_end()?;
    let seconds = (say::elapsed() - began).as_secs_f64();
    say::step(format!("the second run took {seconds:.1} s"));
    ensure!(uids()? == before, "the second run made nodes, pods or relays anew");
    Ok(())
}

/// Compares the machine with what it was.
pub(super) fn nothing_is_left(before: &Snapshot) -> Result<()> {
    let after = snapshot::take()?;
    let (left, missing) = (after.left_since(before), after.missing_since(before));
    ensure!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    ensure!(
        missing.is_empty(),
        "taken away though not ours:\n  {}",
        missing.join("\n  ")
    );
    Ok(())
}

fn demo(log: &std::path::Path) -> Result<Command> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let out = File::create(log)?;
    let mut demo = command(std::env::current_exe()?, ["demo"]);
    demo.stdout(out.try_clone()?)
        .stderr(out)
        .env_remove("RELAYFLEET_STARTED")
        .env("CARGO_TERM_QUIET", "true");
    Ok(demo)
}

/// No seed: a run that found something tells its moment in the log, and a moment is not exact anyway.
fn random_moment() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(u64::from(now.subsec_nanos()) % u64::try_from(KILLED_WITHIN.as_millis()).unwrap_or(1))
}
