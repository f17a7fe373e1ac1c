//! C tor's key files, byte for byte: tagged containers, family id text, fingerprint files.
//!
//! A container is 32 bytes of ASCII `== TYPE: TAG ==` padded with NUL, then the raw data
//! (C tor, `crypto_format.c`; the RSA files are PEM and live in `rsa_key`).
//! Names of the files in KeyDirectory stand here too, so that relay and operator agree on them.

use zeroize::Zeroizing;

use crate::cert::Ed25519Cert;
use crate::ed25519_key::Ed25519Secret;
use crate::fingerprint::{BadFingerprint, Ed25519Identity, RsaIdentity};
use crate::nickname::Nickname;
use crate::onion_key::OnionKeyPair;

/// Secret half of the Ed25519 master identity. With `RSA_IDENTITY` it *is* the relay's identity.
pub const MASTER_SECRET: &str = "ed25519_master_id_secret_key";
/// The same under a passphrase.
pub const MASTER_SECRET_ENCRYPTED: &str = "ed25519_master_id_secret_key_encrypted";
/// Public half of the Ed25519 master identity.
pub const MASTER_PUBLIC: &str = "ed25519_master_id_public_key";
/// Secret half of the medium-term signing key.
pub const SIGNING_SECRET: &str = "ed25519_signing_secret_key";
/// The master key's word for the signing key.
pub const SIGNING_CERT: &str = "ed25519_signing_cert";
/// The ntor onion key.
pub const ONION_NTOR: &str = "secret_onion_key_ntor";
/// The ntor onion key before the last rotation.
pub const ONION_NTOR_OLD: &str = "secret_onion_key_ntor.old";
/// The RSA identity key, PEM.
pub const RSA_IDENTITY: &str = "secret_id_key";
/// The TAP onion key, PEM; only the descriptor still shows it.
pub const ONION_TAP: &str = "secret_onion_key";
/// The TAP onion key before the last rotation.
pub const ONION_TAP_OLD: &str = "secret_onion_key.old";
/// End of the name of a family's secret key file, after the family's own name.
pub const FAMILY_SECRET_SUFFIX: &str = ".secret_family_key";
/// End of the name of a family's public id file.
pub const FAMILY_ID_SUFFIX: &str = ".public_family_id";
/// In DataDirectory: nickname and RSA fingerprint.
pub const FINGERPRINT: &str = "fingerprint";
/// In DataDirectory: nickname and Ed25519 identity.
pub const FINGERPRINT_ED25519: &str = "fingerprint-ed25519";

const HEADER_LEN: usize = 32;

/// What an Ed25519 secret key file is for; its tag says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ed25519Role {
    /// The master identity key.
    Master,
    /// The signing key.
    Signing,
    /// A family's key.
    Family,
}

impl Ed25519Role {
    fn header(self) -> &'static str {
        match self {
            Self::Master => "== ed25519v1-secret: type0 ==",
            Self::Signing => "== ed25519v1-secret: type4 ==",
            Self::Family => "== ed25519v1-secret: fmly-id ==",
        }
    }
}

const MASTER_PUBLIC_HEADER: &str = "== ed25519v1-public: type0 ==";
const SIGNING_CERT_HEADER: &str = "== ed25519v1-cert: type4 ==";
const ONION_HEADER: &str = "== c25519v1: onion ==";
const ENCRYPTED_HEADER: &str = "== Boxed Ed25519 key: master ==";

/// Why bytes are not the key file that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The first 32 bytes are not the header of this file.
    #[error("expected the header `{expected}`, found {found}")]
    Header {
        /// What this file begins with.
        expected: &'static str,
        /// The header that stands there, if it is one.
        found: String,
    },
    /// The header is right, the rest is too short or too long.
    #[error("expected {expected} bytes after `{header}`, found {found}")]
    Length {
        /// The header.
        header: &'static str,
        /// Bytes that belong there.
        expected: usize,
        /// Bytes that stand there.
        found: usize,
    },
    /// An onion key file whose public half is not that of its secret half.
    #[error("expected the public half of the onion key's secret half, found another: the file is damaged")]
    Halves,
    /// A master key under a passphrase.
    #[error("the master key is encrypted with a passphrase, which is not built yet; an unencrypted one is needed")]
    Encrypted,
    /// The certificate in the file is none.
    #[error("expected a certificate of the signing key: {0}")]
    Cert(#[from] crate::cert::CertError),
    /// Not `NICKNAME FINGERPRINT`.
    #[error("expected one line: a nickname, a space, a fingerprint")]
    FingerprintLine,
    /// The name that stands there is no name of a relay or family.
    #[error(transparent)]
    Fingerprint(#[from] BadFingerprint),
}

/// The file of an Ed25519 secret key: 96 bytes.
pub fn encode_ed25519_secret(role: Ed25519Role, key: &Ed25519Secret) -> Zeroizing<Vec<u8>> {
    container(role.header(), key.expanded())
}

/// The key of such a file.
///
/// # Errors
/// Another header (also: the key of another role, or an encrypted one), or another length.
pub fn decode_ed25519_secret(role: Ed25519Role, file: &[u8]) -> Result<Ed25519Secret, KeyFileError> {
    if file.starts_with(ENCRYPTED_HEADER.as_bytes()) {
        return Err(KeyFileError::Encrypted);
    }
    Ok(Ed25519Secret::from_expanded(contents(role.header(), file)?))
}

/// The file `ed25519_master_id_public_key`: 64 bytes.
pub fn encode_master_public(identity: &Ed25519Identity) -> Vec<u8> {
    container(MASTER_PUBLIC_HEADER, &identity.0).to_vec()
}

/// The identity in such a file.
///
/// # Errors
/// Another header or length.
pub fn decode_master_public(file: &[u8]) -> Result<Ed25519Identity, KeyFileError> {
    Ok(Ed25519Identity(*contents(MASTER_PUBLIC_HEADER, file)?))
}

/// The file `ed25519_signing_cert`: 172 bytes.
pub fn encode_signing_cert(cert: &Ed25519Cert) -> Vec<u8> {
    container(SIGNING_CERT_HEADER, cert.encoded()).to_vec()
}

/// The certificate in such a file; nobody has verified it yet.
///
/// # Errors
/// Another header, or no Ed25519 certificate.
pub fn decode_signing_cert(file: &[u8]) -> Result<Ed25519Cert, KeyFileError> {
    Ok(Ed25519Cert::decode(after_header(SIGNING_CERT_HEADER, file)?)?)
}

/// The file `secret_onion_key_ntor`: 96 bytes.
pub fn encode_onion_key(key: &OnionKeyPair) -> Zeroizing<Vec<u8>> {
    let mut both = Zeroizing::new(Vec::with_capacity(64));
    both.extend_from_slice(key.secret().as_bytes());
    both.extend_from_slice(key.public());
    container(ONION_HEADER, &both)
}

/// The key of such a file.
///
/// # Errors
/// Another header or length, or two halves that do not belong together.
pub fn decode_onion_key(file: &[u8]) -> Result<OnionKeyPair, KeyFileError> {
    let both: &[u8; 64] = contents(ONION_HEADER, file)?;
    let (secret, public) = both.split_first_chunk::<32>().ok_or(KeyFileError::Halves)?;
    let pair = OnionKeyPair::from_secret(secret);
    if pair.public() != public {
        return Err(KeyFileError::Halves);
    }
    Ok(pair)
}

/// The text of `NAME.public_family_id`, and what `FamilyId` in torrc takes: 43 base64 characters, a newline.
pub fn family_id_text(family: &Ed25519Identity) -> String {
    format!("{family}\n")
}

/// The text of the file `fingerprint`.
pub fn fingerprint_text(nickname: &Nickname, identity: &RsaIdentity) -> String {
    format!("{nickname} {identity}\n")
}

/// The text of the file `fingerprint-ed25519`.
pub fn fingerprint_ed25519_text(nickname: &Nickname, identity: &Ed25519Identity) -> String {
    format!("{nickname} {identity}\n")
}

/// Nickname and identity of a file `fingerprint` (an [`RsaIdentity`]) or `fingerprint-ed25519`
/// (an [`Ed25519Identity`]).
///
/// # Errors
/// Not one line of two words, no nickname, or no identity of that kind.
pub fn parse_fingerprint<I>(text: &str) -> Result<(Nickname, I), KeyFileError>
where
    I: std::str::FromStr<Err = BadFingerprint>,
{
    let (nickname, identity) = text.trim_end().split_once(' ').ok_or(KeyFileError::FingerprintLine)?;
    let nickname = nickname.parse().map_err(|_| KeyFileError::FingerprintLine)?;
    Ok((nickname, identity.parse()?))
}

fn container(header: &str, data: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut file = Zeroizing::new(Vec::with_capacity(HEADER_LEN + data.len()));
    file.extend_from_slice(header.as_bytes());
    file.resize(HEADER_LEN, 0);
    file.extend_from_slice(data);
    file
}

fn contents<'a, const N: usize>(header: &'static str, file: &'a [u8]) -> Result<&'a [u8; N], KeyFileError> {
    let data = after_header(header, file)?;
    data.try_into().map_err(|_| KeyFileError::Length {
        header,
        expected: N,
        found: data.len(),
    })
}

fn after_header<'a>(header: &'static str, file: &'a [u8]) -> Result<&'a [u8], KeyFileError> {
    match file.split_at_checked(HEADER_LEN) {
        Some((found, data)) if found == &container(header, &[])[..] => Ok(data),
        _ => Err(KeyFileError::Header {
            expected: header,
            found: found_header(file),
        }),
    }
}

/// What stands where the header should, told without telling a byte that may be secret.
fn found_header(file: &[u8]) -> String {
    let text = file.get(..HEADER_LEN).and_then(|head| std::str::from_utf8(head).ok());
    match text.map(|head| head.trim_end_matches('\0')) {
        Some(head) if head.starts_with("== ") && head.ends_with(" ==") => format!("`{head}`"),
        _ if file.is_empty() => "an empty file".to_owned(),
        _ => format!("a file of {} bytes without a header", file.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dice;

    #[test]
    fn a_secret_comes_back_from_its_file() {
        let key = Ed25519Secret::generate(&mut test_dice(1));
        for role in [Ed25519Role::Master, Ed25519Role::Signing, Ed25519Role::Family] {
            let file = encode_ed25519_secret(role, &key);
            assert_eq!(file.len(), 96);
            assert_eq!(decode_ed25519_secret(role, &file).unwrap().expanded(), key.expanded());
        }
    }

    #[test]
    fn a_signing_key_is_not_taken_for_the_master_key() {
        let file = encode_ed25519_secret(Ed25519Role::Signing, &Ed25519Secret::generate(&mut test_dice(1)));
        let error = decode_ed25519_secret(Ed25519Role::Master, &file).err().unwrap();
        assert_eq!(
            error.to_string(),
            "expected the header `== ed25519v1-secret: type0 ==`, found `== ed25519v1-secret: type4 ==`"
        );
    }

    #[test]
    fn an_error_tells_no_byte_of_a_key() {
        let key = Ed25519Secret::generate(&mut test_dice(1));
        let error = decode_ed25519_secret(Ed25519Role::Master, key.expanded())
            .err()
            .unwrap();
        assert!(
            error.to_string().ends_with("found a file of 64 bytes without a header"),
            "{error}"
        );
    }

    #[test]
    fn a_torn_file_says_how_much_is_missing() {
        let file = encode_master_public(&Ed25519Identity([1; 32]));
        assert_eq!(decode_master_public(&file), Ok(Ed25519Identity([1; 32])));
        let error = decode_master_public(&file[..50]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected 32 bytes after `== ed25519v1-public: type0 ==`, found 18"
        );
        assert!(
            decode_master_public(&[])
                .unwrap_err()
                .to_string()
                .ends_with("found an empty file")
        );
    }

    #[test]
    fn an_encrypted_master_key_is_named_as_such() {
        let file = container(ENCRYPTED_HEADER, &[0; 195]);
        assert_eq!(
            decode_ed25519_secret(Ed25519Role::Master, &file).err(),
            Some(KeyFileError::Encrypted)
        );
    }

    #[test]
    fn an_onion_key_whose_halves_differ_is_refused() {
        let mut file = encode_onion_key(&OnionKeyPair::generate(&mut test_dice(1)));
        assert!(decode_onion_key(&file).is_ok());
        file[40] ^= 4;
        assert_eq!(decode_onion_key(&file).err(), Some(KeyFileError::Halves));
    }

    #[test]
    fn fingerprint_files_have_nickname_and_identity() {
        let (nickname, identity) = ("relay1".parse().unwrap(), RsaIdentity([0xab; 20]));
        let text = fingerprint_text(&nickname, &identity);
        assert_eq!(text, format!("relay1 {}\n", "AB".repeat(20)));
        assert_eq!(parse_fingerprint(&text), Ok((nickname.clone(), identity)));
        assert_eq!(
            parse_fingerprint::<RsaIdentity>("relay1"),
            Err(KeyFileError::FingerprintLine)
        );
        let text = fingerprint_ed25519_text(&nickname, &Ed25519Identity([1; 32]));
        assert_eq!(parse_fingerprint(&text), Ok((nickname, Ed25519Identity([1; 32]))));
    }
}
