//! Rows 24 and 25: streams that want out to where no stranger may go.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::all_alike;
use crate::catalog::{Answer, Ours, Pace, Probe, Row, differs, same};
use crate::cells::relay;
use crate::scene::Scene;
use crate::talk::{How, Talk};

/// Addresses that are private, special or this relay's own, in both families and in forms that hide them.
const PRIVATE: [&str; 32] = [
    "0.0.0.0:80",
    "0.1.2.3:80",
    "10.0.0.1:80",
    "10.255.255.255:443",
    "127.0.0.1:80",
    "127.0.0.1:9051",
    "127.255.255.254:80",
    "169.254.0.1:80",
    "169.254.169.254:80",
    "169.254.170.2:80",
    "172.16.0.1:80",
    "172.31.255.255:80",
    "192.168.0.1:80",
    "192.168.255.255:22",
    "[::]:80",
    "[::1]:80",
    "[fe80::1]:80",
    "[fc00::1]:80",
    "[fd00::1]:80",
    "[fdff:ffff::1]:80",
    "[fec0::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[::ffff:10.0.0.1]:80",
    "[::ffff:169.254.169.254]:80",
    "[::127.0.0.1]:80",
    "[64:ff9b::7f00:1]:80",
    "[64:ff9b::a00:1]:80",
    "[64:ff9b:1::a00:1]:80",
    "[2002:7f00:1::]:80",
    "[2002:a00:1::]:80",
    "[fd00:ec2::254]:80",
    "[ff02::1]:80",
];

/// Where the kernel itself leads nobody.
const TO_MANY: [&str; 2] = ["224.0.0.1:80", "255.255.255.255:80"];

/// What C tor's policy lets through: refused by ours as a cloud's inside (docs/decisions).
const SHARED: [&str; 2] = ["100.64.0.1:80", "100.127.255.254:80"];

/// Names that a resolver of C's library would take for numbers, and names of nobody.
const ODD_NAMES: [&str; 8] = [
    "0x7f.1:80",
    "2130706433:80",
    "0177.0.0.1:80",
    "127.1:80",
    "localhost:80",
    "kubernetes.default.svc:443",
    "something.onion:80",
    "something.exit:80",
];

pub(super) const PROBES: &[Probe] = &[
    same(
        24,
        "exit-to-private-addresses",
        |scene| ends(scene, &PRIVATE),
        "END(EXITPOLICY)",
    ),
    Probe {
        name: "exit-to-shared-addresses",
        row: Row(24),
        play: |scene| ends(scene, &SHARED),
        c_tor: "connects",
        ours: Ours::Differs {
            answers: "END(EXITPOLICY)",
            why: "100.64.0.0/10 is what clouds give to pods; C tor's list of private networks lacks it",
        },
        pace: Pace::OursAlone,
    },
    same(
        24,
        "exit-to-many-at-once",
        |scene| ends(scene, &TO_MANY),
        "END(NOROUTE)",
    ),
    same(24, "exit-to-its-own-address", own_address, "END(EXITPOLICY)"),
    same(
        24,
        "exit-to-names-that-are-numbers",
        |scene| ends(scene, &ODD_NAMES),
        "END(RESOLVEFAILED)",
    ),
    same(24, "exit-to-names-that-lead-inside", rebinding, "END(EXITPOLICY)"),
    differs(
        25,
        "exit-back-into-the-network",
        reentry,
        "END(CONNECTREFUSED)",
        "END(CONNECTREFUSED) or END(EXITPOLICY)",
        "where relays share a machine, ours refuses its machine's own addresses first",
    ),
];

fn ends(scene: &Scene, addresses: &[&str]) -> Result<Answer> {
    let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    ends_of(scene, &addresses)
}

/// All streams on one circuit at once; the flag lets IPv6 in.
fn ends_of(scene: &Scene, addresses: &[String]) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let mut answers = vec!["silent".to_owned(); addresses.len()];
    for (stream, address) in (1..).zip(addresses) {
        let body = [address.as_bytes(), &[0, 0, 0, 0, 1]].concat();
        talk.say(relay::BEGIN, stream, &body);
    }
    // What is not refused may take as long as a connection does.
    let end = Instant::now() + scene.patience / 3;
    while answers.iter().any(|answer| answer == "silent") {
        let Some(said) = talk.hear(end.saturating_duration_since(Instant::now())) else {
            break;
        };
        let crate::talk::Said::Message { stream, .. } = &said else {
            answers.push(said.words());
            break;
        };
        if let Some(answer) = usize::from(*stream).checked_sub(1).and_then(|at| answers.get_mut(at)) {
            *answer = said.words();
        }
    }
    let named = addresses.iter().cloned().chain(["the circuit".to_owned()]);
    Ok(all_alike(named.zip(answers)))
}

/// Its own ORPort's address at another port.
fn own_address(scene: &Scene) -> Result<Answer> {
    ends_of(
        scene,
        &[
            format!("{}:80", scene.target.address.ip()),
            format!("{}:22", scene.target.address.ip()),
        ],
    )
}

/// Names that the name server leads to private addresses, and a listener of ours on one that must hear nothing.
fn rebinding(scene: &Scene) -> Result<Answer> {
    scene.names.as_ref().context("the target asks no name server of ours")?;
    let listener = TcpListener::bind((scene.fresh_source(), 0))?;
    listener.set_nonblocking(true)?;
    let ours = listener.local_addr()?;
    let mut addresses: Vec<String> = [
        "10-0-0-1",
        "127-0-0-1",
        "169-254-169-254",
        "192-168-0-1",
        "172-16-0-1",
        "0-0-0-0",
    ]
    .iter()
    .map(|address| format!("rebind.{address}.hostile.test:80"))
    .collect();
    let dashed = ours.ip().to_string().replace('.', "-");
    addresses.push(format!("rebind.{dashed}.hostile.test:{}", ours.port()));
    let mut answer = ends_of(scene, &addresses)?;
    std::thread::sleep(Duration::from_millis(50));
    if listener.accept().is_ok() {
        answer.said = format!("{}, and a connection arrived", answer.said);
    }
    Ok(answer)
}

fn reentry(scene: &Scene) -> Result<Answer> {
    ends_of(
        scene,
        &[scene.behind.address.to_string(), scene.before.address.to_string()],
    )
}
