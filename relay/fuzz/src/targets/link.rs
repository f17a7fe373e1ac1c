//! A whole link, from its first byte: VERSIONS, certificates, proof, NETINFO, circuits, relay cells. The engine is one end,
//! the story the other; what it says is good, damaged or made up, in any order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::Signer as _;
use relay_engine::Input;
use relay_engine::crypto::onion;
use relay_engine::door::ChannelId;
use relay_simnet::client::{Client, Wish};
use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, Framed, frame, write_fixed, write_variable};
use relay_wire::channel_cells::{
    AUTHENTICATE_FIXED_BYTES, AUTHENTICATE_SIGNED_BYTES, Authenticate, Netinfo, write_auth_challenge, write_versions,
};
use sha2::{Digest as _, Sha256};

use crate::shard::{KEYS, Shard};
use crate::tape::{Tape, edited};

/// What TLS would export.
const MATERIAL: [u8; 32] = [6; 32];
/// The link of the story.
const LINK: ChannelId = ChannelId(7);
/// Where circuits come from that go out over it.
const CLIENT: ChannelId = ChannelId(3);

/// The first byte says who began the link, the rest is the story.
pub(super) fn link(data: &[u8]) {
    let mut tape = Tape::new(data);
    let began = tape.coin();
    let mut shard = Shard::new();
    let client = began.then(|| we_connect(&mut shard));
    if !began {
        shard.accept(LINK, SocketAddr::from(([198, 51, 100, 7], 40_000)));
    }
    let mut peer = Peer {
        began: !began,
        ..Peer::default()
    };
    let mut story = Story { shard, client };
    while !tape.is_empty() && story.shard.up.contains(&LINK) {
        story.step(&mut peer, &mut tape);
        let relays = story.shard.engine.tally().channels_relay_open;
        assert!(relays == 0 || peer.showed_certs, "a relay without certificates");
        assert!(relays == 0 || peer.proved || began, "a relay that has proven nothing");
        // Link padding comes by itself, a cell in more than a second.
        let seconds = story.shard.steady.as_secs() as usize;
        let owed = 16 * 1024 + 4 * peer.said_bytes + 514 * seconds;
        assert!(
            peer.heard_bytes <= owed,
            "{} bytes for {}",
            peer.heard_bytes,
            peer.said_bytes
        );
    }
    story.shard.end();
}

/// A client's circuit that is to go on to the neighbour: so we connect there.
fn we_connect(shard: &mut Shard) -> Client {
    shard.accept(CLIENT, SocketAddr::from(([198, 51, 100, 200], 40_000)));
    let mut client = Client::new(5);
    talk(shard, &mut client);
    let circuit = client.create_fast();
    talk(shard, &mut client);
    client.extend(circuit, &KEYS[1].hop, Wish::Ntor);
    talk(shard, &mut client);
    let (attempt, address) = shard.connects.pop().expect("it wants to connect");
    shard.connected(LINK, attempt, address);
    client
}

/// Until neither has more to say.
fn talk(shard: &mut Shard, client: &mut Client) {
    loop {
        let said = std::mem::take(&mut client.output);
        shard.receive(CLIENT, &said);
        let heard = shard.write(CLIENT, 16 * 1024);
        client.receive(&heard);
        if said.is_empty() && heard.is_empty() {
            return;
        }
    }
}

/// The other end.
#[derive(Default)]
struct Peer {
    began: bool,
    /// All bytes of ours up to NETINFO, as far as they are hashed.
    heard: Vec<u8>,
    heard_bytes: usize,
    said: Vec<u8>,
    said_bytes: usize,
    wide: bool,
    showed_certs: bool,
    /// It said an AUTHENTICATE that is right.
    proved: bool,
}

impl Peer {
    fn width(&self) -> CircIdWidth {
        if self.wide { CircIdWidth::Four } else { CircIdWidth::Two }
    }

    fn variable(&self, command: Command, body: &[u8]) -> Vec<u8> {
        let mut cell = Vec::new();
        write_variable(&mut cell, self.width(), command, body).expect("it fits");
        cell
    }

    fn fixed(&self, circuit: u32, command: Command, body: &[u8]) -> Vec<u8> {
        let mut cell = Vec::new();
        write_fixed(&mut cell, self.width(), circuit, command, body);
        cell
    }

    /// A circuit id of its own half of the numbers, or of the other.
    fn circuit(&self, tape: &mut Tape<'_>) -> u32 {
        let (number, odd) = (u32::from(tape.u8() & 7), tape.coin());
        let high = if self.wide { 0x8000_0000 } else { 0x8000 };
        if odd != self.began { number | high } else { number }
    }

    /// A neighbour's proof, over what was really said.
    fn authenticate(&self) -> Vec<u8> {
        let (us, them) = (&KEYS[1].initiator, &KEYS[0].responder);
        let fields: [&[u8]; 9] = [
            b"AUTH0003",
            &us.rsa_identity_sha256,
            &them.rsa_identity_sha256,
            &us.ed25519_identity.0,
            &them.ed25519_identity.0,
            &Sha256::digest(hashed(&self.heard, self.width())),
            &Sha256::digest(&self.said),
            &them.tls_certificate_sha256,
            &MATERIAL,
        ];
        let mut signed = [9; AUTHENTICATE_SIGNED_BYTES];
        signed[..AUTHENTICATE_FIXED_BYTES].copy_from_slice(&fields.concat());
        let signature = us.link_authentication.sign(&signed).to_bytes();
        self.variable(Command::AUTHENTICATE, &Authenticate::write(&signed, &signature))
    }
}

/// The responder's cells up to AUTH_CHALLENGE: what the proof covers.
fn hashed(heard: &[u8], width: CircIdWidth) -> &[u8] {
    let mut at = 0;
    while let Framed::Whole(found) = frame(&heard[at..], if at == 0 { CircIdWidth::Two } else { width }) {
        if found.command == Command::NETINFO {
            break;
        }
        at += found.ends;
    }
    &heard[..at]
}

struct Story {
    shard: Shard,
    client: Option<Client>,
}

impl Story {
    fn step(&mut self, peer: &mut Peer, tape: &mut Tape<'_>) {
        let shard = &mut self.shard;
        let cell = match tape.below(20) {
            0 => {
                peer.wide = true;
                let mut cell = Vec::new();
                let versions = write_versions(&[3, 4, 5]);
                write_variable(&mut cell, CircIdWidth::Two, Command::VERSIONS, &versions).expect("it fits");
                cell
            }
            1 => {
                peer.wide = false;
                let mut cell = Vec::new();
                let versions = tape.array::<6>();
                let length = tape.below(7);
                write_variable(&mut cell, CircIdWidth::Two, Command::VERSIONS, &versions[..length]).expect("it fits");
                peer.wide = versions[..length]
                    .chunks_exact(2)
                    .any(|pair| matches!(pair, [0, 4 | 5]));
                cell
            }
            2 => {
                peer.showed_certs = true;
                let body = match peer.began {
                    true => &KEYS[1].initiator.certs_body,
                    false => &KEYS[1].responder.certs_body,
                };
                peer.variable(Command::CERTS, body)
            }
            3 => {
                let whole = peer.authenticate();
                let (cell, changed) = edited(&whole, tape);
                peer.proved |= !changed;
                return self.say(peer, &cell);
            }
            4 => peer.variable(Command::AUTH_CHALLENGE, &write_auth_challenge(&[4; 32])),
            5 => {
                let netinfo = Netinfo {
                    timestamp: tape.u32(),
                    other: Some([192, 0, 2, 1].into()),
                    own: Vec::new(),
                };
                peer.fixed(0, Command::NETINFO, &netinfo.write())
            }
            6 => peer.variable(Command(tape.u8() | 128), tape.run()),
            7 => {
                let bytes = tape.run();
                return self.say(peer, bytes);
            }
            8 => peer.fixed(peer.circuit(tape), Command::CREATE_FAST, &[8; 20]),
            9 => peer.fixed(
                peer.circuit(tape),
                Command::CREATED2,
                &[&[0, 64][..], &tape.array::<64>()].concat(),
            ),
            10 => peer.fixed(peer.circuit(tape), Command::DESTROY, &[tape.u8()]),
            11 => peer.fixed(peer.circuit(tape), Command::RELAY, &[tape.u8(); BODY_BYTES]),
            12 => {
                let (circuit, command) = (peer.circuit(tape), Command(tape.u8() & 15));
                peer.fixed(circuit, command, tape.run())
            }
            13 => return shard.pass(Duration::from_millis(tape.u16().into())),
            14 => return shard.pass(Duration::from_secs(tape.u8().into())),
            15 => return self.export(),
            16 => {
                // A good ntor, as far as anyone can see who has not the key.
                let mut body = vec![0, 2, 0, 84];
                body.extend(KEYS[0].hop.rsa_identity.0);
                body.extend(KEYS[0].hop.onion_key.as_bytes());
                body.extend(tape.array::<32>());
                peer.fixed(peer.circuit(tape), Command::CREATE2, &body)
            }
            17 => {
                for (ticket, request) in std::mem::take(&mut shard.work) {
                    let answer = if tape.u8() == 0xff {
                        None
                    } else {
                        onion::answer(&request)
                    };
                    shard.tell(Input::OnionAnswered { ticket, answer });
                }
                return;
            }
            18 => {
                if let Some(client) = &mut self.client {
                    talk(shard, client);
                }
                return;
            }
            _ => {
                shard.tell(Input::Settings(Arc::clone(&KEYS[0].settings)));
                return;
            }
        };
        let cell = if tape.u8() & 3 == 3 {
            edited(&cell, tape).0
        } else {
            cell
        };
        self.say(peer, &cell);
        if tape.u8() & 1 == 0 {
            self.export();
        }
    }

    fn say(&mut self, peer: &mut Peer, bytes: &[u8]) {
        peer.said.extend_from_slice(bytes);
        peer.said_bytes += bytes.len();
        self.shard.receive(LINK, bytes);
        loop {
            let heard = self.shard.write(LINK, 4096);
            if heard.is_empty() {
                break;
            }
            peer.heard_bytes += heard.len();
            peer.heard.extend(heard);
        }
    }

    fn export(&mut self) {
        for (channel, _) in std::mem::take(&mut self.shard.exports) {
            self.shard.tell(Input::Exported {
                channel,
                material: MATERIAL,
            });
        }
    }
}
