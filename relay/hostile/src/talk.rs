//! A circuit over a link of its own: what is said on it, and what comes back, in words that two relays' answers can be
//! compared by.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cells::{self, BODY_BYTES, Cell, command, fixed, relay};
use crate::link::{Heard, Link};
use crate::onion::{self, Begun, Hop};
use crate::scene::{Scene, Target};

/// Streams with which we ask whether a circuit lives have ids from here up.
const PINGS: u16 = 60_000;

/// How the first hop is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// CREATE_FAST.
    Fast,
    /// CREATE2 with ntor.
    Ntor,
    /// CREATE2 with ntor-v3 and a request for congestion control.
    Congestion,
}

/// What was heard on a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A relay message of a hop (0 is the first).
    Message {
        /// Which hop.
        hop: usize,
        /// Its command.
        command: u8,
        /// Its stream.
        stream: u16,
        /// Its data.
        data: Vec<u8>,
    },
    /// The circuit's end, and why.
    Destroyed(u8),
    /// A cell of another kind.
    Odd(u8),
}

impl Said {
    /// In words: `END(EXITPOLICY)`, `DESTROY(PROTOCOL)`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Destroyed(reason) => format!("DESTROY({})", cells::destroy_reason(*reason)),
            Self::Odd(command) => format!("cell {command}"),
            Self::Message { command, data, .. } => match (*command, data.as_slice()) {
                (relay::END, []) => "END()".to_owned(),
                (relay::END, [reason, ..]) => format!("END({})", cells::end_reason(*reason)),
                (relay::RESOLVED, [0xf0 | 0xf1, ..]) => "RESOLVED(error)".to_owned(),
                (relay::INTRODUCE_ACK, [high, low, ..]) => {
                    format!("INTRODUCE_ACK({})", u16::from_be_bytes([*high, *low]))
                }
                (relay::PADDING_NEGOTIATED, [_, _, response, ..]) => format!("PADDING_NEGOTIATED({response})"),
                (command, _) => cells::relay_name(command),
            },
        }
    }
}

/// A link with a circuit.
pub struct Talk {
    /// The link.
    pub link: Link,
    /// The circuit's id.
    pub circuit: u32,
    /// Its hops, ours first.
    pub hops: Vec<Hop>,
    /// Running digests of what the hops said, the last message of each.
    pub heard_digest: [u8; 20],
    pings: u16,
    patience: Duration,
}

impl Talk {
    /// A new link to the target and a circuit of one hop.
    ///
    /// # Errors
    /// The relay does not play along so far.
    pub fn begin(scene: &Scene, how: How) -> Result<Self> {
        let link = Link::open(scene, scene.fresh_source())?;
        Self::on(link, scene, &scene.target, how)
    }

    /// A circuit of two hops, the target being the second. The link is to the relay before it.
    ///
    /// # Errors
    /// A relay does not play along so far.
    pub fn behind(scene: &Scene, how: How) -> Result<Self> {
        let at_first = Scene::new(
            scene.before.clone(),
            scene.before.clone(),
            scene.behind.clone(),
            scene.public,
            scene.fresh_source(),
        );
        let link = Link::open(&at_first, scene.fresh_source())?;
        let mut talk = Self::on(link, scene, &scene.before, How::Ntor)?;
        talk.extend(&scene.target, how)?;
        Ok(talk)
    }

    /// A circuit of one hop on this link.
    ///
    /// # Errors
    /// The relay refuses it.
    pub fn on(mut link: Link, scene: &Scene, target: &Target, how: How) -> Result<Self> {
        let circuit = link.fresh_circuit();
        let mut talk = Self {
            circuit,
            hops: Vec::new(),
            heard_digest: [0; 20],
            pings: PINGS,
            patience: scene.patience,
            link,
        };
        let hop = if how == How::Fast {
            let ours = rand::random::<[u8; 20]>();
            talk.link.send(&fixed(circuit, command::CREATE_FAST, &ours));
            onion::fast(&ours, &talk.created(command::CREATED_FAST)?)?
        } else {
            let (begun, body) = create2(target, how)?;
            talk.link.send(&fixed(circuit, command::CREATE2, &body));
            onion::finish(&begun, &after_length(&talk.created(command::CREATED2)?)?)?
        };
        talk.hops.push(hop);
        Ok(talk)
    }

    fn created(&mut self, wanted: u8) -> Result<Vec<u8>> {
        let end = Instant::now() + self.patience;
        loop {
            match self.link.next(end.saturating_duration_since(Instant::now())) {
                Heard::Cell(cell) if cell.circuit == self.circuit && cell.command == wanted => return Ok(cell.body),
                Heard::Cell(cell) if cell.circuit == self.circuit => bail!("{cell:?} instead of a new circuit"),
                Heard::Cell(_) => {}
                other => bail!("{other:?} instead of a new circuit"),
            }
        }
    }

    /// Adds a hop.
    ///
    /// # Errors
    /// It does not come about.
    pub fn extend(&mut self, target: &Target, how: How) -> Result<()> {
        let (begun, body) = create2(target, how)?;
        let message = [specifiers(target), body].concat();
        self.say_in(command::RELAY_EARLY, relay::EXTEND2, 0, &message);
        match self.hear(self.patience) {
            Some(Said::Message {
                command: relay::EXTENDED2,
                data,
                ..
            }) => {
                self.hops.push(onion::finish(&begun, &after_length(&data)?)?);
                Ok(())
            }
            other => bail!("{other:?} instead of EXTENDED2 of {}", target.name),
        }
    }

    /// A message to the last hop.
    pub fn say(&mut self, relay_command: u8, stream: u16, data: &[u8]) {
        self.say_in(command::RELAY, relay_command, stream, data);
    }

    /// The same in a cell of this command.
    pub fn say_in(&mut self, carrier: u8, relay_command: u8, stream: u16, data: &[u8]) {
        let cell = self.sealed(carrier, relay_command, stream, data);
        self.link.send(&cell);
    }

    /// The cell that [`say_in`](Self::say_in) would send.
    pub fn sealed(&mut self, carrier: u8, relay_command: u8, stream: u16, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        self.seal(carrier, cells::message(relay_command, stream, data, length))
    }

    /// Signs a plain body for the last hop and puts all layers on.
    pub fn seal(&mut self, carrier: u8, mut body: [u8; BODY_BYTES]) -> Vec<u8> {
        if let Some(last) = self.hops.last_mut() {
            last.sign(&mut body);
        }
        self.wrapped(carrier, body)
    }

    /// Puts all layers on a body that nobody signed.
    pub fn wrapped(&mut self, carrier: u8, mut body: [u8; BODY_BYTES]) -> Vec<u8> {
        for hop in self.hops.iter_mut().rev() {
            hop.wrap(&mut body);
        }
        fixed(self.circuit, carrier, &body)
    }

    fn understand(&mut self, cell: &Cell) -> Said {
        let mut body = [0; BODY_BYTES];
        match cell.command {
            command::DESTROY => return Said::Destroyed(cell.body.first().copied().unwrap_or_default()),
            command::RELAY if cell.body.len() == BODY_BYTES => body.copy_from_slice(&cell.body),
            other => return Said::Odd(other),
        }
        for (number, hop) in self.hops.iter_mut().enumerate() {
            let Some(digest) = hop.peel(&mut body) else { continue };
            self.heard_digest = digest;
            let [command, _, _, high, low, _, _, _, _, long, short, data @ ..] = &body;
            let length = usize::from(u16::from_be_bytes([*long, *short]));
            return Said::Message {
                hop: number,
                command: *command,
                stream: u16::from_be_bytes([*high, *low]),
                data: data.get(..length).unwrap_or(data).to_vec(),
            };
        }
        Said::Odd(command::RELAY)
    }

    /// What comes next on the circuit; `None`: nothing, or the link ended.
    pub fn hear(&mut self, patience: Duration) -> Option<Said> {
        let end = Instant::now() + patience;
        loop {
            match self.link.next(end.saturating_duration_since(Instant::now())) {
                Heard::Cell(cell) if cell.circuit == self.circuit => return Some(self.understand(&cell)),
                Heard::Cell(_) => {}
                Heard::Closed | Heard::Silence => return None,
            }
        }
    }

    /// The first answer on this stream, or the circuit's end, in words.
    pub fn answer(&mut self, stream: u16) -> String {
        let end = Instant::now() + self.patience;
        loop {
            match self.hear(end.saturating_duration_since(Instant::now())) {
                Some(Said::Message { stream: other, .. }) if other != stream => {}
                Some(said) => return said.words(),
                None => return "silent".to_owned(),
            }
        }
    }

    /// What came of all that was said so far: every message up to the answer to a directory stream that is opened now.
    /// `ignored` if nothing came and the circuit lives, `DESTROY(…)` if it died; with `, link closed` if the link did.
    pub fn verdict(&mut self) -> String {
        let heard = self.heard_until_ping();
        match heard.as_slice() {
            [] => "ignored".to_owned(),
            heard => heard.join(", "),
        }
    }

    fn heard_until_ping(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        self.pings += 1;
        let ping = self.pings;
        self.say(relay::BEGIN_DIR, ping, &[]);
        let circuit = self.link.fresh_circuit();
        self.link.send(&fixed(circuit, command::CREATE_FAST, &[7; 20]));
        let (mut circuit_answered, mut link_answered) = (false, false);
        let end = Instant::now() + self.patience;
        while !(circuit_answered && link_answered) {
            match self.link.next(end.saturating_duration_since(Instant::now())) {
                Heard::Cell(cell) if cell.circuit == circuit => link_answered = true,
                Heard::Cell(cell) if cell.circuit == self.circuit => match self.understand(&cell) {
                    Said::Message { stream, .. } if stream == ping => circuit_answered = true,
                    said => {
                        circuit_answered |= matches!(said, Said::Destroyed(_));
                        heard.push(said.words());
                    }
                },
                Heard::Cell(_) => {}
                Heard::Closed => {
                    heard.push("link closed".to_owned());
                    break;
                }
                Heard::Silence => {
                    heard.push("silent".to_owned());
                    break;
                }
            }
        }
        heard
    }

    /// A directory stream that was accepted.
    ///
    /// # Errors
    /// It was not.
    pub fn open_directory(&mut self, stream: u16) -> Result<()> {
        self.say(relay::BEGIN_DIR, stream, &[]);
        match self.answer(stream).as_str() {
            "CONNECTED" => Ok(()),
            other => bail!("{other} to BEGIN_DIR"),
        }
    }
}

/// HTYPE, HLEN and HDATA.
///
/// # Errors
/// None that a caller could cause.
pub fn create2(target: &Target, how: How) -> Result<(Begun, Vec<u8>)> {
    let (begun, data, kind) = match how {
        How::Fast | How::Ntor => {
            let (begun, data) = onion::ntor(target);
            (begun, data, 2_u16)
        }
        How::Congestion => {
            let (begun, data) = onion::ntor_v3(target, &[1, 1, 0])?;
            (begun, data, 3)
        }
    };
    let length = u16::try_from(data.len())?;
    Ok((begun, [&kind.to_be_bytes()[..], &length.to_be_bytes(), &data].concat()))
}

/// NSPEC and the specifiers of a relay: IPv4, RSA, Ed25519.
#[must_use]
pub fn specifiers(target: &Target) -> Vec<u8> {
    let address = match target.address.ip() {
        std::net::IpAddr::V4(address) => address.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    };
    [
        &[3, 0, 6][..],
        &address,
        &target.address.port().to_be_bytes(),
        &[2, 20],
        &target.rsa_id,
        &[3, 32],
        &target.ed25519_id,
    ]
    .concat()
}

/// What follows a length of two bytes.
fn after_length(body: &[u8]) -> Result<Vec<u8>> {
    let (length, rest) = body.split_first_chunk::<2>().context("an empty handshake")?;
    let data = rest.get(..usize::from(u16::from_be_bytes(*length)));
    Ok(data.context("a handshake longer than its cell")?.to_vec())
}
