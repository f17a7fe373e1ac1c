//! Tor's own certificates (cert-spec): Ed25519 certificates, and the RSA key's word for an Ed25519 key.
//!
//! An Ed25519 certificate: version 1, type, expiry in hours since 1970 (4 bytes), kind of key, key (32 bytes),
//! extensions, signature (64 bytes). What it certifies is only told by [`Ed25519Cert::verify`].

use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::ed25519_key::{self, Ed25519Secret, SIGNATURE_LEN};
use crate::fingerprint::Ed25519Identity;
use crate::object_block;
use crate::onion_key::OnionKeyPair;
use crate::rsa_key::{RsaKeyError, RsaPublic, RsaSecret};

const VERSION: u8 = 1;
const KEY_IS_ED25519: u8 = 1;
const KEY_IS_SHA256_OF_X509: u8 = 3;
const EXTENSION_SIGNED_WITH: u8 = 4;
const FLAG_AFFECTS_VALIDATION: u8 = 1;
const SECONDS_PER_HOUR: u64 = 3_600;
const CROSS_CERT_PREFIX: &[u8] = b"Tor TLS RSA/Ed25519 cross-certificate";

/// What a certificate is for (cert-spec, "List of certificate types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertType(pub u8);

impl CertType {
    /// Identity key certifies signing key.
    pub const IDENTITY_SIGNING: Self = Self(0x04);
    /// Signing key certifies the TLS certificate.
    pub const SIGNING_TLS: Self = Self(0x05);
    /// Signing key certifies the key of the AUTHENTICATE cell.
    pub const SIGNING_LINK_AUTH: Self = Self(0x06);
    /// An onion service's blinded key certifies the key that signs its descriptor.
    pub const BLINDED_SIGNING: Self = Self(0x08);
    /// The ntor onion key, in its Ed25519 form, certifies the identity key.
    pub const ONION_IDENTITY: Self = Self(0x0a);
    /// A family key certifies a member's identity key.
    pub const FAMILY_IDENTITY: Self = Self(0x0c);
}

/// What a certificate vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certified {
    /// An Ed25519 key (key type 1).
    Key(Ed25519Identity),
    /// SHA-256 of an X.509 certificate's DER (key type 3).
    X509Sha256([u8; 32]),
}

/// Why bytes are no certificate, or one that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// Ends too early, or goes on after its end.
    #[error("the certificate's length does not fit its contents")]
    Length,
    /// Not version 1.
    #[error("certificate version {0} is unknown")]
    Version(u8),
    /// Neither an Ed25519 key nor the digest of an X.509 certificate.
    #[error("the certificate's key type {0} is unknown")]
    KeyType(u8),
    /// An extension that we do not know and must not overlook.
    #[error("the certificate has an unknown extension {0} that must not be ignored")]
    Extension(u8),
    /// Of another type than its place asks for.
    #[error("expected a certificate of type {expected}, found {found}")]
    Type {
        /// The type that belongs there.
        expected: u8,
        /// The type that stands there.
        found: u8,
    },
    /// Names its signer, who is not the one expected.
    #[error("the certificate names another signing key than expected")]
    Signer,
    /// Should name its signer and does not.
    #[error("the certificate does not name its signing key")]
    NoSigner,
    /// Signed by someone else, or altered.
    #[error("the certificate's signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// Vouches for another key than expected.
    #[error("the certificate vouches for another key than expected")]
    Subject,
}

/// An Ed25519 certificate, readable but not yet believed. What it certifies comes out of [`Self::verify`] alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ed25519Cert {
    encoded: Vec<u8>,
    cert_type: CertType,
    expires_hours: u32,
    certified: Certified,
    signed_with: Option<Ed25519Identity>,
}

/// Whether a certificate carries its signer's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSigner {
    /// As extension 4: types 4 and 12.
    Yes,
    /// The reader knows the signer from elsewhere: types 5, 6 and 10.
    No,
}

impl Ed25519Cert {
    /// Makes and signs a certificate; `expires` is rounded up to a full hour.
    pub fn issue(
        cert_type: CertType,
        certified: Certified,
        expires: SystemTime,
        signer: &Ed25519Secret,
        name_signer: NameSigner,
    ) -> Self {
        let expires_hours = hours_rounded_up(expires);
        let (key_type, key) = match certified {
            Certified::Key(key) => (KEY_IS_ED25519, key.0),
            Certified::X509Sha256(digest) => (KEY_IS_SHA256_OF_X509, digest),
        };
        let mut encoded = vec![VERSION, cert_type.0];
        encoded.extend(expires_hours.to_be_bytes());
        encoded.push(key_type);
        encoded.extend(key);
        let signed_with = (name_signer == NameSigner::Yes).then(|| signer.public());
        match signed_with {
            Some(signer) => {
                encoded.extend([1, 0, 32, EXTENSION_SIGNED_WITH, FLAG_AFFECTS_VALIDATION]);
                encoded.extend(signer.0);
            }
            None => encoded.push(0),
        }
        encoded.extend(signer.sign(&encoded));
        Self {
            encoded,
            cert_type,
            expires_hours,
            certified,
            signed_with,
        }
    }

    /// Reads a certificate without believing it.
    ///
    /// # Errors
    /// Everything that keeps it from being read: length, version, key type, an extension that affects validation.
    pub fn decode(bytes: &[u8]) -> Result<Self, CertError> {
        let mut rest = Bytes(bytes);
        match rest.byte()? {
            VERSION => {}
            other => return Err(CertError::Version(other)),
        }
        let cert_type = CertType(rest.byte()?);
        let expires_hours = u32::from_be_bytes(rest.array()?);
        let key_type = rest.byte()?;
        let key = rest.array()?;
        let certified = match key_type {
            KEY_IS_ED25519 => Certified::Key(Ed25519Identity(key)),
            KEY_IS_SHA256_OF_X509 => Certified::X509Sha256(key),
            other => return Err(CertError::KeyType(other)),
        };
        let mut signed_with = None;
        for _ in 0..rest.byte()? {
            let length = u16::from_be_bytes(rest.array()?);
            let (extension, flags) = (rest.byte()?, rest.byte()?);
            let data = rest.take(length.into())?;
            if extension == EXTENSION_SIGNED_WITH {
                let key = data.try_into().map_err(|_| CertError::Length)?;
                signed_with = Some(Ed25519Identity(key));
            } else if flags & FLAG_AFFECTS_VALIDATION != 0 {
                return Err(CertError::Extension(extension));
            }
        }
        rest.take(SIGNATURE_LEN)?;
        rest.end()?;
        Ok(Self {
            encoded: bytes.to_vec(),
            cert_type,
            expires_hours,
            certified,
            signed_with,
        })
    }

    /// What it vouches for, once type, signer, signature and time are right.
    ///
    /// # Errors
    /// The first of these that is not.
    pub fn verify(
        &self,
        expected: CertType,
        signer: &Ed25519Identity,
        now: SystemTime,
    ) -> Result<Certified, CertError> {
        if self.cert_type != expected {
            let (expected, found) = (expected.0, self.cert_type.0);
            return Err(CertError::Type { expected, found });
        }
        if self.signed_with.is_some_and(|named| named != *signer) {
            return Err(CertError::Signer);
        }
        let (body, signature) = self.encoded.split_last_chunk().ok_or(CertError::Length)?;
        if !ed25519_key::verify(signer, body, signature) {
            return Err(CertError::Signature);
        }
        if now > self.expires() {
            return Err(CertError::Expired);
        }
        Ok(self.certified)
    }

    /// As [`Self::verify`], for a certificate that must vouch for an Ed25519 key.
    ///
    /// # Errors
    /// As there, and [`CertError::Subject`] if it vouches for something else.
    pub fn verify_key(
        &self,
        expected: CertType,
        signer: &Ed25519Identity,
        now: SystemTime,
    ) -> Result<Ed25519Identity, CertError> {
        match self.verify(expected, signer, now)? {
            Certified::Key(key) => Ok(key),
            Certified::X509Sha256(_) => Err(CertError::Subject),
        }
    }

    /// The signer that it names; this proves nothing before [`Self::verify`] was asked with it.
    ///
    /// # Errors
    /// [`CertError::NoSigner`] if it names none.
    pub fn named_signer(&self) -> Result<Ed25519Identity, CertError> {
        self.signed_with.ok_or(CertError::NoSigner)
    }

    /// The certificate's bytes.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The moment after which it is worth nothing; always a full hour.
    pub fn expires(&self) -> SystemTime {
        time_of_hours(self.expires_hours)
    }

    /// As an object block: `ED25519 CERT` or, for type 12, `FAMILY CERT`.
    pub fn to_block(&self) -> String {
        let label = match self.cert_type {
            CertType::FAMILY_IDENTITY => "FAMILY CERT",
            _ => "ED25519 CERT",
        };
        object_block::encode(label, &self.encoded).to_string()
    }
}

/// The onion key's word for the identity (type 10), and the sign bit (0 or 1) that
/// `ntor-onion-key-crosscert` must tell with it.
pub fn issue_onion_cross_cert(
    onion: &OnionKeyPair,
    identity: &Ed25519Identity,
    expires: SystemTime,
) -> (Ed25519Cert, u8) {
    let (signer, sign_bit) = onion.to_ed25519();
    let certified = Certified::Key(*identity);
    let cert = Ed25519Cert::issue(CertType::ONION_IDENTITY, certified, expires, &signer, NameSigner::No);
    (cert, sign_bit)
}

/// The RSA identity key's word for the Ed25519 identity (type 7 of the CERTS cell): 165 bytes,
/// `expires` rounded up to a full hour.
///
/// # Errors
/// As [`RsaSecret::sign_unprefixed`].
pub fn issue_rsa_cross_cert(
    identity: &Ed25519Identity,
    expires: SystemTime,
    signer: &RsaSecret,
) -> Result<Vec<u8>, RsaKeyError> {
    let mut cert = identity.0.to_vec();
    cert.extend(hours_rounded_up(expires).to_be_bytes());
    let signature = signer.sign_unprefixed(&cross_cert_digest(&cert))?;
    cert.push(u8::try_from(signature.len()).map_err(|_| RsaKeyError::TooLong(signature.len()))?);
    cert.extend(signature);
    Ok(cert)
}

/// Whether `cert` is `signer`'s word, good at `now`, for the Ed25519 key `identity`.
///
/// # Errors
/// What is wrong with it.
pub fn verify_rsa_cross_cert(
    cert: &[u8],
    signer: &RsaPublic,
    identity: &Ed25519Identity,
    now: SystemTime,
) -> Result<(), CertError> {
    let (signed, rest) = cert.split_at_checked(36).ok_or(CertError::Length)?;
    let (&length, signature) = rest.split_first().ok_or(CertError::Length)?;
    if signature.len() != usize::from(length) {
        return Err(CertError::Length);
    }
    let (key, hours) = signed.split_first_chunk::<32>().ok_or(CertError::Length)?;
    if *key != identity.0 {
        return Err(CertError::Subject);
    }
    if !signer.verify_unprefixed(&cross_cert_digest(signed), signature) {
        return Err(CertError::Signature);
    }
    let hours = u32::from_be_bytes(hours.try_into().map_err(|_| CertError::Length)?);
    if now > time_of_hours(hours) {
        return Err(CertError::Expired);
    }
    Ok(())
}

fn cross_cert_digest(signed: &[u8]) -> [u8; 32] {
    let digest = Sha256::new().chain_update(CROSS_CERT_PREFIX).chain_update(signed);
    digest.finalize().into()
}

fn hours_rounded_up(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    u32::try_from(seconds.div_ceil(SECONDS_PER_HOUR)).unwrap_or(u32::MAX)
}

fn time_of_hours(hours: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(hours) * SECONDS_PER_HOUR)
}

/// Bytes not read yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CertError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(CertError::Length)?;
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CertError> {
        self.take(N)?.try_into().map_err(|_| CertError::Length)
    }
    fn byte(&mut self) -> Result<u8, CertError> {
        self.array().map(|[byte]| byte)
    }
    fn end(&self) -> Result<(), CertError> {
        self.0.is_empty().then_some(()).ok_or(CertError::Length)
    }
}

#[cfg(test)]
mod tests;
