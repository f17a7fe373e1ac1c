//! Circuits without end: CREATE_FAST, which costs the relay little, and CREATE2, which costs it a handshake.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::Result;
use relay_wire::cell::{CircIdWidth, Command, write_fixed};
use serde::Serialize;

use super::crowd::Crowd;
use super::{Flood, Kind};
use crate::handshake::Part;
use crate::hop::{Begun, Crypto};
use crate::target::Target;

#[derive(Serialize)]
struct Ready {
    links: usize,
}

#[derive(Default)]
struct Circuits {
    last: u32,
    open: VecDeque<u32>,
}

pub(super) fn run(crowd: &mut Crowd, target: &Target, flood: &Flood) -> Result<()> {
    let links = crowd.connect_all(target, flood.places(), Part::Client)?;
    // The same one for all: relays do not look for repeated handshakes.
    let (command, body) = match flood.kind {
        Kind::Onionskins => (Command::CREATE2, Begun::new(&target.hop(), Crypto::Tor1).1),
        _ => (Command::CREATE_FAST, vec![7; 20]),
    };
    let mut all: HashMap<usize, Circuits> = links.iter().map(|link| (*link, Circuits::default())).collect();
    crate::serve(&Ready { links: links.len() }, || {
        let pace = flood.pace();
        let before = crowd.done.attempts;
        while !pace.over() {
            for link in &links {
                let Some(circuits) = all.get_mut(link) else { continue };
                let (most, mut tried) = (pace.leaves(crowd.done.attempts - before).min(64), 0);
                if let Some(member) = crowd.get(*link) {
                    while member.link.has_room() && tried < most {
                        circuits.last = (circuits.last + 1) & 0x7fff_ffff;
                        let id = 0x8000_0000 | circuits.last.max(1);
                        write_fixed(&mut member.link.out, CircIdWidth::Four, id, command, &body);
                        tried += 1;
                    }
                }
                crowd.done.attempts += tried;
            }
            crowd.turn(Duration::from_millis(5))?;
            for link in &links {
                if let Some(circuits) = all.get_mut(link) {
                    answers(crowd, *link, circuits, flood.circuits);
                }
            }
        }
        Ok(crowd.sum(&pace))
    })
}

/// Takes what the relay said; of the circuits that it made the oldest go when there are more than are to be kept.
fn answers(crowd: &mut Crowd, link: usize, circuits: &mut Circuits, keep: usize) {
    let (mut granted, mut refused) = (0, Vec::new());
    let Some(member) = crowd.get(link) else { return };
    while let Some((circ_id, command, body)) = member.link.next_cell() {
        match command {
            Command::CREATED_FAST | Command::CREATED2 => {
                granted += 1;
                circuits.open.push_back(circ_id);
            }
            Command::DESTROY => refused.push(body.first().copied().unwrap_or_default()),
            _ => {}
        }
    }
    while circuits.open.len() > keep
        && let Some(oldest) = circuits.open.pop_front()
    {
        write_fixed(&mut member.link.out, CircIdWidth::Four, oldest, Command::DESTROY, &[0]);
    }
    crowd.done.granted += granted;
    for reason in refused {
        crowd.refused(reason);
    }
}
