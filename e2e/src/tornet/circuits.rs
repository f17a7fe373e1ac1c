//! Circuits over a chosen path, built by C tor's client.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::consensus::{self, Listed};
use super::control::Control;
use super::fetch::Pin;

/// Circuits that may fail before we give up: a relay that just came may miss the first.
const FAILURES_MAX: usize = 10;

/// How long to hold back after tor refused to build: it has a brake of its own after failures.
const HOLD_BACK: Duration = Duration::from_millis(300);

/// A client that builds no circuits and attaches no streams of its own; it is itself again when this is dropped.
pub(super) struct Steered {
    pub(super) control: Control,
    path: Vec<Listed>,
    pin: Pin,
    changed: Vec<&'static str>,
    built: Vec<String>,
}

impl Steered {
    pub(super) fn take(control: Control, path: &[String], pin: Pin) -> anyhow::Result<Self> {
        let mut steered = Self {
            control,
            path: Vec::new(),
            pin,
            changed: Vec::new(),
            built: Vec::new(),
        };
        let listed = consensus::read(&steered.control.info("ns/all")?.unwrap_or_default());
        for name in path {
            let found = listed.iter().find(|entry| entry.is_called(name));
            steered.path.push(
                found
                    .with_context(|| format!("the client knows no relay {name}"))?
                    .clone(),
            );
        }
        steered.set("__LeaveStreamsUnattached", "1")?;
        if pin == Pin::Config {
            let names: Vec<String> = steered
                .path
                .iter()
                .map(|entry| format!("${}", entry.fingerprint))
                .collect();
            let [guard, middle, exit] = names.as_slice() else {
                bail!("a path pinned by configuration has three relays (--pin control takes others)");
            };
            steered.set("EntryNodes", guard)?;
            steered.set("MiddleNodes", middle)?;
            steered.set("ExitNodes", exit)?;
        }
        steered.control.command("SETEVENTS CIRC STREAM")?;
        Ok(steered)
    }

    fn set(&mut self, option: &'static str, value: &str) -> anyhow::Result<()> {
        self.changed.push(option);
        self.control.command(&format!("SETCONF {option}={value}")).map(drop)
    }

    /// Nicknames of the path's relays.
    pub(super) fn path(&self) -> Vec<String> {
        self.path.iter().map(|entry| entry.nickname.clone()).collect()
    }

    /// Builds this many circuits and gives their numbers and how many attempts failed.
    pub(super) fn build(&mut self, count: usize, patience: Duration) -> anyhow::Result<(Vec<String>, usize)> {
        let end = Instant::now() + patience;
        let mut open: HashSet<String> = HashSet::new();
        let mut failures: Vec<String> = Vec::new();
        let mut not_before = Instant::now();
        while self.built.len() < count {
            while self.built.len() + open.len() < count && Instant::now() >= not_before {
                match self.launch() {
                    Ok(circuit) => drop(open.insert(circuit)),
                    Err(error) => {
                        failures.push(format!("{error:#}"));
                        not_before = Instant::now() + HOLD_BACK;
                    }
                }
            }
            if let Some(event) = self.control.event(HOLD_BACK)? {
                self.on_event(&event, &mut open, &mut failures)?;
            }
            if failures.len() > FAILURES_MAX || Instant::now() > end {
                bail!(
                    "{} of {count} circuits through {} after {} failures; the last: {}",
                    self.built.len(),
                    self.path().join(","),
                    failures.len(),
                    failures.last().map_or("none, it only takes too long", String::as_str)
                );
            }
        }
        Ok((self.built.clone(), failures.len()))
    }

    pub(super) fn launch(&mut self) -> anyhow::Result<String> {
        let route: Vec<String> = match self.pin {
            Pin::Config => Vec::new(),
            Pin::Control => self
                .path
                .iter()
                .map(|entry| format!("${}", entry.fingerprint))
                .collect(),
        };
        let reply = self
            .control
            .command(format!("EXTENDCIRCUIT 0 {}", route.join(",")).trim_end())?;
        let circuit = reply
            .first()
            .and_then(|line| line.strip_prefix("EXTENDED "))
            .context("an odd reply")?;
        Ok(circuit.to_owned())
    }

    /// `CIRC number state path …` (control-spec "Circuit status changed").
    fn on_event(&mut self, event: &str, open: &mut HashSet<String>, failures: &mut Vec<String>) -> anyhow::Result<()> {
        let words: Vec<&str> = event.split_whitespace().collect();
        let ["CIRC", circuit, state, rest @ ..] = words.as_slice() else {
            return Ok(());
        };
        if !open.contains(*circuit) {
            return Ok(());
        }
        match *state {
            "BUILT" => {
                open.remove(*circuit);
                let hops = rest.first().copied().unwrap_or_default();
                if self.is_our_path(hops) {
                    self.built.push((*circuit).to_owned());
                } else {
                    // Can happen right after the pins were changed.
                    failures.push(format!("circuit {circuit} took another path: {hops}"));
                    self.control.command(&format!("CLOSECIRCUIT {circuit}"))?;
                }
            }
            "FAILED" | "CLOSED" => {
                open.remove(*circuit);
                failures.push(event.to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// `$fingerprint~nickname,…` or `$fingerprint=nickname,…`.
    fn is_our_path(&self, hops: &str) -> bool {
        let hops = hops
            .split(',')
            .map(|hop| hop.trim_start_matches('$').split(['~', '=']).next().unwrap_or_default());
        hops.eq(self.path.iter().map(|entry| entry.fingerprint.as_str()))
    }

    /// Puts new streams on circuits: `wanted` says which circuit a target (`address:port`) goes to. Fails when one of
    /// those streams or circuits does.
    pub(super) fn attach(&mut self, wanted: &HashMap<String, String>, limit: Duration) -> anyhow::Result<()> {
        let Some(event) = self.control.event(limit)? else {
            return Ok(());
        };
        let words: Vec<&str> = event.split_whitespace().collect();
        match words.as_slice() {
            ["STREAM", stream, "NEW", _, target, ..] => {
                // 0: tor's own choice, for streams that are none of ours.
                let circuit = wanted.get(*target).map_or("0", String::as_str);
                let attached = self.control.command(&format!("ATTACHSTREAM {stream} {circuit}"));
                if wanted.contains_key(*target) {
                    attached?;
                }
            }
            ["STREAM", _, "DETACHED" | "FAILED", _, target, ..] if wanted.contains_key(*target) => {
                bail!("a stream was refused: {event}");
            }
            ["CIRC", circuit, "CLOSED" | "FAILED", ..] if self.built.iter().any(|built| built == circuit) => {
                bail!("a circuit closed while it was in use: {event}");
            }
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Steered {
    fn drop(&mut self) {
        for circuit in std::mem::take(&mut self.built) {
            let _ = self.control.command(&format!("CLOSECIRCUIT {circuit}"));
        }
        let _ = self.control.command(&format!("RESETCONF {}", self.changed.join(" ")));
    }
}
