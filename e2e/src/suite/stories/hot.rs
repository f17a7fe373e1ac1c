//! Changes that a running relay takes up.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Form;
use super::facts;
use super::standing::{Standing, same};
use crate::command::await_yes;
use crate::demo::Demo;
use crate::demo::fleet::{NAMESPACE, Relay};
use crate::say;
use crate::tornet::Descriptor;

/// What the issue promises.
const PROMISE: Duration = Duration::from_secs(90);

/// Nobody touches a pod when its family's ConfigMaps change, lest a family of hundreds be written to for one member: a
/// kubelet looks every 60 to 90 s, and a relay every 5.
const KUBELETS_OWN: Duration = Duration::from_secs(100);

/// What a descriptor must show, and the question whether it does.
type Shown = (&'static str, Box<dyn Fn(&Descriptor) -> bool>);

/// All at once: nickname, bandwidth, exit policy and contact of the exits, and another family key for all.
pub(super) fn changes_reach_the_running_process(demo: &Demo, form: Form) -> Result<()> {
    let relays = demo.fleet.relays()?;
    let exits: Vec<&Relay> = relays.iter().filter(|relay| relay.role == "Exit").collect();
    ensure!(!exits.is_empty(), "there is no exit to change");
    let before = Standing::of_all(demo, &relays)?;

    let old_ids = demo.fleet.family_ids()?;
    let generation = demo
        .fleet
        .objects("relayfamilies")?
        .iter()
        .find_map(|family| family.pointer("/spec/rotation/generation")?.as_u64());

    let began = say::elapsed();
    patch(
        demo,
        "relayset/exits",
        &json!({"spec": {"template": {"spec": {
            "nickname": "copse",
            "bandwidth": {"rate": "3MiB/s", "burst": "6MiB/s"},
            "exit": {"policy": ["reject 192.0.2.0/24:*"]},
        }}}}),
    )?;
    patch(
        demo,
        "relayfamily/grove",
        &json!({"spec": {
        "contact": {"email": "other@relayfleet.invalid"}, "rotation": {"generation": generation.unwrap_or(1) + 1}}}),
    )?;
    await_yes("the family's new key", PROMISE, || {
        demo.fleet
            .family_ids()
            .is_ok_and(|ids| ids.iter().any(|id| !old_ids.contains(id)))
    })?;
    let wanted: Vec<Shown> = vec![
        (
            "nickname",
            Box::new(|shown| shown.line("router").is_some_and(|line| line.starts_with("copse"))),
        ),
        (
            "bandwidth",
            Box::new(|shown| {
                shown
                    .line("bandwidth")
                    .is_some_and(|line| line.starts_with("3145728 6291456 "))
            }),
        ),
        (
            "exit policy",
            Box::new(|shown| shown.lines("reject").any(|rule| rule == "192.0.2.0/24:*")),
        ),
        (
            "contact",
            Box::new(|shown| {
                shown
                    .line("contact")
                    .is_some_and(|line| line.contains("other[]relayfleet.invalid"))
            }),
        ),
    ];
    for (what, is_shown) in &wanted {
        let all = || {
            exits
                .iter()
                .all(|relay| demo.descriptor(relay).is_ok_and(|shown| is_shown(&shown)))
        };
        let left = PROMISE.saturating_sub(say::elapsed() - began);
        await_yes(&format!("the exits' descriptors to show the new {what}"), left, all)?;
        let seconds = (say::elapsed() - began).as_secs_f64();
        say::step(format!(
            "{what}: in the descriptors of all exits after {seconds:.1} s at most"
        ));
    }
    // C tor's authorities keep the old descriptor where nothing but such a certificate is new: the relay itself is asked.
    let ids = demo.fleet.family_ids()?;
    let all = || {
        relays
            .iter()
            .all(|relay| facts::families(relay).is_ok_and(|has| ids.iter().all(|id| has.contains(id))))
    };
    if form == Form::Short {
        relays.iter().try_for_each(|relay| look_at_once(demo, relay))?;
    }
    let left = KUBELETS_OWN.saturating_sub(say::elapsed() - began);
    await_yes("all relays to have certificates of all the family's keys", left, all)?;
    let seconds = (say::elapsed() - began).as_secs_f64();
    say::step(format!(
        "family: certificates of the new key too in all {} relays after {seconds:.1} s",
        relays.len()
    ));
    same(&before, &Standing::of_all(demo, &relays)?)?;
    say::step(format!(
        "{} pods, containers and processes are the same as before",
        before.len()
    ));
    // As the example has it, for the stories that come.
    patch(
        demo,
        "relayset/exits",
        &json!({"spec": {"template": {"spec": {
        "nickname": "groveexit", "bandwidth": null, "exit": {"policy": null}}}}}),
    )?;
    patch(
        demo,
        "relayfamily/grove",
        &json!({"spec": {"contact": {"email": "demo@relayfleet.invalid"}}}),
    )?;
    let back = || {
        exits.iter().all(|relay| {
            demo.descriptor(relay)
                .is_ok_and(|shown| shown.line("router").is_some_and(|line| line.starts_with("groveexit")))
        })
    };
    await_yes("the exits' old nicknames", PROMISE, back)?;
    demo.check_families().map(drop)
}

/// Has the pod's node look at its Secrets and ConfigMaps at once, not within its minute.
pub(super) fn look_at_once(demo: &Demo, relay: &Relay) -> Result<()> {
    let look = format!("e2e/look={}", say::elapsed().as_millis());
    demo.cluster
        .kubectl(["-n", NAMESPACE, "annotate", "pod", &relay.pod, "--overwrite", &look])
        .map(drop)
}

/// `kubectl patch --type=merge`.
pub(super) fn patch(demo: &Demo, what: &str, with: &Value) -> Result<()> {
    let with = with.to_string();
    demo.cluster
        .kubectl(["-n", NAMESPACE, "patch", what, "--type=merge", "-p", &with])
        .map(drop)
}
