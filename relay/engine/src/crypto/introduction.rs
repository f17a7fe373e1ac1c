//! The proof in ESTABLISH_INTRO (rend-spec, "Registering an introduction point"): it was made for this circuit, by whoever
//! has the key that it names.

use relay_formats::ed25519_key;
use relay_formats::fingerprint::Ed25519Identity;
use relay_wire::onion_service::EstablishIntro;
use sha3::{Digest, Sha3_256};
use subtle::ConstantTimeEq;

use super::keys::NONCE_BYTES;

/// Whether MAC and signature are right for the circuit with this nonce.
pub fn is_proven(wish: &EstablishIntro<'_>, nonce: &[u8; NONCE_BYTES]) -> bool {
    // Cheap before dear.
    bool::from(mac(nonce, wish.maced).ct_eq(&wish.mac))
        && ed25519_key::verify(&Ed25519Identity(wish.auth_key), &wish.signed(), &wish.signature)
}

/// HANDSHAKE_AUTH: SHA3-256 over the length of the circuit's nonce, the nonce, and the message.
pub fn mac(nonce: &[u8; NONCE_BYTES], message: &[u8]) -> [u8; 32] {
    let hash = Sha3_256::new()
        .chain_update((NONCE_BYTES as u64).to_be_bytes())
        .chain_update(nonce)
        .chain_update(message);
    hash.finalize().into()
}
