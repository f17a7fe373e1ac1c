//! A search that ends by its own CPU time, however little of it a busy machine gives.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::last_words_of;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// CPU time that a search may need to finish the input at hand once it is told to end; more than the program allows any input.
const LAST_INPUT_CPU_SECONDS_MAX: f64 = 30.0;

/// How a search ended.
pub(super) struct Ended {
    /// CPU time of all its threads, the start included.
    pub(super) cpu_seconds: f64,
    /// An error with its last words, if it did not end well.
    pub(super) well: Result<()>,
}

/// Runs a search and asks it to end when it has had so much CPU time. One that does not listen sits in an input that never
/// ends: it is aborted, upon which libFuzzer keeps that input as a finding.
///
/// # Errors
/// It cannot be started or its log not be written.
pub(super) fn until_spent(search: &mut Command, log: &Path, cpu_seconds_max: f64) -> Result<Ended> {
    fs::create_dir_all(log.parent().context("a log lies in a folder")?)?;
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    search.stdout(file.try_clone()?).stderr(file).stdin(Stdio::null());
    let mut child = search.spawn().context("cannot start the search")?;
    let pid = Pid::from_child(&child);
    let (mut cpu_seconds, mut told) = (0.0, false);
    while !has_ended(&child) {
        cpu_seconds = spent(&child).unwrap_or(cpu_seconds);
        if cpu_seconds >= cpu_seconds_max && !told {
            // libFuzzer's word for an end in order, with its figures.
            kill_process(pid, Signal::USR1)?;
            told = true;
        }
        if cpu_seconds >= cpu_seconds_max + LAST_INPUT_CPU_SECONDS_MAX {
            kill_process(pid, Signal::ABORT)?;
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // Not yet reaped, so it still has its figures.
    let cpu_seconds = spent(&child).unwrap_or(cpu_seconds);
    let status = child.wait()?;
    let well = || match status.success() {
        true => Ok(()),
        false => bail!(
            "the search failed ({status})\n{}\nthe whole log: {}",
            last_words_of(log),
            log.display()
        ),
    };
    Ok(Ended {
        cpu_seconds,
        well: well(),
    })
}

/// Whether it is a zombie (proc(5): the third field).
fn has_ended(child: &Child) -> bool {
    fields(child).is_none_or(|fields| fields.starts_with('Z') || fields.starts_with('X'))
}

/// CPU time of all threads so far, in seconds (proc(5): `utime` and `stime`, the fields 14 and 15).
fn spent(child: &Child) -> Option<f64> {
    let fields = fields(child)?;
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// What stands behind the name, beginning with the third field.
fn fields(child: &Child) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    text.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_ended_by_the_cpu_time_that_it_had_and_not_by_the_wall() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // It sleeps longer than it may work, works until it is told, and says so.
        let script = "trap 'echo told; exit 0' USR1; sleep 0.5; while :; do :; done";
        let mut search = Command::new("sh");
        search.args(["-c", script]);
        let ended = until_spent(&mut search, &log, 0.3).unwrap();
        assert!(ended.well.is_ok(), "{:?}", ended.well);
        assert!(ended.cpu_seconds >= 0.3, "{}", ended.cpu_seconds);
        assert_eq!(fs::read_to_string(&log).unwrap(), "told\n");
    }

    #[test]
    fn a_search_that_fails_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut search = Command::new("sh");
        search.args(["-c", "echo a finding; exit 77"]);
        let ended = until_spent(&mut search, &folder.path().join("log"), 9.0).unwrap();
        let error = ended.well.unwrap_err().to_string();
        assert!(error.contains("77") && error.contains("a finding"), "{error}");
    }
}
