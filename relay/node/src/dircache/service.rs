//! What all shards share of the directory server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::budget::Budget;
use super::compress::Encoding;
use super::onion_services::OnionServices;
use super::recent::{Key, Recent};
use super::store::{Store, Text};

/// Unread requests and answers that were packed for one asker, all streams of all shards together. C tor has no such bound
/// but `MaxMemInQueues`; 64 MiB are 1,600 batches of microdescriptors at the same time.
pub const STREAM_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The documents as they are now, and the bound on what their readers may hold.
#[derive(Debug)]
pub struct Service {
    store: RwLock<Arc<Store>>,
    recent: Mutex<Recent>,
    onion_services: Mutex<OnionServices>,
    budget: Budget,
    answered: [AtomicU64; 3],
}

/// How many requests were answered in which way; sums only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    /// With a document.
    pub served: u64,
    /// With "not modified".
    pub not_modified: u64,
    /// With any other status.
    pub refused: u64,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            store: RwLock::default(),
            recent: Mutex::default(),
            onion_services: Mutex::default(),
            budget: Budget::new(STREAM_BYTES_MAX),
            answered: Default::default(),
        }
    }
}

impl Service {
    /// The documents. Whoever holds them keeps them alive; so not for long.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the documents; requests that are being answered finish with the old ones.
    pub fn change(&self, change: impl FnOnce(&mut Store)) {
        let mut held = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Store::clone(&held);
        change(&mut next);
        *held = Arc::new(next);
    }

    /// What streams may still hold.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// An answer that was packed a moment ago.
    pub fn packed_before(&self, key: &Key) -> Option<Text> {
        self.recent().get(key)
    }

    /// Keeps a packed answer for the next asker.
    pub fn keep(&self, names: [u8; 32], encoding: Encoding, text: &Text) {
        self.recent().keep((names, encoding), text);
    }

    /// Counts an answer.
    pub fn count(&self, status: u16) {
        let [served, not_modified, refused] = &self.answered;
        let counter = match status {
            200 => served,
            304 => not_modified,
            _ => refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn answered(&self) -> Answered {
        let [served, not_modified, refused] = [0, 1, 2].map(|at: usize| {
            let counter = self.answered.get(at);
            counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
        });
        Answered {
            served,
            not_modified,
            refused,
        }
    }

    /// Descriptors that onion services have left with us. Not to be held while anything is computed.
    pub fn onion_services(&self) -> MutexGuard<'_, OnionServices> {
        self.onion_services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
