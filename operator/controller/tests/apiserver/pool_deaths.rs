//! Operators that die after their k-th write while a pool gives places away, keeps one and gives it back: no place is anybody
//! else's, and the end is the same.
//!
//! As in `deaths`, but pools are the cluster's: the lives are led one after the other, on a server of their own, each with a
//! pool, an address and a namespace to itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit;
use crate::deaths::{all_are_told, assert_as_much, cut_off, is_settled, is_told, made_and_deleted};
use crate::kubelet::Kubelet;
use crate::operator::Operator;
use crate::pools::{pool, relay};
use crate::rounds::Scene;
use crate::server::{await_yes, server_alone};

/// One change, and how it is seen that all has been done.
struct Phase {
    name: &'static str,
    change: fn(&Scene),
    /// Relays that run, and whose place is kept.
    running: &'static [&'static str],
    kept: &'static [&'static str],
}

const PHASES: [Phase; 3] = [
    Phase {
        name: "two come",
        change: |scene| {
            for name in ["birch", "cedar"] {
                scene.server.apply(&relay(scene.namespace, name, scene.namespace));
            }
        },
        running: &["birch", "cedar"],
        kept: &[],
    },
    Phase {
        name: "one goes and another comes",
        change: |scene| {
            scene.kubectl(&["delete", "relay", "birch"]);
            scene.server.apply(&relay(scene.namespace, "maple", scene.namespace));
        },
        running: &["cedar", "maple"],
        kept: &["birch"],
    },
    Phase {
        name: "it comes back",
        change: |scene| scene.server.apply(&relay(scene.namespace, "birch", scene.namespace)),
        running: &["birch", "cedar", "maple"],
        kept: &[],
    },
];

/// Who has which port, and whether it is kept for one who is away.
fn ledger(scene: &Scene) -> BTreeMap<String, (u64, bool)> {
    let pool = scene.server.get("default", &format!("addresspool/{}", scene.namespace));
    let held = pool.and_then(|pool| pool["status"]["allocations"].as_array().cloned());
    let one = |one: Value| {
        (
            one["relay"].as_str().unwrap().to_owned(),
            (one["port"].as_u64().unwrap(), one["kept"] == true),
        )
    };
    held.unwrap_or_default().into_iter().map(one).collect()
}

impl Phase {
    fn is_done(&self, scene: &Scene) -> bool {
        let ledger = ledger(scene);
        let kept = |away: bool| -> Vec<&str> {
            let all = ledger.iter().filter(|(_, (_, kept))| *kept == away);
            all.map(|(name, _)| name.as_str()).collect()
        };
        let relays = scene.list("relays");
        kept(false) == self.running
            && kept(true) == self.kept
            && relays.len() == self.running.len()
            && relays.iter().all(is_settled)
            && scene.list("pods").len() == self.running.len()
    }
}

/// What one life came to, phase by phase.
#[derive(Default)]
struct Life {
    ledgers: Vec<BTreeMap<String, (u64, bool)>>,
    states: Vec<BTreeMap<String, String>>,
    made: BTreeMap<String, usize>,
    cut: BTreeMap<String, usize>,
    writes: Vec<usize>,
    deaths: usize,
}

fn live(scene: &Scene, address: &str, dies_after: Option<usize>) -> Life {
    let _kubelet = Kubelet::start(scene);
    let ports = json!({"first": 9001, "last": 9003}); // one for each, the one away too
    let spec = json!({"exposure": "LoadBalancer", "addresses": [{"ipv4": address}], "ports": ports});
    scene.server.apply(&pool(scene.namespace, spec));
    let (mut life, mut keys) = (Life::default(), BTreeMap::new());
    for phase in &PHASES {
        (phase.change)(scene);
        let before = audit::writes(&scene.server, scene.namespace).len();
        if let Some(writes) = dies_after {
            let mortal = format!("--abort-after-writes={writes}");
            let operator = Operator::start_for_all_with(&scene.server, scene.namespace, &[&mortal]);
            life.deaths += usize::from(operator.runs_until(|| phase.is_done(scene)));
        }
        let operator = Operator::start_for_all(&scene.server, scene.namespace);
        await_yes(phase.name, || phase.is_done(scene));
        operator.stop();
        life.writes
            .push(audit::writes(&scene.server, scene.namespace).len() - before);
        life.ledgers.push(ledger(scene));
        let state = scene.state().into_iter();
        life.states.push(
            state
                .map(|(name, what)| (name, what.replace(address, "ADDRESS")))
                .collect(),
        );
        let now = scene.keys();
        assert!(
            keys.iter().all(|(name, key)| now.get(name) == Some(key)),
            "a key has changed: {}",
            phase.name
        );
        keys = now;
    }
    life.made = made_and_deleted(scene);
    life.cut = cut_off(scene);
    life
}

#[test]
#[ignore = "needs RELAYFLEET_BIN and RELAYFLEET_EVERY_DEATH"]
fn a_death_after_any_write_gives_no_place_twice_and_takes_none_away() {
    if !all_are_told() {
        return;
    }
    let server = server_alone();
    let tell = |number: usize, dies_after| {
        let name: &'static str = Box::leak(format!("pool-{number}").into_boxed_str());
        let scene = Scene::on(Arc::clone(&server), name);
        live(&scene, &format!("203.0.113.{}", 100 + number), dies_after)
    };
    let calm = tell(0, None);
    // The ledger's own writes bear no namespace: one more in each phase.
    let last = calm.writes.iter().max().copied().unwrap_or_default() + 1;
    let chosen: Vec<usize> = (1..=last).filter(|life| is_told(*life)).collect();
    let mut deaths = 0;
    for &write in &chosen {
        let life = tell(write, Some(write));
        assert_eq!(life.ledgers, calm.ledgers, "a death after write {write}");
        for ((state, calm), phase) in life.states.iter().zip(&calm.states).zip(&PHASES) {
            assert_eq!(state, calm, "a death after write {write}: {}", phase.name);
        }
        assert_as_much(
            &life.made,
            &life.cut,
            &calm.made,
            &format!("a death after write {write}"),
        );
        deaths += life.deaths;
    }
    let writes = &calm.writes;
    eprintln!(
        "pool: {writes:?} writes undisturbed and the ledger's; {deaths} killed, after each k of {chosen:?} that a phase came \
         to; places, end state, CREATEs and DELETEs equal every time"
    );
    let certain: usize = writes
        .iter()
        .map(|writes| chosen.iter().filter(|write| **write + 1 < *writes).count())
        .sum();
    assert!(deaths >= certain, "only {deaths} deaths");
}
