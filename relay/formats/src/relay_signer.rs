//! The keys that speak for a relay: on its links, and in its documents.

use crate::cert::{CertError, Ed25519Cert};
use crate::ed25519_key::Ed25519Secret;
use crate::fingerprint::Ed25519Identity;
use crate::rsa_key::RsaSecret;

/// Both identities' word. The Ed25519 master key itself may be far away: its certificate is here.
pub struct RelaySigner<'a> {
    /// RSA identity key.
    pub rsa: &'a RsaSecret,
    /// Ed25519 signing key.
    pub signing: &'a Ed25519Secret,
    /// The master key's certificate for it (type 4), which names the master key.
    pub signing_cert: &'a Ed25519Cert,
}

impl RelaySigner<'_> {
    /// The relay's Ed25519 identity.
    ///
    /// # Errors
    /// [`CertError::NoSigner`] if the signing certificate does not name it.
    pub fn identity(&self) -> Result<Ed25519Identity, CertError> {
        self.signing_cert.named_signer()
    }
}
