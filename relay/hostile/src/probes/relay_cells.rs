//! Rows 15 and 18: RELAY_EARLY, and relay cells that nobody can read.

use anyhow::Result;

use super::{one_hop, two_hops};
use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{self, command, relay};
use crate::scene::Scene;
use crate::talk::{How, specifiers};

pub(super) const PROBES: &[Probe] = &[
    same(15, "relay-early-eight-times", |scene| early(scene, 8), "ignored"),
    same(
        15,
        "relay-early-nine-times",
        |scene| early(scene, 9),
        "DESTROY(PROTOCOL)",
    ),
    differs(
        15,
        "extend2-in-relay",
        extend_not_early,
        "ignored",
        "DESTROY(PROTOCOL)",
        "an EXTEND2 that is refused ends its circuit, whatever the reason: its client would wait for nothing",
    ),
    same(18, "relay-cell-of-random-bytes", random_body, "DESTROY(PROTOCOL)"),
    same(
        18,
        "relay-cell-of-random-bytes-behind",
        random_body_behind,
        "DESTROY(DESTROYED)",
    ),
    same(18, "relay-length-499", |scene| claimed(scene, 499), "DESTROY(PROTOCOL)"),
    same(
        18,
        "relay-length-65535",
        |scene| claimed(scene, u16::MAX),
        "DESTROY(PROTOCOL)",
    ),
    same(18, "relay-command-unknown", unknown, "ignored"),
    same(18, "relay-commands-of-relays", of_relays, "ignored"),
    differs(
        18,
        "truncate-without-a-reason",
        |scene| one_hop(scene, How::Ntor, |talk| talk.say(relay::TRUNCATE, 0, &[])),
        "TRUNCATED",
        "DESTROY(PROTOCOL)",
        "TRUNCATE has a reason (tor-spec, \"Tearing down circuits\")",
    ),
    same(
        18,
        "truncate-with-nothing-behind",
        |scene| one_hop(scene, How::Ntor, |talk| talk.say(relay::TRUNCATE, 0, &[3])),
        "TRUNCATED",
    ),
];

fn early(scene: &Scene, times: usize) -> Result<Answer> {
    one_hop(scene, How::Ntor, |talk| {
        for _ in 0..times {
            talk.say_in(command::RELAY_EARLY, relay::DROP, 0, &[]);
        }
    })
}

fn extend_not_early(scene: &Scene) -> Result<Answer> {
    let (_, body) = crate::talk::create2(&scene.behind, How::Ntor)?;
    let message = [specifiers(&scene.behind), body].concat();
    one_hop(scene, How::Ntor, |talk| talk.say(relay::EXTEND2, 0, &message))
}

fn random_body(scene: &Scene) -> Result<Answer> {
    one_hop(scene, How::Ntor, |talk| {
        let circuit = talk.circuit;
        talk.link.send(&cells::fixed(circuit, command::RELAY, &[0x5a; 509]));
    })
}

/// The first hop passes on what it cannot read.
fn random_body_behind(scene: &Scene) -> Result<Answer> {
    two_hops(scene, How::Ntor, |talk| {
        let circuit = talk.circuit;
        talk.link.send(&cells::fixed(circuit, command::RELAY, &[0x5a; 509]));
    })
}

fn claimed(scene: &Scene, length: u16) -> Result<Answer> {
    one_hop(scene, How::Ntor, |talk| {
        let cell = talk.seal(command::RELAY, cells::message(relay::DATA, 1, &[7; 498], length));
        talk.link.send(&cell);
    })
}

fn unknown(scene: &Scene) -> Result<Answer> {
    one_hop(scene, How::Ntor, |talk| {
        for kind in [0, 45, 77, 255] {
            talk.say(kind, 0, &[1; 9]);
            talk.say(kind, 9, &[1; 9]);
        }
    })
}

/// What only relays say to clients.
fn of_relays(scene: &Scene) -> Result<Answer> {
    one_hop(scene, How::Ntor, |talk| {
        for kind in [relay::CONNECTED, relay::RESOLVED] {
            talk.say(kind, 9, &[0; 12]);
        }
        for kind in [
            relay::EXTENDED2,
            relay::INTRODUCE2,
            relay::RENDEZVOUS2,
            relay::INTRO_ESTABLISHED,
            relay::RENDEZVOUS_ESTABLISHED,
            relay::INTRODUCE_ACK,
            relay::PADDING_NEGOTIATED,
        ] {
            talk.say(kind, 0, &[0; 12]);
        }
    })
}
