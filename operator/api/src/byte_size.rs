//! `500GB`, `10TiB`: an amount of bytes that says its unit. See [`crate::byte_rate`] for why a bare `T` is refused.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Bytes in one of each unit.
const UNITS: [(&str, u64); 6] = [
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The form that [`ByteSize`] reads, as a regular expression (RE2) without anchors.
const FORM: &str = "[1-9][0-9]{0,5}(MB|GB|TB|MiB|GiB|TiB)";

/// A whole number of units: 1 MB to 999999 TiB, so that it fits into 63 bits. Its text is kept as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize {
    text: String,
    bytes: u64,
}

/// The text is no whole number from 1 to 999999 with a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?}: write a whole number from 1 to 999999 and a unit, for example 500GB (1000-based) or 10TiB (1024-based)"
)]
pub struct BadByteSize(String);

impl ByteSize {
    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl FromStr for ByteSize {
    type Err = BadByteSize;
    fn from_str(text: &str) -> Result<Self, BadByteSize> {
        let bad = || BadByteSize(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if !(1..=6).contains(&digits) || number.starts_with('0') {
            return Err(bad());
        }
        let (_, unit_size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let count: u64 = number.parse().map_err(|_| bad())?;
        Ok(Self {
            text: text.to_owned(),
            bytes: count * unit_size,
        })
    }
}

impl TryFrom<String> for ByteSize {
    type Error = BadByteSize;
    fn try_from(text: String) -> Result<Self, BadByteSize> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.text
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 16,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('^{FORM}$')"),
                "message": "write a whole number and a unit, for example 500GB (1000-based) or 10TiB (1024-based)",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_binary_units_stay_apart() {
        let bytes = |text: &str| text.parse::<ByteSize>().unwrap().bytes();
        assert_eq!(bytes("10TB"), 10_000_000_000_000);
        assert_eq!(bytes("10TiB"), 10_995_116_277_760);
        assert_eq!(bytes("999999TiB"), 999_999 << 40);
        assert!(i64::try_from(bytes("999999TiB")).is_ok());
    }

    #[test]
    fn what_leaves_room_for_doubt_is_refused() {
        for doubtful in [
            "10",
            "10T",
            "10Ti",
            "10 TB",
            "1.5TB",
            "10tb",
            "0TB",
            "01TB",
            "1000000TB",
            "",
            "TB",
            "10TB/s",
        ] {
            assert!(doubtful.parse::<ByteSize>().is_err(), "{doubtful}");
        }
    }
}
