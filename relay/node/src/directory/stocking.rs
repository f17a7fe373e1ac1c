//! Puts on the directory server's shelves what was fetched and made. Packing a consensus takes seconds, so it happens on
//! threads of its own.

use std::path::Path;
use std::sync::Arc;

use relay_formats::fingerprint::RsaIdentity;
use relay_formats::torrc::DirectoryOptions;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::fetch::{RawConsensus, Stock};
use super::publish::Made;
use crate::config::Config;
use crate::dircache::onion_services::BYTES_MAX_DEFAULT;
use crate::dircache::store::{Consensus, Descriptor, Packed, Text};
use crate::dircache::{Service, Store};

/// A page that is longer than this is none.
const FRONT_PAGE_BYTES_MAX: u64 = 1024 * 1024;

/// Goes on until nobody fetches any more.
pub(super) async fn run(
    mut stock: watch::Receiver<Arc<Stock>>,
    mut config: watch::Receiver<Arc<Config>>,
    service: Arc<Service>,
) {
    loop {
        let DirectoryOptions {
            front_page: page,
            onion_services_bytes_max,
            ..
        } = config.borrow_and_update().directory.clone();
        let bytes_max = onion_services_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        service
            .onion_services()
            .set_bytes_max(bytes_max.unwrap_or(BYTES_MAX_DEFAULT));
        let current = Arc::clone(&stock.borrow_and_update());
        let service = Arc::clone(&service);
        let shelved = spawn_blocking(move || {
            let page = page.and_then(|path| front_page(&path));
            service.change(|store| store.front_page = page);
            shelve(&current, &service);
        });
        if shelved.await.is_err() {
            tracing::error!("Bug: packing documents panicked.");
        }
        tokio::select! {
            changed = stock.changed() => if changed.is_err() { return },
            changed = config.changed() => if changed.is_err() { return },
        }
    }
}

/// What costs little first; then each consensus that is new.
fn shelve(stock: &Stock, service: &Service) {
    service.change(|store| {
        store.microdescriptors = Arc::clone(&stock.microdescriptors);
        store.servers = Arc::clone(&stock.servers);
        store.extra_infos = Arc::clone(&stock.extra_infos);
        store.certificates = Arc::clone(&stock.certificates);
        store.onion_descriptor_bytes_max = stock.onion_descriptor_bytes_max;
        let has = |flavor| stock.consensuses.iter().any(|raw| raw.flavor == flavor);
        store.consensuses.retain(|flavor, _| has(*flavor));
        store.diffs.retain(|flavor, _| has(*flavor));
    });
    for raw in &stock.consensuses {
        let held = service.store();
        let same = held
            .consensuses
            .get(&raw.flavor)
            .is_some_and(|held| held.digest == raw.digest);
        if same {
            continue;
        }
        match pack(raw) {
            Ok(packed) => service.change(|store| {
                store.consensuses.insert(raw.flavor, Arc::new(packed));
            }),
            Err(error) => tracing::warn!("Cannot pack a consensus: {error}. Serving the older one."),
        }
    }
}

fn pack(raw: &RawConsensus) -> std::io::Result<Consensus> {
    Ok(Consensus {
        digest: raw.digest,
        valid_after: raw.lifetime.valid_after,
        fresh_until: raw.lifetime.fresh_until,
        valid_until: raw.lifetime.valid_until,
        signed_by: raw.signed_by.clone(),
        document: Packed::new(Text::from(Arc::clone(&raw.text)))?,
    })
}

fn front_page(path: &Path) -> Option<Text> {
    let fits = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= FRONT_PAGE_BYTES_MAX);
    let page = fits.then(|| std::fs::read(path).ok()).flatten();
    if page.is_none() {
        tracing::warn!(
            "DirPortFrontPage file '{}' not found. Continuing anyway.",
            path.display()
        );
    }
    page.map(Text::from)
}

/// Our own descriptor and extra-info, as they were made just now.
pub(super) fn show_own(store: &mut Store, made: &Made, relay: RsaIdentity) {
    store.own_server = Some(Descriptor {
        relay,
        digest: made.server.sha1,
        text: made.server.text.as_bytes().into(),
    });
    store.own_extra_info = Some(Descriptor {
        relay,
        digest: made.extra_info.digests.sha1,
        text: made.extra_info.text.as_bytes().into(),
    });
}
