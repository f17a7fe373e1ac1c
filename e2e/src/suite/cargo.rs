//! Running Cargo and counting the tests that it ran.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Counts, logs};
use crate::command::{command, logged};
use crate::programs::repository;

/// `cargo` in the repository, with these arguments separated by blanks.
pub(super) fn cargo(line: &str) -> Command {
    let mut cargo = command("cargo", line.split(' '));
    cargo.current_dir(repository()).env("CARGO_TERM_COLOR", "never");
    cargo
}

/// Runs it; one test passed if it ends well.
///
/// # Errors
/// It does not.
pub(super) fn one(name: &str, cargo: &mut Command) -> Result<Counts> {
    logged(cargo, &logs().join(format!("{name}.log"))).map(|()| Counts::ONE)
}

/// Some of many tests failed.
#[derive(Debug)]
pub(super) struct SomeFailed {
    /// How many ended how.
    pub counts: Counts,
    /// Their names, and where and why they panicked, a line each.
    pub lines: Vec<String>,
}

impl std::error::Error for SomeFailed {}

impl std::fmt::Display for SomeFailed {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { passed, failed, .. } = self.counts;
        write!(to, "{passed} passed, {failed} failed")?;
        self.lines.iter().try_for_each(|line| write!(to, "\n  | {line}"))
    }
}

/// Runs tests and counts them.
///
/// # Errors
/// They do not compile, none ran, or [`SomeFailed`].
pub(super) fn tests(name: &str, cargo: &mut Command) -> Result<Counts> {
    let log = logs().join(format!("{name}.log"));
    let ended = logged(cargo, &log);
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let counts = count(&text);
    match ended {
        Err(error) if counts.failed == 0 => Err(error),
        Ok(()) if counts.passed == 0 => bail!("no test ran; see {}", log.display()),
        Err(_) => {
            let lines = failures(&text);
            Err(SomeFailed { counts, lines }.into())
        }
        Ok(()) => Ok(counts),
    }
}

/// The lines that name a test that failed, in either of libtest's forms, and those of its panic.
fn failures(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.ends_with("... FAILED") || line.ends_with("--- FAILED") {
            found.push(line.to_owned());
        } else if line.starts_with("thread '") && line.contains(" panicked at ") {
            let said = lines.next().unwrap_or_default();
            found.push(format!("{line} {said}"));
        }
    }
    found
}

/// Adds up the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn count(text: &str) -> Counts {
    let mut sum = Counts::default();
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        let number = |word: &str| {
            let before = line.split(word).next().unwrap_or_default();
            before
                .split_whitespace()
                .last()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        sum.add(Counts {
            passed: number(" passed;"),
            failed: number(" failed;"),
            skipped: number(" ignored;"),
        });
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_named_with_its_panic() {
        let said = "test exits::names ... ok\n\
                    exits::memory --- FAILED\n\
                    test pages::all ... FAILED\n\
                    thread 'exits::memory' (7) panicked at exits.rs:3:5:\n\
                    assertion failed: held > 100\n\
                    stack backtrace:\n";
        assert_eq!(
            failures(said),
            [
                "exits::memory --- FAILED",
                "test pages::all ... FAILED",
                "thread 'exits::memory' (7) panicked at exits.rs:3:5: assertion failed: held > 100",
            ]
        );
    }

    #[test]
    fn what_cargo_says_of_each_crate_is_added_up() {
        let said = "running 4 tests\n\
                    test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(
            count(said),
            Counts {
                passed: 15,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(count("error: could not compile"), Counts::default());
    }
}
