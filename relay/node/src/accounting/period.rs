//! In which interval a time lies. Intervals begin at a time of day in local time, so some are an hour longer or shorter.

use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Error, Timestamp, ToSpan as _};
use relay_formats::torrc::{AccountingStart, AccountingUnit};

/// From `start`, including it, to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// When it begins.
    pub start: SystemTime,
    /// When the next one begins.
    pub end: SystemTime,
}

impl Interval {
    /// The interval in which `now` lies.
    ///
    /// # Errors
    /// A time before the year -9999 or after 9999.
    pub fn containing(now: SystemTime, start: AccountingStart, zone: &TimeZone) -> Result<Self, Error> {
        let local = Timestamp::try_from(now)?.to_zoned(zone.clone()).datetime();
        let (hour, minute) = (clock(start.hour), clock(start.minute));
        let before = (local.hour(), local.minute()) < (hour, minute);
        let date = local.date();
        let (first, next) = match start.unit {
            AccountingUnit::Day => {
                let first = if before { date.yesterday()? } else { date };
                (first, first.tomorrow()?)
            }
            AccountingUnit::Week { day } => {
                let passed = (7 + date.weekday().to_monday_one_offset() - clock(day)) % 7;
                let passed = if passed == 0 && before { 7 } else { passed };
                let first = date.checked_sub(i32::from(passed).days())?;
                (first, first.checked_add(7.days())?)
            }
            AccountingUnit::Month { day } => {
                let day = clock(day);
                let begun = (date.day(), !before) >= (day, true);
                // Every month has this day: 28 at most.
                let this = date.with().day(day).build()?;
                let first = if begun { this } else { this.checked_sub(1.month())? };
                (first, first.checked_add(1.month())?)
            }
        };
        // A time that the clock skips is taken an hour later, one that it shows twice the first time.
        let at = |date: Date| Ok::<_, Error>(date.at(hour, minute, 0, 0).to_zoned(zone.clone())?.timestamp().into());
        Ok(Self {
            start: at(first)?,
            end: at(next)?,
        })
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.end.duration_since(self.start).unwrap_or_default()
    }
}

/// `YYYY-MM-DD HH:MM:SS` in local time, as the log says it.
pub fn local_text(time: SystemTime, zone: &TimeZone) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "a time that no calendar has".to_owned(),
    }
}

fn clock(number: u8) -> i8 {
    i8::try_from(number).unwrap_or(i8::MAX)
}

#[cfg(test)]
mod tests;
