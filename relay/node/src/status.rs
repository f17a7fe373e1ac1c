//! What the relay knows of its own standing: where it listens, what it has published, what the network says of it.
//!
//! A board that the parts of the relay write on; the status port reads it. Slow paths only: nothing here is asked for each
//! cell or link.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use relay_formats::facts::{
    Accounting, AccountingState, Address, Facts, Family, Identity, Listed, MadeDescriptor, Overload, Reachable,
    SeenConsensus, SigningKey, Timestamp, VERSION,
};
use relay_formats::fingerprint::RsaIdentity;

use tokio::sync::watch;

use crate::config::Config;
use crate::keys::Keys;
use crate::netdoc::Consensus;

/// The board.
pub struct Board {
    started_at: SystemTime,
    notes: Mutex<Notes>,
    hibernating: watch::Sender<bool>,
}

#[derive(Default)]
struct Notes {
    listening: Vec<SocketAddr>,
    retiring: bool,
    addresses: Vec<Address>,
    descriptor: Option<MadeDescriptor>,
    consensus: Option<SeenConsensus>,
    overload: Overload,
    accounting: Option<Accounting>,
}

impl Board {
    /// Nothing is known yet.
    pub fn new(started_at: SystemTime) -> Self {
        Self {
            started_at,
            notes: Mutex::default(),
            hibernating: watch::Sender::new(false),
        }
    }

    /// Whether the quota has the relay asleep, or about to be; changes are told.
    pub fn hibernation(&self) -> watch::Receiver<bool> {
        self.hibernating.subscribe()
    }

    /// When the process started.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Where the relay listens for OR connections now.
    pub fn note_listening(&self, addresses: Vec<SocketAddr>) {
        self.notes().listening = addresses;
    }

    /// The relay has been told to stop.
    pub fn note_retiring(&self) {
        let mut notes = self.notes();
        notes.retiring = true;
        notes.listening.clear();
    }

    /// What is known of our published addresses.
    pub fn note_addresses(&self, addresses: impl IntoIterator<Item = (SocketAddr, Reachable)>) {
        let addresses = addresses
            .into_iter()
            .map(|(address, reachable)| Address { address, reachable });
        self.notes().addresses = addresses.collect();
    }

    /// A new descriptor is on its way to so many authorities.
    pub fn note_descriptor(&self, digest: String, published: SystemTime, hibernating: bool, authorities: usize) {
        self.notes().descriptor = Some(MadeDescriptor {
            digest,
            published_at: Timestamp(published),
            hibernating,
            accepted_by: 0,
            authorities: u32::try_from(authorities).unwrap_or(u32::MAX),
            accepted_at: None,
        });
    }

    /// So many more authorities have taken it.
    pub fn note_accepted(&self, authorities: usize, now: SystemTime) {
        if let Some(descriptor) = self.notes().descriptor.as_mut().filter(|_| authorities > 0) {
            let more = u32::try_from(authorities).unwrap_or(u32::MAX);
            descriptor.accepted_by = descriptor.accepted_by.saturating_add(more);
            descriptor.accepted_at = Some(Timestamp(now));
        }
    }

    /// The newest consensus, and who we are in it.
    pub fn note_consensus(&self, consensus: Option<&Consensus>, us: RsaIdentity) {
        self.notes().consensus = consensus.map(|consensus| {
            let listed = consensus.relays.iter().find(|relay| relay.rsa_identity == us);
            SeenConsensus {
                valid_after: Timestamp(consensus.lifetime.valid_after),
                fresh_until: Timestamp(consensus.lifetime.fresh_until),
                valid_until: Timestamp(consensus.lifetime.valid_until),
                listed: listed.map(|relay| Listed {
                    flags: relay.flags.names().map(str::to_owned).collect(),
                    weight: relay.weight,
                    measured: relay.measured,
                    addresses: relay.addresses.clone(),
                }),
            }
        });
    }

    /// What the documents say of overload.
    pub fn note_overload(&self, overload: Overload) {
        self.notes().overload = overload;
    }

    /// Where the quota stands; none where torrc sets none.
    pub fn note_accounting(&self, accounting: Option<Accounting>) {
        let asleep = accounting
            .as_ref()
            .is_some_and(|one| one.state != AccountingState::Awake);
        self.notes().accounting = accounting;
        self.hibernating
            .send_if_modified(|known| std::mem::replace(known, asleep) != asleep);
    }

    /// The quota, and what the newest consensus says of us.
    pub fn quota_and_consensus(&self) -> (Option<Accounting>, Option<SeenConsensus>) {
        let notes = self.notes();
        (notes.accounting.clone(), notes.consensus.clone())
    }

    /// All that is known at `now`.
    pub fn facts(&self, config: &Config, keys: &Keys, now: SystemTime) -> Facts {
        let Notes {
            listening,
            retiring,
            addresses,
            descriptor,
            consensus,
            overload,
            accounting,
        } = &*self.notes();
        let held = keys.families.iter().map(|key| Family {
            id: key.public(),
            until: None,
        });
        let certified = keys.family_word.certs.iter().filter_map(|cert| {
            Some(Family {
                id: cert.named_signer().ok()?,
                until: Some(Timestamp(cert.expires())),
            })
        });
        Facts {
            version: VERSION,
            program: concat!("relayfleet ", env!("CARGO_PKG_VERSION")).to_owned(),
            started_at: Timestamp(self.started_at),
            told_at: Timestamp(now),
            identity: Identity {
                nickname: config.nickname.to_string(),
                fingerprint: keys.rsa_identity(),
                ed25519: keys.ed25519_identity,
            },
            listening: listening.clone(),
            retiring: *retiring,
            addresses: addresses.clone(),
            signing_key: SigningKey {
                expires_at: Timestamp(keys.signing_cert.expires()),
                offline_master: config.offline_master_key,
            },
            families: held.chain(certified).collect(),
            descriptor: descriptor.clone(),
            consensus: consensus.clone(),
            overload: overload.clone(),
            accounting: accounting.clone(),
        }
    }

    /// Whether the relay does what torrc asks of it: it takes connections, or sleeps as its quota wants.
    pub fn is_ready(&self) -> bool {
        let notes = self.notes();
        let asleep = notes
            .accounting
            .as_ref()
            .is_some_and(|one| one.state != AccountingState::Awake);
        !notes.retiring && (asleep || !notes.listening.is_empty())
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Each note is written whole: there is no half-done state to fear.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_retires_is_not_ready() {
        let board = Board::new(SystemTime::UNIX_EPOCH);
        assert!(!board.is_ready(), "nothing listens yet");
        board.note_listening(vec!["127.0.0.1:9001".parse().unwrap()]);
        assert!(board.is_ready());
        board.note_retiring();
        assert!(!board.is_ready());
    }

    #[test]
    fn a_new_descriptor_has_to_be_accepted_anew() {
        let board = Board::new(SystemTime::UNIX_EPOCH);
        board.note_accepted(1, SystemTime::UNIX_EPOCH);
        assert_eq!(board.notes().descriptor, None, "there is none yet");
        board.note_descriptor("AB".to_owned(), SystemTime::UNIX_EPOCH, false, 3);
        board.note_accepted(2, SystemTime::UNIX_EPOCH);
        board.note_accepted(0, SystemTime::now());
        board.note_accepted(1, SystemTime::UNIX_EPOCH);
        let told = board.notes().descriptor.clone().unwrap();
        assert_eq!(
            (told.accepted_by, told.accepted_at),
            (3, Some(Timestamp(SystemTime::UNIX_EPOCH)))
        );
        board.note_descriptor("CD".to_owned(), SystemTime::UNIX_EPOCH, false, 3);
        assert_eq!(board.notes().descriptor.clone().unwrap().accepted_by, 0);
    }
}
