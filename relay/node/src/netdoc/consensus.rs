//! Consensuses of both flavours: parsed, then verified by the same rules.

use std::time::SystemTime;

use relay_formats::fingerprint::RsaIdentity;
use sha3::{Digest as _, Sha3_256};
use tor_checkable::{ExternallySigned as _, TimeBound as _};
use tor_consdiff::DiffSizeStrictness;
use tor_llcrypto::pk::rsa;
use tor_netdoc::doc::authcert::AuthCert;
use tor_netdoc::doc::netstatus::{MdConsensus, PlainConsensus, UncheckedMdConsensus, UncheckedPlainConsensus};

use super::{AuthorityCertificate, BadDocument, CertificateId, Consensus, compile, lifetime, rsa_identity};
use crate::dircache::request::Flavor;
use crate::directory::schedule::Lifetime;

/// A consensus as somebody sent it. Says nothing about the network before [`Unverified::verify`].
pub trait Unverified: Sized {
    /// What it is once it is verified.
    type Verified;

    /// Which flavour.
    const FLAVOR: Flavor;

    /// Parses the text.
    fn parse(text: &str) -> Result<Self, BadDocument>;

    /// When it claims to be valid; to be believed only after [`Self::verify`].
    fn claimed_lifetime(&self) -> Lifetime;

    /// Signing keys of `trusted` authorities whose certificates are not in `certificates`.
    fn missing_certificates(
        &self,
        trusted: &[RsaIdentity],
        certificates: &[AuthorityCertificate],
    ) -> Vec<CertificateId>;

    /// Checks the validity times and that more than half of `trusted` have signed (dir-spec, "Clients: downloading
    /// network-status documents"). Signatures of strangers and of unknown algorithms count for nothing.
    fn verify(
        self,
        trusted: &[RsaIdentity],
        certificates: &[AuthorityCertificate],
        now: SystemTime,
    ) -> Result<Self::Verified, BadDocument>;
}

/// The microdescriptor flavour, not verified.
pub struct ConsensusUnverified {
    inner: UncheckedMdConsensus,
}

/// The plain flavour, not verified.
pub struct ServerConsensusUnverified {
    inner: UncheckedPlainConsensus,
}

/// One relay as the plain flavour lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedServer {
    /// Its RSA identity.
    pub relay: RsaIdentity,
    /// SHA-1 of its server descriptor.
    pub descriptor: [u8; 20],
}

/// A consensus of the plain flavour, as far as a cache needs it.
#[derive(Debug, Clone)]
pub struct ServerConsensus {
    /// Its three times.
    pub lifetime: Lifetime,
    /// The relays, each once.
    pub servers: Vec<ListedServer>,
    /// The authorities that we trust and that have signed.
    pub signers: Vec<RsaIdentity>,
}

// Arti's two flavours are two families of types without a common trait.
macro_rules! unverified {
    ($name:ident, $theirs:ident, $verified:ident, $flavor:expr, $compile:path) => {
        impl Unverified for $name {
            type Verified = $verified;

            const FLAVOR: Flavor = $flavor;

            fn parse(text: &str) -> Result<Self, BadDocument> {
                let (_, _, inner) = $theirs::parse(text).map_err(|e| BadDocument::Parse(e.to_string()))?;
                Ok(Self { inner })
            }

            fn claimed_lifetime(&self) -> Lifetime {
                lifetime(self.inner.dangerously_peek().peek_lifetime())
            }

            fn missing_certificates(
                &self,
                trusted: &[RsaIdentity],
                certificates: &[AuthorityCertificate],
            ) -> Vec<CertificateId> {
                let have = |wanted: &CertificateId| certificates.iter().any(|one| one.id == *wanted);
                let mut missing = signers_of(self.inner.dangerously_peek().signing_cert_ids(), trusted);
                missing.retain(|signer| !have(signer));
                missing
            }

            fn verify(
                self,
                trusted: &[RsaIdentity],
                certificates: &[AuthorityCertificate],
                now: SystemTime,
            ) -> Result<$verified, BadDocument> {
                let theirs: Vec<_> = trusted
                    .iter()
                    .map(|identity| rsa::RsaIdentity::from(identity.0))
                    .collect();
                let keys = keys_of_the_trusted(trusted, certificates, now);
                let unsigned = self
                    .inner
                    .if_valid_at(&now)
                    .map_err(|e| BadDocument::NotTimely(e.to_string()))?;
                let unsigned = unsigned.set_n_authorities(trusted.len());
                if !unsigned.authorities_are_correct(&theirs.iter().collect::<Vec<_>>()) {
                    return Err(BadDocument::Signature(
                        "fewer than half of the authorities have signed it".into(),
                    ));
                }
                if unsigned.key_is_correct(&keys).is_err() {
                    return Err(BadDocument::CertificatesMissing);
                }
                let mut signers: Vec<_> = signers_of(unsigned.signing_cert_ids(), trusted)
                    .iter()
                    .map(|signer| signer.identity)
                    .collect();
                signers.dedup();
                let inner = unsigned
                    .check_signature(&keys)
                    .map_err(|e| BadDocument::Signature(e.to_string()))?;
                Ok($compile(&inner, signers))
            }
        }
    };
}

unverified!(ConsensusUnverified, MdConsensus, Consensus, Flavor::Microdesc, compile);
unverified!(
    ServerConsensusUnverified,
    PlainConsensus,
    ServerConsensus,
    Flavor::Ns,
    compile_servers
);

/// Those whom we trust among the signers, sorted, each key once.
fn signers_of(
    theirs: impl Iterator<Item = tor_netdoc::doc::authcert::AuthCertKeyIds>,
    trusted: &[RsaIdentity],
) -> Vec<CertificateId> {
    let signers = theirs.map(|ids| CertificateId {
        identity: rsa_identity(&ids.id_fingerprint),
        signing_key: rsa_identity(&ids.sk_fingerprint),
    });
    let mut signers: Vec<_> = signers.filter(|signer| trusted.contains(&signer.identity)).collect();
    signers.sort();
    signers.dedup();
    signers
}

fn keys_of_the_trusted(
    trusted: &[RsaIdentity],
    certificates: &[AuthorityCertificate],
    now: SystemTime,
) -> Vec<AuthCert> {
    let of_the_trusted = certificates
        .iter()
        .filter(|one| trusted.contains(&one.id.identity) && one.expires >= now);
    of_the_trusted.map(|one| one.inner.clone()).collect()
}

fn compile_servers(theirs: &PlainConsensus, signers: Vec<RsaIdentity>) -> ServerConsensus {
    let servers = theirs.relays().iter().map(|relay| ListedServer {
        relay: rsa_identity(relay.rsa_identity()),
        descriptor: *relay.rd_digest(),
    });
    ServerConsensus {
        lifetime: lifetime(theirs.lifetime()),
        servers: servers.collect(),
        signers,
    }
}

/// SHA3-256 of the part of a consensus that its authorities sign, as `X-Or-Diff-From-Consensus` names it: up to and with
/// the first `directory-signature` and the space behind it. `None`: nobody has signed.
pub fn signed_digest(text: &str) -> Option<[u8; 32]> {
    const END: &str = "\ndirectory-signature ";
    let end = text.find(END)? + END.len();
    text.get(..end).map(|signed| Sha3_256::digest(signed).into())
}

/// What leads from one consensus to a newer one of the same flavour, as an ed script (dir-spec, "Consensus diffs"). Checked by
/// applying it.
///
/// # Errors
/// One of them is no consensus, or the diff would be no shorter than `to`'s predecessor.
pub fn consensus_diff(from: &str, to: &str) -> Result<String, BadDocument> {
    tor_consdiff::gen_cons_diff(from, to, DiffSizeStrictness::Generate).map_err(|e| BadDocument::Parse(e.to_string()))
}

/// Whether a directory has sent a diff instead of a consensus.
pub fn is_consensus_diff(text: &str) -> bool {
    tor_consdiff::looks_like_diff(text)
}

/// The consensus that `diff` leads to from `from`. It is to be verified like any other.
///
/// # Errors
/// The diff leads from another consensus, is far too long for it (TROVE-2026-042), or does not lead to what it promises.
pub fn apply_consensus_diff(from: &str, diff: &str) -> Result<String, BadDocument> {
    let bad = |e: tor_consdiff::Error| BadDocument::Parse(e.to_string());
    let applied = tor_consdiff::apply_diff(from, diff, signed_digest(from), DiffSizeStrictness::Apply).map_err(bad)?;
    applied.check_digest().map_err(bad)?;
    Ok(applied.to_string())
}
