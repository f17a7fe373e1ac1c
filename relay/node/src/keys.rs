//! The relay's keys: what the files in the key directory hold, and what lives in memory only.

use relay_engine::settings::OnionKey;
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use zeroize::Zeroizing;

/// The relay's keys at one time. Immutable; a rotation makes a new one. No `Debug`: secrets have no voice.
pub struct Keys {
    /// RSA identity, 1024 bits.
    pub rsa: rsa::RsaPrivateKey,
    /// SHA-1 of its public half's DER.
    pub rsa_identity: RsaIdentity,
    /// Ed25519 master identity.
    pub ed25519_identity: Ed25519Identity,
    /// The medium-term key that signs descriptors and link certificates, expanded: scalar and prefix, 64 bytes.
    pub signing_secret: Zeroizing<[u8; 64]>,
    /// Its public half.
    pub signing_public: [u8; 32],
    /// The master key's certificate for it (type 4, 140 bytes).
    pub signing_certificate: Vec<u8>,
    /// Onion keys: the newest first, then the one whose grace still lasts.
    pub onion: Vec<OnionKey>,
    /// Expanded secrets of the families that torrc `FamilyId` names (64 bytes each).
    pub families: Vec<Zeroizing<[u8; 64]>>,
}
