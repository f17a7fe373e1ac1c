//! Row 26: RESOLVE in odd forms, and so many of them that a name server would suffer.

use std::time::Instant;

use anyhow::{Context, Result};

use super::all_alike;
use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{command, relay};
use crate::scene::Scene;
use crate::talk::{How, Talk};

/// RESOLVEs of one name at the same time; no more than a circuit's allowance of streams.
const SAME_NAME: u16 = 250;

pub(super) const PROBES: &[Probe] = &[
    same(26, "resolve-private-in-reverse", private, "RESOLVED(error)"),
    differs(
        26,
        "resolve-an-address",
        |scene| answers(scene, &[b"10.0.0.1\0", b"127.0.0.1\0", b"198.51.100.5\0"]),
        "RESOLVED(error)",
        "RESOLVED",
        "an address is its own answer: nobody is asked, and nobody learns anything",
    ),
    same(26, "resolve-malformed", malformed, "RESOLVED(error)"),
    same(
        26,
        "resolve-the-same-name-at-once",
        same_name,
        "no more than 2 questions asked",
    ),
];

fn answers(scene: &Scene, names: &[&[u8]]) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let mut cases = Vec::new();
    for (stream, name) in (1..).zip(names) {
        talk.say(relay::RESOLVE, stream, name);
        cases.push((
            String::from_utf8_lossy(name).escape_debug().to_string(),
            talk.answer(stream),
        ));
    }
    let after = talk.verdict();
    if after != "ignored" {
        cases.push(("afterwards".to_owned(), after));
    }
    Ok(all_alike(cases))
}

fn private(scene: &Scene) -> Result<Answer> {
    answers(
        scene,
        &[
            b"1.0.168.192.in-addr.arpa\0",
            b"1.0.0.127.in-addr.arpa\0",
            b"1.0.0.10.in-addr.arpa\0",
        ],
    )
}

fn malformed(scene: &Scene) -> Result<Answer> {
    answers(
        scene,
        &[
            b"999.0.0.127.in-addr.arpa\0",
            b"x.in-addr.arpa\0",
            b"with space.hostile.test\0",
            b"semi;colon.hostile.test\0",
            b"nobody.invalid\0",
        ],
    )
}

/// Many RESOLVEs of one name whose answer takes its time.
fn same_name(scene: &Scene) -> Result<Answer> {
    let names = scene.names.as_ref().context("the target asks no name server of ours")?;
    let name = format!("slow.{:08x}.198-51-100-7.hostile.test", rand::random::<u32>());
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let mut cells = Vec::new();
    for stream in 1..=SAME_NAME {
        cells.extend(talk.sealed(command::RELAY, relay::RESOLVE, stream, format!("{name}\0").as_bytes()));
    }
    talk.link.send_much(&cells);
    let end = Instant::now() + 2 * scene.patience;
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < SAME_NAME {
        match talk.hear(end.saturating_duration_since(Instant::now())) {
            Some(said) if said.words() == "RESOLVED" => answered += 1,
            Some(_) => refused += 1,
            None => break,
        }
    }
    let asked = names.asked(&name);
    let figures = format!("{SAME_NAME} RESOLVEs, {answered} answered, {refused} refused, {asked} questions");
    let said = match asked {
        _ if answered < SAME_NAME / 2 => "most were not answered",
        1..=2 => "no more than 2 questions asked",
        _ => "too many questions asked",
    };
    Ok(Answer::with(said, figures))
}
