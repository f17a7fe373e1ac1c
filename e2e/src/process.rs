//! Processes that outlive the command that started them, and the certainty that only those are ever ended.
//!
//! Each is known twice: by a record (name, number, start time) written right after its start, and by a marker in its
//! environment, which finds the one that was started when a kill came before the record was written, and what it
//! started in turn. A number that another process has taken over since has another start time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::command;
use crate::state::{Places, write_whole};

/// The variable that marks our processes; its value is the state folder.
const MARKER: &str = "RELAYFLEET_E2E_OWNER";

/// How long a process may take to vanish after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A process that was alive at some time: its number and when it started, in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Process number.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub started: u64,
}

impl Known {
    /// What bears this number now; `None` for no process, and for one that ended and only waits for its parent.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may itself hold parentheses and spaces.
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, started })
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid)
            && self.alive()
        {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Starts a process of the cluster inside a network namespace (`None`: the machine's own), in a session of its own so
/// that no Ctrl-C reaches it, its output in its log, and records it.
///
/// # Errors
/// It cannot be started or recorded.
pub fn spawn(places: &Places, name: &str, netns: Option<&str>, program: &mut Command) -> Result<Known> {
    let log = places.log(name);
    for path in [&log, &record(places, name)] {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
    }
    let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // nsenter, not `ip netns exec`: that mounts a new /sys and hides /sys/fs/cgroup.
    let mut whole = match netns {
        Some(netns) => {
            let mut enter = command::command("nsenter", [format!("--net=/run/netns/{netns}")]);
            enter.arg("setsid");
            enter
        }
        None => Command::new("setsid"),
    };
    whole
        .arg(program.get_program())
        .args(program.get_args())
        .env(MARKER, &places.state);
    for (key, value) in program.get_envs() {
        match value {
            Some(value) => whole.env(key, value),
            None => whole.env_remove(key),
        };
    }
    if let Some(folder) = program.get_current_dir() {
        whole.current_dir(folder);
    }
    let child = whole.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
    let child = child.with_context(|| format!("cannot start {name}"))?;
    let pid = i32::try_from(child.id())?;
    let Some(known) = Known::of(pid) else {
        bail!("{name} ended at once\n{}", command::last_words_of(&log));
    };
    write_whole(&record(places, name), &serde_json::to_vec(&known)?)?;
    // Whoever waits for nothing leaves a zombie for as long as it lives itself.
    std::thread::spawn(move || {
        let mut child = child;
        child.wait()
    });
    Ok(known)
}

/// The recorded process of this name, if it still runs.
pub fn recorded(places: &Places, name: &str) -> Option<Known> {
    let known: Known = serde_json::from_slice(&fs::read(record(places, name)).ok()?).ok()?;
    known.alive().then_some(known)
}

/// Names of all recorded processes, running or not.
pub fn names(places: &Places) -> Vec<String> {
    let files = fs::read_dir(places.state.join("pid")).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    names
}

/// All running processes that carry our marker for this state folder.
pub fn marked(places: &Places) -> Vec<Known> {
    let marker = format!("{MARKER}={}", places.state.display()).into_bytes();
    all().filter(|known| environment_has(known.pid, &marker)).collect()
}

/// The name of a process's program, at most 15 characters of it; empty if there is no such process.
pub fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// All running processes.
pub fn all() -> impl Iterator<Item = Known> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|folder| Known::of(folder.file_name().to_str()?.parse().ok()?))
}

/// Ends processes at once and waits until they are gone.
///
/// # Errors
/// One is still there after ten seconds.
pub fn kill_all(these: &[Known]) -> Result<()> {
    let end = Instant::now() + KILL_LIMIT;
    loop {
        let left: Vec<&Known> = these.iter().filter(|known| known.alive()).collect();
        let Some(first) = left.first() else { return Ok(()) };
        if Instant::now() > end {
            bail!("process {} does not end after SIGKILL: see /proc/{0}/stack", first.pid);
        }
        for known in left {
            known.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process carries our marker, whatever state folder it names.
pub fn is_marked(pid: i32) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|entry| entry.starts_with(MARKER.as_bytes()))
}

fn environment_has(pid: i32, variable: &[u8]) -> bool {
    let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable)
}

fn record(places: &Places, name: &str) -> PathBuf {
    places.state.join("pid").join(format!("{name}.json"))
}
