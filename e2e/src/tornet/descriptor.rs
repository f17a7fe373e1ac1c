//! A relay's descriptor as an authority serves it (dir-spec "Server descriptor format"), read without help from the
//! programs that wrote it: what stands in it is evidence.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey};

/// Certificate type FAMILY_V_IDENTITY (cert-spec "List of certificate types").
const FAMILY_V_IDENTITY: u8 = 0x0c;
/// Extension "signed-with-ed25519-key".
const SIGNED_WITH: u8 = 4;
const KEY_IS_ED25519: u8 = 1;
const SIGNATURE_BYTES: usize = 64;

/// Its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor(String);

/// An Ed25519 certificate (cert-spec "Ed25519 certificates"), read and not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// All of it.
    pub bytes: Vec<u8>,
    kind: u8,
    expires: SystemTime,
    key_kind: u8,
    /// The key that it certifies.
    pub certified: [u8; 32],
    signed_with: Option<[u8; 32]>,
}

impl Descriptor {
    /// Of this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What follows the keyword on its line, if there is such a line.
    #[must_use]
    pub fn line(&self, keyword: &str) -> Option<&str> {
        self.lines(keyword).next()
    }

    /// What follows the keyword on each of its lines.
    pub fn lines(&self, keyword: &str) -> impl Iterator<Item = &str> {
        let words = self.0.lines().filter_map(move |line| line.strip_prefix(keyword));
        words
            .filter(|rest| rest.is_empty() || rest.starts_with(' '))
            .map(str::trim)
    }

    /// The certificate by which the master key vouches for the signing key in use.
    ///
    /// # Errors
    /// There is none, or it is no certificate.
    pub fn signing_certificate(&self) -> Result<Certificate> {
        let all = self.objects("identity-ed25519")?;
        Certificate::read(all.first().context("the descriptor has no identity-ed25519")?)
    }

    /// The relay's Ed25519 identity.
    ///
    /// # Errors
    /// The descriptor names none.
    pub fn ed25519_identity(&self) -> Result<[u8; 32]> {
        let text = self.line("master-key-ed25519").context("no master-key-ed25519")?;
        STANDARD_NO_PAD
            .decode(text)?
            .try_into()
            .ok()
            .context("a key has 32 bytes")
    }

    /// The families (43 characters of base64) whose key vouches for this relay: of each family-cert every property is
    /// checked that prop 321 asks for, its signature among them.
    ///
    /// # Errors
    /// There is none, or one is not valid at this time.
    pub fn families(&self, now: SystemTime) -> Result<Vec<String>> {
        let identity = self.ed25519_identity()?;
        let certificates = self.objects("family-cert")?;
        ensure!(!certificates.is_empty(), "the descriptor has no family-cert");
        let families = certificates.iter().map(|bytes| {
            let certificate = Certificate::read(bytes)?;
            ensure!(
                certificate.kind == FAMILY_V_IDENTITY,
                "it is of type {}",
                certificate.kind
            );
            ensure!(certificate.key_kind == KEY_IS_ED25519, "it certifies no Ed25519 key");
            ensure!(certificate.certified == identity, "it certifies another relay");
            ensure!(certificate.expires > now, "it has expired");
            Ok(STANDARD_NO_PAD.encode(certificate.signer()?))
        });
        families.collect::<Result<_>>().context("a family-cert is not valid")
    }

    /// The objects (`-----BEGIN …`) that follow the lines of this keyword.
    fn objects(&self, keyword: &str) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        let mut lines = self.0.lines();
        while let Some(line) = lines.next() {
            if line.split(' ').next() != Some(keyword) {
                continue;
            }
            let begin = lines.next().unwrap_or_default();
            ensure!(begin.starts_with("-----BEGIN "), "no object after {keyword}");
            let text: String = lines
                .by_ref()
                .take_while(|line| !line.starts_with("-----END "))
                .collect();
            found.push(STANDARD.decode(text)?);
        }
        Ok(found)
    }
}

impl Certificate {
    fn read(bytes: &[u8]) -> Result<Self> {
        let short = "a certificate that is cut off";
        let [1, kind, a, b, c, d, key_kind, rest @ ..] = bytes else {
            anyhow::bail!("no certificate of version 1")
        };
        let (certified, rest) = rest.split_first_chunk::<32>().context(short)?;
        let (count, mut rest) = rest.split_first().context(short)?;
        let mut signed_with = None;
        for _ in 0..*count {
            let ([high, low, kind, _flags], after) = rest.split_first_chunk::<4>().context(short)?;
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (data, after) = after.split_at_checked(length).context(short)?;
            if *kind == SIGNED_WITH {
                signed_with = Some(data.try_into().context("a signer's key has 32 bytes")?);
            }
            rest = after;
        }
        ensure!(rest.len() == SIGNATURE_BYTES, "{short}");
        let hours = u32::from_be_bytes([*a, *b, *c, *d]);
        Ok(Self {
            bytes: bytes.to_vec(),
            kind: *kind,
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(hours) * 3600),
            key_kind: *key_kind,
            certified: *certified,
            signed_with,
        })
    }

    /// The key in it that has signed it.
    fn signer(&self) -> Result<[u8; 32]> {
        let signer = self.signed_with.context("it does not name its signer")?;
        let length = self.bytes.len().saturating_sub(SIGNATURE_BYTES);
        let (signed, signature) = self.bytes.split_at_checked(length).context("no signature")?;
        VerifyingKey::from_bytes(&signer)?
            .verify_strict(signed, &Signature::from_slice(signature)?)
            .context("its signature is wrong")?;
        Ok(signer)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const RELAY: [u8; 32] = [7; 32];

    fn certificate(kind: u8, hours: u32, certified: &[u8; 32], family: &SigningKey) -> Vec<u8> {
        let mut bytes = vec![1, kind];
        bytes.extend(hours.to_be_bytes());
        bytes.push(1);
        bytes.extend(certified);
        bytes.extend([1, 0, 32, 4, 1]);
        bytes.extend(family.verifying_key().as_bytes());
        let signature = family.sign(&bytes);
        bytes.extend(signature.to_bytes());
        bytes
    }

    fn descriptor(certificate: &[u8]) -> Descriptor {
        let (identity, text) = (STANDARD_NO_PAD.encode(RELAY), STANDARD.encode(certificate));
        Descriptor::of(&format!(
            "router oak 198.18.1.4 9001 0 0\nmaster-key-ed25519 {identity}\nfamily-cert\n-----BEGIN FAMILY CERT-----\n{}\n{}\n\
             -----END FAMILY CERT-----\ncontact a b\n",
            &text[..64],
            &text[64..]
        ))
    }

    #[test]
    fn a_member_shows_the_family_whose_key_signed_for_it() {
        let family = SigningKey::from_bytes(&[3; 32]);
        let shown = descriptor(&certificate(12, 500_000, &RELAY, &family));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(499_999 * 3600);
        assert_eq!(
            shown.families(now).unwrap(),
            [STANDARD_NO_PAD.encode(family.verifying_key())]
        );
        assert_eq!(shown.line("contact"), Some("a b"));
        assert_eq!(shown.line("cont"), None);
    }

    #[test]
    fn a_certificate_that_is_forged_foreign_old_or_of_another_kind_makes_no_member() {
        let family = SigningKey::from_bytes(&[3; 32]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(499_999 * 3600);
        let mut forged = certificate(12, 500_000, &RELAY, &family);
        *forged.last_mut().unwrap() ^= 1;
        for (wrong, why) in [
            (forged, "signature"),
            (certificate(12, 500_000, &[8; 32], &family), "another relay"),
            (certificate(12, 499_999, &RELAY, &family), "expired"),
            (certificate(4, 500_000, &RELAY, &family), "type 4"),
            (certificate(12, 500_000, &RELAY, &family)[..100].to_vec(), "cut off"),
        ] {
            let error = format!("{:#}", descriptor(&wrong).families(now).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        assert!(
            Descriptor::of(&format!("master-key-ed25519 {}\n", STANDARD_NO_PAD.encode(RELAY)))
                .families(now)
                .is_err()
        );
    }
}
