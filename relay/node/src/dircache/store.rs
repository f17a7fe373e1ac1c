//! The documents that we serve. Immutable from the outside: whoever fetches newer ones hands in a new set, and answers
//! that are under way keep the documents they began with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use relay_formats::fingerprint::RsaIdentity;

use super::compress::{Effort, Encoding, pack};
use super::request::Flavor;

/// A document's bytes, shared with the answers that carry it.
pub type Text = Arc<[u8]>;

/// A document that is packed once and served often.
#[derive(Debug, Default)]
pub struct Packed(BTreeMap<Encoding, Text>);

impl Packed {
    /// Packs `text` in every way there is. Costs seconds for a large consensus: not for a thread that moves cells.
    ///
    /// # Errors
    /// Where a packer runs out of memory.
    pub fn new(text: Text) -> std::io::Result<Self> {
        let packed = Encoding::ALL.into_iter().map(|encoding| match encoding {
            Encoding::Identity => Ok((encoding, text.clone())),
            _ => Ok((encoding, pack(&[&text], encoding, Effort::Ahead)?.into())),
        });
        packed.collect::<std::io::Result<_>>().map(Self)
    }

    /// The document in the most preferred of `encodings`.
    pub fn choose(&self, encodings: impl IntoIterator<Item = Encoding>) -> Option<(Encoding, Text)> {
        encodings
            .into_iter()
            .find_map(|encoding| Some((encoding, self.0.get(&encoding)?.clone())))
    }
}

/// One consensus, ready to be served.
#[derive(Debug)]
pub struct Consensus {
    /// `valid-after`: its age, and what If-Modified-Since is held against.
    pub valid_after: SystemTime,
    /// `fresh-until`: when an asker should look again.
    pub fresh_until: SystemTime,
    /// `valid-until`: from then on we do not serve it.
    pub valid_until: SystemTime,
    /// Identity fingerprints of the authorities whose signatures verified.
    pub signed_by: Vec<RsaIdentity>,
    /// The document.
    pub document: Packed,
    /// Diffs from older ones of the same flavour, by the SHA3-256 of the older one's signed part (dir-spec,
    /// "Consensus diffs").
    pub diffs: HashMap<[u8; 32], Packed>,
}

/// One authority certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// SHA-1 of the authority's identity key.
    pub identity: RsaIdentity,
    /// SHA-1 of its signing key.
    pub signing_key: RsaIdentity,
    /// The document.
    pub text: Text,
}

/// One server descriptor or extra-info.
#[derive(Debug, Clone)]
pub struct Descriptor {
    /// The relay's fingerprint.
    pub relay: RsaIdentity,
    /// SHA-1 of the document, as `extra-info-digest` and the consensus name it.
    pub digest: [u8; 20],
    /// The document.
    pub text: Text,
}

/// Everything that we serve.
#[derive(Debug, Default)]
pub struct Store {
    /// The newest consensus of each flavour.
    pub consensuses: BTreeMap<Flavor, Consensus>,
    /// Microdescriptors by SHA-256.
    pub microdescriptors: HashMap<[u8; 32], Text>,
    /// Server descriptors.
    pub servers: Vec<Descriptor>,
    /// Extra-info documents; empty unless we say `caches-extra-info`.
    pub extra_infos: Vec<Descriptor>,
    /// Authority certificates.
    pub certificates: Vec<Certificate>,
    /// Our own descriptor.
    pub own_server: Option<Text>,
    /// Our own extra-info.
    pub own_extra_info: Option<Text>,
}
