//! Ed25519 keys as Tor keeps them: the expanded secret (scalar and prefix), not the seed.
//!
//! C tor's key files hold the 64 expanded bytes, from which no seed can be won back; so this type holds them too.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::clamp_integer;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Sha512, Signature, VerifyingKey};
use rand_core::CryptoRng;
use sha2::Digest as _;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::fingerprint::Ed25519Identity;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// Wiped on drop; no `Debug`, no `Clone`, no `Serialize`.
#[derive(ZeroizeOnDrop)]
pub struct Ed25519Secret {
    /// Clamped scalar, 32 bytes; then the prefix from which nonces are made, 32 bytes.
    expanded: [u8; 64],
    #[zeroize(skip)]
    public: VerifyingKey,
}

impl Ed25519Secret {
    /// A fresh key.
    pub fn generate(dice: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        dice.fill_bytes(seed.as_mut_slice());
        Self::from_seed(&seed)
    }

    /// The key that RFC 8032 makes of a seed of 32 bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_expanded(&Zeroizing::new(sha2::Sha512::digest(seed).into()))
    }

    /// The key of 64 expanded bytes, as C tor's files have them. A scalar that is not clamped is clamped.
    pub fn from_expanded(bytes: &[u8; 64]) -> Self {
        let mut expanded = *bytes;
        clamp(&mut expanded);
        let public = VerifyingKey::from(&ExpandedSecretKey::from_bytes(&expanded));
        Self { expanded, public }
    }

    /// Scalar, then prefix: what a key file keeps.
    pub fn expanded(&self) -> &[u8; 64] {
        &self.expanded
    }

    /// The public half.
    pub fn public(&self) -> Ed25519Identity {
        Ed25519Identity(self.public.to_bytes())
    }

    /// Plain Ed25519 (RFC 8032) over `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let key = ExpandedSecretKey::from_bytes(&self.expanded);
        raw_sign::<Sha512>(&key, message, &self.public).to_bytes()
    }

    /// Whether the public half's x is odd or even: the sign bit that
    /// `ntor-onion-key-crosscert` tells (dir-spec, "Converting a curve25519 public key").
    pub(crate) fn sign_bit(&self) -> u8 {
        self.public.to_bytes()[31] >> 7
    }
}

fn clamp(expanded: &mut [u8; 64]) {
    if let Some(scalar) = expanded.first_chunk_mut::<32>() {
        *scalar = clamp_integer(*scalar);
    }
}

/// Whether `signature` over `message` is `signer`'s. Says no to keys of small order, which no honest party has.
#[must_use]
pub fn verify(signer: &Ed25519Identity, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    VerifyingKey::from_bytes(&signer.0)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// The Ed25519 form of a curve25519 public key with the given sign bit of x (cert-spec and dir-spec,
/// "Converting a curve25519 public key to an ed25519 public key"). None if the point has no such form,
/// or the bit is neither 0 nor 1.
#[must_use]
pub fn from_curve25519_public(public: &[u8; 32], sign_bit: u8) -> Option<Ed25519Identity> {
    let point: EdwardsPoint =
        curve25519_dalek::montgomery::MontgomeryPoint(*public).to_edwards((sign_bit <= 1).then_some(sign_bit)?)?;
    Some(Ed25519Identity(point.compress().to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dice;

    /// RFC 8032, 7.1, test 2.
    #[test]
    fn we_sign_as_rfc_8032_does() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let key = Ed25519Secret::from_seed(&hex::decode(seed).unwrap().try_into().unwrap());
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(hex::encode(key.public().0), public);
        let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(hex::encode(key.sign(&[0x72])), signature);
    }

    #[test]
    fn a_signature_holds_for_its_message_alone() {
        let (key, other) = (
            Ed25519Secret::generate(&mut test_dice(1)),
            Ed25519Secret::generate(&mut test_dice(2)),
        );
        let signature = key.sign(b"one");
        assert!(verify(&key.public(), b"one", &signature));
        assert!(!verify(&key.public(), b"two", &signature));
        assert!(!verify(&other.public(), b"one", &signature));
    }

    #[test]
    fn the_expanded_bytes_are_the_whole_key() {
        let key = Ed25519Secret::generate(&mut test_dice(1));
        let again = Ed25519Secret::from_expanded(key.expanded());
        assert_eq!((again.public(), again.sign(b"x")), (key.public(), key.sign(b"x")));
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        assert!(!verify(&Ed25519Identity([0; 32]), b"", &[0; 64]));
    }
}
