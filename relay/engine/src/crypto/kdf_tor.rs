//! CREATE_FAST's half of key making: SHA-1 over the two nonces, counted up (tor-spec, "KDF-TOR").
//!
//! It hides nothing that the link does not hide already; only first hops use it.

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::keys::{CircuitKeys, TOR1_KEY_BYTES};

/// What goes back to the client, and what both now share.
pub struct Fast {
    /// The body of CREATED_FAST: our nonce, then the proof that we know the keys.
    pub reply: [u8; 40],
    /// What the circuit is made of.
    pub keys: CircuitKeys,
}

/// Answers the client's nonce with ours.
pub fn answer(client: &[u8; 20], ours: &[u8; 20]) -> Fast {
    let (proof, keys) = derive(client, ours);
    let mut reply = [0; 40];
    let (first, second) = reply.split_at_mut(20);
    first.copy_from_slice(ours);
    second.copy_from_slice(&proof);
    Fast { reply, keys }
}

/// The proof and the keys that belong to two nonces; either side computes them.
pub fn derive(client: &[u8; 20], relay: &[u8; 20]) -> ([u8; 20], CircuitKeys) {
    let mut stream = Zeroizing::new([0; 100]);
    for (count, block) in stream.chunks_exact_mut(20).enumerate() {
        let digest = Sha1::new()
            .chain_update(client)
            .chain_update(relay)
            .chain_update([count as u8]);
        block.copy_from_slice(&digest.finalize());
    }
    let mut proof = [0; 20];
    let mut tor1 = Zeroizing::new([0; TOR1_KEY_BYTES]);
    let (first, rest) = stream.split_at(20);
    proof.copy_from_slice(first);
    tor1.copy_from_slice(rest.split_at(TOR1_KEY_BYTES).0);
    // C tor uses the proof as the circuit's nonce too.
    (proof, CircuitKeys::tor1(tor1, proof, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_nonces_count() {
        let proof = |a, b| derive(&[a; 20], &[b; 20]).0;
        assert_ne!(proof(1, 2), proof(2, 1));
        assert_ne!(proof(1, 2), proof(1, 3));
    }

    /// SHA1(X ‖ Y ‖ 0) with X and Y all zero: the digest of 41 zero bytes.
    #[test]
    fn the_proof_is_the_first_digest() {
        assert_eq!(
            hex::encode(derive(&[0; 20], &[0; 20]).0),
            hex::encode(Sha1::digest([0; 41]))
        );
    }
}
