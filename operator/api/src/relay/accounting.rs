//! How much a relay may carry in a day, a week or a month.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::byte_size::ByteSize;

/// How much the relay may carry in each interval. When it is spent the relay takes no more circuits until the next
/// interval begins.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Accounting {
    /// The amount for one interval (AccountingMax), with its unit: `500GB` (1000-based) or `10TiB` (1024-based).
    pub max: ByteSize,

    /// Which bytes are counted (AccountingRule). `Max`, the default: the greater of bytes read and bytes written. `Sum`: both
    /// together. `In`: bytes read. `Out`: bytes written.
    #[serde(default)]
    pub rule: AccountingRule,

    /// When an interval begins (AccountingStart).
    #[serde(default)]
    pub start: AccountingStart,
}

/// Which bytes count against the amount.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum AccountingRule {
    /// The greater of bytes read and bytes written.
    #[default]
    Max,
    /// Bytes read and bytes written together.
    Sum,
    /// Bytes read.
    In,
    /// Bytes written.
    Out,
}

/// The beginning of an interval, in the time zone of the relay's container: UTC.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::accounting_day_fits())]
pub struct AccountingStart {
    /// `Month`, `Week` or `Day`.
    #[serde(default)]
    pub every: AccountingInterval,

    /// Day of the month, 1 to 28, or of the week, 1 (Monday) to 7; none with `every: Day`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 28))]
    pub day: Option<i32>,

    /// Time of day: `00:00` to `23:59`.
    #[serde(default = "midnight")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = rules::time_of_day())]
    pub time: String,
}

/// How long an interval is.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum AccountingInterval {
    /// From one day of the month to the same of the next.
    #[default]
    Month,
    /// Seven days.
    Week,
    /// One day.
    Day,
}

fn midnight() -> String {
    "00:00".to_owned()
}

impl Default for AccountingStart {
    fn default() -> Self {
        Self {
            every: AccountingInterval::Month,
            day: None,
            time: midnight(),
        }
    }
}
