//! Rows 2, 7, 8, 13 and 14: what makes circuits, and cells of links that are not what they should be.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{command, destroy_reason, fixed, variable};
use crate::link::{Heard, Link};
use crate::scene::Scene;
use crate::talk::{How, Talk, create2};

/// A circuit id of the half that is ours.
const OURS: u32 = 0x8000_0777;

pub(super) const PROBES: &[Probe] = &[
    same(
        7,
        "create-tap",
        |scene| made(scene, OURS, command::CREATE, &[1; 186]),
        "DESTROY(PROTOCOL)",
    ),
    same(
        7,
        "create2-of-type-tap",
        |scene| made(scene, OURS, command::CREATE2, &[0, 0, 0, 186]),
        "DESTROY(PROTOCOL)",
    ),
    same(
        7,
        "create2-of-an-unknown-type",
        |scene| made(scene, OURS, command::CREATE2, &[0, 9, 0, 1, 1]),
        "DESTROY(PROTOCOL)",
    ),
    same(
        7,
        "create2-longer-than-its-cell",
        |scene| made(scene, OURS, command::CREATE2, &[0, 2, 255, 255]),
        "DESTROY(PROTOCOL)",
    ),
    same(
        7,
        "create2-with-half-an-onionskin",
        |scene| made(scene, OURS, command::CREATE2, &[0, 2, 0, 40]),
        "DESTROY(PROTOCOL)",
    ),
    differs(
        7,
        "create2-for-another-relay",
        for_another,
        "CREATED2",
        "DESTROY(PROTOCOL)",
        "C tor answers with keys that nobody has; ours says no at once, as the client would find out anyway",
    ),
    same(7, "create2-with-a-key-of-small-order", small_order, "DESTROY(PROTOCOL)"),
    same(
        8,
        "create-fast",
        |scene| made(scene, OURS, command::CREATE_FAST, &[1; 20]),
        "CREATED_FAST",
    ),
    same(13, "unknown-cells", unknown_cells, "ignored"),
    same(13, "unknown-cells-of-65535-bytes", giant_cells, "ignored"),
    same(13, "cells-of-unknown-circuits", unknown_circuits, "ignored"),
    same(
        14,
        "circuit-id-zero",
        |scene| made(scene, 0, command::CREATE_FAST, &[1; 20]),
        "ignored",
    ),
    same(
        14,
        "circuit-id-of-the-wrong-half",
        |scene| made(scene, 7, command::CREATE_FAST, &[1; 20]),
        "DESTROY(PROTOCOL)",
    ),
    same(14, "circuit-id-in-use", in_use, "ignored"),
    same(
        14,
        "relay-cell-before-the-handshake-is-answered",
        before_answered,
        "DESTROY(PROTOCOL)",
    ),
    same(
        14,
        "created-that-nobody-asked-for",
        created_unasked,
        "DESTROY(PROTOCOL)",
    ),
];

/// What comes of one cell that makes a circuit.
fn made(scene: &Scene, circuit: u32, kind: u8, body: &[u8]) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    link.send(&fixed(circuit, kind, body));
    answered(&mut link, scene, circuit)
}

/// The first cell on a circuit; `ignored` if there is none and the link lives.
fn answered(link: &mut Link, scene: &Scene, circuit: u32) -> Result<Answer> {
    let asked = link.fresh_circuit();
    link.send(&fixed(asked, command::CREATE_FAST, &[7; 20]));
    let end = Instant::now() + scene.patience;
    loop {
        match link.next(end.saturating_duration_since(Instant::now())) {
            Heard::Cell(cell) if cell.circuit == asked => {
                // Handshakes of public keys are answered later than those of none.
                let soon = std::time::Duration::from_millis(700);
                return Ok(match link.next(soon) {
                    Heard::Cell(cell) if cell.circuit == circuit => words(cell.command, &cell.body).into(),
                    _ => "ignored".into(),
                });
            }
            Heard::Cell(cell) if cell.circuit == circuit => return Ok(words(cell.command, &cell.body).into()),
            Heard::Cell(_) => {}
            Heard::Closed => return Ok("closed".into()),
            Heard::Silence => bail!("neither an answer nor a sign of life"),
        }
    }
}

fn words(kind: u8, body: &[u8]) -> String {
    match kind {
        command::DESTROY => format!("DESTROY({})", destroy_reason(body.first().copied().unwrap_or_default())),
        command::CREATED_FAST => "CREATED_FAST".to_owned(),
        command::CREATED2 => "CREATED2".to_owned(),
        other => format!("cell {other}"),
    }
}

/// An onionskin for keys that are not the relay's.
fn for_another(scene: &Scene) -> Result<Answer> {
    let mut other = scene.target.clone();
    other.onion_key = scene.behind.onion_key;
    let (_, body) = create2(&other, How::Ntor)?;
    made(scene, OURS, command::CREATE2, &body)
}

/// A client key of all zeros: the secret that is shared would be all zeros too.
fn small_order(scene: &Scene) -> Result<Answer> {
    let body = [
        &[0, 2, 0, 84][..],
        &scene.target.rsa_id,
        &scene.target.onion_key,
        &[0; 32],
    ];
    made(scene, OURS, command::CREATE2, &body.concat())
}

fn alive(link: &mut Link, scene: &Scene) -> Answer {
    if link.is_alive(scene.patience) {
        "ignored"
    } else {
        "closed"
    }
    .into()
}

fn unknown_cells(scene: &Scene) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    for kind in [13, 77, 127] {
        link.send(&fixed(0, kind, &[9; 509]));
        link.send(&fixed(OURS, kind, &[9; 509]));
    }
    for kind in [133, 200, 255] {
        link.send(&variable(0, kind, &[9; 3]));
        link.send(&variable(OURS, kind, &[]));
    }
    link.send(&variable(0, command::AUTHORIZE, &[1; 10]));
    link.send(&variable(0, command::VPADDING, &[1; 10]));
    Ok(alive(&mut link, scene))
}

fn giant_cells(scene: &Scene) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    let cell = variable(0, 200, &[9; 65_535]);
    for _ in 0..100 {
        link.send_much(&cell);
    }
    Ok(alive(&mut link, scene))
}

fn unknown_circuits(scene: &Scene) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    for kind in [
        command::RELAY,
        command::RELAY_EARLY,
        command::DESTROY,
        command::CREATED2,
        command::CREATED_FAST,
    ] {
        link.send(&fixed(OURS, kind, &[1; 509]));
        link.send(&fixed(0, kind, &[1; 509]));
    }
    Ok(alive(&mut link, scene))
}

fn in_use(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    let circuit = talk.circuit;
    talk.link.send(&fixed(circuit, command::CREATE_FAST, &[1; 20]));
    Ok(talk.verdict().into())
}

fn before_answered(scene: &Scene) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    let (_, body) = create2(&scene.target, How::Ntor)?;
    let both = [
        fixed(OURS, command::CREATE2, &body),
        fixed(OURS, command::RELAY, &[0; 509]),
    ];
    link.send(&both.concat());
    answered(&mut link, scene, OURS)
}

fn created_unasked(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    let circuit = talk.circuit;
    talk.link.send(&fixed(circuit, command::CREATED2, &[0, 64]));
    Ok(talk.verdict().into())
}
