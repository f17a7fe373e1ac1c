//! Our own link certificates. The TLS key is fresh at each start; certificates are made anew every two hours.

use std::time::{Duration, SystemTime};

use rand_core::CryptoRng;
use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPublicKey as _;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    IDENTITY_SIGNING, LinkCertError, RSA_CROSS, RSA_IDENTITY, RSA_LINK_AUTH, SIGNING_LINK_AUTH, SIGNING_TLS, TLS_LINK,
};
use crate::cert::{CertType, Certified, Ed25519Cert, NameSigner, issue_rsa_cross_cert};
use crate::dice::OlderDice;
use crate::fingerprint::Ed25519Identity;
use crate::relay_signer::RelaySigner as LinkSigner;
use crate::rsa_key::{RsaKeyError, RsaSecret};
use crate::x509::{Wanted, X509Error, issue};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Lifetime of types 5 and 6 (C tor, `LINK_CERT_LIFETIME`).
const LINK_CERT_LIFETIME: Duration = Duration::from_secs(2 * 24 * 3_600);
/// Lifetime of type 7 (cert-spec, "RSA->Ed25519 cross-certificate": six months).
const CROSS_CERT_LIFETIME: Duration = Duration::from_secs(180 * 24 * 3_600);
/// Lifetime of the RSA identity certificate, type 2.
const IDENTITY_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3_600);
/// The TLS certificate pretends to live this many days at least, and that many at most (C tor, `tor_tls_context_new`).
const TLS_LIFETIME_DAYS: (u64, u64) = (5, 365);
/// Bits of the TLS key; C tor closes a link whose certificate has no RSA key.
const TLS_KEY_BITS: usize = 2048;

/// The RSA-2048 key of our TLS certificate. In memory only; wiped on drop; no `Debug`, no `Clone`.
pub struct TlsLinkKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl TlsLinkKey {
    /// A fresh key. Takes a second or so; a TLS library may be faster, see [`Self::from_pkcs8`].
    ///
    /// # Errors
    /// [`RsaKeyError::Arithmetic`] if no primes are found.
    pub fn generate(dice: &mut impl CryptoRng) -> Result<Self, RsaKeyError> {
        let key = RsaPrivateKey::new(&mut OlderDice(dice), TLS_KEY_BITS).map_err(|_| RsaKeyError::Arithmetic)?;
        Self::from_key(&key)
    }

    /// A key that another library made, in PKCS#8 DER.
    ///
    /// # Errors
    /// [`RsaKeyError::NoKey`] if there is no RSA key in it.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, RsaKeyError> {
        Self::from_key(&RsaPrivateKey::from_pkcs8_der(der).map_err(|_| RsaKeyError::NoKey)?)
    }

    fn from_key(key: &RsaPrivateKey) -> Result<Self, RsaKeyError> {
        let public = key.to_public_key().to_pkcs1_der().map_err(|_| RsaKeyError::NoKey)?;
        let pkcs8 = key.to_pkcs8_der().map_err(|_| RsaKeyError::NoKey)?;
        Ok(Self {
            pkcs8: pkcs8.to_bytes(),
            public: public.into_vec(),
        })
    }

    /// PKCS#8 DER, for the TLS library.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }
}

/// What a responder shows.
pub struct ResponderLink {
    /// For the TLS library, with the key that it was made for.
    pub tls_certificate_der: Vec<u8>,
    /// SHA-256 of it: certificate 5, and SCERT of AUTHENTICATE.
    pub tls_certificate_sha256: [u8; 32],
    /// Body of the CERTS cell: types 1, 2, 4, 5 and 7.
    pub certs_body: Vec<u8>,
}

/// TLS certificate and CERTS cell for links that others begin. Certificate 5 lives two days: make it anew before.
///
/// `lifetime` is torrc's `SSLKeyLifetime`; without it the TLS certificate gets one of 5 to 365 days,
/// begun on a day in the past, so that it looks like any other.
///
/// # Errors
/// A signing certificate without the identity in it, a key that cannot sign, or a time beyond X.509's.
pub fn responder_link(
    signer: &LinkSigner<'_>,
    tls_key: &TlsLinkKey,
    lifetime: Option<Duration>,
    now: SystemTime,
    dice: &mut impl CryptoRng,
) -> Result<ResponderLink, LinkCertError> {
    let lifetime = lifetime.unwrap_or_else(|| tls_lifetime(dice));
    let issuer = hostname(".com", dice);
    let tls_certificate_der = x509(&tls_key.public, &issuer, lifetime, signer, now, dice)?;
    let tls_certificate_sha256 = Sha256::digest(&tls_certificate_der).into();
    let link = signed_by_signing_key(
        signer,
        CertType::SIGNING_TLS,
        Certified::X509Sha256(tls_certificate_sha256),
        now,
    );
    let certs_body = certs_body(&[
        (TLS_LINK, &tls_certificate_der),
        (RSA_IDENTITY, &identity_certificate(signer, &issuer, now, dice)?),
        (IDENTITY_SIGNING, signer.signing_cert.encoded()),
        (SIGNING_TLS, link.encoded()),
        (RSA_CROSS, &cross_certificate(signer, now)?),
    ])?;
    Ok(ResponderLink {
        tls_certificate_der,
        tls_certificate_sha256,
        certs_body,
    })
}

/// Body of the CERTS cell for links that we begin: types 2, 3, 4, 6 and 7. `link_auth` is the public half
/// of a key kept in memory only, which signs AUTHENTICATE. Certificate 6 lives two days: make it anew before.
///
/// # Errors
/// As [`responder_link`].
pub fn initiator_certs(
    signer: &LinkSigner<'_>,
    link_auth: &Ed25519Identity,
    now: SystemTime,
    dice: &mut impl CryptoRng,
) -> Result<Vec<u8>, LinkCertError> {
    let issuer = hostname(".com", dice);
    // Nobody has used this key since link protocol 3 got Ed25519; it only has to be there.
    let rsa_auth = RsaSecret::generate(dice)?;
    let auth = x509(rsa_auth.public().der(), &issuer, tls_lifetime(dice), signer, now, dice)?;
    let link_auth = Certified::Key(*link_auth);
    let link = signed_by_signing_key(signer, CertType::SIGNING_LINK_AUTH, link_auth, now);
    certs_body(&[
        (RSA_IDENTITY, &identity_certificate(signer, &issuer, now, dice)?),
        (RSA_LINK_AUTH, &auth),
        (IDENTITY_SIGNING, signer.signing_cert.encoded()),
        (SIGNING_LINK_AUTH, link.encoded()),
        (RSA_CROSS, &cross_certificate(signer, now)?),
    ])
}

fn certs_body(certs: &[(u8, &[u8])]) -> Result<Vec<u8>, LinkCertError> {
    let mut body = vec![u8::try_from(certs.len()).map_err(|_| LinkCertError::Length)?];
    for (kind, cert) in certs {
        body.push(*kind);
        let length = u16::try_from(cert.len()).map_err(|_| LinkCertError::Length)?;
        body.extend(length.to_be_bytes());
        body.extend_from_slice(cert);
    }
    Ok(body)
}

fn signed_by_signing_key(
    signer: &LinkSigner<'_>,
    kind: CertType,
    certified: Certified,
    now: SystemTime,
) -> Ed25519Cert {
    Ed25519Cert::issue(
        kind,
        certified,
        now + LINK_CERT_LIFETIME,
        signer.signing,
        NameSigner::No,
    )
}

fn cross_certificate(signer: &LinkSigner<'_>, now: SystemTime) -> Result<Vec<u8>, LinkCertError> {
    let identity = signer
        .identity()
        .map_err(|error| LinkCertError::Broken(IDENTITY_SIGNING, error))?;
    Ok(issue_rsa_cross_cert(&identity, now + CROSS_CERT_LIFETIME, signer.rsa)?)
}

fn identity_certificate(
    signer: &LinkSigner<'_>,
    name: &str,
    now: SystemTime,
    dice: &mut impl CryptoRng,
) -> Result<Vec<u8>, X509Error> {
    let from = started(IDENTITY_LIFETIME, now, dice);
    let wanted = Wanted {
        subject: name,
        issuer: name,
        serial: random(dice),
        from,
        until: from + IDENTITY_LIFETIME,
        public_key: signer.rsa.public().der(),
    };
    issue(&wanted, signer.rsa)
}

fn x509(
    public_key: &[u8],
    issuer: &str,
    lifetime: Duration,
    signer: &LinkSigner<'_>,
    now: SystemTime,
    dice: &mut impl CryptoRng,
) -> Result<Vec<u8>, X509Error> {
    let from = started(lifetime, now, dice);
    let wanted = Wanted {
        subject: &hostname(".net", dice),
        issuer,
        serial: random(dice),
        from,
        until: from + lifetime,
        public_key,
    };
    issue(&wanted, signer.rsa)
}

/// 5 to 365 days; every second certificate ends a second before midnight, as other software's do.
fn tls_lifetime(dice: &mut impl CryptoRng) -> Duration {
    let (least, most) = TLS_LIFETIME_DAYS;
    let days = u32::try_from(least + below(most - least + 1, dice)).unwrap_or(u32::MAX);
    DAY * days - Duration::from_secs(below(2, dice))
}

/// A midnight (UTC) in the past, such that a certificate of this lifetime is good for a day at least from `now`.
fn started(lifetime: Duration, now: SystemTime, dice: &mut impl CryptoRng) -> SystemTime {
    let spare_hours = lifetime.saturating_sub(2 * DAY).as_secs() / HOUR.as_secs();
    let begun = now - HOUR * u32::try_from(below(spare_hours + 1, dice)).unwrap_or_default();
    let since = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() / DAY.as_secs() * DAY.as_secs())
}

/// `www.`, 8 to 20 letters and digits of base32, `end`: what C tor's certificates are named.
fn hostname(end: &str, dice: &mut impl CryptoRng) -> String {
    const BASE32: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
        'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
    ];
    let mut name = "www.".to_owned();
    for [byte] in (0..8 + below(13, dice)).map(|_| random(dice)) {
        name.extend(BASE32.get(usize::from(byte % 32)));
    }
    name + end
}

/// A draw from 0 to `bound` - 1. The bias of the remainder, below 2^-50 here, matters to nobody.
fn below(bound: u64, dice: &mut impl CryptoRng) -> u64 {
    u64::from_be_bytes(random(dice)) % bound.max(1)
}

fn random<const N: usize>(dice: &mut impl CryptoRng) -> [u8; N] {
    let mut bytes = [0; N];
    dice.fill_bytes(&mut bytes);
    bytes
}
