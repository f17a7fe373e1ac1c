//! Row 31: links of conflux where there can be none.

use anyhow::Result;

use super::{one_hop, two_hops};
use crate::catalog::{Answer, Probe, same};
use crate::cells::relay;
use crate::scene::Scene;
use crate::talk::How;

pub(super) const PROBES: &[Probe] = &[
    same(
        31,
        "conflux-link-on-a-fast-circuit",
        |scene| one_hop(scene, How::Fast, |talk| talk.say(relay::CONFLUX_LINK, 0, &link())),
        "DESTROY(PROTOCOL)",
    ),
    same(
        31,
        "conflux-link-without-congestion-control",
        |scene| one_hop(scene, How::Ntor, |talk| talk.say(relay::CONFLUX_LINK, 0, &link())),
        "DESTROY(PROTOCOL)",
    ),
    same(31, "conflux-link-after-begin", after_begin, "DESTROY(DESTROYED)"),
    same(
        31,
        "conflux-link-of-version-9",
        |scene| linked(scene, &[&[9][..], link().get(1..).unwrap_or_default()].concat()),
        "DESTROY(DESTROYED)",
    ),
    same(
        31,
        "conflux-link-cut-short",
        |scene| linked(scene, &[1, 2, 3]),
        "DESTROY(DESTROYED)",
    ),
    same(
        31,
        "conflux-switch-unlinked",
        |scene| {
            two_hops(scene, How::Congestion, |talk| {
                talk.say(relay::CONFLUX_SWITCH, 0, &[0, 0, 0, 1])
            })
        },
        "DESTROY(DESTROYED)",
    ),
    same(
        31,
        "conflux-linked-ack-unlinked",
        |scene| {
            two_hops(scene, How::Congestion, |talk| {
                talk.say(relay::CONFLUX_LINKED_ACK, 0, &[])
            })
        },
        "DESTROY(DESTROYED)",
    ),
    same(
        31,
        "conflux-linked-from-a-client",
        |scene| {
            two_hops(scene, How::Congestion, |talk| {
                talk.say(relay::CONFLUX_LINKED, 0, &link())
            })
        },
        "DESTROY(DESTROYED)",
    ),
];

/// Version 1, a nonce, nothing sent, nothing received, and a wish.
fn link() -> Vec<u8> {
    [&[1][..], &rand::random::<[u8; 32]>(), &[0; 16], &[3]].concat()
}

fn linked(scene: &Scene, body: &[u8]) -> Result<Answer> {
    two_hops(scene, How::Congestion, |talk| talk.say(relay::CONFLUX_LINK, 0, body))
}

fn after_begin(scene: &Scene) -> Result<Answer> {
    two_hops(scene, How::Congestion, |talk| {
        talk.say(relay::RESOLVE, 1, b"slow.198-51-100-9.hostile.test\0");
        talk.say(relay::CONFLUX_LINK, 0, &link());
    })
}
