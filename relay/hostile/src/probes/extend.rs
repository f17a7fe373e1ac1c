//! Rows 19 and 20: EXTEND to where nobody should go, and twice.

use std::net::{SocketAddr, TcpListener};

use anyhow::Result;

use super::{all_alike, one_hop};
use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{command, relay};
use crate::scene::{Scene, Target};
use crate::talk::{How, Talk, create2, specifiers};

pub(super) const PROBES: &[Probe] = &[
    same(19, "extend-to-private-addresses", to_private, "DESTROY(PROTOCOL)"),
    same(
        19,
        "extend-to-no-specifiers",
        |scene| with(scene, &[0]),
        "DESTROY(PROTOCOL)",
    ),
    same(19, "extend-to-an-address-alone", address_alone, "DESTROY(PROTOCOL)"),
    same(
        19,
        "extend-to-an-identity-alone",
        |scene| with(scene, &[&[1, 2, 20][..], &[9; 20]].concat()),
        "DESTROY(PROTOCOL)",
    ),
    same(
        19,
        "extend-to-an-identity-of-zeros",
        |scene| altered(scene, |to| to.rsa_id = [0; 20]),
        "DESTROY(PROTOCOL)",
    ),
    differs(
        19,
        "extend-to-an-ed25519-identity-of-zeros",
        |scene| altered(scene, |to| to.ed25519_id = [0; 32]),
        "EXTENDED2",
        "DESTROY(PROTOCOL)",
        "zeros are nobody's key; C tor takes them for no key named",
    ),
    same(
        19,
        "extend-to-port-0",
        |scene| altered(scene, |to| to.address.set_port(0)),
        "DESTROY(PROTOCOL)",
    ),
    same(19, "extend-cut-anywhere", cut_anywhere, "DESTROY(PROTOCOL)"),
    differs(
        19,
        "extend-with-a-stream-id",
        with_stream,
        "ignored",
        "DESTROY(PROTOCOL)",
        "an EXTEND2 that is refused ends its circuit",
    ),
    same(19, "extend-of-version-1", version_1, "DESTROY(PROTOCOL)"),
    differs(
        19,
        "extend-to-the-relay-itself",
        to_itself,
        "DESTROY(CONNECTFAILED)",
        "DESTROY(PROTOCOL)",
        "another reason: refused before anything is tried",
    ),
    same(19, "extend-back-to-the-hop-before", back, "DESTROY(DESTROYED)"),
    differs(
        19,
        "extend-to-a-closed-port",
        closed_port,
        "DESTROY(CHANNEL_CLOSED)",
        "DESTROY(CONNECTFAILED)",
        "another reason, the one that tor-spec has for it",
    ),
    differs(
        19,
        "extend-to-another-identity",
        |scene| {
            altered(scene, |to| {
                to.rsa_id = [9; 20];
                to.ed25519_id = [9; 32];
            })
        },
        "DESTROY(CHANNEL_CLOSED)",
        "DESTROY(OR_IDENTITY)",
        "another reason, the one that tor-spec has for it",
    ),
    same(
        19,
        "extend-with-an-onionskin-for-nobody",
        bad_onionskin,
        "DESTROY(DESTROYED)",
    ),
    same(20, "extend-while-one-is-pending", second, "DESTROY(PROTOCOL)"),
    same(20, "extend-of-a-circuit-that-goes-on", third, "DESTROY(PROTOCOL)"),
];

/// What comes of an EXTEND2 with these specifiers.
fn with(scene: &Scene, specifiers: &[u8]) -> Result<Answer> {
    let (_, body) = create2(&scene.behind, How::Ntor)?;
    let message = [specifiers, &body].concat();
    extended(scene, &message)
}

fn extended(scene: &Scene, message: &[u8]) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.say_in(command::RELAY_EARLY, relay::EXTEND2, 0, message);
    Ok(talk.answer(0).into())
}

fn altered(scene: &Scene, alter: impl FnOnce(&mut Target)) -> Result<Answer> {
    let mut to = scene.behind.clone();
    alter(&mut to);
    with(scene, &specifiers(&to))
}

/// Private addresses in both families; where we can listen ourselves, nobody must have knocked.
fn to_private(scene: &Scene) -> Result<Answer> {
    let listener = TcpListener::bind((scene.fresh_source(), 0))?;
    listener.set_nonblocking(true)?;
    let ours = listener.local_addr()?;
    let mut cases = Vec::new();
    let v4 = [
        "10.0.0.1:9001",
        "192.168.1.1:9001",
        "172.16.0.1:9001",
        "169.254.169.254:80",
        "127.0.0.1:9001",
        "0.0.0.0:9001",
    ];
    for address in v4.iter().filter_map(|address| address.parse().ok()).chain([ours]) {
        let answer = altered(scene, |to| to.address = address)?;
        cases.push((address.to_string(), answer.said));
    }
    for address in [
        "[::1]:9001",
        "[fd00::1]:9001",
        "[fe80::1]:9001",
        "[::ffff:127.0.0.1]:9001",
    ] {
        let Ok(SocketAddr::V6(to)) = address.parse() else {
            continue;
        };
        let head = [
            &[3, 1, 18][..],
            &to.ip().octets(),
            &to.port().to_be_bytes(),
            &[2, 20],
            &scene.behind.rsa_id,
        ];
        let answer = with(
            scene,
            &[&head.concat()[..], &[3, 32], &scene.behind.ed25519_id].concat(),
        )?;
        // With no IPv4 in the message the relay may know one from the consensus.
        cases.push((address.to_owned(), answer.said));
    }
    if listener.accept().is_ok() {
        cases.push((ours.to_string(), "a connection arrived".to_owned()));
    }
    Ok(all_alike(cases))
}

fn address_alone(scene: &Scene) -> Result<Answer> {
    with(scene, &[1, 0, 6, 198, 18, 0, 1, 0x23, 0x29])
}

fn whole(scene: &Scene) -> Result<Vec<u8>> {
    let (_, body) = create2(&scene.behind, How::Ntor)?;
    Ok([specifiers(&scene.behind), body].concat())
}

fn cut_anywhere(scene: &Scene) -> Result<Answer> {
    let whole = whole(scene)?;
    let mut cases = Vec::new();
    for length in [0, 1, 3, 8, 9, 20, 31, 40, 66, 70, whole.len() - 1] {
        let message = whole.get(..length).unwrap_or(&whole);
        cases.push((format!("{length} bytes"), extended(scene, message)?.said));
    }
    Ok(all_alike(cases))
}

fn with_stream(scene: &Scene) -> Result<Answer> {
    let message = whole(scene)?;
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.say_in(command::RELAY_EARLY, relay::EXTEND2, 5, &message);
    Ok(talk.verdict().into())
}

/// EXTEND with TAP: an address, a port, an onionskin of 186 bytes, an identity.
fn version_1(scene: &Scene) -> Result<Answer> {
    let message = [&[198, 18, 0, 1, 0x23, 0x29][..], &[7; 186], &scene.behind.rsa_id].concat();
    one_hop(scene, How::Ntor, |talk| {
        talk.say_in(command::RELAY_EARLY, relay::EXTEND, 0, &message)
    })
}

fn to_itself(scene: &Scene) -> Result<Answer> {
    with(scene, &specifiers(&scene.target))
}

fn back(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let (_, body) = create2(&scene.before, How::Ntor)?;
    let message = [specifiers(&scene.before), body].concat();
    talk.say_in(command::RELAY_EARLY, relay::EXTEND2, 0, &message);
    Ok(talk.answer(0).into())
}

/// Nobody listens there, and the identity is nobody's, so that there is no link to it either.
fn closed_port(scene: &Scene) -> Result<Answer> {
    let listener = TcpListener::bind((scene.public, 0))?;
    let closed = listener.local_addr()?;
    drop(listener);
    altered(scene, |to| {
        to.address = closed;
        to.rsa_id = [8; 20];
        to.ed25519_id = [8; 32];
    })
}

fn bad_onionskin(scene: &Scene) -> Result<Answer> {
    let mut message = whole(scene)?;
    // The relay's identity within the onionskin, before its onion key and the client's, 32 bytes each.
    if let Some(byte) = message.iter_mut().rev().nth(70) {
        *byte ^= 1;
    }
    extended(scene, &message)
}

/// The first leads to somebody who never answers.
fn second(scene: &Scene) -> Result<Answer> {
    let listener = TcpListener::bind((scene.public, 0))?;
    let mut to = scene.behind.clone();
    (to.address, to.rsa_id, to.ed25519_id) = (listener.local_addr()?, [7; 20], [7; 32]);
    let (_, body) = create2(&to, How::Ntor)?;
    let message = [specifiers(&to), body].concat();
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.say_in(command::RELAY_EARLY, relay::EXTEND2, 0, &message);
    talk.say_in(command::RELAY_EARLY, relay::EXTEND2, 0, &message);
    Ok(talk.answer(0).into())
}

fn third(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.extend(&scene.behind, How::Ntor)?;
    // What follows is for the first hop again.
    talk.hops.truncate(1);
    let message = whole(scene)?;
    talk.say_in(command::RELAY_EARLY, relay::EXTEND2, 0, &message);
    Ok(talk.answer(0).into())
}
