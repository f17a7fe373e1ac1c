//! What a peer's CERTS cell proves. Bytes come from strangers; nothing here panics on any.

use std::time::SystemTime;

use super::{IDENTITY_SIGNING, LinkCertError, RSA_CROSS, RSA_IDENTITY, SIGNING_LINK_AUTH, SIGNING_TLS};
use crate::cert::{CertType, Certified, Ed25519Cert, verify_rsa_cross_cert};
use crate::ed25519_key::{self, SIGNATURE_LEN};
use crate::fingerprint::{Ed25519Identity, RsaIdentity};
use crate::x509::verify_self_signed_identity;

/// Says: the other end of this link holds the keys of this relay. Only [`prove_responder`] and
/// [`ProvenInitiator::prove`] make one, so whoever holds it need not ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenPeer {
    rsa: RsaIdentity,
    rsa_sha256: [u8; 32],
    ed25519: Ed25519Identity,
}

impl ProvenPeer {
    /// SHA-1 of its RSA identity key: the fingerprint.
    pub fn rsa(&self) -> RsaIdentity {
        self.rsa
    }

    /// SHA-256 of its RSA identity key: CID or SID of the AUTHENTICATE cell.
    pub fn rsa_sha256(&self) -> &[u8; 32] {
        &self.rsa_sha256
    }

    /// Its Ed25519 master identity.
    pub fn ed25519(&self) -> Ed25519Identity {
        self.ed25519
    }
}

/// Says: somebody once certified this link-auth key with the keys of this relay. That the peer holds it,
/// its AUTHENTICATE cell must show: [`Self::prove`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenInitiator {
    claimed: ProvenPeer,
    link_auth: Ed25519Identity,
}

impl ProvenInitiator {
    /// Who the peer claims to be: what CID and CID_ED of AUTHENTICATE must say.
    pub fn claimed_rsa_sha256(&self) -> &[u8; 32] {
        &self.claimed.rsa_sha256
    }

    /// Who the peer claims to be, in Ed25519.
    pub fn claimed_ed25519(&self) -> Ed25519Identity {
        self.claimed.ed25519
    }

    /// The key that must have signed AUTHENTICATE.
    pub fn link_auth_key(&self) -> Ed25519Identity {
        self.link_auth
    }

    /// The peer is who it claims to be if `signature` over `signed` (AUTHENTICATE from TYPE through RAND,
    /// which the caller has compared with its own view of the link) is the link-auth key's.
    ///
    /// # Errors
    /// [`LinkCertError::Authenticate`] if it is not.
    pub fn prove(self, signed: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<ProvenPeer, LinkCertError> {
        if ed25519_key::verify(&self.link_auth, signed, signature) {
            Ok(self.claimed)
        } else {
            Err(LinkCertError::Authenticate)
        }
    }
}

/// What the CERTS cell of a responder proves to us, who began the link, at `now`.
/// `peer_tls_cert_sha256` is taken of the certificate's DER as TLS received it.
///
/// # Errors
/// The first rule (tor-spec, "Authenticating the responder from CERTS") that the cell breaks.
pub fn prove_responder(
    certs_body: &[u8],
    peer_tls_cert_sha256: &[u8; 32],
    now: SystemTime,
) -> Result<ProvenPeer, LinkCertError> {
    let certs = Certs::read(certs_body)?;
    let (identity, signing) = certs.identity_and_signing(now)?;
    let link = certs.ed25519(SIGNING_TLS)?;
    match link.verify(CertType::SIGNING_TLS, &signing, now) {
        Ok(Certified::X509Sha256(digest)) if digest == *peer_tls_cert_sha256 => certs.cross_certified(identity, now),
        Ok(_) => Err(LinkCertError::OtherTlsCertificate),
        Err(error) => Err(LinkCertError::Broken(SIGNING_TLS, error)),
    }
}

/// What the CERTS cell of an initiator proves to us, to whom it connected, at `now`.
///
/// # Errors
/// The first rule (tor-spec, "Authenticating the initiator from CERTS") that the cell breaks.
pub fn prove_initiator(certs_body: &[u8], now: SystemTime) -> Result<ProvenInitiator, LinkCertError> {
    let certs = Certs::read(certs_body)?;
    let (identity, signing) = certs.identity_and_signing(now)?;
    let link_auth = certs
        .ed25519(SIGNING_LINK_AUTH)?
        .verify_key(CertType::SIGNING_LINK_AUTH, &signing, now)
        .map_err(|error| LinkCertError::Broken(SIGNING_LINK_AUTH, error))?;
    let claimed = certs.cross_certified(identity, now)?;
    Ok(ProvenInitiator { claimed, link_auth })
}

/// The certificates that count, as they stand in the cell.
#[derive(Default)]
struct Certs<'a>([Option<&'a [u8]>; RSA_CROSS as usize + 1]);

impl<'a> Certs<'a> {
    /// Types unknown to us are passed over; what follows the last certificate too.
    fn read(body: &'a [u8]) -> Result<Self, LinkCertError> {
        let mut certs = Self::default();
        let (&count, mut rest) = body.split_first().ok_or(LinkCertError::Length)?;
        for _ in 0..count {
            let (&[kind, high, low], tail) = rest.split_first_chunk().ok_or(LinkCertError::Length)?;
            let length = u16::from_be_bytes([high, low]);
            let (cert, tail) = tail.split_at_checked(length.into()).ok_or(LinkCertError::Length)?;
            rest = tail;
            if let Some(place) = certs.0.get_mut(usize::from(kind))
                && place.replace(cert).is_some()
            {
                return Err(LinkCertError::Twice(kind));
            }
        }
        Ok(certs)
    }

    fn get(&self, kind: u8) -> Result<&'a [u8], LinkCertError> {
        let place = self.0.get(usize::from(kind)).copied().flatten();
        place.ok_or(LinkCertError::Missing(kind))
    }

    fn ed25519(&self, kind: u8) -> Result<Ed25519Cert, LinkCertError> {
        Ed25519Cert::decode(self.get(kind)?).map_err(|error| LinkCertError::Broken(kind, error))
    }

    /// The identity that certificate 4 names and is signed by, and the signing key that it vouches for.
    fn identity_and_signing(&self, now: SystemTime) -> Result<(Ed25519Identity, Ed25519Identity), LinkCertError> {
        let broken = |error| LinkCertError::Broken(IDENTITY_SIGNING, error);
        let cert = self.ed25519(IDENTITY_SIGNING)?;
        let identity = cert.named_signer().map_err(broken)?;
        let signing = cert.verify_key(CertType::IDENTITY_SIGNING, &identity, now);
        Ok((identity, signing.map_err(broken)?))
    }

    /// The peer, if its RSA key is one and vouches for its Ed25519 identity.
    fn cross_certified(&self, ed25519: Ed25519Identity, now: SystemTime) -> Result<ProvenPeer, LinkCertError> {
        let rsa = verify_self_signed_identity(self.get(RSA_IDENTITY)?, now)?;
        verify_rsa_cross_cert(self.get(RSA_CROSS)?, &rsa, &ed25519, now)
            .map_err(|error| LinkCertError::Broken(RSA_CROSS, error))?;
        Ok(ProvenPeer {
            rsa: rsa.identity(),
            rsa_sha256: rsa.sha256(),
            ed25519,
        })
    }
}
