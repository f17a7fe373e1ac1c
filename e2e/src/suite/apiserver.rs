//! The operator against a real API server and etcd, without any node, and the chart.

use anyhow::Result;

use super::cargo::{cargo, tests};
use super::{Counts, Tally, logs};
use crate::command::{command, logged};
use crate::programs::{self, repository};

/// Builds the programs if need be and runs what needs them.
pub(super) fn run(tally: &mut Tally) {
    let mut folder = None;
    let built = tally.check("Kubernetes' programs are there", || {
        folder = Some(programs::ready()?);
        Ok(Counts::ONE)
    });
    let Some(folder) = folder.filter(|_| built) else {
        return tally.skip("tests against the API server", "its programs could not be built");
    };
    tally.check("the chart stands up to helm lint --strict", || {
        let chart = repository().join("charts/relayfleet");
        let mut helm = command(folder.join("helm"), ["lint", "--strict"]);
        logged(helm.arg(chart), &logs().join("helm-lint.log"))?;
        Ok(Counts::ONE)
    });
    tally.check("the operator against a real API server", || -> Result<Counts> {
        let mut cargo = cargo("test --workspace --locked --test apiserver --no-fail-fast -- --ignored");
        tests("apiserver", cargo.env("RELAYFLEET_BIN", &folder))
    });
}
