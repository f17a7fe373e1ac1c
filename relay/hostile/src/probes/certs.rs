//! Row 12: CERTS, AUTH_CHALLENGE and AUTHENTICATE that are malformed, misplaced or repeated, and other cells where only
//! those may be.

use anyhow::Result;

use super::links::fate;
use crate::catalog::{Answer, Probe, same};
use crate::cells::{self, command, fixed, variable};
use crate::link::Link;
use crate::scene::Scene;

pub(super) const PROBES: &[Probe] = &[
    same(12, "certs-empty", |scene| said(scene, &[certs(&[0])]), "closed"),
    same(12, "certs-of-no-bytes", |scene| said(scene, &[certs(&[])]), "closed"),
    same(
        12,
        "certs-cut-short",
        |scene| said(scene, &[certs(&[1, 4, 1, 0, 7, 7])]),
        "closed",
    ),
    same(
        12,
        "certs-that-are-none",
        |scene| said(scene, &[certs(&no_certificates())]),
        "closed",
    ),
    same(
        12,
        "certs-of-one-type-twice",
        |scene| said(scene, &[certs(&[2, 9, 0, 1, 7, 9, 0, 1, 7])]),
        "closed",
    ),
    same(
        12,
        "certs-twice",
        |scene| said(scene, &[certs(&no_certificates()), certs(&no_certificates())]),
        "closed",
    ),
    same(
        12,
        "certs-on-a-circuit",
        |scene| said(scene, &[variable(7, command::CERTS, &[0])]),
        "closed",
    ),
    same(
        12,
        "certs-on-an-open-link",
        |scene| when_open(scene, &certs(&no_certificates())),
        "closed",
    ),
    same(
        12,
        "challenge-to-a-responder",
        |scene| said(scene, &[challenge()]),
        "closed",
    ),
    same(
        12,
        "challenge-on-an-open-link",
        |scene| when_open(scene, &challenge()),
        "closed",
    ),
    same(
        12,
        "authenticate-before-certs",
        |scene| said(scene, &[authenticate(3, 352)]),
        "closed",
    ),
    same(
        12,
        "authenticate-of-no-bytes",
        |scene| said(scene, &[variable(0, command::AUTHENTICATE, &[])]),
        "closed",
    ),
    same(
        12,
        "authenticate-cut-short",
        |scene| said(scene, &[variable(0, command::AUTHENTICATE, &[0, 3, 1, 96, 1])]),
        "closed",
    ),
    same(
        12,
        "authenticate-of-an-unknown-type",
        |scene| said(scene, &[authenticate(77, 352)]),
        "closed",
    ),
    same(
        12,
        "authenticate-on-an-open-link",
        |scene| when_open(scene, &authenticate(3, 352)),
        "closed",
    ),
    same(
        12,
        "create-before-netinfo",
        |scene| said(scene, &[fixed(0x8000_0001, command::CREATE_FAST, &[1; 20])]),
        "closed",
    ),
    same(
        12,
        "relay-before-netinfo",
        |scene| said(scene, &[fixed(0x8000_0001, command::RELAY, &[1; 20])]),
        "closed",
    ),
    same(
        12,
        "netinfo-with-an-address-of-wrong-length",
        |scene| netinfo(scene, &[0, 0, 0, 0, 4, 255, 1, 2, 3, 4]),
        "closed",
    ),
    same(
        12,
        "netinfo-with-too-many-addresses",
        |scene| netinfo(scene, &[0, 0, 0, 0, 4, 4, 1, 2, 3, 4, 255, 4, 4, 1, 2, 3, 4]),
        "closed",
    ),
];

fn certs(body: &[u8]) -> Vec<u8> {
    variable(0, command::CERTS, body)
}

/// All types that an initiator shows, and in none a certificate.
fn no_certificates() -> Vec<u8> {
    let mut body = vec![5];
    for kind in [2, 3, 4, 6, 7] {
        body.extend_from_slice(&[kind, 0, 8]);
        body.extend_from_slice(&[kind; 8]);
    }
    body
}

fn challenge() -> Vec<u8> {
    variable(0, command::AUTH_CHALLENGE, &[&[7; 32][..], &[0, 1, 0, 3]].concat())
}

fn authenticate(kind: u8, length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let body = [&[0, kind, high, low][..], &vec![9; usize::from(length)]].concat();
    variable(0, command::AUTHENTICATE, &body)
}

/// Said where the initiator's part of the handshake belongs.
fn said(scene: &Scene, cells: &[Vec<u8>]) -> Result<Answer> {
    let mut link = Link::versions(scene, scene.fresh_source())?;
    link.send(&cells.concat());
    let first = fate(&mut link);
    if first == "closed" {
        return Ok(first.into());
    }
    // Bad certificates may show only when they are needed.
    link.send(&cells::netinfo());
    let alive = link.is_alive(scene.patience);
    Ok(if alive { "open" } else { "closed" }.into())
}

fn when_open(scene: &Scene, cell: &[u8]) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    link.send(cell);
    Ok(if link.is_alive(scene.patience) {
        "ignored"
    } else {
        "closed"
    }
    .into())
}

fn netinfo(scene: &Scene, body: &[u8]) -> Result<Answer> {
    let mut link = Link::versions(scene, scene.fresh_source())?;
    link.send(&fixed(0, command::NETINFO, body));
    Ok(if link.is_alive(scene.patience) {
        "ignored"
    } else {
        "closed"
    }
    .into())
}
