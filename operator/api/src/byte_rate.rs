//! `10MiB/s`, `100Mbit/s`: a rate that says its unit.
//!
//! A bare number or a bare `M` is refused: reading TB as TiB has already cost relay operators their traffic quota.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Bytes per second in one of each unit. Sorted as people read them; the API server gets the same table (`CEL_UNITS`).
const UNITS: [(&str, u64); 9] = [
    ("kB/s", 1_000),
    ("MB/s", 1_000_000),
    ("GB/s", 1_000_000_000),
    ("KiB/s", 1 << 10),
    ("MiB/s", 1 << 20),
    ("GiB/s", 1 << 30),
    ("kbit/s", 125),
    ("Mbit/s", 125_000),
    ("Gbit/s", 125_000_000),
];

/// The form that [`ByteRate`] reads, as a regular expression (RE2) without anchors.
const FORM: &str = "[1-9][0-9]{0,8}(kB|MB|GB|KiB|MiB|GiB|kbit|Mbit|Gbit)/s";

/// Below this a relay is of no use to the network; C tor refuses to start with less (`RELAY_REQUIRED_MIN_BANDWIDTH`).
pub const RELAY_RATE_MIN: u64 = 75 * 1024;
/// C tor holds rates in a signed 32-bit number (`ROUTER_MAX_DECLARED_BANDWIDTH`).
pub const RELAY_RATE_MAX: u64 = i32::MAX as u64;

/// A whole number of units per second. Its text is kept as written, so that what was applied reads back unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteRate {
    text: String,
    bytes_per_second: u64,
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadByteRate {
    /// No unit of ours at the end.
    #[error("{0:?} has no unit we know: write for example 10MiB/s, 10MB/s or 100Mbit/s")]
    Unit(String),
    /// The part before the unit is no whole number from 1 to 999999999.
    #[error("{0:?} does not begin with a whole number from 1 to 999999999")]
    Number(String),
}

impl ByteRate {
    /// Bytes per second, 125 (`1kbit/s`) or more.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }
}

impl FromStr for ByteRate {
    type Err = BadByteRate;
    fn from_str(text: &str) -> Result<Self, BadByteRate> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_size = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
        let unit_size = unit_size.ok_or_else(|| BadByteRate::Unit(text.to_owned()))?;
        let bad_number = || BadByteRate::Number(text.to_owned());
        if !(1..=9).contains(&digits) || number.starts_with('0') {
            return Err(bad_number());
        }
        let count: u64 = number.parse().map_err(|_| bad_number())?;
        Ok(Self {
            text: text.to_owned(),
            bytes_per_second: count * unit_size,
        })
    }
}

impl TryFrom<String> for ByteRate {
    type Error = BadByteRate;
    fn try_from(text: String) -> Result<Self, BadByteRate> {
        text.parse()
    }
}

impl From<ByteRate> for String {
    fn from(rate: ByteRate) -> Self {
        rate.text
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A CEL expression for the bytes per second of the rate at `path`; only sound where [`cel_form`] holds.
pub(crate) fn cel_bytes(path: &str) -> String {
    let units: Vec<String> = UNITS.iter().map(|(name, size)| format!("'{name}': {size}")).collect();
    format!(
        "(int({path}.find('^[0-9]+')) * {{{}}}[{path}.find('[A-Za-z/]+$')])",
        units.join(", ")
    )
}

/// A CEL expression that holds if the text at `path` is a rate.
pub(crate) fn cel_form(path: &str) -> String {
    format!("{path}.matches('^{FORM}$')")
}

impl JsonSchema for ByteRate {
    fn schema_name() -> Cow<'static, str> {
        "ByteRate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 16,
            "x-kubernetes-validations": [{
                "rule": cel_form("self"),
                "message": "write a whole number and a unit per second, for example 10MiB/s, 10MB/s or 100Mbit/s",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> u64 {
        text.parse::<ByteRate>().unwrap().bytes_per_second()
    }

    #[test]
    fn decimal_binary_and_bit_units_stay_apart() {
        assert_eq!(bytes("10MB/s"), 10_000_000);
        assert_eq!(bytes("10MiB/s"), 10_485_760);
        assert_eq!(bytes("100Mbit/s"), 12_500_000);
        assert_eq!(bytes("75KiB/s"), RELAY_RATE_MIN);
    }

    #[test]
    fn a_rate_reads_back_as_it_was_written() {
        let rate: ByteRate = serde_json::from_str("\"100Mbit/s\"").unwrap();
        assert_eq!(serde_json::to_string(&rate).unwrap(), "\"100Mbit/s\"");
    }

    #[test]
    fn what_leaves_room_for_doubt_is_refused() {
        for doubtful in ["10", "10M", "10Mi", "10 MB/s", "1.5MB/s", "10mb/s", "10MB", "", "MB/s"] {
            assert!(doubtful.parse::<ByteRate>().is_err(), "{doubtful}");
        }
        for number in ["0MB/s", "01MB/s", "1234567890MB/s"] {
            assert_eq!(number.parse::<ByteRate>(), Err(BadByteRate::Number(number.into())));
        }
    }

    #[test]
    fn the_form_for_the_api_server_names_every_unit() {
        for (name, _) in UNITS {
            let unit = name.strip_suffix("/s").unwrap();
            assert!(
                FORM.contains(&format!("({unit}|"))
                    || FORM.contains(&format!("|{unit}|"))
                    || FORM.contains(&format!("|{unit})"))
            );
        }
    }
}
