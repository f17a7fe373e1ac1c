//! What we have fetched, as the directory server takes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use relay_formats::fingerprint::RsaIdentity;

use super::{Directory, Held};
use crate::dircache::request::Flavor;
use crate::dircache::store::{Certificate, Descriptor, Shelf, Text};
use crate::directory::schedule::Lifetime;
use crate::netdoc::{self, RawDescriptor};

/// Hours, where the consensus says nothing else.
const DIFFS_HOURS: i32 = 72;

/// Documents of one moment. Consensuses are not packed yet.
#[derive(Debug, Default)]
pub struct Stock {
    /// The newest of each flavour.
    pub consensuses: Vec<RawConsensus>,
    /// Listed or not.
    pub microdescriptors: Arc<HashMap<[u8; 32], Text>>,
    /// Server descriptors.
    pub servers: Arc<Shelf>,
    /// Extra-infos.
    pub extra_infos: Arc<Shelf>,
    /// Certificates of authorities that we trust.
    pub certificates: Arc<Vec<Certificate>>,
    /// How old a consensus may be that diffs lead from (param-spec, `max-consensus-age-to-cache-for-diff`).
    pub diffs_age_max: Duration,
    /// Consensus parameter `HSV3MaxDescriptorSize`.
    pub onion_descriptor_bytes_max: Option<usize>,
}

/// A verified consensus, as it was received.
#[derive(Debug, Clone)]
pub struct RawConsensus {
    /// Which.
    pub flavor: Flavor,
    /// SHA3-256 of its signed part.
    pub digest: [u8; 32],
    /// Its three times.
    pub lifetime: Lifetime,
    /// Who signed, of those whom we trust.
    pub signed_by: Vec<RsaIdentity>,
    /// The document.
    pub text: Arc<str>,
}

impl Directory {
    /// All that a cache serves; nothing, if we are none.
    pub fn stock(&self) -> Stock {
        if !self.keeps.as_cache {
            return Stock::default();
        }
        let microdesc = self.consensus.as_ref().and_then(|held| {
            let consensus = &held.consensus;
            raw(Flavor::Microdesc, held, consensus.lifetime, &consensus.signers)
        });
        let plain = self.server_consensus.as_ref().and_then(|held| {
            let consensus = &held.consensus;
            raw(Flavor::Ns, held, consensus.lifetime, &consensus.signers)
        });
        let listed = self.microdescriptors.iter().map(|(digest, one)| (digest, &one.text));
        let microdescriptors = listed
            .chain(self.unlisted_microdescriptors.iter())
            .map(|(digest, text)| (*digest, bytes(text)));
        let certificates = self.certificates.iter().map(|one| Certificate {
            identity: one.id.identity,
            signing_key: one.id.signing_key,
            published: one.published,
            text: bytes(&one.text),
        });
        let (servers, extra_infos) = self.shelves();
        let parameters = self.consensus().map(|consensus| &consensus.parameters);
        let hours = parameters.map_or(DIFFS_HOURS, |parameters| {
            parameters.clamped("max-consensus-age-to-cache-for-diff", DIFFS_HOURS, 0, 8_192)
        });
        let onion_descriptor_bytes_max = parameters.map(|parameters| {
            let bytes = parameters.clamped("HSV3MaxDescriptorSize", 50_000, 1, i32::MAX);
            usize::try_from(bytes).unwrap_or_default()
        });
        Stock {
            onion_descriptor_bytes_max,
            consensuses: microdesc.into_iter().chain(plain).collect(),
            microdescriptors: Arc::new(microdescriptors.collect()),
            servers: Arc::new(servers),
            extra_infos: Arc::new(extra_infos),
            certificates: Arc::new(certificates.collect()),
            diffs_age_max: Duration::from_secs(u64::try_from(hours).unwrap_or_default() * 60 * 60),
        }
    }

    fn shelves(&self) -> (Shelf, Shelf) {
        let mut of_extra_infos = BTreeMap::new();
        let listed = self.server_consensus.iter().flat_map(|held| &held.consensus.servers);
        let servers = listed.filter_map(|server| {
            let text = self.servers.get(&server.descriptor)?;
            let raw = RawDescriptor {
                digest: server.descriptor,
                text: Arc::clone(text),
            };
            if let Some(digest) = raw.extra_info() {
                of_extra_infos.insert(digest, server.relay);
            }
            Some(Descriptor {
                relay: server.relay,
                digest: server.descriptor,
                text: bytes(text),
            })
        });
        let older = self
            .unlisted_servers
            .iter()
            .map(|(digest, text)| (*digest, bytes(text)));
        let servers = Shelf::new(servers, older);
        let extra_infos = self.extra_infos.iter().filter_map(|(digest, text)| {
            Some(Descriptor {
                relay: *of_extra_infos.get(digest)?,
                digest: *digest,
                text: bytes(text),
            })
        });
        (servers, Shelf::new(extra_infos, []))
    }
}

fn raw<C>(flavor: Flavor, held: &Held<C>, lifetime: Lifetime, signers: &[RsaIdentity]) -> Option<RawConsensus> {
    Some(RawConsensus {
        flavor,
        digest: netdoc::signed_digest(&held.text)?,
        lifetime,
        signed_by: signers.to_vec(),
        text: Arc::clone(&held.text),
    })
}

fn bytes(text: &Arc<str>) -> Text {
    Text::from(Arc::clone(text))
}
