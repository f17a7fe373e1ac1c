//! RSA keys of 1024 bits: a relay's identity key, its dummy TAP onion key, its old link-auth key.
//!
//! 1024 bits are what the protocol fixes (tor-spec, "Preliminaries"); what must be safe rests on Ed25519.

use crypto_bigint::U512;
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use rand_core::CryptoRng;
use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey, EncodeRsaPrivateKey, EncodeRsaPublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::dice::BlindingDice;
use crate::fingerprint::RsaIdentity;
use crate::object_block::{self, BadBlock};

/// Bits of every RSA key that Tor's protocol names.
pub const RSA_BITS: usize = 1024;
/// Bytes of a signature by such a key.
pub const RSA_SIGNATURE_LEN: usize = RSA_BITS / 8;
/// The public exponent of every RSA key that Tor makes.
pub const RSA_EXPONENT: u32 = 65_537;

/// More than one is needed once in 2^16 keys.
const PAIRS_TRIED_MAX: usize = 8;
const PRIVATE_LABEL: &str = "RSA PRIVATE KEY";
const PUBLIC_LABEL: &str = "RSA PUBLIC KEY";

/// DigestInfo of SHA-256 up to the digest itself (RFC 8017, 9.2, note 1).
const SHA256_PREFIX: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20,
];

/// What can be wrong with an RSA key, or its use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RsaKeyError {
    /// The PEM frame is broken.
    #[error(transparent)]
    Pem(#[from] BadBlock),
    /// The frame holds no RSA key.
    #[error("expected a PKCS#1 RSA key")]
    NoKey,
    /// A key of the wrong size.
    #[error("expected an RSA key of {RSA_BITS} bits with exponent {RSA_EXPONENT}, found one of {0} bits")]
    Size(usize),
    /// Key generation gave up, or a signature did not come out right (a fault of this machine).
    #[error("RSA arithmetic failed")]
    Arithmetic,
    /// More bytes than the padding leaves room for.
    #[error("an RSA signature of {RSA_BITS} bits covers at most {max} bytes, not {0}", max = RSA_SIGNATURE_LEN - 11)]
    TooLong(usize),
}

/// Half of a key: both highest bits are set, so that the product of two has all of its bits.
fn prime(dice: &mut impl CryptoRng) -> Result<BigUint, RsaKeyError> {
    let factory = SmallFactorsSieveFactory::<U512>::new(Flavor::Any, U512::BITS, SetBits::TwoMsb);
    let factory = factory.map_err(|_| RsaKeyError::Arithmetic)?;
    let found = sieve_and_find(dice, factory, |_, candidate| is_prime(Flavor::Any, candidate));
    let prime = Zeroizing::new(found.ok().flatten().ok_or(RsaKeyError::Arithmetic)?);
    let bytes = Zeroizing::new(prime.to_be_bytes());
    Ok(BigUint::from_bytes_be(bytes.as_ref()))
}

/// Wiped on drop; no `Debug`, no `Clone`, no `Serialize`.
pub struct RsaSecret {
    key: RsaPrivateKey,
    public: RsaPublic,
}

impl RsaSecret {
    /// A fresh key. Takes some hundredths of a second.
    ///
    /// The primes are `crypto-primes`', which finds them five times as fast as `rsa` 0.9 does; of ten thousand relays that is
    /// most of the work.
    ///
    /// # Errors
    /// [`RsaKeyError::Arithmetic`] if no primes are found.
    pub fn generate(dice: &mut impl CryptoRng) -> Result<Self, RsaKeyError> {
        for _ in 0..PAIRS_TRIED_MAX {
            let (p, q) = (prime(dice)?, prime(dice)?);
            // Two equal primes, or one that the exponent does not go with: of 2^16 pairs one.
            if p != q
                && let Ok(key) = RsaPrivateKey::from_p_q(p, q, RSA_EXPONENT.into())
            {
                return Self::from_key(key);
            }
        }
        Err(RsaKeyError::Arithmetic)
    }

    /// The key of a `secret_id_key` or `secret_onion_key` file.
    ///
    /// # Errors
    /// Broken PEM, no PKCS#1 in it, inconsistent numbers, or not 1024 bits.
    pub fn from_pem(text: &str) -> Result<Self, RsaKeyError> {
        let der = object_block::decode(PRIVATE_LABEL, text)?;
        Self::from_key(RsaPrivateKey::from_pkcs1_der(&der).map_err(|_| RsaKeyError::NoKey)?)
    }

    /// The key as such a file has it.
    ///
    /// # Errors
    /// Never for a key that this type holds; [`RsaKeyError::NoKey`] stands for a fault in the encoder.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, RsaKeyError> {
        let der = self.key.to_pkcs1_der().map_err(|_| RsaKeyError::NoKey)?;
        Ok(object_block::encode(PRIVATE_LABEL, der.as_bytes()))
    }

    fn from_key(key: RsaPrivateKey) -> Result<Self, RsaKeyError> {
        let public = RsaPublic::from_key(key.to_public_key())?;
        Ok(Self { key, public })
    }

    /// The public half.
    pub fn public(&self) -> &RsaPublic {
        &self.public
    }

    /// PKCS#1 v1.5 over `digest` as it stands, without DigestInfo: how Tor signs documents and cross-certificates.
    ///
    /// # Errors
    /// [`RsaKeyError::TooLong`] beyond 117 bytes; [`RsaKeyError::Arithmetic`] if the machine miscalculates.
    pub fn sign_unprefixed(&self, digest: &[u8]) -> Result<Vec<u8>, RsaKeyError> {
        if digest.len() > RSA_SIGNATURE_LEN - 11 {
            return Err(RsaKeyError::TooLong(digest.len()));
        }
        self.sign(Pkcs1v15Sign::new_unprefixed(), digest)
    }

    /// sha256WithRSAEncryption over `message`: how X.509 signs.
    ///
    /// # Errors
    /// [`RsaKeyError::Arithmetic`] if the machine miscalculates.
    pub fn sign_sha256(&self, message: &[u8]) -> Result<Vec<u8>, RsaKeyError> {
        self.sign(sha256_prefixed(), &Sha256::digest(message))
    }

    fn sign(&self, padding: Pkcs1v15Sign, digest: &[u8]) -> Result<Vec<u8>, RsaKeyError> {
        let der = self.key.to_pkcs1_der().map_err(|_| RsaKeyError::NoKey)?;
        let mut dice = BlindingDice::new(der.as_bytes(), digest);
        self.key
            .sign_with_rng(&mut dice, padding, digest)
            .map_err(|_| RsaKeyError::Arithmetic)
    }
}

/// The public half of an RSA key, of 1024 bits and with exponent 65537.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaPublic {
    key: RsaPublicKey,
    der: Vec<u8>,
}

impl RsaPublic {
    /// From PKCS#1 DER.
    ///
    /// # Errors
    /// No such DER, or a key that is not of 1024 bits with exponent 65537.
    pub fn from_der(der: &[u8]) -> Result<Self, RsaKeyError> {
        Self::from_key(RsaPublicKey::from_pkcs1_der(der).map_err(|_| RsaKeyError::NoKey)?)
    }

    /// From the first `RSA PUBLIC KEY` block of a text.
    ///
    /// # Errors
    /// As [`Self::from_der`], and broken PEM.
    pub fn from_pem(text: &str) -> Result<Self, RsaKeyError> {
        Self::from_der(&object_block::decode(PUBLIC_LABEL, text)?)
    }

    pub(crate) fn from_key(key: RsaPublicKey) -> Result<Self, RsaKeyError> {
        let bits = key.n().bits();
        if bits != RSA_BITS || *key.e() != RSA_EXPONENT.into() {
            return Err(RsaKeyError::Size(bits));
        }
        let der = key.to_pkcs1_der().map_err(|_| RsaKeyError::NoKey)?.into_vec();
        Ok(Self { key, der })
    }

    /// PKCS#1 DER: what both fingerprints are taken of.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// An `RSA PUBLIC KEY` block, as descriptors have it.
    pub fn to_pem(&self) -> String {
        object_block::encode(PUBLIC_LABEL, &self.der).to_string()
    }

    /// The fingerprint, if this is an identity key.
    pub fn identity(&self) -> RsaIdentity {
        RsaIdentity(Sha1::digest(&self.der).into())
    }

    /// SHA-256 of the DER: CID and SID of the AUTHENTICATE cell.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Whether `signature` is one of [`RsaSecret::sign_unprefixed`] over `digest`.
    #[must_use]
    pub fn verify_unprefixed(&self, digest: &[u8], signature: &[u8]) -> bool {
        self.key
            .verify(Pkcs1v15Sign::new_unprefixed(), digest, signature)
            .is_ok()
    }

    /// Whether `signature` is one of [`RsaSecret::sign_sha256`] over `message`.
    #[must_use]
    pub fn verify_sha256(&self, message: &[u8], signature: &[u8]) -> bool {
        let digest = Sha256::digest(message);
        self.key.verify(sha256_prefixed(), &digest, signature).is_ok()
    }
}

fn sha256_prefixed() -> Pkcs1v15Sign {
    Pkcs1v15Sign {
        hash_len: Some(32),
        prefix: Box::new(SHA256_PREFIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dice::OlderDice, test_dice};

    #[test]
    fn a_key_comes_back_from_its_file() {
        let key = RsaSecret::generate(&mut test_dice(1)).unwrap();
        let pem = key.to_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
        assert_eq!(
            RsaSecret::from_pem(&pem).unwrap().public().identity(),
            key.public().identity()
        );
        assert_eq!(
            RsaPublic::from_pem(&key.public().to_pem()).unwrap().der(),
            key.public().der()
        );
    }

    #[test]
    fn a_signature_holds_for_its_message_and_its_kind_alone() {
        let key = RsaSecret::generate(&mut test_dice(1)).unwrap();
        let digest = [7; 20];
        let bare = key.sign_unprefixed(&digest).unwrap();
        assert_eq!(bare.len(), RSA_SIGNATURE_LEN);
        assert!(key.public().verify_unprefixed(&digest, &bare));
        assert!(!key.public().verify_unprefixed(&[8; 20], &bare));

        let framed = key.sign_sha256(b"certificate").unwrap();
        assert!(key.public().verify_sha256(b"certificate", &framed));
        assert!(!key.public().verify_sha256(b"certificatf", &framed));
        assert!(!key.public().verify_unprefixed(&Sha256::digest(b"certificate"), &framed));
    }

    #[test]
    fn what_does_not_fit_the_padding_is_not_signed() {
        let key = RsaSecret::generate(&mut test_dice(1)).unwrap();
        assert!(key.sign_unprefixed(&[0; 117]).is_ok());
        assert_eq!(key.sign_unprefixed(&[0; 118]), Err(RsaKeyError::TooLong(118)));
    }

    #[test]
    fn a_key_of_another_size_is_no_identity() {
        let long = RsaPrivateKey::new(&mut OlderDice(&mut test_dice(1)), 1536).unwrap();
        let pem = object_block::encode(PRIVATE_LABEL, long.to_pkcs1_der().unwrap().as_bytes());
        assert_eq!(RsaSecret::from_pem(&pem).err(), Some(RsaKeyError::Size(1536)));
    }

    #[test]
    fn a_file_without_a_key_says_what_was_expected() {
        let error = RsaSecret::from_pem("hello").err().unwrap();
        assert_eq!(error.to_string(), "expected a line `-----BEGIN RSA PRIVATE KEY-----`");
        let hollow = object_block::encode(PRIVATE_LABEL, b"hello");
        assert_eq!(RsaSecret::from_pem(&hollow).err(), Some(RsaKeyError::NoKey));
    }
}
