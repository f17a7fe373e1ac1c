//! An onion service's descriptor, as far as a directory may read it (rend-spec, "Outer wrapper"): who made it, for how long
//! and in which revision. What is in it is for those who know the service's address.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::cert::{CertError, CertType, Ed25519Cert};
use crate::ed25519_key::{self, SIGNATURE_LEN};
use crate::fingerprint::Ed25519Identity;
use crate::object_block::{self, BadBlock};

/// What the signature covers before the text.
const SIGNATURE_PREFIX: &[u8] = b"Tor onion service descriptor sig v3";

/// Minutes for which a descriptor may ask to be kept (C tor, `HS_DESC_MIN_LIFETIME` and `HS_DESC_MAX_LIFETIME`).
const LIFETIME_MINUTES: std::ops::RangeInclusive<u16> = 30..=720;

/// A descriptor whose signatures hold. Only [`OnionDescriptor::read`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnionDescriptor {
    /// The service's key of this period; its descriptor is asked for by this name.
    pub blinded: Ed25519Identity,
    /// For how long it may be kept, from when it came.
    pub lifetime: Duration,
    /// Greater than that of the descriptor which it replaces.
    pub revision: u64,
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOnionDescriptor {
    /// The first line is not `hs-descriptor 3`.
    #[error("it is no descriptor of version 3")]
    Version,
    /// A line that must be there once is not, or twice, or says nothing.
    #[error("`{0}` is missing, repeated or empty")]
    Line(&'static str),
    /// A lifetime that no directory grants.
    #[error("a lifetime of {0} minutes is not granted")]
    Lifetime(u64),
    /// An object between BEGIN and END.
    #[error(transparent)]
    Block(#[from] BadBlock),
    /// The blinded key does not certify the key that signs.
    #[error("descriptor-signing-key-cert: {0}")]
    Cert(#[from] CertError),
    /// Signed by someone else, or altered; or something stands behind the signature.
    #[error("its signature is wrong")]
    Signature,
}

impl OnionDescriptor {
    /// Reads a text and proves that the service of its blinded key made it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(text: &str, now: SystemTime) -> Result<Self, BadOnionDescriptor> {
        let (signed, signature) = cut(text)?;
        let rest = signed.strip_prefix("hs-descriptor 3\n");
        let rest = rest.ok_or(BadOnionDescriptor::Version)?;
        let minutes: u64 = number(rest, "descriptor-lifetime")?;
        let lifetime = u16::try_from(minutes)
            .ok()
            .filter(|minutes| LIFETIME_MINUTES.contains(minutes))
            .ok_or(BadOnionDescriptor::Lifetime(minutes))?;
        let revision = number(rest, "revision-counter")?;
        object_block::decode("MESSAGE", object(rest, "superencrypted")?)?;
        let cert = object_block::decode("ED25519 CERT", object(rest, "descriptor-signing-key-cert")?)?;
        let cert = Ed25519Cert::decode(&cert)?;
        let blinded = cert.named_signer()?;
        let signing = cert.verify_key(CertType::BLINDED_SIGNING, &blinded, now)?;
        let message = [SIGNATURE_PREFIX, signed.as_bytes()].concat();
        if !ed25519_key::verify(&signing, &message, &signature) {
            return Err(BadOnionDescriptor::Signature);
        }
        Ok(Self {
            blinded,
            lifetime: Duration::from_secs(60 * u64::from(lifetime)),
            revision,
        })
    }
}

/// What is signed, and the signature, which must be the last line.
fn cut(text: &str) -> Result<(&str, [u8; SIGNATURE_LEN]), BadOnionDescriptor> {
    const LINE: &str = "\nsignature ";
    let at = text.find(LINE).ok_or(BadOnionDescriptor::Line("signature"))? + 1;
    let (signed, last) = text.split_at_checked(at).ok_or(BadOnionDescriptor::Signature)?;
    let word = last.strip_prefix("signature ").unwrap_or_default();
    let word = word.strip_suffix('\n').unwrap_or(word);
    let bytes = STANDARD_NO_PAD
        .decode(word)
        .map_err(|_| BadOnionDescriptor::Signature)?;
    let signature = bytes.try_into().map_err(|_| BadOnionDescriptor::Signature)?;
    Ok((signed, signature))
}

/// The rest of the only line with this keyword, and where it ends.
fn line<'a>(text: &'a str, keyword: &'static str) -> Result<(&'a str, &'a str), BadOnionDescriptor> {
    let is_it = |line: &str| line == keyword || line.strip_prefix(keyword).is_some_and(|rest| rest.starts_with(' '));
    let mut found = None;
    let mut rest = text;
    while let Some((one, after)) = rest.split_once('\n') {
        if is_it(one)
            && found
                .replace((one.get(keyword.len()..).unwrap_or_default(), after))
                .is_some()
        {
            return Err(BadOnionDescriptor::Line(keyword));
        }
        rest = after;
    }
    found.ok_or(BadOnionDescriptor::Line(keyword))
}

fn number(text: &str, keyword: &'static str) -> Result<u64, BadOnionDescriptor> {
    let (words, _) = line(text, keyword)?;
    words.trim().parse().map_err(|_| BadOnionDescriptor::Line(keyword))
}

/// The object that follows a keyword at once.
fn object<'a>(text: &'a str, keyword: &'static str) -> Result<&'a str, BadOnionDescriptor> {
    let (_, after) = line(text, keyword)?;
    match after.starts_with("-----BEGIN ") {
        true => Ok(after),
        false => Err(BadOnionDescriptor::Line(keyword)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cert::{Certified, NameSigner};
    use crate::ed25519_key::Ed25519Secret;

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800)
    }

    fn secret(seed: u64) -> Ed25519Secret {
        Ed25519Secret::generate(&mut crate::test_dice(seed))
    }

    fn signed(mut text: String, signing: &Ed25519Secret) -> String {
        let signature = signing.sign(&[SIGNATURE_PREFIX, text.as_bytes()].concat());
        text.push_str(&format!("signature {}\n", STANDARD_NO_PAD.encode(signature)));
        text
    }

    fn descriptor(cert_type: CertType, minutes: u64, tail: &str) -> String {
        let (blinded, signing) = (secret(1), secret(2));
        let expires = noon() + Duration::from_secs(54 * 3_600);
        let cert = Ed25519Cert::issue(
            cert_type,
            Certified::Key(signing.public()),
            expires,
            &blinded,
            NameSigner::Yes,
        );
        let text = format!(
            "hs-descriptor 3\ndescriptor-lifetime {minutes}\ndescriptor-signing-key-cert\n{}revision-counter 42\n\
             superencrypted\n{}{tail}",
            cert.to_block(),
            *object_block::encode("MESSAGE", &[7; 300]),
        );
        signed(text, &signing)
    }

    fn good() -> String {
        descriptor(CertType::BLINDED_SIGNING, 180, "")
    }

    #[test]
    fn a_descriptor_names_its_service_its_time_and_its_revision() {
        let read = OnionDescriptor::read(&good(), noon()).unwrap();
        assert_eq!(read.blinded, secret(1).public());
        assert_eq!((read.lifetime, read.revision), (Duration::from_secs(180 * 60), 42));
        let later = descriptor(CertType::BLINDED_SIGNING, 180, "new-keyword of tomorrow\n");
        assert!(
            OnionDescriptor::read(&later, noon()).is_ok(),
            "unknown lines are passed over"
        );
    }

    #[test]
    fn nobody_else_can_speak_for_the_service() {
        let good = good();
        let altered = good.replace("revision-counter 42", "revision-counter 43");
        assert_eq!(
            OnionDescriptor::read(&altered, noon()),
            Err(BadOnionDescriptor::Signature)
        );
        let longer = format!("{good}signature again\n");
        assert_eq!(
            OnionDescriptor::read(&longer, noon()),
            Err(BadOnionDescriptor::Signature)
        );
        let other = descriptor(CertType::IDENTITY_SIGNING, 180, "");
        assert!(matches!(
            OnionDescriptor::read(&other, noon()),
            Err(BadOnionDescriptor::Cert(CertError::Type { .. }))
        ));
        let late = noon() + Duration::from_secs(56 * 3_600);
        assert_eq!(
            OnionDescriptor::read(&good, late),
            Err(BadOnionDescriptor::Cert(CertError::Expired))
        );
        let body = good.split_once("signature ").unwrap().0.to_owned();
        assert_eq!(
            OnionDescriptor::read(&signed(body, &secret(3)), noon()),
            Err(BadOnionDescriptor::Signature)
        );
    }

    #[test]
    fn a_lifetime_beyond_half_a_day_is_not_granted() {
        for minutes in [0, 29, 721, 65_536 + 60, u64::MAX] {
            let text = descriptor(CertType::BLINDED_SIGNING, minutes, "");
            assert_eq!(
                OnionDescriptor::read(&text, noon()),
                Err(BadOnionDescriptor::Lifetime(minutes))
            );
        }
    }

    #[test]
    fn a_line_that_is_missing_or_there_twice_is_named() {
        for (keyword, from, to) in [
            ("revision-counter", "revision-counter 42\n", ""),
            ("revision-counter", "revision-counter 42", "revision-counter -1"),
            ("superencrypted", "superencrypted\n", "superencrypted\nx\n"),
            (
                "descriptor-lifetime",
                "revision-counter",
                "descriptor-lifetime 60\nrevision-counter",
            ),
        ] {
            let text = good().replacen(from, to, 1);
            assert_eq!(
                OnionDescriptor::read(&text, noon()),
                Err(BadOnionDescriptor::Line(keyword))
            );
        }
        assert_eq!(
            OnionDescriptor::read(&good().replace("descriptor 3", "descriptor 2"), noon()),
            Err(BadOnionDescriptor::Version)
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(at in 0_usize..1_000, cut in 0_usize..200, put in ".{0,20}") {
            let mut text: Vec<char> = good().chars().collect();
            let at = at.min(text.len());
            text.splice(at..(at + cut).min(text.len()), put.chars());
            let text: String = text.into_iter().collect();
            if text != good() {
                prop_assert!(OnionDescriptor::read(&text, noon()).is_err() || text.trim_end() == good().trim_end());
            }
        }
    }
}
