//! Row 32: negotiations of padding that mean nothing, and such as ask for a machine, again and again.

use std::time::{Duration, Instant};

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
    same(
        32,
        "padding-machines-of-circuits",
        machines,
        "introduction: START OK, 7 to 9 DROP, STOP OK; rendezvous: START OK, 1 DROP; its STOP: STOP OK; \
         STOP of what has gone: nothing; of what never was: nothing; START of an unknown machine: START ERR",
    ),
    same(
        32,
        "padding-machines-started-again-and-again",
        started_again,
        "every START answered OK, no more DROP than machines have, alive",
    ),
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

/// How long nothing comes before a machine is taken to have done all that it does: its cells are 10 ms apart at most.
const QUIET: Duration = Duration::from_millis(1_500);
/// STARTs of one machine on one circuit.
const STARTS: u32 = 5_000;
const STARTS_AT_ONCE: u32 = 500;
/// Cells of one machine, at most.
const DROPS_MAX: u32 = 9;

const STOP: u8 = 1;
const START: u8 = 2;

/// PADDING_NEGOTIATE: version 0, command, machine, nothing, and how many machines this circuit has had.
fn wish(command: u8, machine: u8, counter: u32) -> Vec<u8> {
    [&[0, command, machine, 0][..], &counter.to_be_bytes()].concat()
}

/// One PADDING_NEGOTIATED in words; nothing where it is of another form or for another machine.
fn agreed(data: &[u8], machine: u8, counter: u32) -> Option<&'static str> {
    let [0, command, response, of, rest @ ..] = data else {
        return None;
    };
    if *of != machine || rest != counter.to_be_bytes() {
        return None;
    }
    match (*command, *response) {
        (START, 1) => Some("START OK"),
        (START, 2) => Some("START ERR"),
        (STOP, 1) => Some("STOP OK"),
        (STOP, 2) => Some("STOP ERR"),
        _ => None,
    }
}

/// What comes of one wish, until nothing comes any more.
fn comes_of(talk: &mut Talk, command: u8, machine: u8, counter: u32) -> String {
    talk.say(relay::PADDING_NEGOTIATE, 0, &wish(command, machine, counter));
    let (mut words, mut drops) = (Vec::new(), 0_u32);
    let tell_drops = |words: &mut Vec<String>, drops: &mut u32| {
        match std::mem::take(drops) {
            0 => {}
            7..=DROPS_MAX => words.push("7 to 9 DROP".to_owned()),
            other => words.push(format!("{other} DROP")),
        };
    };
    while let Some(said) = talk.hear(QUIET) {
        match &said {
            Said::Message {
                command: relay::DROP, ..
            } => drops += 1,
            Said::Message {
                command: relay::PADDING_NEGOTIATED,
                data,
                ..
            } => {
                tell_drops(&mut words, &mut drops);
                words.push(agreed(data, machine, counter).map_or_else(|| format!("{data:?}"), str::to_owned));
            }
            _ => {
                tell_drops(&mut words, &mut drops);
                words.push(said.words());
                break;
            }
        }
    }
    tell_drops(&mut words, &mut drops);
    match words.as_slice() {
        [] => "nothing".to_owned(),
        words => words.join(", "),
    }
}

/// Both machines as C tor's clients ask for them, on the second hop, and what is no machine.
fn machines(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let words = [
        ("introduction", START, 0, 1),
        ("rendezvous", START, 1, 2),
        ("its STOP", STOP, 1, 2),
        ("STOP of what has gone", STOP, 0, 1),
        ("of what never was", STOP, 0, 9),
        ("START of an unknown machine", START, 7, 3),
    ]
    .map(|(what, command, machine, counter)| format!("{what}: {}", comes_of(&mut talk, command, machine, counter)));
    let after = talk.verdict();
    let after = if after == "ignored" {
        String::new()
    } else {
        format!("; afterwards: {after}")
    };
    Ok(format!("{}{after}", words.join("; ")).into())
}

/// The same machine thousands of times without a STOP: what one before has had must not be kept (TROVE-2020-004), and who
/// asks gets no more cells than each machine has.
fn started_again(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    let began = Instant::now();
    let (mut sent, mut agreed_to, mut ended, mut drops) = (0, 0, 0, 0_u32);
    loop {
        // No more than what may wait on a circuit whose client reads slowly: both relays end it then.
        if sent == agreed_to && sent < STARTS {
            let cells: Vec<u8> = (sent + 1..=sent + STARTS_AT_ONCE)
                .flat_map(|counter| talk.sealed(command::RELAY, relay::PADDING_NEGOTIATE, 0, &wish(START, 0, counter)))
                .collect();
            talk.link.send_much(&cells);
            sent += STARTS_AT_ONCE;
        }
        let quiet = if agreed_to == STARTS { QUIET } else { scene.patience };
        let Some(said) = talk.hear(quiet) else { break };
        match &said {
            Said::Message {
                command: relay::DROP, ..
            } => drops += 1,
            Said::Message {
                command: relay::PADDING_NEGOTIATED,
                data,
                ..
            } => match data.as_slice() {
                [0, START, 1, 0, ..] => agreed_to += 1,
                [0, STOP, 1, 0, ..] => ended += 1,
                other => return Ok(Answer::with(format!("{other:?}"), format!("after {agreed_to}"))),
            },
            _ => return Ok(Answer::with(said.words(), format!("after {agreed_to}"))),
        }
    }
    let said = match (agreed_to, drops) {
        (STARTS, 1..) if drops <= DROPS_MAX * STARTS => "every START answered OK, no more DROP than machines have",
        _ => "other figures",
    };
    let alive = if talk.verdict() == "ignored" { "alive" } else { "dead" };
    let figures = format!(
        "{agreed_to} of {STARTS} agreed to, {drops} DROP, {ended} ends told, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(Answer::with(format!("{said}, {alive}"), figures))
}
