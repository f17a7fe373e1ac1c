//! The client's side: one link to a relay, circuits through it. Sans-io like the engine: bytes in, bytes and events out.
//!
//! It speaks as C tor's client does: no certificates, NETINFO only. It checks the relay's half of circuit handshakes,
//! not of the link: whoever joins it to a relay knows which one that is.

use std::collections::HashMap;
use std::net::SocketAddr;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay_engine::crypto::keys::{CGO_KEY_BYTES, CircuitKeys, NONCE_BYTES, RelayKeys, TOR1_KEY_BYTES};
use relay_engine::crypto::{cgo, kdf_tor, ntor, ntor_v3, tor1};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, Framed, frame, write_fixed, write_variable};
use relay_wire::channel_cells::{Netinfo, versions, write_versions};
use relay_wire::create::{Create2, created2};
use relay_wire::extend::Extend2;
use relay_wire::flow_control::SendmeBody;
use relay_wire::relay_cells::{Format, RelayCommand, RelayMessage};
use shake::digest::XofReader;
use x25519_dalek::{PublicKey, StaticSecret};

/// What a client must know of a relay.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// Its fingerprint.
    pub rsa_identity: RsaIdentity,
    /// Its master identity.
    pub ed25519_identity: Ed25519Identity,
    /// Its onion key.
    pub onion_key: PublicKey,
    /// Its ORPort.
    pub address: SocketAddr,
}

/// Which circuit handshake, with which wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Type 2.
    Ntor,
    /// Type 3 without extensions.
    NtorV3,
    /// Type 3 with congestion control.
    CongestionControl,
    /// Type 3 with congestion control and CGO.
    Cgo,
}

impl Wish {
    fn message(self) -> &'static [u8] {
        match self {
            Self::Ntor | Self::NtorV3 => &[0],
            Self::CongestionControl => &[1, 1, 0],
            Self::Cgo => &[2, 1, 0, 3, 2, 2, 6],
        }
    }
}

/// What the client learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link is open; where the relay sees us, what it says of itself.
    LinkOpen(Netinfo),
    /// The circuit has one more hop.
    Extended {
        /// Which circuit.
        circuit: u32,
        /// How many hops it has now.
        hops: usize,
    },
    /// A hop said something.
    Message {
        /// Which circuit.
        circuit: u32,
        /// Which hop, 0 is the nearest.
        hop: usize,
        /// What for.
        command: RelayCommand,
        /// On which stream.
        stream_id: u16,
        /// And what.
        data: Vec<u8>,
    },
    /// The circuit is gone, for this reason.
    Destroyed {
        /// Which circuit.
        circuit: u32,
        /// As the cell has it.
        reason: u8,
    },
    /// A cell of padding.
    Padding,
    /// The relay said something that makes no sense.
    Nonsense(&'static str),
}

enum Layer {
    Tor1(Box<(tor1::Direction, tor1::Direction)>),
    Cgo(Box<(cgo::client::ClientForward, cgo::client::ClientBackward)>),
}

impl Layer {
    fn new(keys: &CircuitKeys) -> Self {
        match &keys.relay {
            RelayKeys::Tor1(keys) => Self::Tor1(Box::new(tor1::Direction::pair(keys))),
            RelayKeys::Cgo(keys) => {
                let (forward, backward) = halves(keys);
                let mut pair = (
                    cgo::client::ClientForward::default(),
                    cgo::client::ClientBackward::default(),
                );
                pair.0.extend(&forward);
                pair.1.extend(&backward);
                Self::Cgo(Box::new(pair))
            }
        }
    }

    fn format(&self) -> Format {
        match self {
            Self::Tor1(_) => Format::V0,
            Self::Cgo(_) => Format::V1,
        }
    }
}

fn halves(keys: &[u8; CGO_KEY_BYTES]) -> ([u8; cgo::KEY_BYTES], [u8; cgo::KEY_BYTES]) {
    let mut halves = ([0; cgo::KEY_BYTES], [0; cgo::KEY_BYTES]);
    let (first, second) = keys.split_at(cgo::KEY_BYTES);
    halves.0.copy_from_slice(first);
    halves.1.copy_from_slice(second);
    halves
}

/// A circuit handshake that waits for its answer.
enum Begun {
    Fast([u8; 20]),
    Ntor(ntor::Public, StaticSecret),
    NtorV3(ntor_v3::Begun, Wish),
}

impl Begun {
    fn new(hop: &Hop, wish: Wish, dice: &mut StdRng) -> (Self, u16, Vec<u8>) {
        let ephemeral = StaticSecret::from(dice.random::<[u8; 32]>());
        if wish == Wish::Ntor {
            let client = PublicKey::from(&ephemeral);
            let public = ntor::Public {
                identity: hop.rsa_identity.0,
                onion_key: hop.onion_key,
                client,
            };
            (Self::Ntor(public, ephemeral), 2, ntor::client_begins(&public))
        } else {
            let public = ntor_v3::Public {
                identity: hop.ed25519_identity.0,
                onion_key: hop.onion_key,
            };
            let (begun, bytes) = ntor_v3::client_begins(public, ephemeral, wish.message(), ntor_v3::CIRCUIT_EXTEND);
            (Self::NtorV3(begun, wish), 3, bytes)
        }
    }

    fn end(self, reply: &[u8]) -> Option<CircuitKeys> {
        match self {
            Self::Fast(ours) => {
                let (theirs, proof) = reply.split_first_chunk::<20>()?;
                let (expected, keys) = kdf_tor::derive(&ours, theirs);
                (proof.get(..20)? == expected).then_some(keys)
            }
            Self::Ntor(public, ephemeral) => ntor::client_ends(&public, &ephemeral, reply),
            Self::NtorV3(begun, wish) => {
                let (message, mut stream) = ntor_v3::client_ends(&begun, reply, ntor_v3::CIRCUIT_EXTEND)?;
                let increment = match (wish, message.as_slice()) {
                    (Wish::NtorV3, [0]) => None,
                    (Wish::CongestionControl | Wish::Cgo, [1, 2, 1, increment]) => Some(*increment),
                    (Wish::CongestionControl, [0]) => None,
                    _ => return None,
                };
                Some(CircuitKeys::take(wish == Wish::Cgo, increment, |part| {
                    stream.read(part)
                }))
            }
        }
    }
}

#[derive(Default)]
struct Circuit {
    hops: Vec<Layer>,
    /// What the last hop and we alone know of the circuit.
    nonce: [u8; NONCE_BYTES],
    begun: Option<Begun>,
    acknowledging: Option<Acknowledging>,
}

/// What the client owes the last hop: SENDMEs.
struct Acknowledging {
    cells_per_sendme: u16,
    cells: u16,
    /// Without congestion control: per stream too.
    streams: Option<HashMap<u16, u16>>,
}

/// A client with one link.
pub struct Client {
    dice: StdRng,
    /// Bytes for the relay.
    pub output: Vec<u8>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Off: the link's handshake is left to whoever puts bytes into `output`.
    pub shakes_hands: bool,
    open: bool,
    unread: Vec<u8>,
    spoken: Vec<u16>,
    version: Option<u16>,
    circuits: HashMap<u32, Circuit>,
    next_circuit: u32,
}

impl Client {
    /// A client that has said VERSIONS.
    pub fn new(seed: u64) -> Self {
        Self::speaking(seed, &[3, 4, 5])
    }

    /// A client of certain link versions.
    pub fn speaking(seed: u64, spoken: &[u16]) -> Self {
        let mut output = Vec::new();
        let _short = write_variable(
            &mut output,
            CircIdWidth::Two,
            Command::VERSIONS,
            &write_versions(spoken),
        );
        Self {
            dice: StdRng::seed_from_u64(seed),
            output,
            events: Vec::new(),
            shakes_hands: true,
            open: false,
            unread: Vec::new(),
            spoken: spoken.to_vec(),
            version: None,
            circuits: HashMap::new(),
            next_circuit: 1,
        }
    }

    fn width(&self) -> CircIdWidth {
        self.version.map_or(CircIdWidth::Two, CircIdWidth::of_version)
    }

    /// A circuit id of the half that belongs to who began the link.
    pub fn fresh_circuit(&mut self) -> u32 {
        let circuit = self.next_circuit;
        self.next_circuit += 1;
        match self.width() {
            CircIdWidth::Two => circuit,
            CircIdWidth::Four => circuit | 0x8000_0000,
        }
    }

    /// Any cell at all.
    pub fn cell(&mut self, circuit: u32, command: Command, body: &[u8]) {
        let width = self.width();
        if command.is_variable() {
            let _short = write_variable(&mut self.output, width, command, body);
        } else {
            write_fixed(&mut self.output, width, circuit, command, body);
        }
    }

    /// A circuit with CREATE_FAST.
    pub fn create_fast(&mut self) -> u32 {
        let circuit = self.fresh_circuit();
        let ours: [u8; 20] = self.dice.random();
        self.circuits.insert(
            circuit,
            Circuit {
                hops: Vec::new(),
                nonce: [0; NONCE_BYTES],
                begun: Some(Begun::Fast(ours)),
                acknowledging: None,
            },
        );
        self.cell(circuit, Command::CREATE_FAST, &ours);
        circuit
    }

    /// A circuit with CREATE2.
    pub fn create(&mut self, hop: &Hop, wish: Wish) -> u32 {
        let circuit = self.fresh_circuit();
        let (begun, handshake_type, data) = Begun::new(hop, wish, &mut self.dice);
        let mut body = Vec::new();
        Create2 {
            handshake_type,
            data: &data,
        }
        .write(&mut body);
        self.circuits.insert(
            circuit,
            Circuit {
                hops: Vec::new(),
                nonce: [0; NONCE_BYTES],
                begun: Some(begun),
                acknowledging: None,
            },
        );
        self.cell(circuit, Command::CREATE2, &body);
        circuit
    }

    /// One hop more, by EXTEND2 in RELAY_EARLY.
    pub fn extend(&mut self, circuit: u32, hop: &Hop, wish: Wish) {
        self.extend_oddly(circuit, Command::RELAY_EARLY, hop, wish, |_| ());
    }

    /// One hop more, in another cell or with another message than is right.
    pub fn extend_oddly(
        &mut self,
        circuit: u32,
        carrier: Command,
        hop: &Hop,
        wish: Wish,
        bend: impl FnOnce(&mut Extend2<'_>),
    ) {
        let (begun, handshake_type, data) = Begun::new(hop, wish, &mut self.dice);
        let (ipv4, ipv6) = match hop.address {
            SocketAddr::V4(address) => (Some(address), None),
            SocketAddr::V6(address) => (None, Some(address)),
        };
        let mut message = Extend2 {
            ipv4,
            ipv6,
            rsa_identity: Some(hop.rsa_identity),
            ed25519_identity: Some(hop.ed25519_identity),
            create: Create2 {
                handshake_type,
                data: &data,
            },
        };
        bend(&mut message);
        let data = message.write();
        let Some(state) = self.circuits.get_mut(&circuit) else {
            return;
        };
        state.begun = Some(begun);
        let last = state.hops.len().saturating_sub(1);
        self.send(circuit, last, carrier, RelayCommand::EXTEND2, 0, &data);
    }

    /// Whether the link's handshake is through.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// How many hops a circuit has.
    pub fn hops(&self, circuit: u32) -> usize {
        self.circuits.get(&circuit).map_or(0, |state| state.hops.len())
    }

    /// Whether a circuit handshake is under way, or there is no such circuit.
    pub fn is_growing(&self, circuit: u32) -> bool {
        self.circuits.get(&circuit).is_none_or(|state| state.begun.is_some())
    }

    /// Ends a circuit.
    pub fn destroy(&mut self, circuit: u32) {
        if self.circuits.remove(&circuit).is_some() {
            self.cell(circuit, Command::DESTROY, &[0]);
        }
    }

    /// From now on SENDMEs answer the DATA of the last hop: one a so many cells of the circuit, and without congestion
    /// control one a 50 cells of a stream.
    pub fn acknowledge(&mut self, circuit: u32, cells_per_sendme: u16, congestion_control: bool) {
        if let Some(state) = self.circuits.get_mut(&circuit) {
            state.acknowledging = Some(Acknowledging {
                cells_per_sendme,
                cells: 0,
                streams: (!congestion_control).then(HashMap::new),
            });
        }
    }

    fn on_data(&mut self, circuit: u32, stream_id: u16, tag: &[u8]) {
        let Some(state) = self.circuits.get_mut(&circuit) else {
            return;
        };
        let Some(owed) = state.acknowledging.as_mut() else {
            return;
        };
        let last = state.hops.len().saturating_sub(1);
        owed.cells += 1;
        let circuit_due = owed.cells == owed.cells_per_sendme;
        if circuit_due {
            owed.cells = 0;
        }
        let stream_due = owed.streams.as_mut().is_some_and(|streams| {
            let cells = streams.entry(stream_id).or_default();
            *cells = (*cells + 1) % 50;
            *cells == 0
        });
        if circuit_due && let Some(body) = SendmeBody::v1(tag) {
            self.send(circuit, last, Command::RELAY, RelayCommand::SENDME, 0, body.as_bytes());
        }
        if stream_due {
            self.send(circuit, last, Command::RELAY, RelayCommand::SENDME, stream_id, &[]);
        }
    }

    /// The nonce that the last hop and we alone know: onion services prove by it that they talk on this circuit.
    pub fn nonce(&self, circuit: u32) -> Option<[u8; NONCE_BYTES]> {
        self.circuits.get(&circuit).map(|state| state.nonce)
    }

    /// Adds a hop without a handshake: whoever is at the other end of a rendezvous. Both ends pass the same keys, and
    /// one of them says that it is the service.
    pub fn meet(&mut self, circuit: u32, keys: &[u8; TOR1_KEY_BYTES], as_service: bool) {
        let (forward, backward) = tor1::Direction::pair(keys);
        let pair = if as_service {
            (backward, forward)
        } else {
            (forward, backward)
        };
        if let Some(state) = self.circuits.get_mut(&circuit) {
            state.hops.push(Layer::Tor1(Box::new(pair)));
        }
    }

    /// Forgets the hops from `hops` on, as after TRUNCATED.
    pub fn truncate(&mut self, circuit: u32, hops: usize) {
        if let Some(state) = self.circuits.get_mut(&circuit) {
            state.hops.truncate(hops);
        }
    }

    /// A message for one hop. Does nothing where there is no such hop or the data is too long.
    pub fn send(
        &mut self,
        circuit: u32,
        hop: usize,
        carrier: Command,
        command: RelayCommand,
        stream_id: u16,
        data: &[u8],
    ) {
        let Some(state) = self.circuits.get_mut(&circuit) else {
            return;
        };
        let Some((layer, nearer)) = state.hops.get_mut(..=hop).and_then(<[Layer]>::split_last_mut) else {
            return;
        };
        let message = RelayMessage {
            command,
            stream_id,
            data,
        };
        let Ok((mut body, _)) = message.write(layer.format()) else {
            return;
        };
        match layer {
            Layer::Tor1(pair) => {
                pair.0.sign(&mut body);
                pair.0.crypt(&mut body);
            }
            Layer::Cgo(pair) => {
                pair.0.originate(0, carrier.0, &mut body);
            }
        }
        for layer in nearer.iter_mut().rev() {
            match layer {
                Layer::Tor1(pair) => pair.0.crypt(&mut body),
                Layer::Cgo(pair) => pair.0.pass(carrier.0, &mut body),
            }
        }
        self.cell(circuit, carrier, &body);
    }

    /// Takes bytes of the relay's.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let mut at = 0;
        let unread = std::mem::take(&mut self.unread);
        while let Some(rest) = unread.get(at..) {
            let Framed::Whole(found) = frame(rest, self.width()) else {
                break;
            };
            let body = rest.get(found.body_begins..found.ends).unwrap_or_default();
            self.on_cell(found.circ_id, found.command, body);
            at += found.ends;
        }
        self.unread = unread.get(at..).unwrap_or_default().to_vec();
    }

    fn on_cell(&mut self, circuit: u32, command: Command, body: &[u8]) {
        match command {
            Command::VERSIONS => {
                let theirs: Vec<u16> = versions(body).map(Iterator::collect).unwrap_or_default();
                self.version = theirs.into_iter().filter(|version| self.spoken.contains(version)).max();
            }
            Command::NETINFO => match Netinfo::read(body) {
                Ok(netinfo) => {
                    let answer = Netinfo {
                        timestamp: 0,
                        other: netinfo.own.first().copied(),
                        own: Vec::new(),
                    };
                    if self.shakes_hands {
                        self.cell(0, Command::NETINFO, &answer.write());
                    }
                    self.open = true;
                    self.events.push(Event::LinkOpen(netinfo));
                }
                Err(_) => self.events.push(Event::Nonsense("NETINFO")),
            },
            Command::CREATED_FAST => self.hop_answered(circuit, body),
            Command::CREATED2 => match created2(body) {
                Ok(reply) => self.hop_answered(circuit, reply),
                Err(_) => self.events.push(Event::Nonsense("CREATED2")),
            },
            Command::DESTROY => {
                self.circuits.remove(&circuit);
                let reason = body.first().copied().unwrap_or_default();
                self.events.push(Event::Destroyed { circuit, reason });
            }
            Command::RELAY => {
                if let Ok(body) = body.try_into() {
                    self.on_relay(circuit, body);
                }
            }
            Command::PADDING | Command::VPADDING => self.events.push(Event::Padding),
            _ => {}
        }
    }

    fn hop_answered(&mut self, circuit: u32, reply: &[u8]) {
        let Some(state) = self.circuits.get_mut(&circuit) else {
            return;
        };
        match state.begun.take().and_then(|begun| begun.end(reply)) {
            Some(keys) => {
                state.hops.push(Layer::new(&keys));
                state.nonce = keys.nonce;
                let hops = state.hops.len();
                self.events.push(Event::Extended { circuit, hops });
            }
            None => self.events.push(Event::Nonsense("a circuit handshake's answer")),
        }
    }

    fn on_relay(&mut self, circuit: u32, mut body: [u8; BODY_BYTES]) {
        let Some(state) = self.circuits.get_mut(&circuit) else {
            return;
        };
        let command = Command::RELAY.0;
        let found = state.hops.iter_mut().enumerate().find_map(|(hop, layer)| {
            let tag = match layer {
                Layer::Tor1(pair) => {
                    pair.1.crypt(&mut body);
                    pair.1.recognise(&mut body).map(|tag| tag.to_vec())
                }
                Layer::Cgo(pair) => pair.1.receive(command, &mut body).map(|(_, tag)| tag.to_vec()),
            };
            tag.map(|tag| (hop, layer.format(), tag))
        });
        let Some((hop, format, tag)) = found else {
            self.events.push(Event::Nonsense("a cell of no hop"));
            return;
        };
        match RelayMessage::read(&body, format) {
            Ok(message) if message.command == RelayCommand::EXTENDED2 => match created2(message.data) {
                Ok(reply) => self.hop_answered(circuit, reply),
                Err(_) => self.events.push(Event::Nonsense("EXTENDED2")),
            },
            Ok(message) => {
                self.events.push(Event::Message {
                    circuit,
                    hop,
                    command: message.command,
                    stream_id: message.stream_id,
                    data: message.data.to_vec(),
                });
                if message.command == RelayCommand::DATA {
                    let stream_id = message.stream_id;
                    self.on_data(circuit, stream_id, &tag);
                }
            }
            Err(_) => self.events.push(Event::Nonsense("a relay message")),
        }
    }
}
