//! Two operators: one leads, and one that has slept through the end of its Lease writes nothing more.

use std::time::{Duration, Instant};

use crate::audit::{self, Request};
use crate::kubelet::Kubelet;
use crate::operator::Operator;
use crate::rounds::Scene;

/// Writes that got through, the Lease's and events too.
fn written_by(scene: &Scene, agent: &str) -> Vec<Request> {
    let all = audit::all_requests(&scene.server).into_iter();
    all.filter(|request| request.is_write() && request.agent.contains(agent))
        .collect()
}

/// Waits for so many objects made by it, with a glance often enough to catch it before it has made the rest.
fn await_creations(scene: &Scene, agent: &str, wanted: usize) {
    let made = || {
        let log = std::fs::read_to_string(scene.server.path("audit.log")).unwrap_or_default();
        let by_it = |line: &&str| {
            line.contains(agent) && line.contains("\"verb\":\"create\"") && !line.contains("\"resource\":\"leases\"")
        };
        log.lines().filter(by_it).count()
    };
    let start = Instant::now();
    while made() < wanted {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "it did not make {wanted} objects"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process may be stopped in the middle of a round, with a write prepared; what it does when it wakes up is asked of the
/// API server.
#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn an_operator_that_slept_through_the_end_of_its_lease_writes_nothing_when_it_wakes() {
    let (mut asleep_in_the_middle, mut on_their_way) = (0, 0);
    for (sleep, creations) in [("asleep-1", 1), ("asleep-2", 9)] {
        let scene = Scene::new(sleep);
        let _kubelet = Kubelet::start(&scene);
        let lease = ["--relay-image=relay:1", "--lease-seconds=20"];
        let first = Operator::start_with(&scene.server, scene.namespace, "first", &lease);
        first.await_log("leading");
        scene.apply_set(4, "oak");
        let agent = format!("({sleep}-first;");
        await_creations(&scene, &agent, creations);
        first.pause();
        let pods = scene.get("pods").unwrap()["items"].as_array().unwrap().len();
        asleep_in_the_middle += usize::from(pods < 4);
        let second = Operator::start_with(&scene.server, scene.namespace, "second", &lease);
        second.await_log("another operator leads");
        second.await_log("leading");
        let before = written_by(&scene, &agent);
        scene.await_set(4);
        let fingerprints = scene.fingerprints();

        // Something to do for whoever thinks that it leads.
        scene.scale(6);
        first.resume();
        let said = first.await_failure();
        assert!(said.contains("lost the Lease"), "{said}");
        scene.await_set(6);
        // What had passed the gate before it slept may go out when it wakes up: not one of these may count.
        let late = written_by(&scene, &agent).split_off(before.len());
        let counts = |write: &Request| match write.verb.as_str() {
            // An event tells of what it had done before.
            "create" => write.code != 409 && write.resource != "events",
            // Applied again, the same as the other has applied it.
            "patch" => write.code >= 300,
            _ => true,
        };
        assert!(
            late.len() <= 8 && !late.iter().any(counts),
            "after it woke up: {late:#?}"
        );
        on_their_way += late.len();
        let theirs = written_by(&scene, &format!("({sleep}-second; generation 2)"));
        assert!(theirs.len() > 10, "{theirs:?}");
        let after = scene.fingerprints();
        assert!(fingerprints.iter().all(|(name, print)| after[name] == *print));
        second.stop();
    }
    eprintln!(
        "2 operators paused, {asleep_in_the_middle} of them in the middle of their work: nothing begun after they woke up \
         was written, and of what was on its way ({on_their_way}) nothing counted"
    );
    assert!(asleep_in_the_middle > 0, "none was paused in the middle of its work");
}

/// The moment after it begins to lead, when its stores are still being filled.
#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn an_operator_that_is_stopped_as_it_begins_to_lead_ends() {
    let scene = Scene::new("hasty");
    for _ in 0..12 {
        let operator = Operator::start(&scene.server, scene.namespace);
        let start = Instant::now();
        while !operator.log().contains("leading") {
            assert!(start.elapsed() < Duration::from_secs(120), "it does not lead");
            std::thread::sleep(Duration::from_millis(1));
        }
        let ending = operator.stop();
        assert!(ending < Duration::from_secs(15), "it took {ending:?} to end");
    }
}
