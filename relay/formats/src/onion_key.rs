//! A relay's ntor onion key (x25519), and its Ed25519 form for the cross-certificate.

use rand_core::CryptoRng;
use sha2::Digest as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::ed25519_key::Ed25519Secret;

/// The key to which clients do the ntor handshake. Wiped on drop; no `Debug`, no `Clone`, no `Serialize`.
pub struct OnionKeyPair {
    secret: StaticSecret,
    public: [u8; 32],
}

impl OnionKeyPair {
    /// A fresh key.
    pub fn generate(dice: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        dice.fill_bytes(secret.as_mut_slice());
        Self::from_secret(&secret)
    }

    /// The key of 32 secret bytes, which are clamped first (RFC 7748), as C tor stores them.
    pub fn from_secret(bytes: &[u8; 32]) -> Self {
        let clamped = Zeroizing::new(curve25519_dalek::scalar::clamp_integer(*bytes));
        let secret = StaticSecret::from(*clamped);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    /// The public half: `ntor-onion-key` of the descriptor.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The secret half, for the handshake.
    pub fn secret(&self) -> &StaticSecret {
        &self.secret
    }

    /// The same scalar as an Ed25519 key, and the sign bit (0 or 1) of its public half, which
    /// `ntor-onion-key-crosscert` must tell: curve25519 forgets it.
    ///
    /// The prefix, which only has to be secret and fixed, is made as C tor makes it.
    pub fn to_ed25519(&self) -> (Ed25519Secret, u8) {
        let scalar = Zeroizing::new(self.secret.to_bytes());
        let prefix: Zeroizing<[u8; 64]> = Zeroizing::new(
            sha2::Sha512::new()
                .chain_update(scalar.as_slice())
                .chain_update(b"Derive high part of ed25519 key from curve25519 key\0")
                .finalize()
                .into(),
        );
        let mut expanded = Zeroizing::new([0; 64]);
        for (to, from) in expanded.iter_mut().zip(scalar.iter().chain(prefix.iter())) {
            *to = *from;
        }
        let key = Ed25519Secret::from_expanded(&expanded);
        let sign_bit = key.sign_bit();
        (key, sign_bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ed25519_key::{from_curve25519_public, verify};
    use crate::test_dice;

    /// RFC 7748, 6.1, Alice's key.
    #[test]
    fn the_public_half_is_that_of_rfc_7748() {
        let secret = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        let pair = OnionKeyPair::from_secret(&hex::decode(secret).unwrap().try_into().unwrap());
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(hex::encode(pair.public()), public);
    }

    #[test]
    fn who_knows_the_onion_key_and_its_sign_bit_can_check_what_it_signed() {
        for seed in 0..8 {
            let pair = OnionKeyPair::generate(&mut test_dice(seed));
            let (signer, sign_bit) = pair.to_ed25519();
            let public = from_curve25519_public(pair.public(), sign_bit).unwrap();
            assert_eq!(public, signer.public());
            assert!(verify(&public, b"x", &signer.sign(b"x")));
        }
    }
}
