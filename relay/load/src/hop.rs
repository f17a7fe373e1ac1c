//! The relay under test as the hop of a circuit: handshake and relay crypto from the client's side.

use anyhow::{Context, Result, bail};
use rand::RngExt;
use relay_engine::crypto::keys::{CGO_KEY_BYTES, CircuitKeys, RelayKeys};
use relay_engine::crypto::{cgo, ntor_v3, tor1};
use relay_simnet::client::Hop;
use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::create::{Create2, created2};
use relay_wire::relay_cells::{Format, RelayCommand, RelayMessage};
use shake::digest::XofReader as _;
use x25519_dalek::StaticSecret;

/// Which relay crypto is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Crypto {
    /// What C tor 0.4.9.11's client asks of guards and middles.
    Tor1,
    /// What later clients ask of all.
    Cgo,
}

/// Keys of one hop, both directions.
pub(crate) enum Keys {
    Tor1(Box<(tor1::Direction, tor1::Direction)>),
    Cgo(Box<(cgo::client::ClientForward, cgo::client::ClientBackward)>),
}

/// A handshake that waits for CREATED2.
pub(crate) struct Begun(ntor_v3::Begun, Crypto);

impl Begun {
    /// The handshake and the body of CREATE2.
    pub(crate) fn new(hop: &Hop, crypto: Crypto) -> (Self, Vec<u8>) {
        let public = ntor_v3::Public {
            identity: hop.ed25519_identity.0,
            onion_key: hop.onion_key,
        };
        let ephemeral = StaticSecret::from(rand::rng().random::<[u8; 32]>());
        // Extensions: none; or a request for congestion control and for Relay=6, which is CGO.
        let message: &[u8] = match crypto {
            Crypto::Tor1 => &[0],
            Crypto::Cgo => &[2, 1, 0, 3, 2, 2, 6],
        };
        let (begun, data) = ntor_v3::client_begins(public, ephemeral, message, ntor_v3::CIRCUIT_EXTEND);
        let mut body = Vec::new();
        Create2 {
            handshake_type: 3,
            data: &data,
        }
        .write(&mut body);
        (Self(begun, crypto), body)
    }

    /// The body of CREATED2.
    pub(crate) fn end(self, body: &[u8]) -> Result<Keys> {
        let reply = created2(body).context("CREATED2")?;
        let (_, mut stream) =
            ntor_v3::client_ends(&self.0, reply, ntor_v3::CIRCUIT_EXTEND).context("a wrong CREATED2")?;
        let keys = CircuitKeys::take(self.1 == Crypto::Cgo, None, |part| stream.read(part));
        Ok(match &keys.relay {
            RelayKeys::Tor1(keys) => Keys::Tor1(Box::new(tor1::Direction::pair(keys))),
            RelayKeys::Cgo(keys) => Keys::Cgo(Box::new(cgo_pair(keys))),
        })
    }
}

fn cgo_pair(keys: &[u8; CGO_KEY_BYTES]) -> (cgo::client::ClientForward, cgo::client::ClientBackward) {
    let (mut forward, mut backward) = ([0; cgo::KEY_BYTES], [0; cgo::KEY_BYTES]);
    let (first, second) = keys.split_at(cgo::KEY_BYTES);
    forward.copy_from_slice(first);
    backward.copy_from_slice(second);
    let mut pair = (
        cgo::client::ClientForward::default(),
        cgo::client::ClientBackward::default(),
    );
    pair.0.extend(&forward);
    pair.1.extend(&backward);
    pair
}

impl Keys {
    /// A message that ends at this hop.
    pub(crate) fn originate(
        &mut self,
        carrier: Command,
        command: RelayCommand,
        data: &[u8],
    ) -> Result<[u8; BODY_BYTES]> {
        let message = RelayMessage {
            command,
            stream_id: 0,
            data,
        };
        let format = match self {
            Self::Tor1(_) => Format::V0,
            Self::Cgo(_) => Format::V1,
        };
        let Ok((mut body, _)) = message.write(format) else {
            bail!("a message that is too long");
        };
        match self {
            Self::Tor1(pair) => {
                pair.0.sign(&mut body);
                pair.0.crypt(&mut body);
            }
            Self::Cgo(pair) => {
                pair.0.originate(0, carrier.0, &mut body).context("no hop")?;
            }
        }
        Ok(body)
    }

    /// Puts our layer on a cell for the hop behind.
    #[inline]
    pub(crate) fn wrap(&mut self, body: &mut [u8; BODY_BYTES]) {
        match self {
            Self::Tor1(pair) => pair.0.crypt(body),
            Self::Cgo(pair) => pair.0.pass(Command::RELAY.0, body),
        }
    }

    /// Takes the hop's layer off. Tells whether the hop itself said it.
    #[inline]
    pub(crate) fn peel(&mut self, body: &mut [u8; BODY_BYTES]) -> bool {
        match self {
            Self::Tor1(pair) => {
                pair.1.crypt(body);
                pair.1.recognise(body).is_some()
            }
            Self::Cgo(pair) => pair.1.receive(Command::RELAY.0, body).is_some(),
        }
    }
}
