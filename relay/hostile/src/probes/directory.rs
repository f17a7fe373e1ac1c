//! Row 28: requests to the directory that never end or are none.

use std::time::Instant;

use anyhow::Result;

use crate::catalog::{Answer, Probe, same};
use crate::cells::{DATA_BYTES_MAX, command, relay};
use crate::scene::Scene;
use crate::talk::{How, Said, Talk};

pub(super) const PROBES: &[Probe] = &[
    same(28, "directory-request-without-end", endless, "END(DONE)"),
    same(
        28,
        "directory-request-that-is-none",
        |scene| asked(scene, b"\x00\x01\x02nonsense\r\n\r\n"),
        "END(DONE)",
    ),
    same(
        28,
        "directory-request-for-a-huge-body",
        |scene| {
            asked(
                scene,
                b"POST /tor/hs/3/publish HTTP/1.0\r\nContent-Length: 4294967295\r\n\r\n",
            )
        },
        "END(DONE)",
    ),
];

/// The END of a stream; data before it is an answer that says no.
fn end_of(talk: &mut Talk, stream: u16, scene: &Scene) -> (String, usize) {
    let end = Instant::now() + scene.patience;
    let mut data_bytes = 0;
    loop {
        match talk.hear(end.saturating_duration_since(Instant::now())) {
            Some(Said::Message {
                command: relay::DATA,
                data,
                ..
            }) => data_bytes += data.len(),
            Some(Said::Message {
                command: relay::SENDME, ..
            }) => {}
            Some(Said::Message { stream: other, .. }) if other != stream => {}
            Some(said) => return (said.words(), data_bytes),
            None => return ("silent".to_owned(), data_bytes),
        }
    }
}

fn endless(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.open_directory(1)?;
    let mut cells = talk.sealed(command::RELAY, relay::DATA, 1, b"GET /tor/");
    for _ in 0..400 {
        cells.extend(talk.sealed(command::RELAY, relay::DATA, 1, &[b'a'; DATA_BYTES_MAX]));
    }
    talk.link.send_much(&cells);
    let (said, _) = end_of(&mut talk, 1, scene);
    Ok(Answer::with(said, "199,209 bytes of a head"))
}

fn asked(scene: &Scene, request: &[u8]) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    talk.open_directory(1)?;
    talk.say(relay::DATA, 1, request);
    let (said, data_bytes) = end_of(&mut talk, 1, scene);
    Ok(Answer::with(said, format!("{data_bytes} bytes before it")))
}
