//! The attacks, a file for each part of a relay that they go for.

mod certs;
mod circuits;
mod conflux;
mod directory;
mod exits;
mod extend;
mod floods;
mod flow;
mod links;
mod names;
mod onion_services;
mod padding;
mod relay_cells;
mod streams;
mod versions;

use anyhow::Result;

use crate::catalog::{Answer, Probe};
use crate::scene::Scene;
use crate::talk::{How, Talk};

/// All of them.
pub(crate) static ALL: [&[Probe]; 15] = [
    floods::PROBES,
    circuits::PROBES,
    links::PROBES,
    versions::PROBES,
    certs::PROBES,
    relay_cells::PROBES,
    flow::PROBES,
    extend::PROBES,
    streams::PROBES,
    exits::PROBES,
    names::PROBES,
    directory::PROBES,
    onion_services::PROBES,
    conflux::PROBES,
    padding::PROBES,
];

/// What a circuit of one hop says to an attack.
fn one_hop(scene: &Scene, how: How, attack: impl FnOnce(&mut Talk)) -> Result<Answer> {
    let mut talk = Talk::begin(scene, how)?;
    attack(&mut talk);
    Ok(talk.verdict().into())
}

/// What a circuit of two hops says to an attack on its last.
fn two_hops(scene: &Scene, how: How, attack: impl FnOnce(&mut Talk)) -> Result<Answer> {
    let mut talk = Talk::behind(scene, how)?;
    attack(&mut talk);
    Ok(talk.verdict().into())
}

/// Cases that must all be answered alike: that answer, or each case with its own.
fn all_alike(cases: impl IntoIterator<Item = (String, String)>) -> Answer {
    let cases: Vec<(String, String)> = cases.into_iter().collect();
    let count = cases.len();
    let (_, first) = cases.first().cloned().unwrap_or_default();
    let odd: Vec<String> = cases
        .iter()
        .filter(|(_, answer)| *answer != first)
        .map(|(case, answer)| format!("{case}: {answer}"))
        .collect();
    if odd.is_empty() {
        Answer::with(first, format!("{count} cases"))
    } else {
        Answer::with(format!("{first}, but {}", odd.join(", ")), format!("{count} cases"))
    }
}
