//! The torrc lines of `spec.accounting`.

use operator_api::{Accounting, AccountingInterval, AccountingRule};

/// `AccountingMax`, `AccountingRule` and `AccountingStart`.
#[must_use]
pub fn accounting_lines(accounting: &Accounting) -> Vec<String> {
    let start = &accounting.start;
    let rule = match accounting.rule {
        AccountingRule::Max => "max",
        AccountingRule::Sum => "sum",
        AccountingRule::In => "in",
        AccountingRule::Out => "out",
    };
    let day = start.day.unwrap_or(1);
    let begins = match start.every {
        AccountingInterval::Month => format!("month {day} {}", start.time),
        AccountingInterval::Week => format!("week {day} {}", start.time),
        AccountingInterval::Day => format!("day {}", start.time),
    };
    vec![
        format!("AccountingMax {} bytes", accounting.max.bytes()),
        format!("AccountingRule {rule}"),
        format!("AccountingStart {begins}"),
    ]
}
