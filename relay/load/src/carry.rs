//! Cells through the relay: from us as clients or as the relay before it, to us as the relay behind it, or back.
//!
//! The hop behind is only played: it answers CREATE2 with noise, which goes back to us unread, and takes every cell
//! for what it is. Each cell carries its number and the same noise otherwise, and is compared whole when it arrives.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_simnet::client::Hop;
use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, write_fixed, write_header};
use relay_wire::create::Create2;
use relay_wire::extend::Extend2;
use relay_wire::relay_cells::RelayCommand;
use serde::Serialize;

use crate::handshake::Part;
use crate::hop::{Begun, Crypto, Keys};
use crate::link::Link;
use crate::net::Net;
use crate::target::Target;

/// Where a cell's number stands: beyond what a relay looks at to find out whether a cell is for itself.
const NUMBER_AT: usize = 16;

/// Bytes of ntor's first message (tor-spec, "The ntor handshake"); C tor refuses other lengths.
const NTOR_BYTES: usize = 84;
/// And of its answer.
pub(crate) const NTOR_REPLY_BYTES: usize = 64;

/// Between two single cells.
const PING_PERIOD: Duration = Duration::from_millis(5);

/// No cell for so long is a failure.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What goes through.
#[derive(clap::Args)]
pub(crate) struct Carry {
    /// Cells in total, each time
    #[arg(long, default_value_t = 400_000)]
    cells: u64,
    /// Circuits, each with its own traffic
    #[arg(long, default_value_t = 32)]
    circuits: usize,
    /// Links over which the circuits come
    #[arg(long, default_value_t = 1)]
    links: usize,
    /// From the relay behind to the client; otherwise from the client
    #[arg(long)]
    down: bool,
    /// We come as clients; otherwise as a relay
    #[arg(long)]
    as_client: bool,
    /// Relay crypto with the relay under test
    #[arg(long, value_enum, default_value_t = Crypto::Tor1)]
    crypto: Crypto,
    /// Cells of a circuit that may be under way, as a client's congestion window bounds them
    #[arg(long, default_value_t = 500)]
    window: u64,
    /// Beside it one more circuit, over a link of its own, sends single cells, and how long each takes is told
    #[arg(long)]
    ping: bool,
}

#[derive(Serialize)]
struct Ready {
    circuits: usize,
    links: usize,
    links_behind: usize,
}

/// What one run did.
#[derive(Serialize)]
struct Carried {
    cells: u64,
    seconds: f64,
    #[serde(flatten)]
    pings: Option<Pings>,
}

/// How long single cells took, from the call that seals one until it is compared at the other end.
#[derive(Serialize)]
struct Pings {
    pings: usize,
    ping_median_milliseconds: f64,
    ping_p99_milliseconds: f64,
    ping_most_milliseconds: f64,
}

impl Pings {
    /// `None` of nothing.
    fn of(mut took: Vec<Duration>) -> Option<Self> {
        took.sort_unstable();
        let at = |share: usize| {
            let place = (took.len() * share / 100).min(took.len().checked_sub(1)?);
            took.get(place).map(|took| took.as_secs_f64() * 1e3)
        };
        Some(Self {
            pings: took.len(),
            ping_median_milliseconds: at(50)?,
            ping_p99_milliseconds: at(99)?,
            ping_most_milliseconds: at(100)?,
        })
    }
}

/// The circuit of single cells, which is the last one: when its next cell goes, and how long the others took.
struct Ping {
    due: Instant,
    sent_at: Instant,
    took: Vec<Duration>,
}

struct Circuit {
    near: (usize, u32),
    far: Option<(usize, u32)>,
    begun: Option<Begun>,
    keys: Option<Keys>,
    extended: bool,
    target: u64,
    sent: u64,
    received: u64,
}

struct Circuits {
    all: Vec<Circuit>,
    /// Of each link: which circuit an id is.
    by_id: HashMap<(usize, u32), usize>,
    noise: [u8; BODY_BYTES],
    last_cell: Instant,
    down: bool,
    ping: Option<Ping>,
}

pub(crate) fn run(mut net: Net, target: &Target, carry: &Carry) -> Result<()> {
    ensure!(
        carry.circuits > 0 && carry.links > 0 && carry.cells > 0,
        "nothing to carry"
    );
    let part = if carry.as_client { Part::Client } else { Part::Relay };
    let links = carry.links + usize::from(carry.ping);
    for _ in 0..links {
        net.connect(target, part)?;
    }
    net.until("links", |net| {
        Ok(net.links.iter().take(links).all(|link| link.is_open()))
    })?;
    let mut circuits = Circuits::new(carry);
    circuits.build(&mut net, &target.hop(), carry)?;
    let ready = Ready {
        circuits: carry.circuits,
        links,
        links_behind: net.links.iter().filter(|link| link.part() == Part::Responder).count(),
    };
    crate::serve(&ready, || circuits.carry(&mut net, carry))
}

impl Circuits {
    fn new(carry: &Carry) -> Self {
        let mut noise = [0; BODY_BYTES];
        SmallRng::seed_from_u64(7).fill(&mut noise[..]);
        // Zeros here would make a relay look closer (tor-spec, `Recognized`).
        if let Some(recognised) = noise.get_mut(1..3) {
            recognised.fill(0xA5);
        }
        Self {
            all: Vec::new(),
            by_id: HashMap::new(),
            noise,
            last_cell: Instant::now(),
            down: carry.down,
            ping: None,
        }
    }

    fn build(&mut self, net: &mut Net, hop: &Hop, carry: &Carry) -> Result<()> {
        for number in 0..carry.circuits + usize::from(carry.ping) {
            // The one of single cells, behind the others, has the last link for itself.
            let link = if number < carry.circuits {
                number % carry.links
            } else {
                carry.links
            };
            let circ_id = 0x8000_0000 | u32::try_from(number + 1)?;
            let (begun, body) = Begun::new(hop, carry.crypto);
            let out = &mut net.links.get_mut(link).context("no such link")?.out;
            write_fixed(out, CircIdWidth::Four, circ_id, Command::CREATE2, &body);
            self.by_id.insert((link, circ_id), number);
            self.all.push(Circuit {
                near: (link, circ_id),
                far: None,
                begun: Some(begun),
                keys: None,
                extended: false,
                target: 0,
                sent: 0,
                received: 0,
            });
        }
        net.until("circuits", |net| {
            self.take_cells(net)?;
            Ok(self.all.iter().all(|circuit| circuit.extended))
        })
    }

    fn carry(&mut self, net: &mut Net, carry: &Carry) -> Result<Carried> {
        let count = carry.circuits as u64;
        for (number, circuit) in (0..count).zip(&mut self.all) {
            circuit.target += carry.cells / count + u64::from(number < carry.cells % count);
        }
        let began = Instant::now();
        self.last_cell = began;
        self.ping = carry.ping.then(|| Ping {
            due: began + PING_PERIOD,
            sent_at: began,
            took: Vec::new(),
        });
        let patience = Duration::from_millis(if carry.ping { 1 } else { 100 });
        let mut first = 0;
        while self.all.iter().any(|circuit| circuit.received < circuit.target) {
            self.send_ping();
            let stopped_for_room = self.give_cells(net, carry.window, first)?;
            first = (first + 1) % self.all.len();
            net.flush()?;
            let more = stopped_for_room && net.links.iter().any(Link::takes_more);
            net.turn(if more { Duration::ZERO } else { patience })?;
            self.take_cells(net)?;
            if self.last_cell.elapsed() > SILENCE_MAX {
                let received: u64 = self.all.iter().map(|circuit| circuit.received).sum();
                bail!("no cell for {} s, after {received}", SILENCE_MAX.as_secs());
            }
        }
        Ok(Carried {
            cells: carry.cells,
            seconds: began.elapsed().as_secs_f64(),
            pings: self.ping.take().and_then(|ping| Pings::of(ping.took)),
        })
    }

    /// Lets the next single cell go, if it is time and the last one has come.
    fn send_ping(&mut self) {
        let (Some(ping), Some(circuit)) = (&mut self.ping, self.all.last_mut()) else {
            return;
        };
        let now = Instant::now();
        if circuit.received == circuit.target && now >= ping.due {
            circuit.target += 1;
            ping.sent_at = now;
            ping.due = now + PING_PERIOD;
        }
    }

    /// Fills the links' batches from the circuits in turn. Tells whether a circuit has more than its link took.
    fn give_cells(&mut self, net: &mut Net, window: u64, first: usize) -> Result<bool> {
        let mut stopped_for_room = false;
        let (before, after) = self.all.split_at_mut(first);
        for circuit in after.iter_mut().chain(before) {
            let (link, circ_id) = if self.down {
                circuit.far.context("no far end")?
            } else {
                circuit.near
            };
            let link = net.links.get_mut(link).context("no such link")?;
            while circuit.sent < circuit.target && circuit.sent - circuit.received < window && link.has_room() {
                let mut body = numbered(&self.noise, circuit.sent);
                if !self.down {
                    circuit.keys.as_mut().context("no keys")?.wrap(&mut body);
                }
                write_header(&mut link.out, CircIdWidth::Four, circ_id, Command::RELAY);
                link.out.extend_from_slice(&body);
                circuit.sent += 1;
            }
            stopped_for_room |= circuit.sent < circuit.target && circuit.sent - circuit.received < window;
        }
        Ok(stopped_for_room)
    }

    fn take_cells(&mut self, net: &mut Net) -> Result<()> {
        let behind = (net.behind().address, net.behind().rsa, net.behind().ed25519);
        let last = self.all.len().wrapping_sub(1);
        let mut recent = None;
        for (number, link) in net.links.iter_mut().enumerate() {
            let near = link.part() != Part::Responder;
            let mut answers = Vec::new();
            while let Some((circ_id, command, body)) = link.next_cell() {
                let at = match recent {
                    Some((key, at)) if key == (number, circ_id) => Some(at),
                    _ => self.by_id.get(&(number, circ_id)).copied(),
                };
                recent = at.map(|at| ((number, circ_id), at));
                match (command, at) {
                    (Command::RELAY, Some(at)) => {
                        let circuit = self.all.get_mut(at).context("no such circuit")?;
                        let body: &mut [u8; BODY_BYTES] = body.try_into().context("a short cell")?;
                        if near && circuit.keys.as_mut().context("no keys yet")?.peel(body) {
                            circuit.extended = true;
                            continue;
                        }
                        ensure!(near == self.down, "a cell that went the wrong way");
                        ensure!(
                            *body == numbered(&self.noise, circuit.received),
                            "cell {} of circuit {at} is not what was sent",
                            circuit.received
                        );
                        circuit.received += 1;
                        self.last_cell = Instant::now();
                        if let Some(ping) = self.ping.as_mut().filter(|_| at == last) {
                            ping.took.push(ping.sent_at.elapsed());
                        }
                    }
                    (Command::CREATED2, Some(at)) => {
                        let circuit = self.all.get_mut(at).context("no such circuit")?;
                        let mut keys = circuit.begun.take().context("CREATED2 twice")?.end(body)?;
                        let message = extend(behind, at)?;
                        let cell = keys.originate(Command::RELAY_EARLY, RelayCommand::EXTEND2, &message)?;
                        circuit.keys = Some(keys);
                        write_fixed(&mut answers, CircIdWidth::Four, circ_id, Command::RELAY_EARLY, &cell);
                    }
                    (Command::CREATE2, None) => {
                        let at = circuit_of(body)?;
                        // We go by the name of a listed relay: circuits of others may come too, and get no answer.
                        if let Some(circuit) = self.all.get_mut(at) {
                            circuit.far = Some((number, circ_id));
                            self.by_id.insert((number, circ_id), at);
                            let mut reply = u16::try_from(NTOR_REPLY_BYTES)?.to_be_bytes().to_vec();
                            reply.resize(2 + NTOR_REPLY_BYTES, 0x5A);
                            write_fixed(&mut answers, CircIdWidth::Four, circ_id, Command::CREATED2, &reply);
                        }
                    }
                    (Command::DESTROY, Some(_)) => {
                        bail!(
                            "the relay destroyed a circuit, reason {}",
                            body.first().copied().unwrap_or_default()
                        )
                    }
                    _ => {}
                }
            }
            link.out.extend_from_slice(&answers);
        }
        Ok(())
    }
}

fn numbered(noise: &[u8; BODY_BYTES], number: u64) -> [u8; BODY_BYTES] {
    let mut body = *noise;
    if let Some(place) = body.get_mut(NUMBER_AT..NUMBER_AT + 8) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    body
}

/// EXTEND2 to the relay behind. The handshake in it is noise that begins with the circuit's number: the relay hands it on.
pub(crate) fn extend(
    (address, rsa, ed25519): (SocketAddr, RsaIdentity, Ed25519Identity),
    circuit: usize,
) -> Result<Vec<u8>> {
    let SocketAddr::V4(address) = address else {
        bail!("an IPv4 address is needed")
    };
    let mut data = u32::try_from(circuit)?.to_be_bytes().to_vec();
    data.resize(NTOR_BYTES, 0x5A);
    Ok(Extend2 {
        ipv4: Some(address),
        ipv6: None,
        rsa_identity: Some(rsa),
        ed25519_identity: Some(ed25519),
        create: Create2 {
            handshake_type: 2,
            data: &data,
        },
    }
    .write())
}

pub(crate) fn circuit_of(body: &[u8]) -> Result<usize> {
    // Type and length stand before the handshake.
    let number = body
        .get(4..8)
        .and_then(|bytes| bytes.try_into().ok())
        .context("an odd CREATE2")?;
    Ok(u32::from_be_bytes(number) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_behind_knows_which_circuit_was_extended() {
        let who = (
            "127.0.0.1:9001".parse().unwrap(),
            RsaIdentity([1; 20]),
            Ed25519Identity([2; 32]),
        );
        let message = extend(who, 77).unwrap();
        let read = Extend2::read(&message).unwrap();
        let mut body = Vec::new();
        read.create.write(&mut body);
        assert_eq!(circuit_of(&body).unwrap(), 77);
        assert_eq!(read.create.data.len(), NTOR_BYTES);
    }

    #[test]
    fn pings_are_told_by_rank() {
        let took = (1..=100).rev().map(Duration::from_millis).collect();
        let pings = Pings::of(took).unwrap();
        assert_eq!(
            (pings.pings, pings.ping_median_milliseconds, pings.ping_p99_milliseconds),
            (100, 51.0, 100.0)
        );
        assert!(Pings::of(Vec::new()).is_none());
    }

    #[test]
    fn no_two_cells_are_the_same() {
        let noise = [9; BODY_BYTES];
        assert_ne!(numbered(&noise, 1), numbered(&noise, 256));
    }
}
