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
        Self::with(text, &Encoding::ALL)
    }

    /// Packs `text` in some ways only.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(text: Text, encodings: &[Encoding]) -> std::io::Result<Self> {
        let packed = encodings.iter().map(|encoding| match encoding {
            Encoding::Identity => Ok((Encoding::Identity, text.clone())),
            other => Ok((*other, pack(&[&text], *other, Effort::Ahead)?.into())),
        });
        packed.collect::<std::io::Result<_>>().map(Self)
    }

    /// The document in the most preferred of `encodings`.
    pub fn choose(&self, encodings: impl IntoIterator<Item = Encoding>) -> Option<(Encoding, Text)> {
        encodings
            .into_iter()
            .find_map(|encoding| Some((encoding, self.0.get(&encoding)?.clone())))
    }

    /// Bytes of memory, all packings together.
    pub fn bytes(&self) -> usize {
        self.0.values().map(|text| text.len()).sum()
    }
}

/// One consensus, ready to be served.
#[derive(Debug)]
pub struct Consensus {
    /// SHA3-256 of its signed part: whoever has that one has nothing to fetch.
    pub digest: [u8; 32],
    /// `valid-after`: its age, and what If-Modified-Since is held against.
    pub valid_after: SystemTime,
    /// `fresh-until`: when an asker should look again.
    pub fresh_until: SystemTime,
    /// `valid-until`: a day later we do not serve it any more.
    pub valid_until: SystemTime,
    /// Identity fingerprints of the authorities that we trust and that have signed.
    pub signed_by: Vec<RsaIdentity>,
    /// The document.
    pub document: Packed,
}

/// Diffs to one consensus from older ones of the same flavour.
#[derive(Debug, Default, Clone)]
pub struct Diffs {
    /// Which consensus they lead to.
    pub to: [u8; 32],
    /// By the SHA3-256 of the older one's signed part (dir-spec, "Consensus diffs").
    pub from: HashMap<[u8; 32], Arc<Packed>>,
}

/// One authority certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-1 of the authority's identity key.
    pub identity: RsaIdentity,
    /// SHA-1 of its signing key.
    pub signing_key: RsaIdentity,
    /// When the authority made it.
    pub published: SystemTime,
    /// The document.
    pub text: Text,
}

/// One server descriptor or extra-info.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The relay's fingerprint.
    pub relay: RsaIdentity,
    /// SHA-1 of the document, as `extra-info-digest` and the consensus name it.
    pub digest: [u8; 20],
    /// The document.
    pub text: Text,
}

/// Server descriptors, or extra-infos.
#[derive(Debug, Default)]
pub struct Shelf {
    by_digest: HashMap<[u8; 20], Text>,
    by_relay: HashMap<RsaIdentity, [u8; 20]>,
}

impl Shelf {
    /// `listed` are the ones that the newest consensus names, each relay's only one; `older` may still be asked for by
    /// their digests.
    pub fn new(
        listed: impl IntoIterator<Item = Descriptor>,
        older: impl IntoIterator<Item = ([u8; 20], Text)>,
    ) -> Self {
        let mut shelf = Self::default();
        for descriptor in listed {
            shelf.by_relay.insert(descriptor.relay, descriptor.digest);
            shelf.by_digest.insert(descriptor.digest, descriptor.text);
        }
        for (digest, text) in older {
            shelf.by_digest.entry(digest).or_insert(text);
        }
        shelf
    }

    /// The document of that digest.
    pub fn by_digest(&self, digest: &[u8; 20]) -> Option<&Text> {
        self.by_digest.get(digest)
    }

    /// The newest document of a relay.
    pub fn by_relay(&self, relay: &RsaIdentity) -> Option<(&[u8; 20], &Text)> {
        let digest = self.by_relay.get(relay)?;
        Some((digest, self.by_digest.get(digest)?))
    }

    /// The newest document of every relay.
    pub fn all(&self) -> impl Iterator<Item = (&[u8; 20], &Text)> {
        let newest = self.by_relay.values();
        newest.filter_map(|digest| Some((digest, self.by_digest.get(digest)?)))
    }
}

/// Everything that we serve. Cheap to clone.
#[derive(Debug, Default, Clone)]
pub struct Store {
    /// The newest consensus of each flavour.
    pub consensuses: BTreeMap<Flavor, Arc<Consensus>>,
    /// How to get there from older ones.
    pub diffs: BTreeMap<Flavor, Arc<Diffs>>,
    /// Microdescriptors by SHA-256.
    pub microdescriptors: Arc<HashMap<[u8; 32], Text>>,
    /// Server descriptors.
    pub servers: Arc<Shelf>,
    /// Extra-info documents; empty unless we say `caches-extra-info`.
    pub extra_infos: Arc<Shelf>,
    /// Authority certificates.
    pub certificates: Arc<Vec<Certificate>>,
    /// Our own descriptor.
    pub own_server: Option<Descriptor>,
    /// Our own extra-info.
    pub own_extra_info: Option<Descriptor>,
    /// torrc `DirPortFrontPage`.
    pub front_page: Option<Text>,
    /// An onion service's descriptor must be shorter: consensus parameter `HSV3MaxDescriptorSize`; 50,000 where there is no
    /// consensus yet.
    pub onion_descriptor_bytes_max: Option<usize>,
}
