//! Times as Tor's documents and the state file write them: `YYYY-MM-DD HH:MM:SS`, UTC.

use std::time::{Duration, SystemTime};

const DAY_SECONDS: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01, in the Gregorian calendar.
const DAYS_BEFORE_1970: u64 = 719_468;
/// Days in 400 years.
const DAYS_PER_ERA: u64 = 146_097;

/// `2026-11-22 06:11:34`; what is before 1970 becomes 1970, what is below a second is dropped.
pub fn format(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The same back; years 1970 to 9999. A leap second (60) counts as the second after it.
pub fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let plausible = year >= 1970 && (1..=12).contains(&month) && hour < 24 && minute < 60 && second <= 60;
    if !plausible || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let seconds = days(year, month, day) * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Three numbers of just so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut words = text.split(between);
    let mut number = |length: usize| {
        let word = words.next()?;
        let plain = word.len() == length && word.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| word.parse().ok()).flatten()
    };
    let [one, two, three] = digits;
    let found = [number(one)?, number(two)?, number(three)?];
    words.next().is_none().then_some(found)
}

fn days_in(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970. Years begin in March here, so that the leap day is the last one.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - DAYS_BEFORE_1970
}

fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_327_894, "2026-11-22 06:11:34"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (253_402_300_799, "9999-12-31 23:59:59"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(format(time), text);
            assert_eq!(parse(text), Some(time));
        }
    }

    #[test]
    fn every_day_of_five_centuries_comes_back() {
        for day in 0..200_000 {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY_SECONDS + 3_661);
            assert_eq!(parse(&format(time)), Some(time));
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2026-11-22",
            "2026-02-29 00:00:00",
            "2026-13-01 00:00:00",
            "2026-1-01 00:00:00",
            "1969-12-31 23:59:59",
            "2026-11-22 24:00:00",
            "2026-11-22 00:00:00 x",
            "2026-00-10 00:00:00",
            "2026-11-00 00:00:00",
            "+026-11-22 00:00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
