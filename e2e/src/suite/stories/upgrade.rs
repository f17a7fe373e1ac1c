//! An operator of another image takes over, and a fleet at rest is left at rest.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Form;
use super::audit::Audit;
use super::fleet::{await_leader, operator_pod, state_of_all};
use super::standing::{Standing, same};
use crate::demo::{Demo, images, operator};
use crate::image::{self, Kind};
use crate::programs::target;
use crate::say;

/// What was written for so long by nobody is settled.
const SETTLED: Duration = Duration::from_secs(35);
/// How long it may take until then.
const PATIENCE: Duration = Duration::from_secs(300);
/// For so long a fleet that has settled is watched; the issue asks for two minutes.
const REST: Duration = Duration::from_secs(120);
const REST_SHORT: Duration = Duration::from_secs(45);

/// `helm upgrade` to another image of the operator; then two minutes in which it must have nothing to do.
pub(super) fn an_upgrade_restarts_no_relay(demo: &Demo, form: Form) -> Result<()> {
    let rest = if form == Form::Long { REST } else { REST_SHORT };
    let images = images::ready()?;
    let release = operator::Release::of(&images).in_cluster(&demo.cluster);
    let next = operator::Release {
        operator_tag: format!("{}-next", images.tag),
        ..release.clone()
    };
    let folder = target().join("images/next");
    image::make(&[Kind::Operator], &images::programs()?, &folder, &next.operator_tag)?;
    // Nodes that come later get the archives by their file names: this one must not take the other's place.
    let archive = folder.join("operator-next.tar");
    fs::rename(folder.join("operator.tar"), &archive)?;
    demo.cluster.import(&[archive])?;

    let relays = demo.fleet.relays()?;
    settle(demo)?;
    let (before, objects) = (Standing::of_all(demo, &relays)?, state_of_all(demo)?);
    let upgraded = |to: &operator::Release| -> Result<()> {
        let (audit, old) = (Audit::now(demo)?, operator_pod(demo)?);
        operator::install(&operator::Tools::of(&demo.cluster), to)?;
        await_leader(demo, &old)?;
        std::thread::sleep(rest);
        let writes = audit.writes()?;
        ensure!(writes.is_empty(), "the operator wrote:\n  {}", writes.join("\n  "));
        Ok(())
    };
    upgraded(&next)?;
    say::step(format!(
        "helm upgrade to {}: nothing written from then until {} s after it led",
        Kind::Operator.name(&next.operator_tag),
        rest.as_secs()
    ));
    same(&before, &Standing::of_all(demo, &relays)?)?;
    let after = state_of_all(demo)?;
    ensure!(objects == after, "changed: {objects:#?}\nto: {after:#?}");
    say::step(format!(
        "{} relays: 0 restarts, and no object has changed",
        before.len()
    ));
    operator::install(&operator::Tools::of(&demo.cluster), &release)
}

/// Waits until nothing more is written: facts of the network (a weight, a flag) may still come in.
pub(super) fn settle(demo: &Demo) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let audit = Audit::now(demo)?;
        std::thread::sleep(SETTLED);
        let writes = audit.writes()?;
        if writes.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "the operator writes on and on:\n  {}",
            writes.join("\n  ")
        );
    }
}
