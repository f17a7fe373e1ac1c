//! Sets that grow, shrink, vanish and come back: their relays are always the same ones.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::Form;
use super::identities::Watch;
use crate::command::await_yes;
use crate::demo::Demo;
use crate::demo::fleet::{EXAMPLE, NAMESPACE, PATIENCE, Relay};
use crate::programs::repository;
use crate::say;

const SET: &str = "guards";

/// Fingerprint and Ed25519 identity by name.
type Identities = BTreeMap<String, (String, String)>;

/// Up, down, up again; then the set is deleted and applied again.
pub(super) fn scaled_relays_are_the_same(demo: &Demo, form: Form) -> Result<()> {
    let watch = Watch::begin();
    let (few, many) = match form {
        Form::Short => (3, 5),
        Form::Long => (5, 8),
    };
    let exits = of_the_rest(demo)?;
    scale(demo, few)?;
    scale(demo, many)?;
    let first = identities(demo)?;
    scale(demo, few)?;
    scale(demo, many)?;
    let again = identities(demo)?;
    ensure!(first == again, "{first:#?}\nbecame {again:#?}");
    for (name, (fingerprint, _)) in again.iter().filter(|(name, _)| ordinal(name) >= Some(few)) {
        say::step(format!("{name} is {fingerprint} before and after"));
    }

    demo.cluster.kubectl(["-n", NAMESPACE, "delete", "relayset", SET])?;
    let gone = || identities(demo).is_ok_and(|left| left.is_empty()) && pods(demo).is_ok_and(|left| left == 0);
    await_yes("the set's relays and pods to be gone", PATIENCE, gone)
        .map_err(|error| error.context(demo.fleet.troubles()))?;
    say::step(format!("kubectl delete relayset {SET}: relays and pods are gone"));
    let example = std::fs::read_to_string(repository().join(EXAMPLE))?;
    demo.cluster.apply(&example)?;
    scale(demo, many)?;
    let reborn = identities(demo)?;
    ensure!(first == reborn, "{first:#?}\nbecame {reborn:#?}");
    say::step(format!("applied again: all {} fingerprints are the same", reborn.len()));
    scale(demo, 3)?;
    ensure!(of_the_rest(demo)? == exits, "the other set's relays changed");
    say::step(watch.never_two()?.to_string());
    demo.await_consensus()?;
    demo.fleet.await_in_consensus()
}

/// Asks for so many and waits until they are Ready and the others' pods are gone.
fn scale(demo: &Demo, replicas: usize) -> Result<()> {
    let asked = format!("--replicas={replicas}");
    let began = say::elapsed();
    demo.cluster
        .kubectl(["-n", NAMESPACE, "scale", "relayset", SET, &asked])?;
    let there =
        || identities(demo).is_ok_and(|all| all.len() == replicas) && pods(demo).is_ok_and(|all| all == replicas);
    await_yes(&format!("{replicas} relays of {SET}"), PATIENCE, there)
        .map_err(|error| error.context(demo.fleet.troubles()))?;
    demo.fleet.await_ready()?;
    let seconds = (say::elapsed() - began).as_secs_f64();
    say::step(format!("kubectl scale relayset {SET} {asked}: done in {seconds:.1} s"));
    Ok(())
}

fn relays(demo: &Demo, wanted: impl Fn(&Relay) -> bool) -> Result<Identities> {
    let all = match demo.fleet.objects("relays")?.is_empty() {
        true => Vec::new(),
        false => demo.fleet.relays()?,
    };
    let wanted = all.into_iter().filter(wanted);
    Ok(wanted
        .map(|relay| (relay.name, (relay.fingerprint, relay.ed25519)))
        .collect())
}

fn identities(demo: &Demo) -> Result<Identities> {
    relays(demo, |relay| is_of_the_set(&relay.name))
}

fn of_the_rest(demo: &Demo) -> Result<Identities> {
    relays(demo, |relay| !is_of_the_set(&relay.name))
}

fn pods(demo: &Demo) -> Result<usize> {
    let pods = demo.fleet.objects("pods")?;
    let names = pods.iter().filter_map(|pod| pod.pointer("/metadata/name")?.as_str());
    Ok(names.filter(|name| is_of_the_set(name)).count())
}

fn is_of_the_set(name: &str) -> bool {
    ordinal(name).is_some()
}

fn ordinal(name: &str) -> Option<usize> {
    name.strip_prefix(SET)?.strip_prefix('-')?.parse().ok()
}
