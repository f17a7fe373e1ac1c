//! The few X.509 certificates that Tor's links still have: v3, no extensions, sha256WithRSA by the RSA-1024 identity key.
//!
//! General X.509 libraries refuse 1024 bits; so making and checking stand here. Nothing rests on names or
//! extensions, which nobody reads.

use std::time::{Duration, SystemTime};

use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::traits::PublicKeyParts as _;
use x509_cert::der::asn1::{Any, BitString, Null, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Validity;
use x509_cert::{Certificate, TbsCertificate, Version};

use crate::rsa_key::{RSA_BITS, RsaPublic, RsaSecret};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// How long after its end a certificate still counts: clocks differ (C tor, `tor_tls_cert_is_valid`).
const PAST_SLOP: Duration = Duration::from_secs(2 * 24 * 3_600);
/// How long before its beginning it already counts.
const FUTURE_SLOP: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Why bytes are no certificate of an RSA identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// No X.509 certificate, or one that is not plain DER.
    #[error("expected an X.509 certificate in DER")]
    Der,
    /// A key or signature of another kind than RSA with SHA-256.
    #[error("expected an RSA key and a signature with SHA-256")]
    Algorithm,
    /// An RSA key of the wrong size.
    #[error("expected an RSA identity key of {RSA_BITS} bits, found one of {0} bits")]
    KeySize(usize),
    /// Not signed by its own key.
    #[error("the identity certificate is not signed by its own key")]
    Signature,
    /// Its time is over, or has not begun.
    #[error("the identity certificate is not valid at this time")]
    Time,
    /// A certificate could not be made.
    #[error("could not make an X.509 certificate")]
    Making,
}

/// What a new certificate says.
pub(crate) struct Wanted<'a> {
    pub(crate) subject: &'a str,
    pub(crate) issuer: &'a str,
    pub(crate) serial: [u8; 8],
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
    /// PKCS#1 DER of the RSA key that it is for.
    pub(crate) public_key: &'a [u8],
}

/// The DER of a certificate signed by `signer`.
pub(crate) fn issue(wanted: &Wanted<'_>, signer: &RsaSecret) -> Result<Vec<u8>, X509Error> {
    let tbs_certificate = to_be_signed(wanted).map_err(|_| X509Error::Making)?;
    let signed = tbs_certificate.to_der().map_err(|_| X509Error::Making)?;
    let signature = signer.sign_sha256(&signed).map_err(|_| X509Error::Making)?;
    let certificate = Certificate {
        signature_algorithm: tbs_certificate.signature.clone(),
        tbs_certificate,
        signature: BitString::from_bytes(&signature).map_err(|_| X509Error::Making)?,
    };
    certificate.to_der().map_err(|_| X509Error::Making)
}

fn to_be_signed(wanted: &Wanted<'_>) -> Result<TbsCertificate, x509_cert::der::Error> {
    Ok(TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&wanted.serial)?,
        signature: rsa_algorithm(SHA256_WITH_RSA),
        issuer: format!("CN={}", wanted.issuer).parse()?,
        validity: Validity {
            not_before: wanted.from.try_into()?,
            not_after: wanted.until.try_into()?,
        },
        subject: format!("CN={}", wanted.subject).parse()?,
        subject_public_key_info: SubjectPublicKeyInfoOwned {
            algorithm: rsa_algorithm(RSA_ENCRYPTION),
            subject_public_key: BitString::from_bytes(wanted.public_key)?,
        },
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: None,
    })
}

fn rsa_algorithm(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    let parameters = Some(Any::from(Null));
    AlgorithmIdentifierOwned { oid, parameters }
}

/// The key of a self-signed identity certificate (type 2 of the CERTS cell) that is good at `now`.
///
/// # Errors
/// Whatever keeps it from proving that its maker holds an RSA-1024 key: see [`X509Error`].
pub fn verify_self_signed_identity(der: &[u8], now: SystemTime) -> Result<RsaPublic, X509Error> {
    let certificate = Certificate::from_der(der).map_err(|_| X509Error::Der)?;
    let signed = first_element(der).map_err(|_| X509Error::Der)?;
    let tbs = &certificate.tbs_certificate;
    // Only the inner naming of the algorithm is signed; RFC 5280 wants both alike.
    if tbs.subject_public_key_info.algorithm.oid != RSA_ENCRYPTION
        || tbs.signature.oid != SHA256_WITH_RSA
        || tbs.signature != certificate.signature_algorithm
    {
        return Err(X509Error::Algorithm);
    }
    let key = identity_key(tbs.subject_public_key_info.subject_public_key.as_bytes())?;
    let signature = certificate.signature.as_bytes().ok_or(X509Error::Der)?;
    if !key.verify_sha256(signed, signature) {
        return Err(X509Error::Signature);
    }
    let Validity { not_before, not_after } = tbs.validity;
    if now + FUTURE_SLOP < not_before.to_system_time() || not_after.to_system_time() + PAST_SLOP < now {
        return Err(X509Error::Time);
    }
    Ok(key)
}

fn identity_key(der: Option<&[u8]>) -> Result<RsaPublic, X509Error> {
    let key = RsaPublicKey::from_pkcs1_der(der.ok_or(X509Error::Der)?).map_err(|_| X509Error::Algorithm)?;
    match key.n().bits() {
        RSA_BITS => RsaPublic::from_key(key).map_err(|_| X509Error::Algorithm),
        bits => Err(X509Error::KeySize(bits)),
    }
}

/// The bytes of the first element in an outer SEQUENCE: what an X.509 signature covers.
fn first_element(der: &[u8]) -> Result<&[u8], x509_cert::der::Error> {
    let mut reader = SliceReader::new(der)?;
    x509_cert::der::Header::decode(&mut reader)?;
    reader.tlv_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dice;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn new_year() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_761_600)
    }

    fn certificate(signer: &RsaSecret, subject: &RsaSecret) -> Vec<u8> {
        let wanted = Wanted {
            subject: "www.a.net",
            issuer: "www.b.com",
            serial: [0xff; 8],
            from: new_year(),
            until: new_year() + 365 * DAY,
            public_key: subject.public().der(),
        };
        issue(&wanted, signer).unwrap()
    }

    #[test]
    fn a_self_signed_certificate_proves_its_key() {
        let key = RsaSecret::generate(&mut test_dice(1)).unwrap();
        let proven = verify_self_signed_identity(&certificate(&key, &key), new_year()).unwrap();
        assert_eq!(proven.identity(), key.public().identity());
    }

    #[test]
    fn a_certificate_by_another_key_proves_nothing() {
        let (key, other) = (
            RsaSecret::generate(&mut test_dice(1)),
            RsaSecret::generate(&mut test_dice(2)),
        );
        let der = certificate(&other.unwrap(), &key.unwrap());
        assert_eq!(
            verify_self_signed_identity(&der, new_year()).err(),
            Some(X509Error::Signature)
        );
    }

    #[test]
    fn clocks_may_differ_by_two_days_back_and_thirty_ahead() {
        let key = RsaSecret::generate(&mut test_dice(1)).unwrap();
        let der = certificate(&key, &key);
        let verdict = |now| verify_self_signed_identity(&der, now).err();
        let second = Duration::from_secs(1);
        assert_eq!(verdict(new_year() - 30 * DAY), None);
        assert_eq!(verdict(new_year() - 30 * DAY - second), Some(X509Error::Time));
        assert_eq!(verdict(new_year() + 367 * DAY), None);
        assert_eq!(verdict(new_year() + 367 * DAY + second), Some(X509Error::Time));
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let key = RsaSecret::generate(&mut test_dice(1)).unwrap();
        let der = certificate(&key, &key);
        for at in 0..der.len() {
            let mut altered = der.clone();
            altered[at] ^= 1;
            assert!(verify_self_signed_identity(&altered, new_year()).is_err(), "byte {at}");
        }
    }
}
