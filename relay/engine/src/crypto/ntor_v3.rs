//! The ntor-v3 handshake (tor-spec, "The ntor-v3 handshake"): as ntor, with an encrypted message each way.

use aes::Aes256Enc;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use sha3::{Digest, Sha3_256};
use shake::Shake256;
use shake::digest::{ExtendableOutput, Update, XofReader};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::x25519::{Secret, Shared};
use relay_wire::reader::Reader;

const PROTOCOL: &[u8] = b"ntor3-curve25519-sha3_256-1";
/// What Tor puts into VER when a circuit is made.
pub const CIRCUIT_EXTEND: &[u8] = b"circuit extend";

/// The stream of key material after a handshake.
pub type KeyStream = shake::Shake256Reader;

/// Who talks to whom.
#[derive(Clone, Copy)]
pub struct Public {
    /// The relay's Ed25519 identity.
    pub identity: [u8; 32],
    /// The relay's onion key.
    pub onion_key: PublicKey,
}

/// The client's half, taken apart but not yet believed.
pub struct Opening<'a> {
    /// Whom the client wants.
    pub identity: [u8; 32],
    /// Which onion key it used.
    pub onion_key: [u8; 32],
    client: PublicKey,
    encrypted: &'a [u8],
    mac: [u8; 32],
}

impl<'a> Opening<'a> {
    /// Takes the bytes apart; `None` where they are too few.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (rest, mac) = bytes.split_last_chunk::<32>()?;
        let mut reader = Reader::new(rest);
        let (identity, onion_key, client) = (reader.array().ok()?, reader.array().ok()?, reader.array::<32>().ok()?);
        Some(Self {
            identity,
            onion_key,
            client: PublicKey::from(client),
            encrypted: reader.rest(),
            mac: *mac,
        })
    }
}

/// An opening whose MAC is right: the client knows our onion key, and this is what it said.
pub struct Heard<'a> {
    opening: Opening<'a>,
    public: Public,
    shared: Shared,
    /// The client's message.
    pub message: Zeroizing<Vec<u8>>,
}

/// The relay's first step.
pub fn hear<'a>(opening: Opening<'a>, onion_key: &Secret, verification: &[u8]) -> Option<Heard<'a>> {
    let public = Public {
        identity: opening.identity,
        onion_key: PublicKey::from(onion_key.public()),
    };
    let shared = onion_key.agree(opening.client.as_bytes())?;
    let (encryption, mac) = first_phase(
        &public,
        &opening.client,
        shared.as_bytes(),
        opening.encrypted,
        verification,
    );
    if !bool::from(mac.ct_eq(&opening.mac)) {
        return None;
    }
    let message = Zeroizing::new(crypt(&encryption, opening.encrypted));
    Some(Heard {
        opening,
        public,
        shared,
        message,
    })
}

impl Heard<'_> {
    /// The relay's second step: the bytes of the reply, and the key stream.
    pub fn reply(self, message: &[u8], ours: &Secret, verification: &[u8]) -> Option<(Vec<u8>, KeyStream)> {
        let relay = PublicKey::from(ours.public());
        let client = self.opening.client;
        let ephemeral = ours.agree(client.as_bytes())?;
        let second = second_phase(&self.public, &client, &relay, [&ephemeral, &self.shared], verification);
        let encrypted = crypt(&second.encryption, message);
        let proof = second.proof(&self.public, &client, &relay, &self.opening.mac, &encrypted);
        Some(([relay.as_bytes(), &proof[..], &encrypted].concat(), second.stream))
    }
}

/// What the client remembers between its two steps.
pub struct Begun {
    public: Public,
    ephemeral: StaticSecret,
    shared: x25519_dalek::SharedSecret,
    mac: [u8; 32],
}

/// The client's first step, and the bytes that open the handshake.
pub fn client_begins(public: Public, ephemeral: StaticSecret, message: &[u8], verification: &[u8]) -> (Begun, Vec<u8>) {
    let client = PublicKey::from(&ephemeral);
    let shared = ephemeral.diffie_hellman(&public.onion_key);
    let (encryption, _) = first_phase(&public, &client, shared.as_bytes(), &[], verification);
    let encrypted = crypt(&encryption, message);
    let (_, mac) = first_phase(&public, &client, shared.as_bytes(), &encrypted, verification);
    let bytes = [
        &public.identity[..],
        public.onion_key.as_bytes(),
        client.as_bytes(),
        &encrypted,
        &mac,
    ]
    .concat();
    (
        Begun {
            public,
            ephemeral,
            shared,
            mac,
        },
        bytes,
    )
}

/// The client's last step: the relay's message and the key stream, if the proof is right.
pub fn client_ends(begun: &Begun, reply: &[u8], verification: &[u8]) -> Option<(Vec<u8>, KeyStream)> {
    let mut reader = Reader::new(reply);
    let relay = PublicKey::from(reader.array::<32>().ok()?);
    let proof = reader.array::<32>().ok()?;
    let encrypted = reader.rest();
    let (public, client) = (&begun.public, PublicKey::from(&begun.ephemeral));
    let ephemeral = Shared::of_client(&begun.ephemeral.diffie_hellman(&relay))?;
    let medium = Shared::of_client(&begun.shared)?;
    let second = second_phase(public, &client, &relay, [&ephemeral, &medium], verification);
    let expected = second.proof(public, &client, &relay, &begun.mac, encrypted);
    bool::from(expected.ct_eq(&proof)).then(|| (crypt(&second.encryption, encrypted), second.stream))
}

/// The key and the MAC of the client's message.
fn first_phase(
    public: &Public,
    client: &PublicKey,
    shared: &[u8; 32],
    encrypted: &[u8],
    verification: &[u8],
) -> (Zeroizing<[u8; 32]>, [u8; 32]) {
    let (id, b, x) = (
        &public.identity[..],
        &public.onion_key.as_bytes()[..],
        &client.as_bytes()[..],
    );
    let mut stream = stream(":kdf_phase1", &[shared, id, x, b, PROTOCOL, &encap(verification)]);
    let (mut encryption, mut mac_key) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    stream.read(encryption.as_mut_slice());
    stream.read(mac_key.as_mut_slice());
    let mac = hash(":msg_mac", &[&encap(mac_key.as_slice()), id, b, x, encrypted]);
    (encryption, mac)
}

struct SecondPhase {
    verify: Zeroizing<[u8; 32]>,
    encryption: Zeroizing<[u8; 32]>,
    stream: KeyStream,
}

fn second_phase(
    public: &Public,
    client: &PublicKey,
    relay: &PublicKey,
    shared: [&Shared; 2],
    verification: &[u8],
) -> SecondPhase {
    let [ephemeral, medium] = shared.map(|one| &one.as_bytes()[..]);
    let (id, b) = (&public.identity[..], &public.onion_key.as_bytes()[..]);
    let (x, y) = (&client.as_bytes()[..], &relay.as_bytes()[..]);
    let secret = Zeroizing::new([ephemeral, medium, id, b, x, y, PROTOCOL, &encap(verification)].concat());
    let seed = Zeroizing::new(hash(":key_seed", &[&secret]));
    let verify = Zeroizing::new(hash(":verify", &[&secret]));
    let mut stream = stream(":kdf_final", &[seed.as_slice()]);
    let mut encryption = Zeroizing::new([0; 32]);
    stream.read(encryption.as_mut_slice());
    SecondPhase {
        verify,
        encryption,
        stream,
    }
}

impl SecondPhase {
    fn proof(
        &self,
        public: &Public,
        client: &PublicKey,
        relay: &PublicKey,
        mac: &[u8; 32],
        encrypted: &[u8],
    ) -> [u8; 32] {
        let (id, b) = (&public.identity[..], &public.onion_key.as_bytes()[..]);
        let (x, y) = (&client.as_bytes()[..], &relay.as_bytes()[..]);
        let parts = [
            self.verify.as_slice(),
            id,
            b,
            y,
            x,
            mac,
            &encap(encrypted),
            PROTOCOL,
            b"Server",
        ];
        hash(":auth_final", &parts)
    }
}

/// Length, then bytes.
fn encap(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&(bytes.len() as u64).to_be_bytes()[..], bytes].concat())
}

/// A protocol's tweak: its name and the purpose.
fn tweak(purpose: &str) -> Zeroizing<Vec<u8>> {
    encap(&[PROTOCOL, purpose.as_bytes()].concat())
}

fn hash(purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha3_256::new();
    Digest::update(&mut hash, tweak(purpose).as_slice());
    parts.iter().for_each(|part| Digest::update(&mut hash, part));
    hash.finalize().into()
}

fn stream(purpose: &str, parts: &[&[u8]]) -> KeyStream {
    let mut hash = Shake256::default();
    hash.update(&tweak(purpose));
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize_xof()
}

/// AES-256-CTR from counter zero, either way.
fn crypt(key: &[u8; 32], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    Ctr128BE::<Aes256Enc>::new(key.into(), &[0; 16].into()).apply_keystream(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// The example of proposal 332, as tor-proto 0.47 and C tor print it.
    #[test]
    fn the_published_example_comes_out() {
        let b = StaticSecret::from(bytes(
            "4051daa5921cfa2a1c27b08451324919538e79e788a81b38cbed097a5dff454a",
        ));
        let identity = bytes("9fad2af287ef942632833d21f946c6260c33fae6172b60006e86e4a6911753a2");
        let x = StaticSecret::from(bytes(
            "b825a3719147bcbe5fb1d0b0fcb9c09e51948048e2e3283d2ab7b45b5ef38b49",
        ));
        let y = StaticSecret::from(bytes(
            "4865a5b7689dafd978f529291c7171bc159be076b92186405d13220b80e2a053",
        ));
        let public = Public {
            identity,
            onion_key: PublicKey::from(&b),
        };

        let (begun, opening) = client_begins(public, x, b"hello world", b"xyzzy");
        assert_eq!(
            hex::encode(&opening),
            "9fad2af287ef942632833d21f946c6260c33fae6172b60006e86e4a6911753a2\
             f8307a2bc1870b00b828bb74dbb8fd88e632a6375ab3bcd1ae706aaa8b6cdd1d\
             252fe9ae91264c91d4ecb8501f79d0387e34ad8ca0f7c995184f7d11d5da4f46\
             3bebd9151fd3b47c180abc9e044d53565f04d82bbb3bebed3d06cea65db8be9c72b68cd461942088502f67"
        );

        let heard = hear(Opening::read(&opening).unwrap(), &Secret::from(&b), b"xyzzy").unwrap();
        assert_eq!(heard.message.as_slice(), b"hello world");
        let (reply, mut ours) = heard.reply(b"Hola Mundo", &Secret::from(&y), b"xyzzy").unwrap();
        assert_eq!(
            hex::encode(&reply),
            "4bf4814326fdab45ad5184f5518bd7fae25dc59374062698201a50a22954246d\
             2fc5f8773ca824542bc6cf6f57c7c29bbf4e5476461ab130c5b18ab0a9127665\
             1202c3e1e87c0d32054c"
        );

        let (message, mut theirs) = client_ends(&begun, &reply, b"xyzzy").unwrap();
        assert_eq!(message, b"Hola Mundo");
        let (mut one, mut other) = ([0; 32], [0; 32]);
        ours.read(&mut one);
        theirs.read(&mut other);
        assert_eq!(one, other);
        assert_eq!(
            hex::encode(one),
            "9c19b631fd94ed86a817e01f6c80b0743a43f5faebd39cfaa8b00fa8bcc65c3b"
        );
    }

    #[test]
    fn one_flipped_bit_anywhere_is_noticed() {
        let b = StaticSecret::from([7; 32]);
        let public = Public {
            identity: [1; 32],
            onion_key: PublicKey::from(&b),
        };
        let (_, opening) = client_begins(public, StaticSecret::from([8; 32]), b"text", CIRCUIT_EXTEND);
        let b = Secret::from(&b);
        assert!(hear(Opening::read(&opening).unwrap(), &b, CIRCUIT_EXTEND).is_some());
        // The onion key's name, bytes 32 to 64, chooses the key before this and is not hashed again.
        for place in (0..32).chain(64..opening.len()) {
            let mut bent = opening.clone();
            bent[place] ^= 1;
            // X25519 ignores the top bit of a key, but the hash does not.
            assert!(
                hear(Opening::read(&bent).unwrap(), &b, CIRCUIT_EXTEND).is_none(),
                "byte {place}"
            );
        }
        assert!(Opening::read(&opening[..127]).is_none());
    }
}
