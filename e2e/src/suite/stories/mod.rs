//! Stories told on the whole machine, in this order: each but the first and the last uses what the demo brought up.

mod audit;
mod cable;
mod demo;
mod facts;
mod fleet;
mod hot;
mod identities;
mod images;
mod outage;
mod relays;
mod renewal;
mod rules;
mod scale;
mod search;
mod standing;
mod upgrade;

use anyhow::{Context, Result};

use super::{Counts, Tally};
use crate::demo::{Demo, down, images as demo_images};
use crate::programs::repository;
use crate::story::carry::{self, Carried, Position};
use crate::story::endure::{self, Endured};
use crate::story::floods::{self, Against, Flooded};
use crate::story::hostile::{self, Hostility, Whom};
use crate::tornet::Pin;
use crate::{cluster, image, machine, say, snapshot};

type Story = fn(&Demo, Form) -> Result<()>;

/// How much of a story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What every run of all tests has time for.
    Short,
    /// All that was promised, by hand.
    Long,
}

/// Stories on the running demo: a name to choose it by, its moral, and how it goes.
const ON_THE_DEMO: [(&str, &str, Story); 13] = [
    (
        "strict",
        "our relays' pods run under the strictest Pod Security",
        fleet::pods_are_restricted,
    ),
    (
        "pod",
        "a pod deleted by hand comes back as the same relay",
        fleet::a_deleted_pod_is_the_same_relay_again,
    ),
    (
        "alerts",
        "the chart's alerts fire on what they are for, and on nothing else",
        rules::alerts_fire_when_they_should,
    ),
    (
        "scale",
        "relays that were scaled away, or whose set was deleted, come back as themselves",
        scale::scaled_relays_are_the_same,
    ),
    (
        "hot",
        "a new nickname, bandwidth, exit policy, contact and family key reach the running process",
        hot::changes_reach_the_running_process,
    ),
    (
        "renewal",
        "a signing key is renewed while 100 MB run through the relay, and the master key is nowhere near it",
        renewal::a_key_is_renewed_under_traffic,
    ),
    (
        "outage",
        "without an operator a relay runs on until its signing key ends",
        outage::relays_outlive_their_operator,
    ),
    (
        "restart",
        "a restarted operator writes nothing and restarts nothing",
        fleet::a_restarted_operator_writes_nothing,
    ),
    (
        "upgrade",
        "an upgraded operator restarts no relay, and a fleet at rest is written to by nobody",
        upgrade::an_upgrade_restarts_no_relay,
    ),
    (
        "again",
        "a second demo finds everything and changes nothing",
        demo::a_second_run_changes_nothing,
    ),
    (
        "cable",
        "a pod deleted, a process killed, a cable pulled: never two processes of one identity",
        cable::never_two_of_one,
    ),
    (
        "forbidden",
        "the rights that the chart gives were enough for all of it",
        fleet::nothing_was_forbidden,
    ),
    (
        "digest",
        "images built in another folder have the same digests",
        images::same_digest_elsewhere,
    ),
];

/// Runs all stories, or one by its name.
pub(super) fn run(tally: &mut Tally, only: Option<&str>) {
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    if !names().any(wanted) {
        let names: Vec<&str> = names().collect();
        tally.check("choosing a story", || {
            anyhow::bail!(
                "no story is called {:?}; there are: {}",
                only.unwrap_or_default(),
                names.join(", ")
            )
        });
        return;
    }
    let mut before = None;
    let ready = tally.check("the machine is ready and nothing of ours is on it", || {
        machine::root()?;
        if cluster::in_use() {
            say::step("a demo is up, whole or half made: taking it away, as the tests need its addresses");
        }
        down()?;
        before = Some(snapshot::take()?);
        Ok(Counts::ONE)
    });
    let Some(before) = before.filter(|_| ready) else {
        return tally.skip("all stories", "the machine is not ready");
    };
    if wanted("carry") {
        tally.check(
            "relays of ours carry a C tor client's bytes as guard, middle, exit and all three",
            || one(ours_at_every_position()),
        );
    }
    // By name only: its load is a static program of its own, which costs a cold machine four minutes.
    if only == Some("floods") {
        tally.check(
            "a relay of ours that is flooded holds little, counts it, and gives all back",
            || one(floods()),
        );
    }
    if wanted("endure") {
        tally.check("a minute of mixed load leaves nothing open", || one(endured_a_minute()));
    }
    if wanted("hostile") {
        tally.check(
            "a hostile peer gets the answers that it deserves, from ours as from C tor",
            || one(a_hostile_peer()),
        );
    }
    for (name, moral, story) in relays::ALL {
        if wanted(name) {
            tally.check(moral, || one(relays::tell(story)));
        }
    }
    on_the_demo(tally, wanted);
    tally.check("taking the demo away leaves nothing behind", || {
        down()?;
        one(demo::nothing_is_left(&before))
    });
}

fn on_the_demo(tally: &mut Tally, wanted: impl Fn(&str) -> bool) {
    if wanted("kill") {
        tally.check("a demo killed at three random moments comes up when run again", || {
            one(demo::killed_three_times())
        });
    }
    let mut running = None;
    tally.check(
        "the demo ends with a stranger's bytes through our relay in a pod",
        || {
            running = Some(demo::runs_to_its_end().context("run it alone with e2e/demo")?);
            Ok(Counts::ONE)
        },
    );
    for (name, moral, story) in ON_THE_DEMO {
        match &running {
            _ if !wanted(name) => {}
            Some(demo) => drop(tally.check(moral, || one(story(demo, Form::Short)))),
            None => tally.skip(moral, "there is no demo to tell it on"),
        }
    }
}

/// Tells one story on the demo that is up.
///
/// # Errors
/// There is no such story, no demo is up, or the story does not hold.
pub fn tell(name: &str, form: Form) -> Result<()> {
    let found = ON_THE_DEMO.iter().find(|(called, ..)| *called == name);
    let (_, moral, story) = found.with_context(|| {
        let names: Vec<&str> = ON_THE_DEMO.iter().map(|(name, ..)| *name).collect();
        format!(
            "no story is told on the demo as {name:?}; there are: {}",
            names.join(", ")
        )
    })?;
    machine::root()?;
    story(&demo::running()?, form)?;
    say::step(format!("ok: {moral}"));
    Ok(())
}

/// The short form: what `e2e story carry` tells twenty times with 100 MiB.
fn ours_at_every_position() -> Result<()> {
    let relay = demo_images::programs()?.relay;
    carry::tell(&Carried {
        relay: relay.display().to_string(),
        times: 2,
        bytes: 20 << 20,
        streams: 32,
        positions: Position::ALL.to_vec(),
        pin: Pin::Config,
        torrc: Vec::new(),
        no_listing: false,
    })
}

/// The short form: floods whose verdict does not hang on how busy the machine is, and nothing asked of throughput.
fn floods() -> Result<()> {
    let relay = demo_images::programs()?.relay;
    let load = image::build_load(&repository())?;
    floods::tell(&Flooded {
        relay: relay.display().to_string(),
        load: load.display().to_string(),
        only: ["circuits", "connections", "hoard", "queues"]
            .map(str::to_owned)
            .to_vec(),
        against: Against::Ours,
        niceness: 5,
        seconds: Some(10),
        no_throughput: true,
        torrc: Vec::new(),
    })
}

/// Too short to judge how memory grows, long enough for all kinds of load and some kills.
fn endured_a_minute() -> Result<()> {
    endure::tell(&Endured {
        relay: demo_images::programs()?.relay.display().to_string(),
        minutes: 1,
        growth_percent_max: 100,
        torrc: Vec::new(),
    })
}

/// What takes a minute is left to `e2e story hostile`.
fn a_hostile_peer() -> Result<()> {
    let relay = demo_images::programs()?.relay;
    hostile::tell(&Hostility {
        program: relay.display().to_string(),
        relay: Whom::Both,
        only: None,
        quick: true,
        list: false,
    })
}

fn names() -> impl Iterator<Item = &'static str> {
    let relays = relays::ALL.iter().map(|(name, ..)| *name);
    ["carry", "floods", "endure", "hostile", "kill", "demo"]
        .into_iter()
        .chain(relays)
        .chain(ON_THE_DEMO.iter().map(|(name, ..)| *name))
}

fn one(told: Result<()>) -> Result<Counts> {
    told.map(|()| Counts::ONE)
}
