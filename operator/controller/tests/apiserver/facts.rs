//! What a relay says at its status port, in the Relay's status.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::await_yes;

/// A loopback address of this test's own: the port is the relay's.
const ADDRESS: &str = "127.57.0.1";

/// Answers as a relay does that wants this token.
fn relay_that_says(facts: Arc<Mutex<String>>, token: String) {
    let listener = TcpListener::bind((ADDRESS, 9099)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let known = head[0].starts_with("GET /status ")
                && head
                    .iter()
                    .any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {token}")));
            let (code, body) = if known {
                ("200 OK", facts.lock().unwrap().clone())
            } else {
                ("401 Unauthorized", "no".to_owned())
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {code}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn flags_and_weight_stand_in_the_relay_as_its_process_tells_them() {
    let scene = Scene::new("facts");
    scene.node("facts-1");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    scene.await_pod();
    scene.runs_on("demo", "facts-1");
    assert_eq!(scene.await_reason("InConsensus", "NotAsked")["status"], "Unknown");
    let torrc = scene.get("configmap/demo-torrc").unwrap();
    assert_eq!(
        torrc["data"].as_object().unwrap().len(),
        1,
        "whoever reads ConfigMaps must not read the token"
    );
    let token = scene.kubectl(&[
        "get",
        "secret",
        "demo-status",
        "-o",
        "go-template={{index .data \"status-token\" | base64decode}}",
    ]);
    assert!(
        torrc["data"]["torrc"]
            .as_str()
            .unwrap()
            .contains("StatusPort 0.0.0.0:9099\n")
    );
    let identity = scene.get("relay/demo").unwrap()["status"]["identity"].clone();
    let mut facts = json!({
        "version": 1, "program": "relayfleet 0.1.0", "startedAt": "2026-01-01T00:00:00Z", "toldAt": "2026-01-01T02:00:00Z",
        "identity": {"nickname": "demo", "fingerprint": identity["rsaFingerprint"], "ed25519": identity["ed25519Id"]},
        "listening": ["0.0.0.0:9001"], "retiring": false, "addresses": [], "families": [], "overload": {},
        "signingKey": {"expiresAt": "2026-02-01T00:00:00Z", "offlineMaster": true},
        "descriptor": {"digest": "", "publishedAt": "2026-01-01T00:00:05Z", "hibernating": false, "acceptedBy": 3, "authorities": 3},
        "consensus": {
            "validAfter": "2026-01-01T01:00:00Z", "freshUntil": "2999-01-01T02:00:00Z", "validUntil": "2999-01-01T04:00:00Z",
            "listed": {"flags": ["Fast", "Running"], "weight": 20, "measured": true},
        },
    });
    let says = Arc::new(Mutex::new(facts.to_string()));
    relay_that_says(Arc::clone(&says), token);
    let address = json!({"status": {"podIP": ADDRESS}}).to_string();
    scene.kubectl(&[
        "patch",
        "pod",
        "demo",
        "--subresource=status",
        "--type=merge",
        "-p",
        &address,
    ]);

    assert_eq!(scene.await_reason("InConsensus", "Listed")["status"], "True");
    let directory = scene.get("relay/demo").unwrap()["status"]["directory"].clone();
    assert_eq!(
        (&directory["flags"], &directory["consensusWeight"]),
        (&json!("Fast,Running"), &json!(20))
    );
    assert_eq!(directory["listedSinceStart"], true);
    assert!(scene.kubectl(&["get", "relay", "demo"]).contains("Fast,Running"));
    assert_eq!(scene.await_reason("IdentityConflict", "OneAddress")["status"], "False");

    // Another process with its keys, which the consensus lists; and an overload.
    facts["addresses"] = json!([{"address": "192.0.2.1:9001", "reachable": "FromOutside"}]);
    facts["descriptor"]["acceptedAt"] = json!("2026-01-01T00:00:06Z");
    facts["consensus"]["freshUntil"] = json!("2026-01-01T02:00:00Z");
    facts["consensus"]["listed"]["addresses"] = json!(["198.51.100.9:9001"]);
    facts["consensus"]["validAfter"] = json!("2026-01-01T01:30:00Z");
    facts["overload"] = json!({"generalAt": "2999-01-01T00:00:00Z"});
    *says.lock().unwrap() = facts.to_string();
    let conflict = scene.await_reason("IdentityConflict", "ListedElsewhere");
    assert_eq!(conflict["status"], "True");
    assert!(
        conflict["message"].as_str().unwrap().contains("198.51.100.9:9001"),
        "{conflict}"
    );
    assert_eq!(scene.await_reason("Overloaded", "TurnsWorkAway")["status"], "True");
    await_yes("an event", || {
        scene
            .kubectl(&["describe", "relay", "demo"])
            .contains("Warning  IdentityConflict")
    });
    operator.stop();
}
