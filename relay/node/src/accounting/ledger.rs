//! What was carried in the running interval, and what follows from the quota.

use std::time::{Duration, SystemTime};

use jiff::Error;
use jiff::tz::TimeZone;
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::state::{AccountingRecord, SoftLimitRecord};
use relay_formats::time_text;
use relay_formats::torrc::{AccountingRule, Quota};
use sha1::{Digest as _, Sha1};

use super::Line;
use super::period::{Interval, local_text};

/// An interval, or the time up to a soft limit, tells something of the next one if it was longer than this (C tor,
/// `MIN_TIME_FOR_MEASUREMENT`).
const MEASURED_SECONDS_MIN: u64 = 1_800;
/// Bytes that are kept for what is open when the soft limit comes (C tor, `SOFT_LIM_BYTES`).
const SOFT_LIMIT_LEAVES_MAX: u64 = 500 << 20;
/// Or what is expected in so many minutes (C tor, `SOFT_LIM_MINUTES`).
const SOFT_LIMIT_LEAVES_MINUTES: u64 = 180;
/// Counts that come later than this after the last ones say that the clock jumped, not that the relay was active.
const GAP_SECONDS_MAX: u64 = 10;

/// What the ledger goes by. A reload may change it.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// torrc's quota.
    pub quota: Quota,
    /// `RelayBandwidthRate`, else `BandwidthRate`: bytes a second.
    pub bytes_per_second_max: u64,
    /// Who we are; each relay wakes at a time of its own.
    pub identity: RsaIdentity,
    /// Local time.
    pub zone: TimeZone,
}

impl Terms {
    fn interval(&self, now: SystemTime) -> Result<Interval, Error> {
        Interval::containing(now, self.quota.start, &self.zone)
    }

    fn text(&self, time: SystemTime) -> String {
        local_text(time, &self.zone)
    }
}

/// The ledger of one interval after the other.
#[derive(Debug, Clone)]
pub struct Ledger {
    terms: Terms,
    interval: Interval,
    wakes_at: SystemTime,
    read: u64,
    written: u64,
    seconds_active: u64,
    counted_at: Option<SystemTime>,
    bytes_per_minute_expected: u64,
    soft_limit: Option<SoftLimitRecord>,
}

impl Ledger {
    /// Goes on with `record`, if it is of the interval in which `now` lies.
    ///
    /// # Errors
    /// `now` is beyond the calendar.
    pub fn open(terms: Terms, record: Option<&AccountingRecord>, now: SystemTime) -> Result<(Self, Vec<Line>), Error> {
        let interval = terms.interval(now)?;
        let mut ledger = Self {
            terms,
            interval,
            wakes_at: interval.start,
            read: 0,
            written: 0,
            seconds_active: 0,
            counted_at: None,
            bytes_per_minute_expected: 0,
            soft_limit: None,
        };
        let mut lines = Vec::new();
        match record {
            Some(record) => {
                ledger.take_over(record);
                lines.push(ledger.fit(now)?);
            }
            None => lines.push(Line::Info("Starting new accounting interval.".to_owned())),
        }
        lines.push(ledger.plan(now));
        Ok((ledger, lines))
    }

    fn take_over(&mut self, record: &AccountingRecord) {
        let AccountingRecord {
            interval_start,
            bytes_read,
            bytes_written,
            seconds_active,
            bytes_per_minute_expected,
            soft_limit,
        } = *record;
        self.interval.start = interval_start;
        (self.read, self.written) = (bytes_read, bytes_written);
        self.seconds_active = seconds_active;
        self.bytes_per_minute_expected = bytes_per_minute_expected;
        self.soft_limit = soft_limit;
    }

    /// For the state file.
    pub fn record(&self) -> AccountingRecord {
        AccountingRecord {
            interval_start: self.interval.start,
            bytes_read: self.read,
            bytes_written: self.written,
            seconds_active: self.seconds_active,
            bytes_per_minute_expected: self.bytes_per_minute_expected,
            soft_limit: self.soft_limit,
        }
    }

    /// New terms; the interval is looked at anew.
    ///
    /// # Errors
    /// `now` is beyond the calendar.
    pub fn change(&mut self, terms: Terms, now: SystemTime) -> Result<Vec<Line>, Error> {
        self.terms = terms;
        Ok(vec![self.fit(now)?, self.plan(now)])
    }

    /// Counts what was carried since the last call.
    pub fn count(&mut self, now: SystemTime, read: u64, written: u64) {
        if read == 0 && written == 0 {
            return;
        }
        self.read = self.read.saturating_add(read);
        self.written = self.written.saturating_add(written);
        let gap = self.counted_at.and_then(|before| now.duration_since(before).ok());
        let seconds = gap.map_or(0, |gap| gap.as_secs());
        if seconds < GAP_SECONDS_MAX {
            self.seconds_active += seconds;
        }
        // Parts of a second add up.
        if seconds > 0 || self.counted_at.is_none_or(|before| before > now) {
            self.counted_at = Some(now);
        }
    }

    /// Begins the next interval when its time has come. What there is to say, if anything.
    ///
    /// # Errors
    /// `now` is beyond the calendar.
    pub fn turn(&mut self, now: SystemTime) -> Result<Vec<Line>, Error> {
        if now < self.interval.end {
            return Ok(Vec::new());
        }
        Ok(vec![self.fit(now)?, self.plan(now)])
    }

    /// Compares the interval with the one in which `now` lies; a little earlier or later is the same.
    fn fit(&mut self, now: SystemTime) -> Result<Line, Error> {
        let today = self.terms.interval(now)?;
        if today.start == self.interval.start {
            self.interval = today;
            return Ok(Line::Info("Continuing accounting interval.".to_owned()));
        }
        let length = self.terms.interval(self.interval.start)?.length();
        let moved = signed_seconds(self.interval.start, today.start) / length.as_secs_f64();
        let percent = moved * 100.0;
        if (-0.5..=0.5).contains(&moved) {
            self.interval.end = today.end;
            return Ok(Line::Info(format!(
                "Accounting interval moved by {percent:.02}%; that's fine."
            )));
        }
        self.begin(today);
        if moved >= 0.99 {
            return Ok(Line::Info("Accounting interval elapsed; starting a new one".to_owned()));
        }
        Ok(Line::Warn(format!(
            "Mismatched accounting interval: moved by {percent:.02}%. Starting a fresh one."
        )))
    }

    fn begin(&mut self, interval: Interval) {
        self.bytes_per_minute_expected = self.expected();
        self.interval = interval;
        (self.read, self.written, self.seconds_active) = (0, 0, 0);
        self.soft_limit = None;
    }

    /// Bytes a minute that the next interval may bring, judged by the one that ends; 0: nothing to judge by.
    fn expected(&self) -> u64 {
        let rule = self.terms.quota.rule;
        let factor = if rule == AccountingRule::Sum { 120 } else { 60 };
        let most = self.terms.bytes_per_second_max.saturating_mul(factor);
        let until_soft_limit = self.soft_limit.filter(|soft| soft.bytes > 0).and_then(|soft| {
            let seconds = soft.hit_at.duration_since(self.interval.start).ok()?.as_secs();
            (seconds > MEASURED_SECONDS_MIN).then_some((soft.bytes, seconds))
        });
        let expected = match until_soft_limit {
            Some((bytes, seconds)) => (bytes / seconds).saturating_mul(60),
            None if self.seconds_active >= MEASURED_SECONDS_MIN => self.used() / (self.seconds_active / 60),
            None => 0,
        };
        expected.min(most)
    }

    /// Chooses when to wake in this interval: at a time that only this relay has, so that not all of them carry at its start
    /// and none at its end.
    fn plan(&mut self, now: SystemTime) -> Line {
        let Interval { start, end } = self.interval;
        let terms = &self.terms;
        let Some(minutes) = terms.quota.bytes_max.checked_div(self.bytes_per_minute_expected) else {
            self.wakes_at = start;
            return Line::Notice(format!(
                "Configured hibernation. This interval begins at {} and ends at {}. We have no prior estimate for \
                 bandwidth, so we will start out awake and hibernate when we exhaust our quota.",
                terms.text(start),
                terms.text(end)
            ));
        };
        let exhausted_after = minutes.saturating_mul(60);
        let window = self.interval.length().as_secs().saturating_sub(exhausted_after);
        let pick = pick(start, terms.identity).checked_rem(window).unwrap_or(0);
        self.wakes_at = start + Duration::from_secs(pick);
        let exhausted_at = self.wakes_at.checked_add(Duration::from_secs(exhausted_after));
        let exhausted_at = exhausted_at.unwrap_or(end).min(end);
        Line::Notice(format!(
            "Configured hibernation.  This interval began at {}; the scheduled wake-up time {} {}; we expect{} to \
             exhaust our quota for this interval around {}; the next interval begins at {} (all times local)",
            terms.text(start),
            if now < self.wakes_at { "is" } else { "was" },
            terms.text(self.wakes_at),
            if now < exhausted_at { "" } else { "ed" },
            terms.text(exhausted_at),
            terms.text(end)
        ))
    }

    /// The soft limit has been reached.
    pub fn note_soft_limit(&mut self, now: SystemTime) {
        self.soft_limit = Some(SoftLimitRecord {
            hit_at: now,
            bytes: self.used(),
            seconds: self.seconds_active,
        });
    }

    /// What the rule counts.
    pub fn used(&self) -> u64 {
        self.terms.quota.rule.count(self.read, self.written)
    }

    /// Bytes read and written.
    pub fn carried(&self) -> (u64, u64) {
        (self.read, self.written)
    }

    /// What it goes by.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The quota.
    pub fn quota(&self) -> Quota {
        self.terms.quota
    }

    /// The running interval.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// When the relay wakes, or woke, in it.
    pub fn wakes_at(&self) -> SystemTime {
        self.wakes_at
    }

    /// A time as the log says it.
    pub fn local_text(&self, time: SystemTime) -> String {
        self.terms.text(time)
    }

    /// All that three hours may bring is left, 500 MiB, or a twentieth of the quota: whichever is least. Then nothing new
    /// begins.
    pub fn soft_limit(&self) -> u64 {
        let most = self.terms.quota.bytes_max;
        let soon = self.bytes_per_minute_expected.saturating_mul(SOFT_LIMIT_LEAVES_MINUTES);
        let twentieth = most - most / 20;
        let of_size = most.saturating_sub(SOFT_LIMIT_LEAVES_MAX);
        let of_time = if soon > 0 { most.saturating_sub(soon) } else { 0 };
        twentieth.max(of_size).max(of_time)
    }

    /// Whether that is reached.
    pub fn soft_limit_reached(&self) -> bool {
        self.used() >= self.soft_limit()
    }

    /// Whether the quota is used up, but for what is too little for anybody's turn (`turn_bytes`).
    pub fn hard_limit_reached(&self, turn_bytes: u64) -> bool {
        self.used().saturating_add(turn_bytes) > self.terms.quota.bytes_max
    }
}

/// 32 bits that are always the same for one relay and one interval, and no other: as C tor takes them.
fn pick(start: SystemTime, identity: RsaIdentity) -> u64 {
    let digest = Sha1::new()
        .chain_update(time_text::format(start))
        .chain_update(identity.0)
        .finalize();
    let first = digest.first_chunk::<4>().copied().unwrap_or_default();
    // C tor takes them in the order of the machine's bytes, which is this one on every machine that runs relays.
    u32::from_le_bytes(first).into()
}

fn signed_seconds(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(later) => later.as_secs_f64(),
        Err(earlier) => -earlier.duration().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests;
