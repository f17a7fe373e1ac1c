//! Keeps the books of the running relay: counts what the sockets moved, saves it, and says when to sleep and to wake.
//!
//! The quota itself is kept by [`RateLimits`]: it is told after each look how much may still be moved, and lets nobody move
//! more. So a look that comes late costs no byte beyond the quota. Nor does it let anybody move more than [`LEAD_PART`] of
//! the quota beyond what is on disk, so that a process which is killed forgets no more than that.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;
use relay_formats::facts::{Accounting, AccountingState, Timestamp};
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::torrc::AccountingRule;

use super::Line;
use super::hibernation::Hibernation;
use super::ledger::{Ledger, Terms};
use crate::config::Config;
use crate::rate::{Ceiling, RateLimits, SHARE_BYTES_MIN};
use crate::state_store::StateStore;
use crate::status::Board;

/// How often the books are looked at, at least: who may move no more before the next look calls for it.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A crash costs no more than this of the books, or a [`LEAD_PART`]th of the quota.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// The part of the quota that is worth a save at once.
const SAVE_PART: u64 = 400;
/// The part of the quota by which the sockets may be ahead of the file: a two hundredth.
const LEAD_PART: u64 = 200;
/// The same at least, so that the least of quotas lets something through: as much as one read.
const LEAD_MIN: u64 = 64 * 1024;

/// The books, and whom they concern.
pub struct Keeper {
    store: Arc<StateStore>,
    rates: Arc<RateLimits>,
    board: Arc<Board>,
    zone: TimeZone,
    /// None without a quota.
    book: Option<Book>,
}

struct Book {
    ledger: Ledger,
    hibernation: Hibernation,
    /// What the sockets had moved at the last look.
    counted: (u64, u64),
    saved_at: Instant,
    /// Bytes read and written that are on disk.
    saved: (u64, u64),
}

impl Keeper {
    /// Books without a quota; [`configure`](Self::configure) opens them.
    pub fn new(store: Arc<StateStore>, rates: Arc<RateLimits>, board: Arc<Board>) -> Self {
        Self {
            store,
            rates,
            board,
            zone: TimeZone::system(),
            book: None,
        }
    }

    /// What torrc wants, at the start and after a reload.
    pub fn configure(&mut self, config: &Config, identity: RsaIdentity, now: SystemTime) {
        let Some(quota) = config.accounting else {
            self.close();
            return;
        };
        let bandwidth = config.bandwidth;
        let relayed = bandwidth.relayed.map(|relayed| relayed.bytes_per_second_max);
        let terms = Terms {
            quota,
            bytes_per_second_max: relayed.unwrap_or(bandwidth.bytes_per_second_max),
            identity,
            zone: self.zone.clone(),
        };
        let opened = match &mut self.book {
            Some(book) if book.ledger.terms() == &terms => Ok(Vec::new()),
            Some(book) => {
                book.hibernation.decide_anew();
                book.ledger.change(terms, now)
            }
            None => self.open(terms, now),
        };
        match opened {
            Ok(lines) => lines.iter().for_each(Line::log),
            Err(error) => tracing::warn!("Accounting cannot be done with this clock: {error}"),
        }
    }

    fn open(&mut self, terms: Terms, now: SystemTime) -> Result<Vec<Line>, jiff::Error> {
        let record = self.store.read(|state| state.accounting()).unwrap_or_else(|error| {
            tracing::warn!("{error}. Starting this accounting interval anew.");
            None
        });
        let (ledger, lines) = Ledger::open(terms, record.as_ref(), now)?;
        self.book = Some(Book {
            saved: ledger.carried(),
            ledger,
            hibernation: Hibernation::default(),
            counted: self.rates.counted(),
            saved_at: Instant::now(),
        });
        Ok(lines)
    }

    fn close(&mut self) {
        if self.book.take().is_some() {
            self.rates.set_ceiling(None, self.rates.counted());
            self.board.note_accounting(None);
        }
    }

    /// Whether there is a quota, so that looks are needed.
    pub fn has_quota(&self) -> bool {
        self.book.is_some()
    }

    /// One look; where the relay stands now.
    pub fn look(&mut self, now: SystemTime) -> AccountingState {
        let Some(book) = &mut self.book else {
            return AccountingState::Awake;
        };
        let counted = self.rates.counted();
        let (read, written) = beyond(counted, book.counted);
        book.ledger.count(now, read, written);
        book.counted = counted;
        let before = book.hibernation.state();
        let interval = book.ledger.interval();
        let lines = book.ledger.turn(now).and_then(|mut lines| {
            lines.extend(book.hibernation.consider(now, &mut book.ledger, SHARE_BYTES_MIN)?);
            Ok(lines)
        });
        match lines {
            Ok(lines) => lines.iter().for_each(Line::log),
            Err(error) => tracing::warn!("Accounting cannot be done with this clock: {error}"),
        }
        let turned = before != book.hibernation.state() || interval != book.ledger.interval();
        if turned || book.save_is_due() {
            self.save(now);
        }
        let Some(book) = &self.book else {
            return AccountingState::Awake;
        };
        // After the save: it makes room.
        self.rates.set_ceiling(Some(book.ceiling()), counted);
        self.board.note_accounting(Some(book.facts()));
        book.hibernation.state()
    }

    /// Writes the books down.
    pub fn save(&mut self, now: SystemTime) {
        if let Some(book) = &mut self.book {
            let record = book.ledger.record();
            self.store.change(now, |state| state.set_accounting(&record));
            (book.saved_at, book.saved) = (Instant::now(), book.ledger.carried());
        }
    }
}

impl Book {
    fn save_is_due(&self) -> bool {
        let quota = self.ledger.quota();
        let (read, written) = beyond(self.ledger.carried(), self.saved);
        let fresh = quota.rule.count(read, written);
        let much = fresh >= (quota.bytes_max / SAVE_PART).max(LEAD_MIN / 2);
        much || (fresh > 0 && self.saved_at.elapsed() >= SAVE_EVERY)
    }

    /// How far the sockets may be ahead of the file.
    fn lead(&self) -> u64 {
        (self.ledger.quota().bytes_max / LEAD_PART).max(LEAD_MIN)
    }

    /// What may still be moved.
    fn ceiling(&self) -> Ceiling {
        let quota = self.ledger.quota();
        let (read, written) = self.ledger.carried();
        let lead = self.lead();
        let left = |used: u64, saved: u64| {
            let ahead = saved.saturating_add(lead).saturating_sub(used);
            quota.bytes_max.saturating_sub(used).min(ahead)
        };
        let (saved_read, saved_written) = self.saved;
        let free = Ceiling {
            read_left: u64::MAX,
            written_left: u64::MAX,
            both_left: u64::MAX,
        };
        if self.hibernation.state() == AccountingState::Dormant {
            return Ceiling { both_left: 0, ..free };
        }
        match quota.rule {
            AccountingRule::Max => Ceiling {
                read_left: left(read, saved_read),
                written_left: left(written, saved_written),
                ..free
            },
            AccountingRule::Sum => Ceiling {
                both_left: left(read.saturating_add(written), saved_read.saturating_add(saved_written)),
                ..free
            },
            AccountingRule::In => Ceiling {
                read_left: left(read, saved_read),
                ..free
            },
            AccountingRule::Out => Ceiling {
                written_left: left(written, saved_written),
                ..free
            },
        }
    }

    fn facts(&self) -> Accounting {
        let (read, written) = self.ledger.carried();
        let interval = self.ledger.interval();
        Accounting {
            state: self.hibernation.state(),
            interval_starts_at: Timestamp(interval.start),
            interval_ends_at: Timestamp(interval.end),
            bytes_max: self.ledger.quota().bytes_max,
            bytes_used: self.ledger.used(),
            bytes_read: read,
            bytes_written: written,
            wakes_at: Timestamp(self.ledger.wakes_at()),
        }
    }
}

fn beyond(now: (u64, u64), before: (u64, u64)) -> (u64, u64) {
    (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
}

#[cfg(test)]
mod tests;
