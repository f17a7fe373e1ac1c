//! Row 32: negotiations of padding that mean nothing, again and again.

use anyhow::Result;

use crate::catalog::{Answer, Probe, same};
use crate::cells::{command, fixed, relay};
use crate::link::Link;
use crate::scene::Scene;
use crate::talk::{How, Said, Talk};

/// Negotiations on one circuit or link.
const TIMES: u32 = 10_000;

pub(super) const PROBES: &[Probe] = &[
    same(32, "padding-negotiation-of-links", of_links, "ignored"),
    same(32, "padding-negotiation-of-circuits", of_circuits, "alive"),
];

fn of_links(scene: &Scene) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    let bodies: [&[u8]; 5] = [&[], &[9; 509], &[0, 2, 0, 0, 0, 0], &[0, 2, 255, 255, 0, 1], &[0, 1]];
    let cells: Vec<u8> = bodies
        .iter()
        .flat_map(|body| fixed(0, command::PADDING_NEGOTIATE, body))
        .collect();
    for _ in 0..TIMES / 5 {
        link.send_much(&cells);
    }
    Ok(Answer::with(
        if link.is_alive(scene.patience) {
            "ignored"
        } else {
            "closed"
        },
        format!("{TIMES} times"),
    ))
}

/// A thousand different ones of the right form, and some of none.
fn of_circuits(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    let mut answers = 0;
    for round in 0..TIMES / 100 {
        let mut cells = Vec::new();
        for number in 0..100 {
            let [_, _, high, low] = (round * 100 + number).to_be_bytes();
            let garbage: [u8; 8] = [low % 3, low % 4, high % 5, low, high, low, high, low];
            let length = usize::from(low % 9);
            let body = garbage.get(..length).unwrap_or(&garbage);
            cells.extend(talk.sealed(command::RELAY, relay::PADDING_NEGOTIATE, 0, body));
        }
        talk.link.send_much(&cells);
    }
    talk.say(relay::BEGIN_DIR, 1, &[]);
    loop {
        match talk.hear(2 * scene.patience) {
            Some(Said::Message { stream: 1, .. }) => break,
            Some(Said::Message { .. }) => answers += 1,
            Some(said) => return Ok(Answer::with(said.words(), format!("after {answers} answers"))),
            None => return Ok("silent".into()),
        }
    }
    Ok(Answer::with("alive", format!("{TIMES} times, {answers} answers")))
}
