//! What a family's keeper tells its members: who is in it, and a certificate for each, so that the family's secret key
//! never lies on a relay. Ours: C tor knows only the list in torrc and the shared key.
//!
//! ```text
//! relayfleet-family 1
//! member $FINGERPRINT                 any number, in any order; for the descriptor's `family` line
//! family-cert ED25519-IDENTITY        any number; the member that the certificate is for
//! -----BEGIN FAMILY CERT-----
//! ```
//!
//! Lines that begin with `#` and words that we do not know are passed over, so that older relays can read newer files.

use std::time::SystemTime;

use crate::cert::{CertType, Ed25519Cert};
use crate::fingerprint::{Ed25519Identity, RsaIdentity};
use crate::object_block;

/// End of the names of such files.
pub const FILE_SUFFIX: &str = ".family";
/// Longer than a bundle of 500 relays with three certificates each; a ConfigMap holds a megabyte.
pub const BYTES_MAX: usize = 1024 * 1024;

const FIRST_LINE: &str = "relayfleet-family 1";
const LABEL: &str = "FAMILY CERT";

/// A family's list and certificates. Nobody has verified the certificates yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyBundle {
    /// For the `family` line of every member.
    pub members: Vec<RsaIdentity>,
    /// Whom each certificate is for, and the certificate.
    pub certs: Vec<(Ed25519Identity, Ed25519Cert)>,
}

/// Why a text is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBundle {
    /// Of another kind or version.
    #[error("expected a first line `{FIRST_LINE}`")]
    FirstLine,
    /// More than a megabyte.
    #[error("the file has {0} bytes; at most {BYTES_MAX} are read")]
    TooLong(usize),
    /// A fingerprint or identity that is none.
    #[error("line {0}: expected `member $FINGERPRINT` or `family-cert ED25519-IDENTITY`")]
    Line(usize),
    /// No certificate after its `family-cert` line.
    #[error("line {0}: no readable FAMILY CERT follows")]
    Cert(usize),
}

impl FamilyBundle {
    /// Reads a bundle; nothing is verified.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, BadBundle> {
        if text.len() > BYTES_MAX {
            return Err(BadBundle::TooLong(text.len()));
        }
        let mut lines = text.lines().zip(1..);
        if lines.next().is_none_or(|(first, _)| first.trim_end() != FIRST_LINE) {
            return Err(BadBundle::FirstLine);
        }
        let mut bundle = Self::default();
        while let Some((line, number)) = lines.next() {
            let mut words = line.split_whitespace();
            let mut second = || words.nth(1);
            match line.split_whitespace().next() {
                Some("member") => {
                    let member = second().and_then(|word| word.parse().ok());
                    bundle.members.push(member.ok_or(BadBundle::Line(number))?);
                }
                Some("family-cert") => {
                    let owner = second().and_then(|word| word.parse().ok());
                    let owner = owner.ok_or(BadBundle::Line(number))?;
                    let mut block = String::new();
                    for (line, _) in lines.by_ref() {
                        block.push_str(line);
                        block.push('\n');
                        if line.starts_with("-----END") {
                            break;
                        }
                    }
                    let bytes = object_block::decode(LABEL, &block).map_err(|_| BadBundle::Cert(number))?;
                    let cert = Ed25519Cert::decode(&bytes).map_err(|_| BadBundle::Cert(number))?;
                    bundle.certs.push((owner, cert));
                }
                _ => {}
            }
        }
        Ok(bundle)
    }

    /// The bundle's text: the same for the same bundle.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for member in &self.members {
            text.push_str(&format!("member ${member}\n"));
        }
        for (owner, cert) in &self.certs {
            // Nobody has looked at its type yet, so the label is the bundle's and not the certificate's.
            let block = object_block::encode(LABEL, cert.encoded());
            text.push_str(&format!("family-cert {owner}\n{}", *block));
        }
        text
    }

    /// The certificates for one member that hold at `now`: of the right type, naming who signed them, and not expired.
    pub fn valid_certs_of(&self, owner: &Ed25519Identity, now: SystemTime) -> Vec<Ed25519Cert> {
        let of_owner = self.certs.iter().filter(|(of, _)| of == owner);
        of_owner
            .filter(|(_, cert)| family_of(cert, owner, now).is_some())
            .map(|(_, cert)| cert.clone())
            .collect()
    }
}

/// The family that a certificate makes `member` one of, if it holds at `now`.
#[must_use]
pub fn family_of(cert: &Ed25519Cert, member: &Ed25519Identity, now: SystemTime) -> Option<Ed25519Identity> {
    let family = cert.named_signer().ok()?;
    let certified = cert.verify_key(CertType::FAMILY_IDENTITY, &family, now).ok()?;
    (certified == *member).then_some(family)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cert::{Certified, NameSigner};
    use crate::ed25519_key::Ed25519Secret;
    use crate::test_dice;

    const DAY: Duration = Duration::from_secs(86_400);

    fn bundle() -> (FamilyBundle, Ed25519Identity, SystemTime) {
        let (family, member) = (
            Ed25519Secret::generate(&mut test_dice(1)),
            Ed25519Secret::generate(&mut test_dice(2)).public(),
        );
        let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let (kind, certified) = (CertType::FAMILY_IDENTITY, Certified::Key(member));
        let cert = Ed25519Cert::issue(kind, certified, now + 30 * DAY, &family, NameSigner::Yes);
        let bundle = FamilyBundle {
            members: vec![RsaIdentity([7; 20]), RsaIdentity([9; 20])],
            certs: vec![(member, cert)],
        };
        (bundle, member, now)
    }

    #[test]
    fn a_bundle_reads_back_as_it_was_written() {
        let (bundle, _, _) = bundle();
        assert_eq!(FamilyBundle::parse(&bundle.to_text()), Ok(bundle));
    }

    #[test]
    fn a_certificate_of_another_type_is_kept_and_vouches_for_nobody() {
        let (mut bundle, member, now) = bundle();
        let key = Ed25519Secret::generate(&mut test_dice(4));
        let (kind, certified) = (CertType::IDENTITY_SIGNING, Certified::Key(member));
        bundle.certs[0].1 = Ed25519Cert::issue(kind, certified, now + DAY, &key, NameSigner::Yes);
        assert!(bundle.valid_certs_of(&member, now).is_empty());
        assert_eq!(FamilyBundle::parse(&bundle.to_text()), Ok(bundle));
    }

    #[test]
    fn trove_2026_062_a_certificate_is_for_one_member_and_for_its_time() {
        let (mut bundle, member, now) = bundle();
        assert_eq!(bundle.valid_certs_of(&member, now).len(), 1);
        assert!(bundle.valid_certs_of(&member, now + 31 * DAY).is_empty());
        let stranger = Ed25519Secret::generate(&mut test_dice(3)).public();
        assert!(bundle.valid_certs_of(&stranger, now).is_empty());
        // Put under another's name it still vouches for the first.
        bundle.certs[0].0 = stranger;
        assert!(bundle.valid_certs_of(&stranger, now).is_empty());
    }

    #[test]
    fn what_is_damaged_is_named_and_what_is_new_is_passed_over() {
        let text = bundle().0.to_text();
        assert_eq!(FamilyBundle::parse("").unwrap_err(), BadBundle::FirstLine);
        assert_eq!(
            FamilyBundle::parse(&text.replace("member $07", "member $0")),
            Err(BadBundle::Line(2))
        );
        assert_eq!(
            FamilyBundle::parse(text.split("-----END").next().unwrap()),
            Err(BadBundle::Cert(4))
        );
        let newer = text.replace("member", "# note\nsince 2030-01-01\nmember");
        assert_eq!(FamilyBundle::parse(&newer).unwrap().members.len(), 2);
    }
}
