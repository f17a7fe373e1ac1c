//! Diffs from the consensuses of the last days to the newest (dir-spec, "Consensus diffs"). Costs a minute of a processor an
//! hour on the public network, so it happens on a thread of its own, the likeliest diff first.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::fetch::{RawConsensus, Stock};
use super::history::History;
use crate::config::Config;
use crate::dircache::Service;
use crate::dircache::compress::Encoding;
use crate::dircache::store::{Diffs, Packed, Text};
use crate::netdoc;

/// Memory for the diffs of one flavour, all packings together: three days on the public network need about as much. The
/// oldest, which few ask for and which are the longest, are left out.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Every client of C tor can unpack one of them; whoever cannot gets the whole consensus.
const ENCODINGS: [Encoding; 3] = [Encoding::Lzma, Encoding::Zstd, Encoding::Deflate];

/// Goes on until nobody fetches any more.
pub(super) async fn run(
    mut stock: watch::Receiver<Arc<Stock>>,
    config: watch::Receiver<Arc<Config>>,
    service: Arc<Service>,
) {
    loop {
        let current = Arc::clone(&stock.borrow_and_update());
        let (config, service) = (Arc::clone(&config.borrow()), Arc::clone(&service));
        let age_max = config.directory.diffs_age_max.unwrap_or(current.diffs_age_max);
        let newest = stock.clone();
        let made = spawn_blocking(move || {
            for raw in &current.consensuses {
                let is_newest = || newest.borrow().consensuses.iter().any(|one| one.digest == raw.digest);
                lead_to(raw, &config.cache_directory, age_max, &service, is_newest);
            }
        });
        if made.await.is_err() {
            tracing::error!("Bug: making consensus diffs panicked.");
        }
        if stock.changed().await.is_err() {
            return;
        }
    }
}

/// Makes all diffs to one consensus, unless they are made, for as long as it is the newest.
fn lead_to(raw: &RawConsensus, cache: &Path, age_max: Duration, service: &Service, is_newest: impl Fn() -> bool) {
    let held = service.store();
    if held.diffs.get(&raw.flavor).is_some_and(|diffs| diffs.to == raw.digest) {
        return;
    }
    let (history, now) = (History::new(cache), SystemTime::now());
    if let Err(error) = history.remember(raw, age_max, now) {
        tracing::warn!("Cannot keep old consensuses: {error}. Clients will fetch whole ones after a restart.");
    }
    let mut diffs = Diffs {
        to: raw.digest,
        ..Diffs::default()
    };
    let mut bytes = 0;
    for past in history.before(raw, age_max, now) {
        if bytes > BYTES_MAX || !is_newest() {
            break;
        }
        let Some((from, diff)) = history.read(&past).and_then(|text| one(&text, raw)) else {
            continue;
        };
        bytes += diff.bytes();
        diffs.from.insert(from, Arc::new(diff));
        // Each at once: the first is what most clients wait for.
        let so_far = Arc::new(diffs.clone());
        service.change(|store| _ = store.diffs.insert(raw.flavor, so_far));
    }
    tracing::debug!("{} consensus diffs made, {bytes} bytes.", diffs.from.len());
    service.change(|store| _ = store.diffs.insert(raw.flavor, Arc::new(diffs)));
}

/// The diff from `text`, packed, and the name of `text`.
fn one(text: &str, to: &RawConsensus) -> Option<([u8; 32], Packed)> {
    let from = netdoc::signed_digest(text)?;
    let diff = netdoc::consensus_diff(text, &to.text).ok()?;
    let packed = Packed::with(Text::from(diff.into_bytes()), &ENCODINGS).ok()?;
    Some((from, packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dircache::request::Flavor;
    use crate::directory::schedule::Lifetime;

    const CONSENSUS: &str = include_str!("../../testdata/cache/consensus.txt");

    fn raw(text: &str, valid_after: SystemTime) -> RawConsensus {
        RawConsensus {
            flavor: Flavor::Ns,
            digest: netdoc::signed_digest(text).unwrap(),
            lifetime: Lifetime {
                valid_after,
                fresh_until: valid_after,
                valid_until: valid_after,
            },
            signed_by: Vec::new(),
            text: text.into(),
        }
    }

    #[test]
    fn a_consensus_is_reached_from_the_ones_before_it_and_from_no_later_one() {
        let room = tempfile::tempdir().unwrap();
        let (service, day) = (Service::default(), Duration::from_secs(86_400));
        let now = SystemTime::now();
        let older = CONSENSUS.replace("\nr r1 ", "\nr x1 ");
        assert_ne!(older, CONSENSUS);
        let (older, newer) = (raw(&older, now - Duration::from_secs(60)), raw(CONSENSUS, now));

        lead_to(&older, room.path(), day, &service, || true);
        assert!(service.store().diffs[&Flavor::Ns].from.is_empty());
        lead_to(&newer, room.path(), day, &service, || true);

        let store = service.store();
        let diffs = &store.diffs[&Flavor::Ns];
        assert_eq!((diffs.to, diffs.from.len()), (newer.digest, 1));
        let (_, packed) = diffs.from[&older.digest].choose([Encoding::Zstd]).unwrap();
        let diff = String::from_utf8(zstd::decode_all(&*packed).unwrap()).unwrap();
        assert!(diff.starts_with("network-status-diff-version 1\nhash "), "{diff}");
        assert!(diff.contains("\nr r1 ") && diff.len() < CONSENSUS.len());
        assert!(netdoc::is_consensus_diff(&diff) && !netdoc::is_consensus_diff(CONSENSUS));
        assert_eq!(netdoc::apply_consensus_diff(&older.text, &diff).unwrap(), CONSENSUS);
        assert!(
            netdoc::apply_consensus_diff(CONSENSUS, &diff).is_err(),
            "it leads from another one"
        );
        let forged = diff.replace("\nr r1 ", "\nr r7 ");
        assert!(netdoc::apply_consensus_diff(&older.text, &forged).is_err());
    }

    #[test]
    fn nobody_goes_on_for_a_consensus_that_is_no_longer_the_newest() {
        let room = tempfile::tempdir().unwrap();
        let (service, day, now) = (Service::default(), Duration::from_secs(86_400), SystemTime::now());
        let older = CONSENSUS.replace("\nr r1 ", "\nr x1 ");
        lead_to(
            &raw(&older, now - Duration::from_secs(60)),
            room.path(),
            day,
            &service,
            || true,
        );
        lead_to(&raw(CONSENSUS, now), room.path(), day, &service, || false);
        assert!(service.store().diffs[&Flavor::Ns].from.is_empty());
    }
}
