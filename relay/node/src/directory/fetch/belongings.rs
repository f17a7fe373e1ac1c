//! What belongs to a consensus: microdescriptors, and for a cache server descriptors and extra-infos.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{
    Directory, FetchError, MICRODESCRIPTOR_UNLISTED_MAX, SERVER_UNLISTED_MAX, ServerConsensusUnverified,
    UNLISTED_BYTES_MAX,
};
use crate::directory::authority;
use crate::directory::cache::Name;
use crate::netdoc::{self, Microdescriptor, MicrodescriptorDigest, RawDescriptor};

/// One answer of [`MICRODESCRIPTORS_PER_REQUEST`]: long families make 20 KB each.
const MICRODESCRIPTORS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So that the request's line stays below 4 KB, which every proxy lets pass (dir-spec names 96 as the limit of the URL).
const MICRODESCRIPTORS_PER_REQUEST: usize = 90;
/// The same for documents named by SHA-1 (C tor, `MAX_DL_PER_REQUEST` 96).
const DESCRIPTORS_PER_REQUEST: usize = 96;
/// One answer of these: at most 50,000 bytes each.
const DESCRIPTORS_BYTES_MAX: usize = DESCRIPTORS_PER_REQUEST * 50_000;

/// Documents that the newest consensus does not list any more, and since when.
#[derive(Debug)]
pub(super) struct Unlisted<K> {
    documents: BTreeMap<K, (Arc<str>, SystemTime)>,
}

impl<K> Default for Unlisted<K> {
    fn default() -> Self {
        Self {
            documents: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Copy> Unlisted<K> {
    /// Takes documents that have just left the list; forgets those that left it too long ago, or are too many.
    fn take(&mut self, left: impl IntoIterator<Item = (K, Arc<str>)>, age_max: Duration, now: SystemTime) {
        self.documents
            .extend(left.into_iter().map(|(key, text)| (key, (text, now))));
        self.documents
            .retain(|_, (_, since)| now.duration_since(*since).unwrap_or_default() <= age_max);
        let mut bytes: usize = self.documents.values().map(|(text, _)| text.len()).sum();
        if bytes <= UNLISTED_BYTES_MAX {
            return;
        }
        let mut by_age: Vec<(SystemTime, K)> = self.documents.iter().map(|(key, (_, since))| (*since, *key)).collect();
        by_age.sort();
        for (_, key) in by_age {
            if bytes <= UNLISTED_BYTES_MAX {
                return;
            }
            bytes -= self.documents.remove(&key).map_or(0, |(text, _)| text.len());
        }
    }

    /// Gives back those that are listed again.
    fn give_back(&mut self, key: &K) -> Option<Arc<str>> {
        self.documents.remove(key).map(|(text, _)| text)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Arc<str>)> {
        self.documents.iter().map(|(key, (text, _))| (key, text))
    }
}

impl Directory {
    /// How many relays of the consensus have no microdescriptor here.
    pub fn microdescriptors_missing(&self) -> usize {
        self.wanted_microdescriptors().len()
    }

    /// Fetches the microdescriptors that the consensus names and we lack. How many came.
    pub async fn fetch_microdescriptors(&mut self, now: SystemTime) -> usize {
        let mut came = 0;
        for authority in self.shuffled() {
            let wanted = self.wanted_microdescriptors();
            for batch in wanted.chunks(MICRODESCRIPTORS_PER_REQUEST) {
                let names: Vec<String> = batch.iter().map(|digest| STANDARD_NO_PAD.encode(digest)).collect();
                let path = format!("/tor/micro/d/{}", names.join("-"));
                match self.get(&authority, &path, MICRODESCRIPTORS_BYTES_MAX).await {
                    Ok(text) => came += self.keep_wanted(netdoc::microdescriptors(&text), now),
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
            let listed = self.microdescriptors.values().map(|one| &one.text);
            let unlisted = self.unlisted_microdescriptors.iter().map(|(_, text)| text);
            let text: String = listed.chain(unlisted).map(|text| &**text).collect();
            self.note_write(self.cache.write(Name::Microdescriptors, &text));
        }
        came
    }

    /// Keeps what the consensus names, and for a cache the rest for a while; how many of them were new and named.
    pub(super) fn keep_wanted(&mut self, came: Vec<Microdescriptor>, now: SystemTime) -> usize {
        let wanted: BTreeSet<_> = self.wanted_microdescriptors().into_iter().collect();
        let before = self.microdescriptors.len();
        let (named, rest): (Vec<_>, Vec<_>) = came.into_iter().partition(|one| wanted.contains(&one.digest));
        self.microdescriptors
            .extend(named.into_iter().map(|one| (one.digest, one)));
        if self.keeps.as_cache {
            let rest = rest
                .into_iter()
                .filter(|one| !self.microdescriptors.contains_key(&one.digest))
                .map(|one| (one.digest, one.text));
            self.unlisted_microdescriptors
                .take(rest, MICRODESCRIPTOR_UNLISTED_MAX, now);
        }
        self.microdescriptors.len() - before
    }

    /// A new consensus lists other ones.
    pub(super) fn forget_unlisted(&mut self, listed: &BTreeSet<MicrodescriptorDigest>, now: SystemTime) {
        let (kept, left) = std::mem::take(&mut self.microdescriptors)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(digest, _)| listed.contains(digest));
        self.microdescriptors = kept;
        if !self.keeps.as_cache {
            return;
        }
        let left = left.into_values().map(|one| (one.digest, one.text));
        self.unlisted_microdescriptors
            .take(left, MICRODESCRIPTOR_UNLISTED_MAX, now);
        let missing = listed
            .iter()
            .filter(|digest| !self.microdescriptors.contains_key(*digest));
        let again: String = missing
            .filter_map(|digest| self.unlisted_microdescriptors.give_back(digest))
            .map(|text| text.to_string())
            .collect();
        for one in netdoc::microdescriptors(&again) {
            self.microdescriptors.insert(one.digest, one);
        }
    }

    fn wanted_microdescriptors(&self) -> Vec<MicrodescriptorDigest> {
        let listed = self
            .consensus()
            .into_iter()
            .flat_map(|consensus| &consensus.relays)
            .map(|relay| relay.microdescriptor);
        let missing: BTreeSet<_> = listed
            .filter(|digest| !self.microdescriptors.contains_key(digest))
            .collect();
        missing.into_iter().collect()
    }

    /// Whether a cache lacks something that it should have: the plain flavour of our consensus, or what it names.
    pub fn cache_is_complete(&self) -> bool {
        !self.keeps.as_cache
            || (!self.server_consensus_is_due()
                && self.missing_servers().is_empty()
                && self.missing_extra_infos().is_empty())
    }

    /// Fetches what a cache lacks. Whether anything came.
    pub async fn fetch_for_cache(&mut self, now: SystemTime) -> bool {
        if !self.keeps.as_cache {
            return false;
        }
        let mut came = false;
        if self.server_consensus_is_due() {
            match self.fetch_server_consensus(now).await {
                Ok(new) => came |= new,
                Err(error) => tracing::debug!("No plain consensus: {error}"),
            }
        }
        came | self.fetch_servers().await | self.fetch_extra_infos().await
    }

    fn server_consensus_is_due(&self) -> bool {
        let Some(ours) = self.consensus() else { return false };
        let held = self.server_consensus.as_ref();
        held.is_none_or(|held| held.consensus.lifetime.valid_after < ours.lifetime.valid_after)
    }

    async fn fetch_server_consensus(&mut self, now: SystemTime) -> Result<bool, FetchError> {
        let held = self.server_consensus.as_ref();
        let ours = held.map(|held| (held.consensus.lifetime.valid_after, Arc::clone(&held.text)));
        let Some(held) = self.newest::<ServerConsensusUnverified>(ours, now).await? else {
            return Ok(false);
        };
        self.note_write(self.cache.write(Name::ServerConsensus, &held.text));
        let listed: BTreeSet<_> = held.consensus.servers.iter().map(|server| server.descriptor).collect();
        self.server_consensus = Some(held);
        let (kept, left) = std::mem::take(&mut self.servers)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(digest, _)| listed.contains(digest));
        self.servers = kept;
        self.unlisted_servers.take(left, SERVER_UNLISTED_MAX, now);
        for digest in listed {
            if let Some(text) = self.unlisted_servers.give_back(&digest) {
                self.servers.insert(digest, text);
            }
        }
        let named = self.named_extra_infos();
        self.extra_infos.retain(|digest, _| named.contains(digest));
        Ok(true)
    }

    fn missing_servers(&self) -> Vec<[u8; 20]> {
        let listed = self.server_consensus.iter().flat_map(|held| &held.consensus.servers);
        let missing = listed.map(|server| server.descriptor);
        missing.filter(|digest| !self.servers.contains_key(digest)).collect()
    }

    fn named_extra_infos(&self) -> BTreeSet<[u8; 20]> {
        let servers = self.servers.iter().map(|(digest, text)| RawDescriptor {
            digest: *digest,
            text: Arc::clone(text),
        });
        servers.filter_map(|server| server.extra_info()).collect()
    }

    fn missing_extra_infos(&self) -> Vec<[u8; 20]> {
        if !self.keeps.extra_infos {
            return Vec::new();
        }
        let named = self.named_extra_infos().into_iter();
        named.filter(|digest| !self.extra_infos.contains_key(digest)).collect()
    }

    async fn fetch_servers(&mut self) -> bool {
        let missing = self.missing_servers();
        let came = self
            .fetch_by_digest("server", &missing, netdoc::server_descriptors)
            .await;
        let any = !came.is_empty();
        self.servers.extend(came);
        if any {
            let unlisted = self.unlisted_servers.iter().map(|(_, text)| text);
            let text: String = self.servers.values().chain(unlisted).map(|text| &**text).collect();
            self.note_write(self.cache.write(Name::Servers, &text));
        }
        any
    }

    async fn fetch_extra_infos(&mut self) -> bool {
        let missing = self.missing_extra_infos();
        let came = self.fetch_by_digest("extra", &missing, netdoc::extra_infos).await;
        let any = !came.is_empty();
        self.extra_infos.extend(came);
        if any {
            let text: String = self.extra_infos.values().map(|text| &**text).collect();
            self.note_write(self.cache.write(Name::ExtraInfos, &text));
        }
        any
    }

    /// Those of `missing` that the authorities have. What they send besides is not kept.
    async fn fetch_by_digest(
        &self,
        kind: &str,
        missing: &[[u8; 20]],
        read: fn(&str) -> Vec<RawDescriptor>,
    ) -> BTreeMap<[u8; 20], Arc<str>> {
        let mut left: BTreeSet<[u8; 20]> = missing.iter().copied().collect();
        let mut came = BTreeMap::new();
        for authority in self.shuffled() {
            let wanted: Vec<_> = left.iter().copied().collect();
            for batch in wanted.chunks(DESCRIPTORS_PER_REQUEST) {
                let names: Vec<String> = batch.iter().map(hex::encode_upper).collect();
                let path = format!("/tor/{kind}/d/{}", names.join("+"));
                match self.get(&authority, &path, DESCRIPTORS_BYTES_MAX).await {
                    Ok(text) => {
                        let named = read(&text).into_iter().filter(|one| left.remove(&one.digest));
                        came.extend(named.map(|one| (one.digest, one.text)));
                    }
                    Err(error) => {
                        tracing::debug!("No descriptors from {}: {error}", authority::describe(&authority));
                        break;
                    }
                }
            }
            if left.is_empty() {
                break;
            }
        }
        came
    }

    /// What the cache directory has of these.
    pub(super) fn load_servers(&mut self, now: SystemTime) {
        let listed: BTreeSet<_> = self.missing_servers().into_iter().collect();
        let found = netdoc::server_descriptors(&self.cache.read(Name::Servers));
        let (named, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| listed.contains(&one.digest));
        self.servers.extend(named.into_iter().map(|one| (one.digest, one.text)));
        let rest = rest.into_iter().map(|one| (one.digest, one.text));
        self.unlisted_servers.take(rest, SERVER_UNLISTED_MAX, now);
        let wanted: BTreeSet<_> = self.missing_extra_infos().into_iter().collect();
        let found = netdoc::extra_infos(&self.cache.read(Name::ExtraInfos));
        let named = found.into_iter().filter(|one| wanted.contains(&one.digest));
        self.extra_infos.extend(named.map(|one| (one.digest, one.text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_list_is_kept_for_its_time_and_comes_back_when_listed_again() {
        let start = SystemTime::UNIX_EPOCH;
        let hour = Duration::from_secs(3_600);
        let mut unlisted = Unlisted::default();
        unlisted.take([(1, Arc::from("one")), (2, Arc::from("two"))], hour, start);
        assert_eq!(unlisted.give_back(&1).as_deref(), Some("one"));
        assert_eq!(unlisted.give_back(&1), None);
        unlisted.take([(3, Arc::from("three"))], hour, start + 2 * hour);
        assert_eq!(unlisted.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn memory_for_them_is_bounded_and_the_oldest_go() {
        let start = SystemTime::UNIX_EPOCH;
        let giant: Arc<str> = "x".repeat(UNLISTED_BYTES_MAX / 4).into();
        let mut unlisted = Unlisted::default();
        for number in 0..6_u64 {
            let now = start + Duration::from_secs(number);
            unlisted.take([(9 - number, Arc::clone(&giant))], Duration::from_secs(60), now);
        }
        assert_eq!(unlisted.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [4, 5, 6, 7]);
    }
}
