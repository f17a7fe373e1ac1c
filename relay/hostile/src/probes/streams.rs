//! Rows 21, 22 and 23: streams that are not there any more, that never were, and BEGIN in every wrong form.

use anyhow::Result;

use super::{all_alike, one_hop, two_hops};
use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{DATA_BYTES_MAX, relay};
use crate::scene::Scene;
use crate::talk::{How, Talk};

pub(super) const PROBES: &[Probe] = &[
    same(21, "data-and-sendme-of-unknown-streams", unknown_streams, "ignored"),
    same(21, "late-cells-of-an-ended-stream", late, "ignored"),
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
