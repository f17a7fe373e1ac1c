//! Single values: switches, amounts of bytes, lengths of time.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

/// `0` or `1`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("expected 0 or 1, found `{text}`")),
    }
}

/// More threads than that are surely a slip of the pen (our own number).
const CPUS_MAX: u16 = 512;

/// How many processors to use; 0 leaves it to the process.
pub(super) fn cpus(text: &str) -> Result<Option<NonZeroU16>, String> {
    match text.parse() {
        Ok(cpus) if cpus <= CPUS_MAX => Ok(NonZeroU16::new(cpus)),
        _ => Err(format!(
            "expected 0 (as many as there are) to {CPUS_MAX}, found `{text}`"
        )),
    }
}

/// `0`, `1` or `auto` (None).
pub(super) fn switch_or_auto(text: &str) -> Result<Option<bool>, String> {
    match text {
        _ if text.eq_ignore_ascii_case("auto") => Ok(None),
        "0" | "1" => switch(text).map(Some),
        _ => Err(format!("expected 0, 1 or auto, found `{text}`")),
    }
}

/// An amount of bytes: a number, perhaps with a fraction, and a unit; none means bytes.
/// A kilobyte has 1,024 bytes, a kilobit 128 (C tor, `unitparse.c`).
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text)?;
    let unit = unit.to_ascii_lowercase();
    let stem = unit.strip_suffix('s').unwrap_or(&unit);
    let factor: u64 = match stem {
        "" | "b" | "byte" => 1,
        "kb" | "kbyte" | "kilobyte" => 1 << 10,
        "m" | "mb" | "mbyte" | "megabyte" => 1 << 20,
        "gb" | "gbyte" | "gigabyte" => 1 << 30,
        "tb" | "tbyte" | "terabyte" => 1 << 40,
        "kbit" | "kilobit" => 1 << 7,
        "mbit" | "megabit" => 1 << 17,
        "gbit" | "gigabit" => 1 << 27,
        "tbit" | "terabit" => 1 << 37,
        _ => {
            return Err(format!(
                "`{unit}` is no unit of bytes: bytes, KBytes, MBytes, GBytes, KBits, MBits, ..."
            ));
        }
    };
    number.times(factor).ok_or_else(|| format!("`{text}` is too much"))
}

/// A length of time: a number, perhaps with a fraction, and a unit; none means seconds.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text)?;
    let unit = unit.to_ascii_lowercase();
    let seconds: u64 = match unit.strip_suffix('s').unwrap_or(&unit) {
        "" | "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 604_800,
        // A twelfth of a year of 365.2422 days.
        "month" => 2_629_728,
        _ => {
            return Err(format!(
                "`{unit}` is no unit of time: seconds, minutes, hours, days, weeks, months"
            ));
        }
    };
    let seconds = number.times(seconds).filter(|seconds| *seconds <= i32::MAX as u64);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// An IP address; IPv6 may stand in brackets.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .map_err(|_| format!("expected an IP address, found `{text}`"))
}

/// A decimal number, exact: `digits / 10^decimals`.
struct Number {
    digits: u64,
    decimals: u32,
}

impl Number {
    fn times(&self, factor: u64) -> Option<u64> {
        let product = u128::from(self.digits) * u128::from(factor) / 10_u128.pow(self.decimals);
        u64::try_from(product).ok()
    }
}

fn number_and_unit(text: &str) -> Result<(Number, &str), String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let wrong = || format!("expected a number and perhaps a unit, found `{text}`");
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(wrong());
    }
    let digits = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
    let decimals = u32::try_from(fraction.len()).map_err(|_| wrong())?;
    Ok((Number { digits, decimals }, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_many_units() {
        for (text, amount) in [
            ("0", 0),
            ("75 KBytes", 76_800),
            ("75kb", 76_800),
            ("1.5 MB", 1_572_864),
            ("1 GByte", 1 << 30),
            ("8 kbits", 1_024),
            ("100 Mbit", 13_107_200),
            ("20 Bytes", 20),
            ("2 TBytes", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(amount), "{text}");
        }
        for text in [
            "",
            "KB",
            "-1",
            "1 parsec",
            "1.2.3",
            "99999999999999999999",
            "9999999999 TB",
            "0x10",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn time_comes_in_many_units() {
        for (text, seconds) in [
            ("30", 30),
            ("1 minute", 60),
            ("2 Hours", 7_200),
            ("30 days", 2_592_000),
            ("0.5 weeks", 302_400),
            ("1 month", 2_629_728),
        ] {
            assert_eq!(interval(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "day", "1 fortnight", "1 msec", "100 years", "2000 months"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_switch_is_0_or_1() {
        assert_eq!((switch("0"), switch("1")), (Ok(false), Ok(true)));
        assert!(switch("yes").is_err() && switch("auto").is_err());
        assert_eq!(switch_or_auto("Auto"), Ok(None));
    }
}
