//! The layer that needs nothing but Rust.

use super::cargo::{cargo, one, tests};
use super::{Counts, Tally};

/// Format, lints, then unit and simulation tests of every crate; among them the one that compares `crds/` with the
/// types.
pub(super) fn run(tally: &mut Tally) {
    tally.check("formatted", || one("fmt", &mut cargo("fmt --all --check")));
    // Plain cargo test, not nextest: to build nextest costs a fresh machine more than it ever gives back.
    tally.check("unit and simulation tests", || {
        let mut cargo = cargo("test --workspace --locked --lib --bins --tests --no-fail-fast");
        // What is ignored here belongs to the layers that follow, and is counted there.
        tests("unit", &mut cargo).map(|counts| Counts { skipped: 0, ..counts })
    });
    tally.check("a thousand seeds of relays on a bad network", || {
        let mut cargo = cargo("test --release --locked -p relay-simnet --test seas -- --nocapture");
        tests("seas", cargo.env("RELAYFLEET_SEEDS", "1000"))
    });
    tally.check("no lint", || {
        one(
            "clippy",
            &mut cargo("clippy --workspace --all-targets --locked -- -D warnings"),
        )
    });
}
