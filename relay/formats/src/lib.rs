//! What lies on disk or in a document; relay and operator share it.
//!
//! Text or bytes in, text or bytes out: no clock, no dice, no file, no environment in this room.
//! Time comes as `SystemTime`, randomness as `impl rand_core::CryptoRng`.

pub mod cert;
pub mod descriptor;
mod dice;
pub mod document;
pub mod ed25519_key;
pub mod exit_policy;
pub mod extra_info;
pub mod facts;
pub mod family_bundle;
pub mod fingerprint;
pub mod key_file;
pub mod link_certs;
pub mod nickname;
pub mod object_block;
pub mod onion_descriptor;
pub mod onion_key;
pub mod relay_signer;
pub mod rsa_key;
pub mod state;
pub mod time_text;
pub mod torrc;
pub mod x509;

#[cfg(test)]
pub(crate) fn test_dice(seed: u64) -> rand_chacha::ChaCha8Rng {
    use rand_core::SeedableRng as _;
    rand_chacha::ChaCha8Rng::seed_from_u64(seed)
}
