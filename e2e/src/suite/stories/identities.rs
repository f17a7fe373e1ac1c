//! Which relay processes run on this machine, in whatever pod of whatever node, and whose identity each has: looked at
//! from outside, never more than 100 ms apart on a machine with time for it, through /proc, without asking any of the parts that promise it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::process::{self, Known};

/// From the beginning of one look to that of the next. It is promised that no two are more than 100 ms apart: the rest is for
/// a thread that wakes late.
const INTERVAL: Duration = Duration::from_millis(80);

/// Of the thread that looks (setpriority(2): -20 to 19).
const PRIORITY: i32 = -15;

/// In the root of every pod of a relay. The init container puts it there before the relay starts.
const MASTER_PUBLIC: &str = "var/lib/relayfleet/data/keys/ed25519_master_id_public_key";

/// Processes of one identity (43 characters of base64).
type Running = BTreeMap<String, Vec<Known>>;

/// A thread that looks until it is asked what it saw.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

/// What it saw.
#[derive(Default)]
pub(super) struct Seen {
    /// How often it looked.
    pub(super) looks: u64,
    /// The longest time between two looks.
    pub(super) longest_gap: Duration,
    /// All processes that each identity ever had.
    pub(super) processes: BTreeMap<String, Vec<Known>>,
    /// Identities that had two at once.
    pub(super) twice: Vec<String>,
}

impl Watch {
    /// Looks from now on.
    pub(super) fn begin() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // Looking late is looking away: this goes before the machine's other work, if we may say so.
            let _ = rustix::process::setpriority_process(None, PRIORITY);
            let (mut seen, mut known, mut last) = (Seen::default(), HashMap::new(), None::<Instant>);
            while !asked.load(Ordering::SeqCst) {
                let now = Instant::now();
                seen.look(look(&mut known), last.map(|last| now - last));
                last = Some(now);
                std::thread::sleep(INTERVAL.saturating_sub(now.elapsed()));
            }
            seen
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// An identity ran twice at some moment, or nothing was ever seen.
    pub(super) fn never_two(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("it was asked already")?;
        let seen = thread.join().ok().context("the thread that looks at processes broke")?;
        ensure!(
            !seen.processes.is_empty(),
            "no relay process was ever seen: the watch is blind"
        );
        ensure!(
            seen.twice.is_empty(),
            "two processes of one identity at once:\n  {}",
            seen.twice.join("\n  ")
        );
        Ok(seen)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Seen {
    fn look(&mut self, running: Running, since_last: Option<Duration>) {
        self.looks += 1;
        self.longest_gap = self.longest_gap.max(since_last.unwrap_or_default());
        for (identity, now) in running {
            if now.len() > 1 {
                let pids: Vec<String> = now.iter().map(|known| known.pid.to_string()).collect();
                self.twice.push(format!("{identity}: processes {}", pids.join(" and ")));
            }
            let all = self.processes.entry(identity).or_default();
            all.extend(now.into_iter().filter(|known| !all.contains(known)).collect::<Vec<_>>());
        }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let processes: usize = self.processes.values().map(Vec::len).sum();
        write!(
            f,
            "{} looks at all processes, never more than {} ms apart: {processes} processes of {} identities, never two of one at once",
            self.looks,
            self.longest_gap.as_millis(),
            self.processes.len()
        )
    }
}

/// The process that runs this identity now; `None` if there is none.
///
/// # Errors
/// There are two.
pub(super) fn running(identity: &str) -> Result<Option<Known>> {
    let found = look(&mut HashMap::new()).remove(identity).unwrap_or_default();
    ensure!(found.len() < 2, "{identity} runs twice: {found:?}");
    Ok(found.first().copied())
}

/// All relays of ours in pods. `known` remembers whose identity a process has: it never changes.
fn look(known: &mut HashMap<i32, (u64, String)>) -> Running {
    let mut running = Running::new();
    for process in process::all().filter(|process| process::name(process.pid) == "relay") {
        let before = known
            .get(&process.pid)
            .filter(|(started, _)| *started == process.started);
        let identity = match before {
            Some((_, identity)) => Some(identity.clone()),
            None => identity_of(process.pid),
        };
        if let Some(identity) = identity {
            known.insert(process.pid, (process.started, identity.clone()));
            running.entry(identity).or_default().push(process);
        }
    }
    running
}

/// `None` for what is no relay in a pod, and for the init container, which runs the same program.
fn identity_of(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if !line.split(|byte| *byte == 0).any(|word| word == b"-f") {
        return None;
    }
    let file = fs::read(format!("/proc/{pid}/root/{MASTER_PUBLIC}")).ok()?;
    let (_, key) = file.split_last_chunk::<32>()?;
    Some(STANDARD_NO_PAD.encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_once_are_told_and_one_after_the_other_are_not() {
        let process = |pid| Known { pid, started: 1 };
        let one = |pids: &[i32]| Running::from([("k".to_owned(), pids.iter().map(|pid| process(*pid)).collect())]);
        let mut seen = Seen::default();
        seen.look(one(&[1]), None);
        seen.look(Running::new(), Some(Duration::from_millis(100)));
        seen.look(one(&[2]), Some(Duration::from_millis(130)));
        assert!(seen.twice.is_empty());
        assert_eq!((seen.looks, seen.longest_gap.as_millis()), (3, 130));
        assert_eq!(seen.processes["k"], [process(1), process(2)]);

        seen.look(one(&[2, 3]), None);
        assert_eq!(seen.twice, ["k: processes 2 and 3"]);
    }
}
