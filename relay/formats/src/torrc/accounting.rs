//! `AccountingMax`, `AccountingRule`, `AccountingStart`: how much a relay may carry in which interval.

use super::reading::Reading;
use super::values;

/// A quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// `AccountingMax`, bytes an interval; not 0.
    pub bytes_max: u64,
    /// `AccountingRule`.
    pub rule: AccountingRule,
    /// `AccountingStart`.
    pub start: AccountingStart,
}

/// Which bytes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountingRule {
    /// The greater of read and written.
    Max,
    /// Both together.
    Sum,
    /// Read.
    In,
    /// Written.
    Out,
}

impl AccountingRule {
    /// What counts of these.
    pub fn count(self, read: u64, written: u64) -> u64 {
        match self {
            Self::Max => read.max(written),
            Self::Sum => read.saturating_add(written),
            Self::In => read,
            Self::Out => written,
        }
    }
}

/// When intervals begin, in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountingStart {
    /// How long they are.
    pub unit: AccountingUnit,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
}

/// How long intervals are, and on which day they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountingUnit {
    /// A day.
    Day,
    /// A week.
    Week {
        /// 1 (Monday) to 7 (Sunday).
        day: u8,
    },
    /// A month.
    Month {
        /// 1 to 28, which every month has.
        day: u8,
    },
}

impl AccountingUnit {
    /// Seconds of such an interval, give or take a change of the clock; of months the most common length.
    pub fn seconds(self) -> u64 {
        const DAY: u64 = 86_400;
        match self {
            Self::Day => DAY,
            Self::Week { .. } => 7 * DAY,
            Self::Month { .. } => 31 * DAY,
        }
    }
}

impl Default for AccountingStart {
    fn default() -> Self {
        Self {
            unit: AccountingUnit::Month { day: 1 },
            hour: 0,
            minute: 0,
        }
    }
}

impl Reading {
    /// None without an `AccountingMax`.
    pub(super) fn accounting(&mut self) -> Option<Quota> {
        let bytes_max = self.last("AccountingMax", values::bytes).unwrap_or(0);
        let rule = self.last("AccountingRule", rule);
        let start = self.last("AccountingStart", start);
        (bytes_max > 0).then(|| Quota {
            bytes_max,
            rule: rule.unwrap_or(AccountingRule::Max),
            start: start.unwrap_or_default(),
        })
    }
}

fn rule(text: &str) -> Result<AccountingRule, String> {
    match text {
        "" | "max" => Ok(AccountingRule::Max),
        "sum" => Ok(AccountingRule::Sum),
        "in" => Ok(AccountingRule::In),
        "out" => Ok(AccountingRule::Out),
        _ => Err(format!("expected sum, max, in or out, found `{text}`")),
    }
}

fn start(text: &str) -> Result<AccountingStart, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some((unit, rest)) = words.split_first() else {
        return Ok(AccountingStart::default());
    };
    let unit = unit.to_ascii_lowercase();
    let (unit, time) = match (unit.as_str(), rest) {
        ("day", [time]) => (AccountingUnit::Day, time),
        ("week", [day, time]) => {
            let day = number(day, 1..=7, "a day from 1 (Monday) to 7 (Sunday)")?;
            (AccountingUnit::Week { day }, time)
        }
        ("month", [day, time]) => {
            let day = number(day, 1..=28, "a day from 1 to 28")?;
            (AccountingUnit::Month { day }, time)
        }
        _ => {
            return Err(format!(
                "expected day HH:MM, week DAY HH:MM or month DAY HH:MM, found `{text}`"
            ));
        }
    };
    let (hour, minute) = time
        .split_once(':')
        .ok_or_else(|| format!("expected a time HH:MM, found `{time}`"))?;
    Ok(AccountingStart {
        unit,
        hour: number(hour, 0..=23, "an hour from 0 to 23")?,
        minute: number(minute, 0..=59, "a minute from 0 to 59")?,
    })
}

fn number(text: &str, range: std::ops::RangeInclusive<u8>, what: &str) -> Result<u8, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected {what}, found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What C tor 0.4.9.11 says with `--verify-config`.
    #[test]
    fn a_start_is_taken_where_c_tor_takes_it() {
        for good in [
            "month 1 00:00",
            "week 1 5:7",
            "week 7 23:59",
            "Month 1 1:00",
            "day 0:00",
            "day 04:0",
            "day +4:00",
            "month 28 0:00",
            "",
        ] {
            assert!(start(good).is_ok(), "{good}");
        }
        for bad in [
            "month 3",
            "week 8 0:00",
            "week 0 0:00",
            "month 28 24:00",
            "month 29 0:00",
            "month 0 0:00",
            "day",
            "day 12:60",
            "day 1 0:00",
            "month 1 1:00 x",
            "year 1 0:00",
            "week Mon 0:00",
            "day 4:00pm",
            "day -1:00",
            "day 1",
        ] {
            assert!(start(bad).is_err(), "{bad}");
        }
        let week = start("week 3 10:05").unwrap();
        assert_eq!(
            (week.unit, week.hour, week.minute),
            (AccountingUnit::Week { day: 3 }, 10, 5)
        );
    }

    #[test]
    fn each_rule_counts_its_own() {
        for (text, counted) in [("max", 7), ("sum", 12), ("in", 5), ("out", 7)] {
            assert_eq!(rule(text).unwrap().count(5, 7), counted, "{text}");
        }
        assert!(rule("Max").is_err() && rule("total").is_err());
    }
}
