//! Gets the consensus and what belongs to it from the authorities.
//!
//! Owns the newest good documents. Whoever it asks may lie: a document counts only after `netdoc` has verified it, and a
//! microdescriptor only if the consensus names its digest. A liar can make us ask the next authority, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand::seq::SliceRandom as _;
use relay_engine::network::NetworkView;
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::torrc::DirAuthority;

use super::authority;
use super::cache::Cache;
use super::http::{self, HttpError, Request};
use super::view;
use crate::netdoc::{
    self, AuthorityCertificate, BadDocument, CertificateId, Consensus, ConsensusUnverified, Microdescriptor,
    MicrodescriptorDigest,
};

/// A consensus: 3 MB on the public network of 2026.
const CONSENSUS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Certificates: 2 KB each, one an authority and a few old ones.
const CERTIFICATES_BYTES_MAX: usize = 1024 * 1024;
/// One answer of [`MICRODESCRIPTORS_PER_REQUEST`]: long families make 20 KB each.
const MICRODESCRIPTORS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So that the request's line stays below 4 KB, which every proxy lets pass (dir-spec names 96 as the limit of the URL).
const MICRODESCRIPTORS_PER_REQUEST: usize = 90;

/// Why an authority was of no use.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer.
    #[error("{0}")]
    Http(#[from] HttpError),
    /// An answer, but not the document.
    #[error("HTTP status {0} ({1})")]
    Status(u16, String),
    /// No text.
    #[error("the answer is not UTF-8")]
    NotText,
    /// The document is bad.
    #[error("the consensus is refused: {0}")]
    Refused(#[from] BadDocument),
    /// The document is good, and older than what we have.
    #[error("its consensus is not newer than ours")]
    NotNewer,
}

/// The documents that we have, and where to get more.
pub struct Directory {
    authorities: Vec<DirAuthority>,
    bind: Vec<IpAddr>,
    cache: Cache,
    certificates: Vec<AuthorityCertificate>,
    consensus: Option<Consensus>,
    microdescriptors: BTreeMap<MicrodescriptorDigest, Microdescriptor>,
}

impl Directory {
    /// Begins with what the cache has, as far as it is still good at `now`.
    pub fn open(authorities: Vec<DirAuthority>, bind: Vec<IpAddr>, cache: Cache, now: SystemTime) -> Self {
        let mut directory = Self {
            authorities,
            bind,
            cache,
            certificates: Vec::new(),
            consensus: None,
            microdescriptors: BTreeMap::new(),
        };
        directory.load(now);
        directory
    }

    /// The newest verified consensus.
    pub fn consensus(&self) -> Option<&Consensus> {
        self.consensus.as_ref()
    }

    /// How many relays of the consensus have no microdescriptor here.
    pub fn microdescriptors_missing(&self) -> usize {
        self.wanted_microdescriptors().len()
    }

    /// What the engine is to know.
    pub fn view(&self) -> NetworkView {
        view::network_view(&self.authorities, self.consensus.as_ref(), &self.microdescriptors)
    }

    fn load(&mut self, now: SystemTime) {
        let trusted = self.trusted();
        self.certificates = netdoc::authority_certificates(&self.cache.certificates(), &trusted, now);
        let text = self.cache.consensus();
        if text.is_empty() {
            return;
        }
        match ConsensusUnverified::parse(&text).and_then(|one| one.verify(&trusted, &self.certificates, now)) {
            Ok(consensus) => {
                self.consensus = Some(consensus);
                self.keep_wanted(netdoc::microdescriptors(&self.cache.microdescriptors()));
            }
            Err(reason) => tracing::info!("The cached consensus is of no use: {reason}"),
        }
    }

    /// Fingerprints of the v3 identities whose signatures count.
    fn trusted(&self) -> Vec<RsaIdentity> {
        self.authorities.iter().filter_map(|one| one.v3_identity).collect()
    }

    /// Asks the authorities in random order until one has a newer consensus that holds. `Ok(false)`: those that answered
    /// have none newer than ours.
    pub async fn fetch_consensus(&mut self, now: SystemTime) -> Result<bool, FetchError> {
        let mut last = Ok(false);
        for authority in self.shuffled() {
            match self.fetch_consensus_from(&authority, now).await {
                Ok(()) => return Ok(true),
                Err(FetchError::NotNewer) => last = Ok(false),
                Err(error) => {
                    tracing::debug!("No consensus from {}: {error}", authority::describe(&authority));
                    last = last.and(Err(error));
                }
            }
        }
        last
    }

    /// Fetches the microdescriptors that the consensus names and we lack. How many came.
    pub async fn fetch_microdescriptors(&mut self) -> usize {
        let mut came = 0;
        for authority in self.shuffled() {
            let wanted = self.wanted_microdescriptors();
            for batch in wanted.chunks(MICRODESCRIPTORS_PER_REQUEST) {
                let names: Vec<String> = batch.iter().map(|digest| STANDARD_NO_PAD.encode(digest)).collect();
                let path = format!("/tor/micro/d/{}", names.join("-"));
                match self.get(&authority, &path, MICRODESCRIPTORS_BYTES_MAX).await {
                    Ok(text) => came += self.keep_wanted(netdoc::microdescriptors(&text)),
                    Err(error) => {
                        tracing::debug!("No microdescriptors from {}: {error}", authority::describe(&authority));
                        break;
                    }
                }
            }
            if self.microdescriptors_missing() == 0 {
                break;
            }
        }
        if came > 0 {
            self.note_write(self.cache.store_microdescriptors(&self.microdescriptors));
        }
        came
    }

    async fn fetch_consensus_from(&mut self, authority: &DirAuthority, now: SystemTime) -> Result<(), FetchError> {
        let trusted = self.trusted();
        let text = self
            .get(authority, &consensus_path(&trusted), CONSENSUS_BYTES_MAX)
            .await?;
        let unverified = ConsensusUnverified::parse(&text)?;
        let ours = self.consensus.as_ref().map(|ours| ours.lifetime.valid_after);
        if ours.is_some_and(|ours| unverified.claimed_lifetime().valid_after <= ours) {
            return Err(FetchError::NotNewer);
        }
        let missing = unverified.missing_certificates(&trusted, &self.certificates);
        if !missing.is_empty() {
            self.fetch_certificates(authority, &missing, now).await?;
        }
        let consensus = unverified.verify(&trusted, &self.certificates, now)?;
        let listed: BTreeSet<_> = consensus.relays.iter().map(|relay| relay.microdescriptor).collect();
        self.microdescriptors.retain(|digest, _| listed.contains(digest));
        self.consensus = Some(consensus);
        self.note_write(self.cache.store_consensus(&text));
        Ok(())
    }

    async fn fetch_certificates(
        &mut self,
        authority: &DirAuthority,
        missing: &[CertificateId],
        now: SystemTime,
    ) -> Result<(), FetchError> {
        let names: Vec<String> = missing
            .iter()
            .map(|id| format!("{}-{}", id.identity, id.signing_key))
            .collect();
        let path = format!("/tor/keys/fp-sk/{}", names.join("+"));
        let text = self.get(authority, &path, CERTIFICATES_BYTES_MAX).await?;
        let came = netdoc::authority_certificates(&text, &self.trusted(), now);
        self.certificates
            .retain(|old| old.expires >= now && came.iter().all(|new| new.id != old.id));
        self.certificates.extend(came);
        self.note_write(self.cache.store_certificates(&self.certificates));
        Ok(())
    }

    /// Keeps what the consensus names; how many of them were new.
    fn keep_wanted(&mut self, came: Vec<Microdescriptor>) -> usize {
        let wanted: BTreeSet<_> = self.wanted_microdescriptors().into_iter().collect();
        let before = self.microdescriptors.len();
        let named = came.into_iter().filter(|one| wanted.contains(&one.digest));
        self.microdescriptors.extend(named.map(|one| (one.digest, one)));
        self.microdescriptors.len() - before
    }

    fn wanted_microdescriptors(&self) -> Vec<MicrodescriptorDigest> {
        let listed = self
            .consensus
            .iter()
            .flat_map(|consensus| &consensus.relays)
            .map(|relay| relay.microdescriptor);
        let missing: BTreeSet<_> = listed
            .filter(|digest| !self.microdescriptors.contains_key(digest))
            .collect();
        missing.into_iter().collect()
    }

    /// The authorities that vote, in random order, so that no one of them bears all or sees all.
    fn shuffled(&self) -> Vec<DirAuthority> {
        let mut order: Vec<DirAuthority> = self
            .authorities
            .iter()
            .filter(|one| one.v3_identity.is_some())
            .cloned()
            .collect();
        order.shuffle(&mut rand::rng());
        order
    }

    async fn get(&self, authority: &DirAuthority, path: &str, bytes_max: usize) -> Result<String, FetchError> {
        let request = Request {
            path,
            body: None,
            headers: &[],
            answer_bytes_max: bytes_max,
        };
        let answer = http::exchange(authority.dir_address, &self.bind, &request).await?;
        match answer.status {
            200 => String::from_utf8(answer.body).map_err(|_| FetchError::NotText),
            other => Err(FetchError::Status(other, answer.reason)),
        }
    }

    fn note_write(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!("Cannot write to the cache directory: {error}. A restart will have to fetch anew.");
        }
    }
}

/// The URL names the authorities that we trust by 3 bytes each, so that a cache whose consensus they have not signed
/// says 404 rather than send it (dir-spec, "consensus/<F1>+<F2>").
fn consensus_path(trusted: &[RsaIdentity]) -> String {
    let mut prefixes: Vec<String> = trusted
        .iter()
        .map(|one| one.to_string().chars().take(6).collect())
        .collect();
    prefixes.sort();
    format!("/tor/status-vote/current/consensus-microdesc/{}", prefixes.join("+"))
}

#[cfg(test)]
mod tests;
