//! The ntor handshake (tor-spec, "The ntor handshake"): one round, the relay proves that it has its onion key.

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::keys::CircuitKeys;
use super::x25519::{Secret, Shared};

const PROTOCOL: &[u8] = b"ntor-curve25519-sha256-1";
const TO_EXTRACT: &[u8] = b"ntor-curve25519-sha256-1:key_extract";
const TO_EXPAND: &[u8] = b"ntor-curve25519-sha256-1:key_expand";
const TO_VERIFY: &[u8] = b"ntor-curve25519-sha256-1:verify";
const TO_AUTHENTICATE: &[u8] = b"ntor-curve25519-sha256-1:mac";

/// Bytes of the client's half: identity, onion key, ephemeral key.
pub const CLIENT_BYTES: usize = 20 + 32 + 32;
/// Bytes of the relay's half: ephemeral key, proof.
pub const SERVER_BYTES: usize = 32 + 32;

/// The public values that both sides put into the hash.
#[derive(Clone, Copy)]
pub struct Public {
    /// The relay's RSA identity.
    pub identity: [u8; 20],
    /// The relay's onion key.
    pub onion_key: PublicKey,
    /// The client's ephemeral key.
    pub client: PublicKey,
}

/// The relay's half. `None` where a shared secret is all zeros.
pub fn server(public: &Public, onion_key: &Secret, ours: &Secret) -> Option<(Vec<u8>, CircuitKeys)> {
    let ours_public = PublicKey::from(ours.public());
    let client = public.client.as_bytes();
    let shared = [ours.agree(client)?, onion_key.agree(client)?];
    let (proof, keys) = derive(public, &ours_public, &shared)?;
    Some(([ours_public.as_bytes(), &proof[..]].concat(), keys))
}

/// The bytes that open the handshake.
pub fn client_begins(public: &Public) -> Vec<u8> {
    [
        &public.identity[..],
        public.onion_key.as_bytes(),
        public.client.as_bytes(),
    ]
    .concat()
}

/// The client's last step: the keys, if the relay's proof is right.
pub fn client_ends(public: &Public, ephemeral: &StaticSecret, reply: &[u8]) -> Option<CircuitKeys> {
    let (theirs, proof) = reply.split_first_chunk::<32>()?;
    let theirs = PublicKey::from(*theirs);
    let shared = [
        Shared::of_client(&ephemeral.diffie_hellman(&theirs))?,
        Shared::of_client(&ephemeral.diffie_hellman(&public.onion_key))?,
    ];
    let (expected, keys) = derive(public, &theirs, &shared)?;
    bool::from(expected.ct_eq(proof.get(..32)?)).then_some(keys)
}

fn derive(public: &Public, relay: &PublicKey, shared: &[Shared; 2]) -> Option<([u8; 32], CircuitKeys)> {
    let [ephemeral, medium] = shared;
    let [id, b, x, y] = [
        &public.identity[..],
        public.onion_key.as_bytes(),
        public.client.as_bytes(),
        relay.as_bytes(),
    ];
    let secret = Zeroizing::new([ephemeral.as_bytes(), &medium.as_bytes()[..], id, b, x, y, PROTOCOL].concat());
    let verify = Zeroizing::new(keyed(TO_VERIFY, &secret));
    let proof = keyed(
        TO_AUTHENTICATE,
        &[verify.as_slice(), id, b, y, x, PROTOCOL, b"Server"].concat(),
    );

    let expander = Hkdf::<Sha256>::new(Some(TO_EXTRACT), &secret);
    let mut stream = Zeroizing::new([0; 92]);
    expander.expand(TO_EXPAND, stream.as_mut_slice()).ok()?;
    let mut rest = stream.as_slice();
    let keys = CircuitKeys::take(false, None, |part| {
        let (taken, left) = rest.split_at(part.len());
        part.copy_from_slice(taken);
        rest = left;
    });
    Some((proof, keys))
}

/// HMAC-SHA256, which is what HKDF's first step is.
fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    Hkdf::<Sha256>::extract(Some(key), text).0.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::RelayKeys;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// The example that Tor's authors computed with two implementations; printed in tor-proto 0.47 and C tor's tests.
    #[test]
    fn the_published_example_comes_out() {
        let b = StaticSecret::from(bytes(
            "4820544f4c4420594f5520444f474954204b454550532048415050454e494e47",
        ));
        let x = StaticSecret::from(bytes(
            "706f6461792069207075742e2e2e2e2e2e2e2e4a454c4c59206f6e2074686973",
        ));
        let y = StaticSecret::from(bytes(
            "70686520737175697272656c2e2e2e2e2e2e2e2e686173206869732067616d65",
        ));
        let public = Public {
            identity: bytes("69546f6c64596f7541626f75745374616972732e"),
            onion_key: PublicKey::from(&b),
            client: PublicKey::from(&x),
        };
        assert_eq!(
            hex::encode(client_begins(&public)),
            "69546f6c64596f7541626f75745374616972732eccbc8541904d18af08753eae967874749e6149f873de937f57f8fd903a21c471\
             e65dfdbef8b2635837fe2cebc086a8096eae3213e6830dc407516083d412b078"
        );
        let (reply, keys) = server(&public, &Secret::from(&b), &Secret::from(&y)).unwrap();
        assert_eq!(
            hex::encode(&reply),
            "390480a14362761d6aec1fea840f6e9e928fb2adb7b25c670be1045e35133a37\
             1cbdf68b89923e1f85e8e18ee6e805ea333fe4849c790ffd2670bd80fec95cc8"
        );
        let RelayKeys::Tor1(relay) = &keys.relay else {
            panic!("ntor makes tor1 keys")
        };
        assert_eq!(
            hex::encode(relay.as_slice()),
            "0c62dee7f48893370d0ef896758d35729867beef1a5121df80e00f79ed349af3\
             9b51cae125719182f19d932a667dae1afbf2e336e6910e7822223e763afad0a13342157969dc6b79"
        );
        let theirs = client_ends(&public, &x, &reply).unwrap();
        assert_eq!(theirs.nonce, keys.nonce);
        let mut forged = reply;
        forged[40] ^= 1;
        assert!(client_ends(&public, &x, &forged).is_none());
    }

    #[test]
    fn a_client_key_of_small_order_is_refused() {
        let b = Secret::new(&[3; 32]);
        let public = Public {
            identity: [0; 20],
            onion_key: PublicKey::from(b.public()),
            client: PublicKey::from([0; 32]),
        };
        assert!(server(&public, &b, &Secret::new(&[4; 32])).is_none());
    }
}
