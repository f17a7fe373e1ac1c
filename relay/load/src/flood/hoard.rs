//! Cells for a relay behind that never reads: they pile up in the relay under test, circuit by circuit.
//!
//! We are that relay too. It answers circuit handshakes and then turns deaf.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, write_fixed, write_header};
use relay_wire::relay_cells::RelayCommand;
use serde::Serialize;

use super::Flood;
use super::crowd::Crowd;
use crate::carry::{NTOR_REPLY_BYTES, extend};
use crate::handshake::Part;
use crate::hop::{Begun, Crypto, Keys};
use crate::target::Target;

/// So many circuits are made before the relay behind turns deaf, at most so long before the end of the time.
const MAKING_SHARE: f64 = 0.25;

#[derive(Serialize)]
struct Ready {
    links: usize,
}

enum Stage {
    Begun(Begun),
    Extending(Keys),
    Filling(u32),
}

struct Hoard {
    circuits: HashMap<(usize, u32), Stage>,
    next: u32,
    noise: [u8; BODY_BYTES],
}

pub(super) fn run(crowd: &mut Crowd, target: &Target, flood: &Flood) -> Result<()> {
    let links = crowd.connect_all(target, flood.places(), Part::Client)?;
    let mut noise = [0; BODY_BYTES];
    SmallRng::seed_from_u64(7).fill(&mut noise[..]);
    let mut hoard = Hoard {
        circuits: HashMap::new(),
        next: 0,
        noise,
    };
    crate::serve(&Ready { links: links.len() }, || {
        let pace = flood.pace();
        for link in &links {
            for _ in 0..flood.circuits {
                hoard.create(crowd, target, *link)?;
            }
        }
        while !pace.over() {
            let extended = hoard.circuits.values().all(|stage| matches!(stage, Stage::Filling(_)));
            if extended || pace.share() > MAKING_SHARE {
                let behind = crowd
                    .members()
                    .filter(|(_, member)| member.link.part() == Part::Responder);
                behind.for_each(|(_, member)| member.deaf = true);
                hoard.fill(crowd, flood.cells);
            }
            crowd.turn(Duration::from_millis(5))?;
            hoard.take_cells(crowd, &links)?;
        }
        Ok(crowd.sum(&pace))
    })
}

impl Hoard {
    fn create(&mut self, crowd: &mut Crowd, target: &Target, link: usize) -> Result<()> {
        self.next += 1;
        let id = 0x8000_0000 | self.next;
        let (begun, body) = Begun::new(&target.hop(), Crypto::Tor1);
        if let Some(member) = crowd.get(link) {
            write_fixed(&mut member.link.out, CircIdWidth::Four, id, Command::CREATE2, &body);
            self.circuits.insert((link, id), Stage::Begun(begun));
            crowd.done.attempts += 1;
        }
        Ok(())
    }

    /// Noise needs no key: the relay cannot tell it from what a client wraps.
    fn fill(&mut self, crowd: &mut Crowd, cells: u32) {
        let mut sent = 0;
        for ((link, id), stage) in &mut self.circuits {
            let (Stage::Filling(done), Some(member)) = (stage, crowd.get(*link)) else {
                continue;
            };
            while *done < cells && member.link.has_room() {
                write_header(&mut member.link.out, CircIdWidth::Four, *id, Command::RELAY);
                member.link.out.extend_from_slice(&self.noise);
                *done += 1;
                sent += 1;
            }
        }
        crowd.done.cells += sent;
    }

    fn take_cells(&mut self, crowd: &mut Crowd, links: &[usize]) -> Result<()> {
        let behind = (crowd.behind().address, crowd.behind().rsa, crowd.behind().ed25519);
        let (mut granted, mut refused) = (0, Vec::new());
        for (number, member) in crowd.members() {
            if member.deaf {
                continue;
            }
            let near = links.contains(&number);
            let mut answers = Vec::new();
            while let Some((id, command, body)) = member.link.next_cell() {
                let key = (number, id);
                match (command, near) {
                    (Command::CREATED2, true) => {
                        let Some(Stage::Begun(begun)) = self.circuits.remove(&key) else {
                            continue;
                        };
                        let mut keys = begun.end(body)?;
                        let message = extend(behind, id as usize & 0xffff)?;
                        let cell = keys.originate(Command::RELAY_EARLY, RelayCommand::EXTEND2, &message)?;
                        write_fixed(&mut answers, CircIdWidth::Four, id, Command::RELAY_EARLY, &cell);
                        self.circuits.insert(key, Stage::Extending(keys));
                    }
                    (Command::RELAY, true) => {
                        let body: &mut [u8; BODY_BYTES] = body.try_into().context("a short cell")?;
                        if let Some(Stage::Extending(keys)) = self.circuits.get_mut(&key)
                            && keys.peel(body)
                        {
                            granted += 1;
                            self.circuits.insert(key, Stage::Filling(0));
                        }
                    }
                    (Command::DESTROY, true) => {
                        self.circuits.remove(&key);
                        refused.push(body.first().copied().unwrap_or_default());
                    }
                    (Command::CREATE2, false) => {
                        let mut reply = u16::try_from(NTOR_REPLY_BYTES)?.to_be_bytes().to_vec();
                        reply.resize(2 + NTOR_REPLY_BYTES, 0x5A);
                        write_fixed(&mut answers, CircIdWidth::Four, id, Command::CREATED2, &reply);
                    }
                    _ => {}
                }
            }
            member.link.out.extend_from_slice(&answers);
        }
        crowd.done.granted += granted;
        for reason in refused {
            crowd.refused(reason);
        }
        Ok(())
    }
}
