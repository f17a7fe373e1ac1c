//! Gets the consensus and what belongs to it from the authorities.
//!
//! Owns the newest good documents. Whoever it asks may lie: a consensus counts only after `netdoc` has verified it, and any
//! other document only if a consensus names its digest. A liar can make us ask the next authority, nothing else.
//!
//! A relay that is no directory cache needs the microdescriptor flavour and its microdescriptors; a cache (`belongings`)
//! also fetches the plain flavour and the server descriptors, and keeps for a while what is no longer listed.

mod belongings;
mod shelving;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::seq::SliceRandom as _;
use relay_engine::network::NetworkView;
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::torrc::DirAuthority;

use super::authority;
use super::cache::{Cache, Name};
use super::http::{self, HttpError, Request};
use super::view;
use crate::dircache::request::Flavor;
use crate::netdoc::{
    self, AuthorityCertificate, BadDocument, CertificateId, Consensus, ConsensusUnverified, Microdescriptor,
    MicrodescriptorDigest, ServerConsensus, ServerConsensusUnverified, Unverified,
};
use belongings::Unlisted;
pub use shelving::{RawConsensus, Stock};

/// A consensus: 3 MB on the public network of 2026.
const CONSENSUS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Certificates: 2 KB each, one an authority and a few old ones.
const CERTIFICATES_BYTES_MAX: usize = 1024 * 1024;

/// Microdescriptors that no consensus lists any more are kept for so long (C tor, `TOLERATE_MICRODESC_AGE`), as clients may
/// ask by an older one.
const MICRODESCRIPTOR_UNLISTED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// And server descriptors: a client's consensus may be a day old. C tor keeps them for five days, on disk.
const SERVER_UNLISTED_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Memory for unlisted documents of one kind; the oldest go first.
const UNLISTED_BYTES_MAX: usize = 32 * 1024 * 1024;

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

/// What this relay keeps of the directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keeps {
    /// torrc `DirCache`: all that clients ask a cache for.
    pub as_cache: bool,
    /// torrc `DownloadExtraInfo`, of a cache: extra-infos too.
    pub extra_infos: bool,
}

/// A verified consensus and its text.
#[derive(Debug)]
struct Held<C> {
    consensus: C,
    text: Arc<str>,
}

/// When our consensus became valid, and its text.
type Ours = (SystemTime, Arc<str>);

/// The documents that we have, and where to get more.
pub struct Directory {
    authorities: Vec<DirAuthority>,
    bind: Vec<IpAddr>,
    cache: Cache,
    keeps: Keeps,
    certificates: Vec<AuthorityCertificate>,
    consensus: Option<Held<Consensus>>,
    microdescriptors: BTreeMap<MicrodescriptorDigest, Microdescriptor>,
    unlisted_microdescriptors: Unlisted<MicrodescriptorDigest>,
    server_consensus: Option<Held<ServerConsensus>>,
    servers: BTreeMap<[u8; 20], Arc<str>>,
    unlisted_servers: Unlisted<[u8; 20]>,
    extra_infos: BTreeMap<[u8; 20], Arc<str>>,
}

impl Directory {
    /// Begins with what the cache has, as far as it is still good at `now`.
    pub fn open(
        authorities: Vec<DirAuthority>,
        bind: Vec<IpAddr>,
        cache: Cache,
        keeps: Keeps,
        now: SystemTime,
    ) -> Self {
        let mut directory = Self {
            authorities,
            bind,
            cache,
            keeps,
            certificates: Vec::new(),
            consensus: None,
            microdescriptors: BTreeMap::new(),
            unlisted_microdescriptors: Unlisted::default(),
            server_consensus: None,
            servers: BTreeMap::new(),
            unlisted_servers: Unlisted::default(),
            extra_infos: BTreeMap::new(),
        };
        directory.load(now);
        directory
    }

    /// The newest verified consensus.
    pub fn consensus(&self) -> Option<&Consensus> {
        self.consensus.as_ref().map(|held| &held.consensus)
    }

    /// What the engine is to know.
    pub fn view(&self) -> NetworkView {
        view::network_view(&self.authorities, self.consensus(), &self.microdescriptors)
    }

    fn load(&mut self, now: SystemTime) {
        let trusted = self.trusted();
        self.certificates = netdoc::authority_certificates(&self.cache.read(Name::Certificates), &trusted, now);
        self.consensus = self.load_consensus::<ConsensusUnverified>(Name::Consensus, now);
        if self.consensus.is_some() {
            self.keep_wanted(netdoc::microdescriptors(&self.cache.read(Name::Microdescriptors)), now);
        }
        if self.keeps.as_cache {
            self.server_consensus = self.load_consensus::<ServerConsensusUnverified>(Name::ServerConsensus, now);
            self.load_servers(now);
        }
    }

    fn load_consensus<U: Unverified>(&self, name: Name, now: SystemTime) -> Option<Held<U::Verified>> {
        let text = Some(self.cache.read(name)).filter(|text| !text.is_empty())?;
        match U::parse(&text).and_then(|one| one.verify(&self.trusted(), &self.certificates, now)) {
            Ok(consensus) => Some(Held {
                consensus,
                text: text.into(),
            }),
            Err(reason) => {
                tracing::info!("The cached consensus is of no use: {reason}");
                None
            }
        }
    }

    /// Fingerprints of the v3 identities whose signatures count.
    fn trusted(&self) -> Vec<RsaIdentity> {
        self.authorities.iter().filter_map(|one| one.v3_identity).collect()
    }

    /// Asks the authorities in random order until one has a newer consensus that holds. `Ok(false)`: those that answered
    /// have none newer than ours.
    pub async fn fetch_consensus(&mut self, now: SystemTime) -> Result<bool, FetchError> {
        let held = self.consensus.as_ref();
        let ours = held.map(|held| (held.consensus.lifetime.valid_after, Arc::clone(&held.text)));
        let Some(held) = self.newest::<ConsensusUnverified>(ours, now).await? else {
            return Ok(false);
        };
        let listed: BTreeSet<_> = held
            .consensus
            .relays
            .iter()
            .map(|relay| relay.microdescriptor)
            .collect();
        self.note_write(self.cache.write(Name::Consensus, &held.text));
        self.consensus = Some(held);
        self.forget_unlisted(&listed, now);
        Ok(true)
    }

    /// Asks the authorities in random order until one has a consensus that is newer than `ours`.
    async fn newest<U: Unverified>(
        &mut self,
        ours: Option<Ours>,
        now: SystemTime,
    ) -> Result<Option<Held<U::Verified>>, FetchError> {
        let mut last = Ok(None);
        for authority in self.shuffled() {
            match self.fetch_from::<U>(&authority, ours.as_ref(), now).await {
                Ok(held) => return Ok(Some(held)),
                Err(FetchError::NotNewer) => last = Ok(None),
                Err(error) => {
                    tracing::debug!("No consensus from {}: {error}", authority::describe(&authority));
                    last = last.and(Err(error));
                }
            }
        }
        last
    }

    async fn fetch_from<U: Unverified>(
        &mut self,
        authority: &DirAuthority,
        ours: Option<&Ours>,
        now: SystemTime,
    ) -> Result<Held<U::Verified>, FetchError> {
        let trusted = self.trusted();
        let path = consensus_path(U::FLAVOR, &trusted);
        let text = self.get_newer(authority, &path, ours).await?;
        let unverified = U::parse(&text)?;
        if ours.is_some_and(|(ours, _)| unverified.claimed_lifetime().valid_after <= *ours) {
            return Err(FetchError::NotNewer);
        }
        let missing = unverified.missing_certificates(&trusted, &self.certificates);
        if !missing.is_empty() {
            self.fetch_certificates(authority, &missing, now).await?;
        }
        let consensus = unverified.verify(&trusted, &self.certificates, now)?;
        Ok(Held {
            consensus,
            text: text.into(),
        })
    }

    /// A consensus, whole or put together from ours and what has changed. A diff that leads nowhere costs a second question.
    async fn get_newer(&self, authority: &DirAuthority, path: &str, ours: Option<&Ours>) -> Result<String, FetchError> {
        let digest = ours.and_then(|(_, text)| Some((text, hex::encode_upper(netdoc::signed_digest(text)?))));
        let Some((text, digest)) = digest else {
            return self.get(authority, path, CONSENSUS_BYTES_MAX).await;
        };
        let headers = [("X-Or-Diff-From-Consensus", digest.as_str())];
        let answer = match self.get_with(authority, path, CONSENSUS_BYTES_MAX, &headers).await {
            Err(FetchError::Status(304, _)) => return Err(FetchError::NotNewer),
            other => other?,
        };
        if !netdoc::is_consensus_diff(&answer) {
            return Ok(answer);
        }
        match netdoc::apply_consensus_diff(text, &answer) {
            Ok(newer) => {
                tracing::debug!("Applied a consensus diff of {} bytes.", answer.len());
                Ok(newer)
            }
            Err(reason) => {
                tracing::info!("A consensus diff is of no use: {reason}. Fetching the whole consensus.");
                self.get(authority, path, CONSENSUS_BYTES_MAX).await
            }
        }
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
        let text: String = self.certificates.iter().map(|one| &*one.text).collect();
        self.note_write(self.cache.write(Name::Certificates, &text));
        Ok(())
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
        self.get_with(authority, path, bytes_max, &[]).await
    }

    async fn get_with(
        &self,
        authority: &DirAuthority,
        path: &str,
        bytes_max: usize,
        headers: &[(&str, &str)],
    ) -> Result<String, FetchError> {
        let request = Request {
            path,
            body: None,
            headers,
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
fn consensus_path(flavor: Flavor, trusted: &[RsaIdentity]) -> String {
    let mut prefixes: Vec<String> = trusted
        .iter()
        .map(|one| one.to_string().chars().take(6).collect())
        .collect();
    prefixes.sort();
    let flavor = match flavor {
        Flavor::Ns => "consensus",
        Flavor::Microdesc => "consensus-microdesc",
    };
    format!("/tor/status-vote/current/{flavor}/{}", prefixes.join("+"))
}

#[cfg(test)]
mod cache_tests;
#[cfg(test)]
mod tests;
