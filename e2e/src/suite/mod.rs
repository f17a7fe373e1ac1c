//! `e2e test`: every layer of tests, counted, with a plain line at the end.
//!
//! `unit` needs nothing but Rust; `apiserver` the Kubernetes programs; `stories` root and the whole machine.

mod apiserver;
mod cargo;
pub mod stories;
mod unit;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::state::Places;
use crate::{programs, say};

/// Which tests to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layer {
    /// Format, lints, unit and simulation tests.
    Unit,
    /// The operator against a real API server, and the chart.
    Apiserver,
    /// The whole machine: cluster, Tor network, our images.
    E2e,
    /// All of them.
    All,
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ended well.
    pub passed: u32,
    /// Did not.
    pub failed: u32,
    /// Were not run.
    pub skipped: u32,
}

impl Counts {
    /// One test that ended well.
    pub const ONE: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What was run so far.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Counts,
    failures: Vec<String>,
}

impl Tally {
    /// Runs one check and says how it ended and how long it took; `Err` counts as one failed test. Tells whether all
    /// of it passed.
    pub fn check(&mut self, name: &str, test: impl FnOnce() -> Result<Counts>) -> bool {
        say::step(format!("{name} …"));
        let began = say::elapsed();
        // A bug in one story must not take the others' results along.
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let seconds = (say::elapsed() - began).as_secs_f64();
        let result = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the test itself broke (message above)")));
        let counts = match &result {
            Ok(counts) => *counts,
            Err(error) => match error.downcast_ref::<cargo::SomeFailed>() {
                Some(some) => some.counts,
                None => Counts {
                    failed: 1,
                    ..Counts::default()
                },
            },
        };
        self.counts.add(counts);
        match result {
            Ok(counts) => {
                let skipped = if counts.skipped > 0 {
                    format!(", {} skipped", counts.skipped)
                } else {
                    String::new()
                };
                say::step(format!(
                    "ok: {name} ({} passed{skipped}, {seconds:.1} s)",
                    counts.passed
                ));
                true
            }
            Err(error) => {
                say::step(format!("FAILED: {name} ({seconds:.1} s): {error:#}"));
                self.failures.push(format!("{name}: {error:#}"));
                false
            }
        }
    }

    /// A check that cannot be run as something before it failed.
    pub fn skip(&mut self, name: &str, why: &str) {
        say::step(format!("skipped: {name}: {why}"));
        self.counts.skipped += 1;
    }
}

/// Runs one layer or all, or one story by name, and prints the sum as the last line.
///
/// # Errors
/// A test failed.
pub fn run(layer: Layer, story: Option<&str>) -> Result<()> {
    let mut tally = Tally::default();
    if matches!(layer, Layer::Unit | Layer::All) {
        unit::run(&mut tally);
    }
    if matches!(layer, Layer::Apiserver | Layer::All) {
        apiserver::run(&mut tally);
    }
    if matches!(layer, Layer::E2e | Layer::All) {
        stories::run(&mut tally, story);
    }
    for failure in &tally.failures {
        say::step(format!("failed: {failure}"));
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = tally.counts;
    let skipped_too = if skipped > 0 {
        format!(", {skipped} skipped")
    } else {
        String::new()
    };
    say::step("done");
    say::plain(format!("{passed} passed, {failed} failed{skipped_too}"));
    if failed > 0 || passed == 0 {
        bail!(
            "not all tests passed; logs: {} and {}",
            logs().display(),
            Places::default().state.join("log").display()
        );
    }
    Ok(())
}

/// Where the checks' own output goes: a folder of this run's own, which `e2e/test` names.
fn logs() -> PathBuf {
    match std::env::var_os("RELAYFLEET_LOG") {
        Some(folder) => folder.into(),
        None => programs::cache().join(format!("log/by-hand-{}", std::process::id())),
    }
}
