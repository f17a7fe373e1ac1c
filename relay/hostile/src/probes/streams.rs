//! Rows 21, 22 and 23: streams that are not there any more, that never were, and BEGIN in every wrong form.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{all_alike, one_hop, two_hops};
use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{DATA_BYTES_MAX, command, relay};
use crate::scene::Scene;
use crate::talk::{How, Said, Talk};

/// Streams that are begun and ended in one breath: no more than a circuit's allowance where each asks for a name.
const HALF_OPEN: u16 = 250;
/// Of those, such as may be answered before their END is read.
const OVERTAKEN_MAX: usize = 25;
/// And where each is a directory stream, of which a circuit has any number.
const HALF_OPEN_DIRECTORY: u16 = 5_000;

pub(super) const PROBES: &[Probe] = &[
    same(21, "data-and-sendme-of-unknown-streams", unknown_streams, "ignored"),
    same(21, "late-cells-of-an-ended-stream", late, "ignored"),
    // Late DATA counts in the circuit's window like any other: hence a SENDME for each hundred.
    same(
        21,
        "ended-while-its-name-is-looked-up",
        ended_while_looked_up,
        "SENDME, SENDME",
    ),
    same(
        21,
        "half-open-streams-in-great-number",
        in_great_number,
        "a SENDME for each hundred DATA, else ignored",
    ),
    differs(
        21,
        "end-without-a-reason",
        |scene| one_hop(scene, How::Ntor, |talk| talk.say(relay::END, 9, &[])),
        "DESTROY(PROTOCOL)",
        "ignored",
        "an END without a reason means MISC (tor-spec, \"Closing streams\"), and one for a stream that has gone is late and not wrong",
    ),
    same(22, "begin-malformed", malformed, "END(TORPROTOCOL)"),
    same(
        22,
        "begin-of-stream-0",
        |scene| two_hops(scene, How::Ntor, |talk| talk.say(relay::BEGIN, 0, b"198.18.0.1:80\0")),
        "ignored",
    ),
    same(22, "begin-of-a-stream-in-use", in_use, "ignored"),
    same(
        22,
        "begin-dir-of-stream-0",
        |scene| one_hop(scene, How::Ntor, |talk| talk.say(relay::BEGIN_DIR, 0, &[])),
        "ignored",
    ),
    same(23, "begin-of-a-client-one-hop-away", single_hop, "END(TORPROTOCOL)"),
];

fn unknown_streams(scene: &Scene) -> Result<Answer> {
    one_hop(scene, How::Ntor, |talk| {
        talk.say(relay::DATA, 9, &[1; 100]);
        talk.say(relay::SENDME, 9, &[]);
        talk.say(relay::END, 9, &[6]);
    })
}

fn late(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    for stream in 1..=20 {
        talk.open_directory(stream)?;
        talk.say(relay::END, stream, &[6]);
        talk.say(relay::DATA, stream, &[1; 100]);
        talk.say(relay::END, stream, &[6]);
        talk.say(relay::SENDME, stream, &[]);
    }
    Ok(talk.verdict().into())
}

/// A BEGIN whose name takes its time, an END at once, and late cells; then the answer comes for streams that have gone.
fn ended_while_looked_up(scene: &Scene) -> Result<Answer> {
    let names = scene.names.as_ref().context("the target asks no name server of ours")?;
    let name = format!("slow.{:08x}.10-0-0-1.hostile.test", rand::random::<u32>());
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let mut cells = Vec::new();
    for stream in 1..=HALF_OPEN {
        let begin = format!("{name}:80\0");
        cells.extend(talk.sealed(command::RELAY, relay::BEGIN, stream, begin.as_bytes()));
        for (late, data) in [
            (relay::END, &[6][..]),
            (relay::DATA, &[1; 100]),
            (relay::SENDME, &[]),
            (relay::END, &[6]),
        ] {
            cells.extend(talk.sealed(command::RELAY, late, stream, data));
        }
    }
    talk.link.send_much(&cells);
    let end = Instant::now() + scene.patience;
    while names.asked(&name) == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The answers to both questions.
    std::thread::sleep(Duration::from_millis(900));
    let verdict = talk.verdict();
    // Where a busy machine lets the answer overtake a stream's END, its END is right.
    let (answered, others): (Vec<&str>, Vec<&str>) = verdict.split(", ").partition(|word| *word == "END(EXITPOLICY)");
    let said = match answered.len() {
        0..=OVERTAKEN_MAX => others.join(", "),
        _ => verdict.clone(),
    };
    let figures = format!(
        "{HALF_OPEN} streams, {} questions, {} answered before their END",
        names.asked(&name),
        answered.len()
    );
    Ok(Answer::with(said, figures))
}

/// So many records of streams that have ended would be a queue that nobody bounds.
fn in_great_number(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    let began = Instant::now();
    let (mut connected, mut acknowledged) = (0_u16, 0_u16);
    for hundred in 0..HALF_OPEN_DIRECTORY / 100 {
        let mut cells = Vec::new();
        for number in 1..=100 {
            let stream = hundred * 100 + number;
            cells.extend(talk.sealed(command::RELAY, relay::BEGIN_DIR, stream, &[]));
            for (late, data) in [(relay::END, &[6][..]), (relay::DATA, &[1; 100]), (relay::SENDME, &[])] {
                cells.extend(talk.sealed(command::RELAY, late, stream, data));
            }
        }
        talk.link.send_much(&cells);
        // C tor says CONNECTED before it reads the END, ours after: nothing.
        while acknowledged <= hundred {
            let said = talk.hear(scene.patience);
            match said {
                Some(Said::Message {
                    command: relay::CONNECTED,
                    ..
                }) => connected += 1,
                Some(Said::Message {
                    command: relay::SENDME,
                    stream: 0,
                    ..
                }) => acknowledged += 1,
                other => {
                    let words = other.map_or_else(|| "silent".to_owned(), |said| said.words());
                    return Ok(Answer::with(
                        words,
                        format!("after {connected} CONNECTED, {acknowledged} SENDME"),
                    ));
                }
            }
        }
    }
    let figures = format!(
        "{HALF_OPEN_DIRECTORY} streams, {connected} CONNECTED, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    // The last CONNECTEDs may still be under way.
    let after = match talk.verdict() {
        after if after.split(", ").all(|word| word == "CONNECTED") => "ignored".to_owned(),
        after => after,
    };
    Ok(Answer::with(
        format!("a SENDME for each hundred DATA, else {after}"),
        figures,
    ))
}

fn malformed(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let long = [b'a'; DATA_BYTES_MAX];
    let bodies: [(&str, &[u8]); 7] = [
        ("no NUL", b"198.18.0.1:80"),
        ("no colon", b"198.18.0.1\0"),
        ("port 0", b"198.18.0.1:0\0"),
        ("port 99999", b"198.18.0.1:99999\0"),
        ("empty", b""),
        ("NUL alone", b"\0"),
        ("498 bytes", &long),
    ];
    let mut cases = Vec::new();
    for (stream, (what, body)) in (1..).zip(bodies) {
        talk.say(relay::BEGIN, stream, body);
        cases.push((what.to_owned(), talk.answer(stream)));
    }
    let after = talk.verdict();
    if after != "ignored" {
        cases.push(("afterwards".to_owned(), after));
    }
    Ok(all_alike(cases))
}

fn in_use(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.open_directory(5)?;
    talk.say(relay::BEGIN_DIR, 5, &[]);
    talk.say(relay::BEGIN, 5, b"198.18.0.1:80\0");
    Ok(talk.verdict().into())
}

fn single_hop(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.say(relay::BEGIN, 1, format!("{}:80\0", scene.public).as_bytes());
    let answer = talk.answer(1);
    let after = talk.verdict();
    Ok(if after == "ignored" {
        answer
    } else {
        format!("{answer}, {after}")
    }
    .into())
}
