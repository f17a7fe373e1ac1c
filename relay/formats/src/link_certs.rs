//! What a relay shows of itself on a link: the TLS certificate and the CERTS cell; and what a peer's proves.
//!
//! CERTS (tor-spec, "CERTS cells"): a count, then for each certificate its type (1 byte), length (2) and bytes.
//!
//!   2 identity, RSA, self-signed --7--> Ed25519 identity --4--> signing key --5--> TLS certificate   (responder)
//!                                                                          `--6--> link-auth key     (initiator)
//!
//! The chain must be whole: there is no falling back to RSA alone. Types 1 and 3 are sent for older peers and not read.

mod making;
mod proving;

pub use crate::relay_signer::RelaySigner as LinkSigner;
pub use making::{ResponderLink, TlsLinkKey, initiator_certs, responder_link};
pub use proving::{ProvenInitiator, ProvenPeer, prove_initiator, prove_responder};

use crate::cert::CertError;
use crate::rsa_key::RsaKeyError;
use crate::x509::X509Error;

/// X.509 certificate of the TLS key.
const TLS_LINK: u8 = 1;
/// Self-signed X.509 certificate of the RSA identity key.
const RSA_IDENTITY: u8 = 2;
/// X.509 certificate of an RSA link-auth key, which only old link protocols used.
const RSA_LINK_AUTH: u8 = 3;
/// Ed25519 identity certifies signing key.
const IDENTITY_SIGNING: u8 = 4;
/// Signing key certifies the TLS certificate.
const SIGNING_TLS: u8 = 5;
/// Signing key certifies the link-auth key.
const SIGNING_LINK_AUTH: u8 = 6;
/// RSA identity certifies the Ed25519 identity.
const RSA_CROSS: u8 = 7;

/// Why a CERTS cell proves nothing, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkCertError {
    /// Ends within a certificate.
    #[error("the CERTS cell ends too early")]
    Length,
    /// Two certificates of one type.
    #[error("the CERTS cell has certificate type {0} twice")]
    Twice(u8),
    /// A certificate that the chain needs is not there.
    #[error("the CERTS cell lacks certificate type {0}")]
    Missing(u8),
    /// A certificate of the chain does not hold.
    #[error("certificate type {0} in the CERTS cell: {1}")]
    Broken(u8, CertError),
    /// The RSA identity certificate does not hold.
    #[error("certificate type 2 in the CERTS cell: {0}")]
    Identity(#[from] X509Error),
    /// The certificates are whole, but belong to another TLS certificate than the one this link uses.
    #[error("the CERTS cell vouches for another TLS certificate than this link's")]
    OtherTlsCertificate,
    /// AUTHENTICATE is not signed by the key that CERTS names.
    #[error("the AUTHENTICATE cell is not signed by the link-auth key")]
    Authenticate,
    /// A key of ours could not be made or could not sign.
    #[error(transparent)]
    Key(#[from] RsaKeyError),
}

#[cfg(test)]
mod tests;
