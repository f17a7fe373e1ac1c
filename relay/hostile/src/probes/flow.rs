//! Rows 16 and 17: acknowledgements that are forged, and windows that are not kept.

use std::time::Instant;

use anyhow::{Result, bail};

use super::one_hop;
use crate::catalog::{Answer, Probe, same};
use crate::cells::{DATA_BYTES_MAX, command, relay};
use crate::scene::Scene;
use crate::talk::{How, Said, Talk};

/// Cells that one acknowledgement of a circuit covers.
const CELLS_A_SENDME: usize = 100;

pub(super) const PROBES: &[Probe] = &[
    same(
        16,
        "sendme-without-a-proof",
        |scene| sendme(scene, &[]),
        "DESTROY(PROTOCOL)",
    ),
    same(
        16,
        "sendme-of-nothing-sent",
        |scene| sendme(scene, &[&[1, 0, 20][..], &[9; 20]].concat()),
        "DESTROY(PROTOCOL)",
    ),
    same(
        16,
        "sendme-of-version-9",
        |scene| sendme(scene, &[&[9, 0, 20][..], &[9; 20]].concat()),
        "DESTROY(PROTOCOL)",
    ),
    same(
        16,
        "sendme-cut-short",
        |scene| sendme(scene, &[1, 0, 20, 5]),
        "DESTROY(PROTOCOL)",
    ),
    same(
        16,
        "sendme-of-what-was-sent",
        |scene| after_a_hundred(scene, 0),
        "ignored",
    ),
    same(
        16,
        "sendme-with-a-forged-digest",
        |scene| after_a_hundred(scene, 1),
        "DESTROY(PROTOCOL)",
    ),
    same(
        16,
        "sendme-of-a-stream-beyond-its-window",
        stream_sendme,
        "DESTROY(PROTOCOL)",
    ),
    same(
        16,
        "sendme-of-an-unknown-stream",
        |scene| one_hop(scene, How::Ntor, |talk| talk.say(relay::SENDME, 9, &[])),
        "ignored",
    ),
    same(17, "data-beyond-the-window", beyond_the_window, "DESTROY(DESTROYED)"),
    same(
        17,
        "xon-and-xoff-of-unknown-streams",
        |scene| flow_messages(scene, How::Congestion),
        "ignored",
    ),
    same(
        17,
        "xon-and-xoff-without-congestion-control",
        |scene| flow_messages(scene, How::Ntor),
        "ignored",
    ),
    same(17, "xoff-flood-on-a-directory-stream", xoff_flood, "ignored"),
];

fn sendme(scene: &Scene, body: &[u8]) -> Result<Answer> {
    one_hop(scene, How::Ntor, |talk| talk.say(relay::SENDME, 0, body))
}

/// Fetches until a hundred cells of data came, then acknowledges them, `flip` spoiling the proof.
fn after_a_hundred(scene: &Scene, flip: u8) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    let mut heard = 0;
    let end = Instant::now() + 2 * scene.patience;
    for stream in 1.. {
        talk.open_directory(stream)?;
        talk.say(relay::DATA, stream, b"GET /tor/server/all HTTP/1.0\r\n\r\n");
        loop {
            match talk.hear(end.saturating_duration_since(Instant::now())) {
                Some(Said::Message {
                    command: relay::DATA, ..
                }) => heard += 1,
                Some(Said::Message {
                    command: relay::END, ..
                }) => break,
                Some(Said::Message { .. }) => {}
                other => bail!("{other:?} where data should come, after {heard} cells"),
            }
            if heard == CELLS_A_SENDME {
                let mut proof = talk.heard_digest;
                if let Some(byte) = proof.last_mut() {
                    *byte ^= flip;
                }
                talk.say(relay::SENDME, 0, &[&[1, 0, 20][..], &proof].concat());
                return Ok(without_the_rest(&talk.verdict()).into());
            }
        }
    }
    bail!("no stream left")
}

/// What still came of the answer that was under way says nothing.
fn without_the_rest(verdict: &str) -> String {
    let rest: Vec<&str> = verdict
        .split(", ")
        .filter(|said| !matches!(*said, "DATA" | "END(DONE)"))
        .collect();
    if rest.is_empty() {
        "ignored".to_owned()
    } else {
        rest.join(", ")
    }
}

fn stream_sendme(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.open_directory(1)?;
    talk.say(relay::SENDME, 1, &[]);
    Ok(talk.verdict().into())
}

/// More than a stream's window to a name that is never answered: nothing can be passed on, so nothing may be acknowledged.
fn beyond_the_window(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let name = format!("mute.{:08x}.hostile.test:80\0", rand::random::<u32>());
    talk.say(relay::BEGIN, 1, name.as_bytes());
    let mut cells = Vec::new();
    for _ in 0..1_101 {
        cells.extend(talk.sealed(command::RELAY, relay::DATA, 1, &[7; DATA_BYTES_MAX]));
    }
    talk.link.send_much(&cells);
    let verdict = talk.verdict();
    let rest: Vec<&str> = verdict.split(", ").filter(|said| *said != "SENDME").collect();
    Ok(rest.join(", ").into())
}

fn flow_messages(scene: &Scene, how: How) -> Result<Answer> {
    one_hop(scene, how, |talk| {
        for stream in [0, 9] {
            talk.say(relay::XOFF, stream, &[0]);
            talk.say(relay::XON, stream, &[0, 0, 0, 0, 1]);
            talk.say(relay::XON, stream, &[]);
        }
    })
}

fn xoff_flood(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Congestion)?;
    talk.open_directory(1)?;
    let mut cells = Vec::new();
    for _ in 0..1_000 {
        cells.extend(talk.sealed(command::RELAY, relay::XOFF, 1, &[0]));
    }
    talk.link.send_much(&cells);
    Ok(talk.verdict().into())
}
