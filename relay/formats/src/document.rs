//! What server descriptors and extra-info documents have in common: their head, and how they are signed.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::cert::{CertError, Ed25519Cert};
use crate::object_block;
use crate::relay_signer::RelaySigner;
use crate::rsa_key::RsaKeyError;
use crate::time_text;

/// What the Ed25519 signature of both documents covers before the text (dir-spec, "router-sig-ed25519").
const SIGNATURE_PREFIX: &[u8] = b"Tor router descriptor signature v1";

/// Why a document could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The signing certificate does not name the identity.
    #[error("signing certificate: {0}")]
    SigningCert(#[from] CertError),
    /// A key could not sign.
    #[error(transparent)]
    Key(#[from] RsaKeyError),
    /// Longer than authorities take.
    #[error("the document has {length} bytes; authorities take at most {max}")]
    TooLong {
        /// Bytes that it has.
        length: usize,
        /// Bytes that it may have.
        max: usize,
    },
    /// Something that cannot stand on a line of its own.
    #[error("{0} contains a line break or is empty")]
    Word(&'static str),
}

/// The document with both signatures at its end.
pub(crate) fn sign(mut text: String, signer: &RelaySigner<'_>) -> Result<Signed, DocumentError> {
    text.push_str("router-sig-ed25519 ");
    let digest = Sha256::new().chain_update(SIGNATURE_PREFIX).chain_update(&text);
    let signature = signer.signing.sign(&digest.finalize());
    text.push_str(&STANDARD_NO_PAD.encode(signature));
    text.push_str("\nrouter-signature\n");
    let sha1: [u8; 20] = Sha1::digest(&text).into();
    let signature = signer.rsa.sign_unprefixed(&sha1)?;
    text.push_str(&object_block::encode("SIGNATURE", &signature));
    Ok(Signed {
        sha1,
        sha256: Sha256::digest(&text).into(),
        text,
    })
}

/// A finished document.
pub(crate) struct Signed {
    pub(crate) text: String,
    /// Of everything through `router-signature` and its line end: the document's name to others.
    pub(crate) sha1: [u8; 20],
    /// Of the whole.
    pub(crate) sha256: [u8; 32],
}

/// Lines of a document in the making.
#[derive(Default)]
pub(crate) struct Lines(pub(crate) String);

impl Lines {
    pub(crate) fn line(&mut self, words: &str) {
        self.0.push_str(words);
        self.0.push('\n');
    }

    pub(crate) fn published(&mut self, time: SystemTime) {
        self.line(&format!("published {}", time_text::format(time)));
    }

    pub(crate) fn identity_cert(&mut self, cert: &Ed25519Cert) {
        self.line("identity-ed25519");
        self.0.push_str(&cert.to_block());
    }
}

/// `text`, if it can be the rest of a line.
pub(crate) fn one_line<'a>(what: &'static str, text: &'a str) -> Result<&'a str, DocumentError> {
    let broken = text.is_empty() || text.chars().any(|c| matches!(c, '\n' | '\r' | '\0'));
    if broken {
        Err(DocumentError::Word(what))
    } else {
        Ok(text)
    }
}
