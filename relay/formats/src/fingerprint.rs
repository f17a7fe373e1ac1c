//! The two names of a relay: its RSA fingerprint and its Ed25519 identity.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// SHA-1 of the DER (PKCS#1) of a relay's RSA identity key: the fingerprint (tor-spec, "Relay keys and identities").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RsaIdentity(pub [u8; 20]);

/// A relay's Ed25519 master identity key, public half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ed25519Identity(pub [u8; 32]);

/// Why a text names no relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFingerprint {
    /// Not 40 hexadecimal digits, with or without a leading `$`.
    #[error("a fingerprint has 40 hexadecimal digits")]
    Rsa,
    /// Not 43 base64 characters.
    #[error("an Ed25519 identity has 43 base64 characters")]
    Ed25519,
}

/// Upper-case hexadecimal without spaces, as the `fingerprint` file has it.
impl fmt::Display for RsaIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl fmt::Debug for RsaIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${self}")
    }
}

impl FromStr for RsaIdentity {
    type Err = BadFingerprint;
    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text.strip_prefix('$').unwrap_or(text), &mut bytes).map_err(|_| BadFingerprint::Rsa)?;
        Ok(Self(bytes))
    }
}

/// Base64 without padding, as the `fingerprint-ed25519` file has it.
impl fmt::Display for Ed25519Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Ed25519Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{self}")
    }
}

impl FromStr for Ed25519Identity {
    type Err = BadFingerprint;
    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let bytes = STANDARD_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|_| BadFingerprint::Ed25519)?;
        Ok(Self(bytes.try_into().map_err(|_| BadFingerprint::Ed25519)?))
    }
}
