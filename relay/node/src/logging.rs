//! The log, in C tor's line style, so that what greps C tor's log greps ours:
//! `Nov 22 12:00:00.000 [notice] Text.` Times are UTC.
//!
//! C tor has five levels and names the middle one notice; ours are `tracing`'s: err = `error!`, warn = `warn!`,
//! notice = `info!`, info = `debug!`, debug = `trace!`. No line at any level names a client or a destination.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// Changes the level of a log that is running.
pub struct LogHandle(reload::Handle<LevelFilter, Registry>);

impl LogHandle {
    /// From now on lines of `level` and graver are written.
    pub fn set(&self, level: LevelFilter) {
        // Fails only where the log is gone, and then there is nobody to tell.
        let _ = self.0.modify(|filter| *filter = level);
    }
}

/// Starts the log on standard output.
pub fn start(level: LevelFilter) -> LogHandle {
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer().event_format(TorStyle).with_ansi(false);
    // A second start, in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    LogHandle(handle)
}

struct TorStyle;

impl<S, N> FormatEvent<S, N> for TorStyle
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(
            writer,
            "{} [{}] ",
            stamp(SystemTime::now()),
            word(event.metadata().level())
        )?;
        if let Some(span) = context.lookup_current()
            && let Some(fields) = span.extensions().get::<FormattedFields<N>>()
        {
            write!(writer, "{}: ", fields.fields)?;
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn word(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "err",
        Level::WARN => "warn",
        Level::INFO => "notice",
        Level::DEBUG => "info",
        Level::TRACE => "debug",
    }
}

/// `Nov 22 12:00:00.000`, UTC.
fn stamp(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (month, day) = month_and_day(days);
    let name = MONTHS.get(month).copied().unwrap_or_default();
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!(
        "{name} {day:02} {hour:02}:{minute:02}:{second:02}.{:03}",
        since.subsec_millis()
    )
}

/// Month (0 to 11) and day (from 1) of a day counted from 1970. The year is counted from March, so that the leap day is its last.
fn month_and_day(days: u64) -> (usize, u64) {
    // Days since 1 March 0000 within 400 years, which have 146,097 days.
    let in_era = (days + 719_468) % 146_097;
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    (((from_march + 2) % 12) as usize, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_as_c_tors_does() {
        let at = |seconds, millis| stamp(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis));
        assert_eq!(at(1_795_348_800, 7), "Nov 22 12:00:00.007");
        assert_eq!(at(951_782_399, 999), "Feb 28 23:59:59.999");
        assert_eq!(at(951_782_400, 0), "Feb 29 00:00:00.000");
        assert_eq!(at(951_868_800, 0), "Mar 01 00:00:00.000");
        assert_eq!(at(0, 0), "Jan 01 00:00:00.000");
    }
}
