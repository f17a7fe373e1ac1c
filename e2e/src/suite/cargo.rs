//! Running Cargo and counting the tests that it ran.

use std::fs;
use std::path::Path;
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

/// Runs tests and counts them.
///
/// # Errors
/// They do not compile, or none ran. Tests that fail are no error but counted.
pub(super) fn tests(name: &str, cargo: &mut Command) -> Result<Counts> {
    let log = logs().join(format!("{name}.log"));
    let ended = logged(cargo, &log);
    let counts = counted(&log);
    match ended {
        Err(error) if counts.failed == 0 => Err(error),
        Ok(()) if counts.passed == 0 => bail!("no test ran; see {}", log.display()),
        Err(_) => {
            for line in fs::read_to_string(&log)?
                .lines()
                .filter(|line| line.ends_with("... FAILED"))
            {
                crate::say::plain(format!("  | {line}"));
            }
            crate::say::plain(format!("  the whole log: {}", log.display()));
            Ok(counts)
        }
        Ok(()) => Ok(counts),
    }
}

fn counted(log: &Path) -> Counts {
    let text = fs::read(log).unwrap_or_default();
    count(&String::from_utf8_lossy(&text))
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
