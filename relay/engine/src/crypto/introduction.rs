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

#[cfg(test)]
mod tests {
    use super::*;

    /// TROVE-2021-007: two rules for signatures disagreed. Ours is one, and it is strict: a key of small order, whose
    /// "signature" fits any message, signs nothing.
    #[test]
    fn trove_2021_007_a_key_of_small_order_proves_nothing() {
        let nonce = [3; NONCE_BYTES];
        for auth_key in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
            let forged = |_: &[u8]| std::array::from_fn(|at| if at < 32 { auth_key[at] } else { 0 });
            let message = EstablishIntro::write(&auth_key, None, |maced| mac(&nonce, maced), forged);
            let wish = EstablishIntro::read(&message).unwrap();
            assert!(!is_proven(&wish, &nonce));
        }
    }
}
