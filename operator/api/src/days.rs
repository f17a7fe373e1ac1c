//! `7d`: a span of time in whole days, with its unit.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// 1 to 999 days. Written `7d`, and reads back so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Days(u16);

/// The text is no number of days.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no number of days from 1 to 999: write for example 7d")]
pub struct BadDays(String);

impl Days {
    /// For defaults.
    #[must_use]
    pub const fn new(days: u16) -> Self {
        Self(days)
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u16 {
        self.0
    }

    /// The same as a span.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 86_400)
    }
}

impl FromStr for Days {
    type Err = BadDays;
    fn from_str(text: &str) -> Result<Self, BadDays> {
        let bad = || BadDays(text.to_owned());
        let digits = text.strip_suffix('d').ok_or_else(bad)?;
        let plain = (1..=3).contains(&digits.len()) && !digits.starts_with(['0', '+']);
        let days = digits.parse().map_err(|_| bad())?;
        plain.then_some(Self(days)).ok_or_else(bad)
    }
}

impl TryFrom<String> for Days {
    type Error = BadDays;
    fn try_from(text: String) -> Result<Self, BadDays> {
        text.parse()
    }
}

impl From<Days> for String {
    fn from(days: Days) -> Self {
        days.to_string()
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}d", self.0)
    }
}

/// A CEL expression that holds if the days at `path` are between two bounds; true also for what is no number of days.
pub(crate) fn cel_between(path: &str, min: u16, max: u16) -> String {
    let count = format!("int({path}.find('^[0-9]+'))");
    format!("!{path}.matches('^[1-9][0-9]{{0,2}}d$') || ({count} >= {min} && {count} <= {max})")
}

impl JsonSchema for Days {
    fn schema_name() -> Cow<'static, str> {
        "Days".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 4,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[1-9][0-9]{0,2}d$')",
                "message": "write a whole number of days, for example 7d",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_unit_and_read_back_as_written() {
        let week: Days = serde_json::from_str("\"7d\"").unwrap();
        assert_eq!(week.duration(), Duration::from_secs(604_800));
        assert_eq!(serde_json::to_string(&week).unwrap(), "\"7d\"");
        for doubtful in ["7", "0d", "07d", "1.5d", "1000d", "d", "-1d", "+1d", "7D"] {
            assert!(doubtful.parse::<Days>().is_err(), "{doubtful}");
        }
    }
}
