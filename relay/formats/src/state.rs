//! C tor's `state` file: what a relay remembers between runs, `Key Value` line by line.
//!
//! Keys that we do not know, and those of which we read nothing, stay where and as they are: a relay may go
//! back to C tor. The same key may stand several times.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::time_text;

/// One state file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateFile {
    entries: Vec<(String, String)>,
}

/// Why a state file, or one value in it, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadState {
    /// A line that has no key, or characters that no text file has.
    #[error("line {0} of the state file: expected a key and a value")]
    Line(usize),
    /// A value that is not of the form that its key asks for.
    #[error("{key} in the state file: expected {expected}, found `{found}`")]
    Value {
        /// The key.
        key: String,
        /// The form.
        expected: &'static str,
        /// The value.
        found: String,
    },
}

/// Which bytes a history counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryOf {
    /// All read.
    Read,
    /// All written.
    Write,
    /// Read over IPv6.
    Ipv6Read,
    /// Written over IPv6.
    Ipv6Write,
    /// Read for directory requests.
    DirRead,
    /// Written for directory requests.
    DirWrite,
}

impl HistoryOf {
    fn key(self, part: &str) -> String {
        let kind = match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Ipv6Read => "IPv6Read",
            Self::Ipv6Write => "IPv6Write",
            Self::DirRead => "DirRead",
            Self::DirWrite => "DirWrite",
        };
        format!("BWHistory{kind}{part}")
    }
}

/// A bandwidth history (`BWHistory*`), the oldest interval first; the last one may be unfinished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHistory {
    /// When the last interval ends, or will end.
    pub ends: SystemTime,
    /// Length of each interval; a day.
    pub interval: Duration,
    /// Bytes in each.
    pub bytes: Vec<u64>,
    /// The most bytes within ten seconds of each, divided by ten: bytes a second.
    pub maxima: Vec<u64>,
}

/// What a relay with a quota has carried in an interval (`Accounting*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountingRecord {
    /// When the interval began.
    pub interval_start: SystemTime,
    /// Bytes read in it.
    pub bytes_read: u64,
    /// Bytes written in it.
    pub bytes_written: u64,
    /// Seconds of it in which the relay carried traffic.
    pub seconds_active: u64,
    /// What was expected at its start, bytes a minute; 0: nothing to judge by.
    pub bytes_per_minute_expected: u64,
    /// The soft limit, if it was reached.
    pub soft_limit: Option<SoftLimitRecord>,
}

/// When the soft limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftLimitRecord {
    /// The time.
    pub hit_at: SystemTime,
    /// Bytes that `AccountingRule` had counted by then.
    pub bytes: u64,
    /// Active seconds until then.
    pub seconds: u64,
}

impl StateFile {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`BadState::Line`] for what is no line of a state file: the file is damaged.
    pub fn parse(text: &str) -> Result<Self, BadState> {
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || value.contains('\0') {
                return Err(BadState::Line(at + 1));
            }
            entries.push((key.to_owned(), value.trim_start().to_owned()));
        }
        Ok(Self { entries })
    }

    /// The file's text, as of `now`; `LastWritten` becomes `now`, `TorVersion` `version`.
    pub fn to_text(&self, now: SystemTime, version: &str) -> String {
        let mut state = self.clone();
        state.set("LastWritten", &time_text::format(now));
        state.set("TorVersion", version);
        let written = time_text::format(now);
        format!(
            "# Tor state file last generated on {written} UTC\n# Other times below are in UTC\n\
             # You *do not* need to edit this file.\n\n{state}"
        )
    }

    /// The key's last value.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self
            .entries
            .iter()
            .rev()
            .find(|(known, _)| known.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.as_str())
    }

    /// Gives the key this one value, where it stood or at the end; line breaks become blanks.
    pub fn set(&mut self, key: &str, value: &str) {
        let value = value.replace(['\n', '\r', '\0'], " ");
        let place = self
            .entries
            .iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(key));
        self.remove(key);
        let place = place.unwrap_or(self.entries.len());
        self.entries.insert(place, (key.to_owned(), value));
    }

    /// Takes the key out, however often it stands there.
    pub fn remove(&mut self, key: &str) {
        self.entries.retain(|(known, _)| !known.eq_ignore_ascii_case(key));
    }

    /// When the onion key was made that is now in use.
    ///
    /// # Errors
    /// [`BadState::Value`] if something else than a time stands there.
    pub fn last_rotated_onion_key(&self) -> Result<Option<SystemTime>, BadState> {
        self.time("LastRotatedOnionKey")
    }

    /// Notes when the onion key was made.
    pub fn set_last_rotated_onion_key(&mut self, time: SystemTime) {
        self.set("LastRotatedOnionKey", &time_text::format(time));
    }

    /// When the file was written last.
    ///
    /// # Errors
    /// [`BadState::Value`] if something else than a time stands there.
    pub fn last_written(&self) -> Result<Option<SystemTime>, BadState> {
        self.time("LastWritten")
    }

    /// Which program wrote it, as it calls itself.
    pub fn tor_version(&self) -> Option<&str> {
        self.get("TorVersion")
    }

    /// A bandwidth history, if there is one.
    ///
    /// # Errors
    /// [`BadState::Value`] if one of its four values is not what it should be.
    pub fn bandwidth_history(&self, of: HistoryOf) -> Result<Option<StoredHistory>, BadState> {
        let Some(ends) = self.time(&of.key("Ends"))? else {
            return Ok(None);
        };
        let interval = match self.numbers(&of.key("Interval"))?.first() {
            None | Some(0) => 86_400,
            Some(seconds) => *seconds,
        };
        Ok(Some(StoredHistory {
            ends,
            interval: Duration::from_secs(interval),
            bytes: self.numbers(&of.key("Values"))?,
            maxima: self.numbers(&of.key("Maxima"))?,
        }))
    }

    /// Notes a bandwidth history.
    pub fn set_bandwidth_history(&mut self, of: HistoryOf, history: &StoredHistory) {
        let listed = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        self.set(&of.key("Ends"), &time_text::format(history.ends));
        self.set(&of.key("Interval"), &history.interval.as_secs().to_string());
        self.set(&of.key("Maxima"), &listed(&history.maxima));
        self.set(&of.key("Values"), &listed(&history.bytes));
    }

    /// What was carried in the interval that ran when the file was written; none where no interval did.
    ///
    /// # Errors
    /// [`BadState::Value`] if one of its values is not what it should be.
    pub fn accounting(&self) -> Result<Option<AccountingRecord>, BadState> {
        let Some(interval_start) = self.time("AccountingIntervalStart")? else {
            return Ok(None);
        };
        let soft_limit = match self.time("AccountingSoftLimitHitAt")? {
            // C tor left old values standing where it did not know these keys.
            Some(hit_at) if hit_at > interval_start => Some(SoftLimitRecord {
                hit_at,
                bytes: self.number("AccountingBytesAtSoftLimit")?,
                seconds: self.number("AccountingSecondsToReachSoftLimit")?,
            }),
            _ => None,
        };
        Ok(Some(AccountingRecord {
            interval_start,
            bytes_read: self.number("AccountingBytesReadInInterval")?,
            bytes_written: self.number("AccountingBytesWrittenInInterval")?,
            seconds_active: self.number("AccountingSecondsActive")?,
            bytes_per_minute_expected: self.number("AccountingExpectedUsage")?,
            soft_limit,
        }))
    }

    /// Notes what was carried. As C tor does, bytes are rounded up to 1 KiB, 0 to 1 KiB too, and what is 0 is left out.
    pub fn set_accounting(&mut self, record: &AccountingRecord) {
        let kib = |bytes: u64| bytes.max(1).div_ceil(1024).saturating_mul(1024);
        self.set("AccountingIntervalStart", &time_text::format(record.interval_start));
        let soft = record.soft_limit;
        for (key, number) in [
            ("AccountingBytesReadInInterval", kib(record.bytes_read)),
            ("AccountingBytesWrittenInInterval", kib(record.bytes_written)),
            ("AccountingSecondsActive", record.seconds_active),
            ("AccountingExpectedUsage", record.bytes_per_minute_expected),
            ("AccountingBytesAtSoftLimit", soft.map_or(0, |soft| soft.bytes)),
            ("AccountingSecondsToReachSoftLimit", soft.map_or(0, |soft| soft.seconds)),
        ] {
            match number {
                0 => self.remove(key),
                _ => self.set(key, &number.to_string()),
            }
        }
        match soft {
            Some(soft) => self.set("AccountingSoftLimitHitAt", &time_text::format(soft.hit_at)),
            None => self.remove("AccountingSoftLimitHitAt"),
        }
    }

    fn number(&self, key: &str) -> Result<u64, BadState> {
        let found = self.get(key).filter(|value| !value.is_empty()).unwrap_or("0");
        // C tor's memory units may have a unit behind them.
        let digits = found.split_whitespace().next().unwrap_or_default();
        digits.parse().map_err(|_| bad(key, "a number", found))
    }

    fn time(&self, key: &str) -> Result<Option<SystemTime>, BadState> {
        let Some(found) = self.get(key).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match time_text::parse(found) {
            Some(time) => Ok(Some(time)),
            None => Err(bad(key, "a time YYYY-MM-DD HH:MM:SS", found)),
        }
    }

    fn numbers(&self, key: &str) -> Result<Vec<u64>, BadState> {
        let found = self.get(key).unwrap_or_default();
        let words = found.split(',').map(str::trim).filter(|word| !word.is_empty());
        words
            .map(|word| word.parse().map_err(|_| bad(key, "numbers with commas", found)))
            .collect()
    }
}

fn bad(key: &str, expected: &'static str, found: &str) -> BadState {
    BadState::Value {
        key: key.to_owned(),
        expected,
        found: found.to_owned(),
    }
}

/// The lines, without the comments at the head.
impl fmt::Display for StateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.entries {
            writeln!(f, "{key} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C_TOR: &str = include_str!("../tests/ctor/state-accounting.txt");

    #[test]
    fn a_c_tor_state_is_understood() {
        let state = StateFile::parse(C_TOR).unwrap();
        assert_eq!(
            state.last_rotated_onion_key(),
            Ok(time_text::parse("2026-11-22 06:13:14"))
        );
        assert_eq!(state.last_written(), Ok(time_text::parse("2026-11-22 06:14:53")));
        assert_eq!(state.tor_version(), Some("Tor 0.4.9.11"));
        let history = state.bandwidth_history(HistoryOf::Write).unwrap().unwrap();
        assert_eq!((history.bytes, history.maxima), (vec![52_365_312], vec![5_234_688]));
        assert_eq!(history.interval, Duration::from_secs(86_400));
        assert_eq!(StateFile::default().bandwidth_history(HistoryOf::Read), Ok(None));
    }

    #[test]
    fn a_c_tor_ledger_comes_back_as_it_was() {
        let mut state = StateFile::parse(C_TOR).unwrap();
        let record = state.accounting().unwrap().unwrap();
        assert_eq!((record.bytes_read, record.bytes_written), (52_362_240, 52_365_312));
        assert_eq!((record.seconds_active, record.bytes_per_minute_expected), (16, 0));
        let soft = record.soft_limit.unwrap();
        assert_eq!((soft.bytes, soft.seconds), (104_726_358, 13));
        let before = state.to_string();
        state.set_accounting(&record);
        assert_eq!(state.to_string(), before);
        assert_eq!(StateFile::default().accounting(), Ok(None));
    }

    #[test]
    fn a_soft_limit_of_an_older_interval_is_forgotten() {
        let text = "AccountingIntervalStart 2026-11-22 00:00:00\nAccountingSoftLimitHitAt 2026-11-21 23:00:00\n";
        let state = StateFile::parse(text).unwrap();
        assert_eq!(state.accounting().unwrap().unwrap().soft_limit, None);
        let odd = format!("{text}AccountingBytesReadInInterval many");
        assert!(StateFile::parse(&odd).unwrap().accounting().is_err());
    }

    #[test]
    fn what_we_do_not_know_stays_as_it_was() {
        let state = StateFile::parse(C_TOR).unwrap();
        let (_, theirs) = C_TOR.split_once("\n\n").unwrap();
        assert_eq!(state.to_string().trim_end(), theirs.trim_end());
    }

    #[test]
    fn what_we_change_comes_back_changed_and_the_rest_in_its_place() {
        let mut state = StateFile::parse(C_TOR).unwrap();
        let (now, history) = (
            time_text::parse("2026-12-01 00:00:00").unwrap(),
            StoredHistory {
                ends: time_text::parse("2026-12-02 00:00:00").unwrap(),
                interval: Duration::from_secs(86_400),
                bytes: vec![1, 2, 3],
                maxima: vec![4, 5, 6],
            },
        );
        state.set_last_rotated_onion_key(now);
        state.set_bandwidth_history(HistoryOf::Ipv6Read, &history);
        let text = state.to_text(now, "relayfleet 0.1.0");
        let again = StateFile::parse(&text).unwrap();
        assert_eq!(again.last_rotated_onion_key(), Ok(Some(now)));
        assert_eq!(again.bandwidth_history(HistoryOf::Ipv6Read), Ok(Some(history)));
        assert_eq!(
            (again.last_written(), again.tor_version()),
            (Ok(Some(now)), Some("relayfleet 0.1.0"))
        );
        let keys = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
            lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        assert_eq!(keys(&text), keys(C_TOR));
    }

    #[test]
    fn a_damaged_file_says_where() {
        assert_eq!(StateFile::parse("Dormant 0\n\u{1}\u{2}garbage"), Err(BadState::Line(2)));
        let state = StateFile::parse(
            "LastRotatedOnionKey yesterday\nBWHistoryReadEnds 2026-11-22 06:14:53\n\
            BWHistoryReadValues 1,x",
        )
        .unwrap();
        assert_eq!(
            state.last_rotated_onion_key().unwrap_err().to_string(),
            "LastRotatedOnionKey in the state file: expected a time YYYY-MM-DD HH:MM:SS, found `yesterday`"
        );
        assert!(state.bandwidth_history(HistoryOf::Read).is_err());
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        let mut state = StateFile::default();
        state.set("TorVersion", "x\nDormant 1");
        assert_eq!(StateFile::parse(&state.to_string()).unwrap().get("Dormant"), None);
    }
}
