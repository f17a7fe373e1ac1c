//! A client's side of circuit handshakes and relay crypto: CREATE_FAST, ntor, ntor-v3, and the layers of AES-128-CTR with a
//! running SHA-1 (tor-spec, "Creating circuits", "Setting circuit keys", "Relay cells").

use aes::cipher::{KeyIvInit, StreamCipher};
use anyhow::{Context, Result, ensure};
use hkdf::Hkdf;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::cells::BODY_BYTES;
use crate::scene::Target;

type Cipher = ctr::Ctr128BE<aes::Aes128>;

/// One hop's keys.
pub struct Hop {
    forward: Layer,
    backward: Layer,
    /// What client and relay share beside the keys: `KH`.
    pub nonce: [u8; 20],
}

struct Layer {
    cipher: Cipher,
    digest: Sha1,
}

impl Layer {
    fn new(seed: &[u8], key: &[u8]) -> Result<Self> {
        let cipher = Cipher::new_from_slices(key, &[0; 16])
            .ok()
            .context("a key of 16 bytes")?;
        Ok(Self {
            cipher,
            digest: Sha1::new_with_prefix(seed),
        })
    }
}

impl Hop {
    /// From Df, Db, Kf, Kb and KH in a row.
    fn new(stream: &[u8], nonce: [u8; 20]) -> Result<Self> {
        let part = |from: usize, to: usize| stream.get(from..to).context("too few bytes of key");
        Ok(Self {
            forward: Layer::new(part(0, 20)?, part(40, 56)?)?,
            backward: Layer::new(part(20, 40)?, part(56, 72)?)?,
            nonce,
        })
    }

    /// Signs a plain body as meant for this hop; gives the whole running digest.
    pub fn sign(&mut self, body: &mut [u8; BODY_BYTES]) -> [u8; 20] {
        self.forward.digest.update(&body[..]);
        let digest: [u8; 20] = self.forward.digest.clone().finalize().into();
        for (to, from) in body.iter_mut().skip(5).zip(digest.iter().take(4)) {
            *to = *from;
        }
        digest
    }

    /// Puts the layer on.
    pub fn wrap(&mut self, body: &mut [u8; BODY_BYTES]) {
        self.forward.cipher.apply_keystream(body);
    }

    /// Takes the layer off what came back. If this hop said it, gives the running digest.
    pub fn peel(&mut self, body: &mut [u8; BODY_BYTES]) -> Option<[u8; 20]> {
        self.backward.cipher.apply_keystream(body);
        let [_, 0, 0, _, _, a, b, c, d, ..] = *body else {
            return None;
        };
        let mut blank = *body;
        for byte in blank.iter_mut().skip(5).take(4) {
            *byte = 0;
        }
        let running = self.backward.digest.clone().chain_update(blank);
        let digest: [u8; 20] = running.clone().finalize().into();
        digest.starts_with(&[a, b, c, d]).then(|| {
            self.backward.digest = running;
            digest
        })
    }
}

/// CREATE_FAST's answer.
///
/// # Errors
/// The relay does not prove the keys.
pub fn fast(ours: &[u8; 20], reply: &[u8]) -> Result<Hop> {
    let (theirs, rest) = reply.split_first_chunk::<20>().context("a short CREATED_FAST")?;
    let stream: Vec<u8> = (0_u8..5)
        .flat_map(|count| {
            Sha1::new()
                .chain_update(ours)
                .chain_update(theirs)
                .chain_update([count])
                .finalize()
        })
        .collect();
    let (nonce, keys) = stream.split_first_chunk::<20>().context("no key")?;
    ensure!(rest.starts_with(nonce), "a wrong proof in CREATED_FAST");
    Hop::new(keys, *nonce)
}

/// The client's half of a handshake that was sent.
pub enum Begun {
    /// Type 2.
    Ntor(Box<Ntor>),
    /// Type 3.
    V3(Box<V3>),
}

/// An ntor handshake under way.
pub struct Ntor {
    target: Target,
    secret: StaticSecret,
}

/// An ntor-v3 handshake under way.
pub struct V3 {
    target: Target,
    secret: StaticSecret,
    shared: [u8; 32],
    mac: [u8; 32],
}

const NTOR: &[u8] = b"ntor-curve25519-sha256-1";
const NTOR3: &[u8] = b"ntor3-curve25519-sha3_256-1";
const CIRCUIT_EXTEND: &[u8] = b"circuit extend";

/// Opens ntor: what is kept, and HDATA.
#[must_use]
pub fn ntor(target: &Target) -> (Begun, Vec<u8>) {
    let secret = StaticSecret::from(rand::random::<[u8; 32]>());
    let public = PublicKey::from(&secret);
    let data = [&target.rsa_id[..], &target.onion_key, public.as_bytes()].concat();
    let target = target.clone();
    (Begun::Ntor(Box::new(Ntor { target, secret })), data)
}

/// Opens ntor-v3 with these extensions: what is kept, and HDATA.
///
/// # Errors
/// None that a caller could cause.
pub fn ntor_v3(target: &Target, extensions: &[u8]) -> Result<(Begun, Vec<u8>)> {
    let secret = StaticSecret::from(rand::random::<[u8; 32]>());
    let public = PublicKey::from(&secret);
    let (id, b, x) = (&target.ed25519_id[..], &target.onion_key[..], public.as_bytes());
    let shared = secret.diffie_hellman(&PublicKey::from(target.onion_key)).to_bytes();
    let phase1 = [&shared[..], id, x, b, NTOR3, &encap(CIRCUIT_EXTEND)].concat();
    let keys = kdf(&phase1, b":kdf_phase1", 64);
    let (encryption, authentication) = keys.split_at(32);
    let mut message = extensions.to_vec();
    aes256(encryption, &mut message)?;
    let mac = v3_mac(authentication, &[id, b, x, &message].concat(), b":msg_mac");
    let data = [id, b, x, &message, &mac].concat();
    let target = target.clone();
    let begun = V3 {
        target,
        secret,
        shared,
        mac,
    };
    Ok((Begun::V3(Box::new(begun)), data))
}

/// Ends either.
///
/// # Errors
/// The relay's proof is wrong.
pub fn finish(begun: &Begun, reply: &[u8]) -> Result<Hop> {
    match begun {
        Begun::Ntor(begun) => finish_ntor(begun, reply),
        Begun::V3(begun) => finish_v3(begun, reply),
    }
}

fn finish_ntor(begun: &Ntor, reply: &[u8]) -> Result<Hop> {
    let Ntor { target, secret } = begun;
    let (y, proof) = reply.split_first_chunk::<32>().context("a short answer to ntor")?;
    let (id, b) = (&target.rsa_id[..], &target.onion_key[..]);
    let x = PublicKey::from(secret);
    let xy = secret.diffie_hellman(&PublicKey::from(*y));
    let xb = secret.diffie_hellman(&PublicKey::from(target.onion_key));
    let input = [xy.as_bytes(), &xb.as_bytes()[..], id, b, x.as_bytes(), y, NTOR].concat();
    let tweak = |name: &str| [NTOR, name.as_bytes()].concat();
    let verify = hmac(&tweak(":verify"), &input);
    let expected = hmac(
        &tweak(":mac"),
        &[&verify[..], id, b, y, x.as_bytes(), NTOR, b"Server"].concat(),
    );
    ensure!(proof.starts_with(&expected), "a wrong proof in CREATED2");
    let mut stream = [0; 92];
    Hkdf::<Sha256>::new(Some(&tweak(":key_extract")), &input)
        .expand(&tweak(":key_expand"), &mut stream)
        .ok()
        .context("HKDF")?;
    let (keys, nonce) = stream.split_last_chunk::<20>().context("no nonce")?;
    Hop::new(keys, *nonce)
}

fn finish_v3(begun: &V3, reply: &[u8]) -> Result<Hop> {
    let V3 {
        target,
        secret,
        shared,
        mac,
    } = begun;
    let (y, rest) = reply.split_first_chunk::<32>().context("a short answer to ntor-v3")?;
    let (proof, encrypted) = rest.split_first_chunk::<32>().context("a short answer to ntor-v3")?;
    let (id, b) = (&target.ed25519_id[..], &target.onion_key[..]);
    let x = PublicKey::from(secret);
    let xy = secret.diffie_hellman(&PublicKey::from(*y)).to_bytes();
    let version = encap(CIRCUIT_EXTEND);
    let input = [&xy[..], shared, id, b, x.as_bytes(), y, NTOR3, &version].concat();
    let seed = v3_hash(&input, b":key_seed");
    let verify = v3_hash(&input, b":verify");
    let said = [
        &verify[..],
        id,
        b,
        y,
        x.as_bytes(),
        mac,
        &encap(encrypted),
        NTOR3,
        b"Server",
    ];
    let expected = v3_hash(&said.concat(), b":auth_final");
    ensure!(*proof == expected, "a wrong proof in CREATED2");
    let stream = kdf(&seed, b":kdf_final", 32 + 72 + 20);
    let keys = stream.get(32..104).context("no keys")?;
    let nonce = stream.last_chunk::<20>().context("no nonce")?;
    Hop::new(keys, *nonce)
}

/// HMAC-SHA256, which is what HKDF's first step is.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    Hkdf::<Sha256>::extract(Some(key), text).0.into()
}

fn encap(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_be_bytes()[..], text].concat()
}

fn v3_tweak(name: &[u8]) -> Vec<u8> {
    encap(&[NTOR3, name].concat())
}

fn v3_hash(text: &[u8], tweak: &[u8]) -> [u8; 32] {
    Sha3_256::new()
        .chain_update(v3_tweak(tweak))
        .chain_update(text)
        .finalize()
        .into()
}

fn v3_mac(key: &[u8], text: &[u8], tweak: &[u8]) -> [u8; 32] {
    v3_hash(&[&encap(key)[..], text].concat(), tweak)
}

fn kdf(text: &[u8], tweak: &[u8], length: usize) -> Vec<u8> {
    use shake::digest::{ExtendableOutput, Update, XofReader};
    let mut shake = shake::Shake256::default();
    shake.update(&v3_tweak(tweak));
    shake.update(text);
    let mut out = vec![0; length];
    shake.finalize_xof().read(&mut out);
    out
}

fn aes256(key: &[u8], text: &mut [u8]) -> Result<()> {
    ctr::Ctr128BE::<aes::Aes256>::new_from_slices(key, &[0; 16])
        .ok()
        .context("a key of 32 bytes")?
        .apply_keystream(text);
    Ok(())
}
