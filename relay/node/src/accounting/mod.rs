//! Accounting: a relay with a quota (torrc `AccountingMax`) carries no more than that in an interval, and sleeps.
//!
//! Pure but for `keeper`: time and time zone are arguments.
//!
//! | file | says |
//! |---|---|
//! | `period` | in which interval a time lies: local time, both changes of the clock |
//! | `ledger` | what was carried in it, when to wake in it, whether a limit is reached |
//! | `hibernation` | awake, near the end, or asleep |
//! | `keeper` | counts, saves, and tells shards and documents |
//!
//! As C tor's `hibernate.c`, with one difference: after a soft limit it takes bytes a second, divided by 60, for bytes a
//! minute, so its relays wake at once and have no soft phase. Ours does what tor(1) describes.

pub mod hibernation;
pub mod keeper;
pub mod ledger;
pub mod period;

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// What an operator may want to know.
    Notice(String),
    /// What an operator should look at.
    Warn(String),
    /// More than that.
    Info(String),
}

impl Line {
    /// Writes it.
    pub fn log(&self) {
        match self {
            Self::Notice(text) => tracing::info!("{text}"),
            Self::Warn(text) => tracing::warn!("{text}"),
            Self::Info(text) => tracing::debug!("{text}"),
        }
    }
}
