//! `MyFamily` and `FamilyId`.

use std::path::PathBuf;

use super::reading::{Reading, text};
use super::{FamilyIds, Place};
use crate::fingerprint::{BadFingerprint, RsaIdentity};
use crate::nickname::Nickname;

impl Reading {
    pub(super) fn my_family(&mut self) -> Vec<RsaIdentity> {
        let mut family = Vec::new();
        for (at, members) in self.every("MyFamily", family_members) {
            for member in members {
                match member {
                    FamilyMember::Identity(identity) => family.push(identity),
                    FamilyMember::Nickname(name) => {
                        self.warn(
                            at,
                            format!("MyFamily: `{name}` is passed over; only fingerprints name a relay"),
                        );
                    }
                }
            }
        }
        family.sort();
        family.dedup();
        family
    }

    /// A relay that holds its master key makes its signing keys itself, in its key directory.
    pub(super) fn signing_key_directory(&mut self) -> Option<PathBuf> {
        let directory = self.last("SigningKeyDirectory", text)?;
        if !self.switch("OfflineMasterKey", false) {
            let at = self
                .place("SigningKeyDirectory")
                .unwrap_or(Place { line: 1, column: 1 });
            self.error(
                at,
                "SigningKeyDirectory: needs OfflineMasterKey 1, for the signing key comes from elsewhere",
            );
        }
        Some(directory.into())
    }

    pub(super) fn family_ids(&mut self) -> FamilyIds {
        let read = |text: &str| match text {
            "*" => Ok(None),
            _ => text
                .parse()
                .map(Some)
                .map_err(|error: BadFingerprint| error.to_string()),
        };
        let found = self.every("FamilyId", read);
        if found.iter().any(|(_, id)| id.is_none()) {
            return FamilyIds::AllPresent;
        }
        let mut named: Vec<_> = found.into_iter().filter_map(|(_, id)| id).collect();
        named.sort();
        named.dedup();
        FamilyIds::Named(named)
    }
}

enum FamilyMember {
    Identity(RsaIdentity),
    Nickname(String),
}

/// Fingerprints with or without `$`, perhaps followed by `=` or `~` and a nickname, between commas or blanks.
fn family_members(text: &str) -> Result<Vec<FamilyMember>, String> {
    let words = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty());
    words.map(family_member).collect()
}

fn family_member(word: &str) -> Result<FamilyMember, String> {
    let fingerprint = word.split(['=', '~']).next().unwrap_or(word);
    match (fingerprint.parse(), word.parse::<Nickname>()) {
        (Ok(identity), _) => Ok(FamilyMember::Identity(identity)),
        (_, Ok(nickname)) => Ok(FamilyMember::Nickname(nickname.to_string())),
        _ => Err(format!(
            "expected a fingerprint of 40 hexadecimal digits, found `{word}`"
        )),
    }
}
