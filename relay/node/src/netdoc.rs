//! The one door to Arti's leaf crates: parses and verifies the documents of the directory system.
//!
//! Nothing else in the workspace names a type of theirs, because they change with every monthly release. What comes out
//! is of our own types, and it has been verified: an [`AuthorityCertificate`] or a [`Consensus`] exists only after its
//! signatures held.

mod consensus;
mod servers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

pub use consensus::{
    ConsensusUnverified, ListedServer, ServerConsensus, ServerConsensusUnverified, Unverified, apply_consensus_diff,
    consensus_diff, is_consensus_diff, signed_digest,
};
pub use servers::{RawDescriptor, extra_infos, server_descriptors};

use relay_engine::network::Parameters;
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use sha2::{Digest as _, Sha256};
use tor_checkable::{SelfSigned as _, TimeBound as _};
use tor_llcrypto::pk::rsa;
use tor_netdoc::AllowAnnotations;
use tor_netdoc::doc::authcert::AuthCert;
use tor_netdoc::doc::microdesc::MicrodescReader;
use tor_netdoc::doc::netstatus::{MdConsensus, RelayWeight};
use tor_netdoc::doc::routerdesc::RouterDescUnverified;
use tor_netdoc::parse2::{ParseInput, parse_netdoc};
use tor_netdoc::types::relay_flags::RelayFlag;
use tor_protover::Protocols;

use crate::directory::schedule::Lifetime;

/// Why a document is refused. The text may hold parts of the document's structure, never of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    /// Its text does not follow dir-spec.
    #[error("it cannot be parsed: {0}")]
    Parse(String),
    /// A signature is wrong, or too few authorities that we trust have signed.
    #[error("it is not signed as it should be: {0}")]
    Signature(String),
    /// Good, but not now.
    #[error("{0}")]
    NotTimely(String),
    /// Some signing keys have no certificate here yet: those of [`Unverified::missing_certificates`].
    #[error("certificates of signing keys are missing")]
    CertificatesMissing,
}

fn rsa_identity(theirs: &rsa::RsaIdentity) -> RsaIdentity {
    RsaIdentity(theirs.to_bytes())
}

/// Names a certificate: an authority's identity and one of its signing keys (both SHA-1 fingerprints).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateId {
    /// The v3 identity.
    pub identity: RsaIdentity,
    /// The signing key.
    pub signing_key: RsaIdentity,
}

/// A key certificate of an authority that we trust; its signatures hold.
#[derive(Clone)]
pub struct AuthorityCertificate {
    inner: AuthCert,
    /// Which one it is.
    pub id: CertificateId,
    /// When the authority made it.
    pub published: SystemTime,
    /// Not to be used after.
    pub expires: SystemTime,
    /// As it was received, for the cache.
    pub text: Arc<str>,
}

/// Certificates in `text` of the authorities in `trusted` that are good at `now`; everything else in it is passed over,
/// because one bad certificate must not keep us from the others (dir-spec, "Downloading certificates from caches").
pub fn authority_certificates(text: &str, trusted: &[RsaIdentity], now: SystemTime) -> Vec<AuthorityCertificate> {
    let Ok(parsed) = AuthCert::parse_multiple(text) else {
        return Vec::new();
    };
    let good = parsed.filter_map(|certificate| {
        let unchecked = certificate.ok()?;
        let text = unchecked.within(text)?.into();
        let inner = unchecked.check_signature().ok()?.if_valid_at(&now).ok()?;
        let ids = inner.key_ids();
        let id = CertificateId {
            identity: rsa_identity(&ids.id_fingerprint),
            signing_key: rsa_identity(&ids.sk_fingerprint),
        };
        let (published, expires) = (inner.published(), inner.expires());
        trusted.contains(&id.identity).then_some(AuthorityCertificate {
            inner,
            id,
            published,
            expires,
            text,
        })
    });
    good.collect()
}

/// SHA-256 of a microdescriptor.
pub type MicrodescriptorDigest = [u8; 32];

/// One relay as a verified consensus lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRelay {
    /// Its RSA identity.
    pub rsa_identity: RsaIdentity,
    /// Its ORPorts: IPv4 first.
    pub addresses: Vec<SocketAddr>,
    /// Which microdescriptor goes with it.
    pub microdescriptor: MicrodescriptorDigest,
    /// Flag `Running`.
    pub running: bool,
    /// Flag `StaleDesc`: its descriptor is older than 18 hours.
    pub stale_descriptor: bool,
    /// All its flags that we know the names of.
    pub flags: ListedFlags,
    /// Consensus weight, kilobytes a second.
    pub weight: u32,
    /// Whether bandwidth authorities have measured it.
    pub measured: bool,
}

/// Flags of one relay, as bits of [`FLAG_NAMES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListedFlags(u16);

/// In the order of the alphabet, as consensuses have them.
const FLAG_NAMES: [(RelayFlag, &str); 13] = [
    (RelayFlag::Authority, "Authority"),
    (RelayFlag::BadExit, "BadExit"),
    (RelayFlag::Exit, "Exit"),
    (RelayFlag::Fast, "Fast"),
    (RelayFlag::Guard, "Guard"),
    (RelayFlag::HSDir, "HSDir"),
    (RelayFlag::MiddleOnly, "MiddleOnly"),
    (RelayFlag::NoEdConsensus, "NoEdConsensus"),
    (RelayFlag::Running, "Running"),
    (RelayFlag::Stable, "Stable"),
    (RelayFlag::StaleDesc, "StaleDesc"),
    (RelayFlag::V2Dir, "V2Dir"),
    (RelayFlag::Valid, "Valid"),
];

impl ListedFlags {
    /// Their names, in the order of the alphabet.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let bits = (0..).zip(FLAG_NAMES);
        bits.filter(move |(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, (_, name))| name)
    }
}

/// A consensus, microdescriptor flavour: signed by a majority of the authorities that we trust, and timely when verified.
#[derive(Debug, Clone)]
pub struct Consensus {
    /// Its three times.
    pub lifetime: Lifetime,
    /// The `params` line.
    pub parameters: Parameters,
    /// The relays, each once.
    pub relays: Vec<ListedRelay>,
    /// The authorities that we trust and that have signed.
    pub signers: Vec<RsaIdentity>,
    relay_protocols: tor_netdoc::doc::netstatus::ProtoStatus,
}

fn lifetime(theirs: &tor_netdoc::doc::netstatus::Lifetime) -> Lifetime {
    Lifetime {
        valid_after: theirs.valid_after(),
        fresh_until: theirs.fresh_until(),
        valid_until: theirs.valid_until(),
    }
}

fn compile(theirs: &MdConsensus, signers: Vec<RsaIdentity>) -> Consensus {
    let parameters: BTreeMap<String, i32> = theirs
        .params()
        .iter()
        .map(|(name, value)| (name.clone(), *value))
        .collect();
    let relays = theirs.relays().iter().map(|relay| ListedRelay {
        rsa_identity: rsa_identity(relay.rsa_identity()),
        addresses: relay.addrs().collect(),
        microdescriptor: *relay.md_digest(),
        running: relay.flags().contains(RelayFlag::Running),
        stale_descriptor: relay.flags().contains(RelayFlag::StaleDesc),
        flags: ListedFlags(
            (0..)
                .zip(FLAG_NAMES)
                .filter(|(_, (flag, _))| relay.flags().contains(*flag))
                .fold(0, |bits, (bit, _)| bits | 1 << bit),
        ),
        weight: match relay.weight() {
            RelayWeight::Measured(weight) | RelayWeight::Unmeasured(weight) => *weight,
            _ => 0,
        },
        measured: matches!(relay.weight(), RelayWeight::Measured(_)),
    });
    Consensus {
        lifetime: lifetime(theirs.lifetime()),
        parameters: Parameters(parameters),
        relays: relays.collect(),
        signers,
        relay_protocols: theirs.relay_protocol_status().clone(),
    }
}

/// Subprotocols that the consensus asks of relays and that `ours` (a `proto` line's value) lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingProtocols {
    /// Lacking from `required-relay-protocols`, as a `proto` line's value; empty: none.
    pub required: String,
    /// Lacking from `recommended-relay-protocols`.
    pub recommended: String,
}

impl Consensus {
    /// Compares the lists of the consensus with `ours`. An error means that `ours` is no list of subprotocols.
    pub fn missing_protocols(&self, ours: &str) -> Result<MissingProtocols, BadDocument> {
        let ours: Protocols = ours
            .parse()
            .map_err(|_| BadDocument::Parse("not a list of subprotocols".into()))?;
        let lacking = |wanted: &Protocols| wanted.difference(&ours).to_string();
        Ok(MissingProtocols {
            required: lacking(self.relay_protocols.required_protocols()),
            recommended: lacking(self.relay_protocols.recommended_protocols()),
        })
    }
}

/// What a microdescriptor tells that a relay needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Microdescriptor {
    /// SHA-256 of its text; the consensus names it so.
    pub digest: MicrodescriptorDigest,
    /// The Ed25519 identity.
    pub ed25519_identity: Ed25519Identity,
    /// As it was received, without annotations, for the cache.
    pub text: Arc<str>,
}

/// The microdescriptors in `text`, with or without `@last-listed` annotations; what does not parse is passed over.
pub fn microdescriptors(text: &str) -> Vec<Microdescriptor> {
    let Ok(reader) = MicrodescReader::new(text, &AllowAnnotations::AnnotationsAllowed) else {
        return Vec::new();
    };
    let good = reader.filter_map(|one| {
        let one = one.ok()?;
        let with_annotations = one.within(text)?;
        let begin = with_annotations.find("onion-key").unwrap_or(0);
        Some(Microdescriptor {
            digest: *one.md().digest(),
            ed25519_identity: Ed25519Identity(one.md().ed25519_id().as_bytes().try_into().ok()?),
            text: with_annotations.get(begin..)?.into(),
        })
    });
    good.collect()
}

/// Reads our own descriptor as a stranger would, before any authority does: syntax, every certificate, both signatures,
/// times. Of the extra-info it checks that it is the one which the descriptor names (Arti's reader of extra-infos is
/// experimental).
pub fn check_own_documents(
    descriptor: &str,
    extra_info: &str,
    identity: RsaIdentity,
    now: SystemTime,
) -> Result<(), BadDocument> {
    let parsed: RouterDescUnverified =
        parse_netdoc(&ParseInput::new(descriptor, "")).map_err(|e| BadDocument::Parse(e.to_string()))?;
    let signed = parsed.verify().map_err(|e| BadDocument::Signature(e.to_string()))?;
    let verified = signed
        .if_valid_at(&now)
        .map_err(|e| BadDocument::NotTimely(e.to_string()))?;
    if rsa_identity(&verified.rsa_identity()) != identity {
        return Err(BadDocument::Signature("it names another relay than us".into()));
    }
    let named = verified
        .extra_info_digest
        .as_ref()
        .and_then(|digests| digests.sha2.as_ref());
    let made: [u8; 32] = Sha256::digest(extra_info).into();
    match named.is_some_and(|named| **named == made) {
        true => Ok(()),
        false => Err(BadDocument::Signature("it names another extra-info than ours".into())),
    }
}

#[cfg(test)]
mod tests;
