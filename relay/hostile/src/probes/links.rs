//! Rows 9 and 10: those who connect and do not go on, and what is no Tor at all.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::catalog::{Answer, Ours, Pace, Probe, Row, same};
use crate::cells::variable_narrow;
use crate::link::{Heard, Link};
use crate::scene::Scene;

/// Beyond this nobody is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long silence must last to be called so.
const SILENCE: Duration = Duration::from_millis(1_500);

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "half-open-handshakes",
        row: Row(9),
        play: half_open,
        c_tor: "closed at 300 s",
        ours: Ours::Differs {
            answers: "all closed within 60 s",
            why: "one deadline from accept to open, a fifth of C tor's",
        },
        pace: Pace::OursSlow,
    },
    same(10, "plain-http", plain_http, "closed"),
    same(10, "garbage-after-tls", garbage_after_tls, "closed or silent"),
    same(
        10,
        "giant-cell-before-versions",
        giant_before_versions,
        "closed or silent",
    ),
];

/// Connected and nothing; one byte of a ClientHello; TLS without VERSIONS; VERSIONS without NETINFO.
fn half_open(scene: &Scene) -> Result<Answer> {
    let source = scene.fresh_source();
    let silent = scene.connect(source)?;
    let mut one_byte = scene.connect(source)?;
    one_byte.write_all(&[0x16])?;
    let tls = Link::tls(scene, scene.fresh_source())?;
    let versions = Link::versions(scene, scene.fresh_source())?;
    let began = Instant::now();
    let end = began + DEADLINE + Duration::from_secs(8);
    let mut closed = Vec::new();
    for (what, mut socket) in [("TCP", silent), ("one byte", one_byte)] {
        closed.push((what, ended(&mut socket, end).then(|| began.elapsed())));
    }
    for (what, mut link) in [("TLS", tls), ("VERSIONS", versions)] {
        let over = loop {
            match link.next(end.saturating_duration_since(Instant::now())) {
                Heard::Cell(_) => {}
                Heard::Closed => break Some(began.elapsed()),
                Heard::Silence => break None,
            }
        };
        closed.push((what, over));
    }
    let figures: Vec<String> = closed
        .iter()
        .map(|(what, after)| {
            format!(
                "{what} {}",
                after.map_or_else(|| "open".into(), |after| format!("{:.0} s", after.as_secs_f64()))
            )
        })
        .collect();
    let in_time = closed
        .iter()
        .all(|(_, after)| after.is_some_and(|after| after <= DEADLINE + Duration::from_secs(5)));
    let said = if in_time { "all closed within 60 s" } else { "left open" };
    Ok(Answer::with(said, figures.join(", ")))
}

/// Whether the other side ends this before `end`.
fn ended(socket: &mut TcpStream, end: Instant) -> bool {
    let mut buffer = [0; 1_024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

fn plain_http(scene: &Scene) -> Result<Answer> {
    let mut socket = scene.connect(scene.fresh_source())?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")?;
    let closed = ended(&mut socket, Instant::now() + scene.patience);
    Ok(if closed { "closed" } else { "silent" }.into())
}

/// `closed`, `silent` or what was answered.
pub(super) fn fate(link: &mut Link) -> String {
    match link.next(SILENCE) {
        Heard::Closed => "closed".to_owned(),
        Heard::Silence => "silent".to_owned(),
        Heard::Cell(cell) => format!("cell {}", cell.command),
    }
}

fn garbage_after_tls(scene: &Scene) -> Result<Answer> {
    let mut link = Link::tls(scene, scene.fresh_source())?;
    link.send(&[0x55; 2_000]);
    let said = fate(&mut link);
    ensure!(
        Link::open(scene, scene.fresh_source())?.is_alive(scene.patience),
        "others are not served"
    );
    Ok(said.into())
}

fn giant_before_versions(scene: &Scene) -> Result<Answer> {
    let mut link = Link::tls(scene, scene.fresh_source())?;
    link.send_much(&variable_narrow(0, 200, &[9; 65_535]));
    Ok(fate(&mut link).into())
}
