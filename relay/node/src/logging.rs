//! The log, in C tor's line style, so that what greps C tor's log greps ours:
//! `Nov 22 12:00:00.000 [notice] Text.` Times are UTC.
//!
//! C tor has five levels and names the middle one notice; ours are `tracing`'s: err = `error!`, warn = `warn!`,
//! notice = `info!`, info = `debug!`, debug = `trace!`. No line at any level names a client or a destination.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_formats::torrc::{LogDestination, LogLine, Severity};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// A log file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("Couldn't open file for 'Log {path}': {error}", path = path.display())]
pub struct LogError {
    /// Which file.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

/// Changes a log that is running.
pub struct LogHandle {
    level: reload::Handle<LevelFilter, Registry>,
    outlets: Outlets,
}

impl LogHandle {
    /// From now on torrc's `lines` say what is written where; files are opened anew, so that they can be rotated.
    ///
    /// # Errors
    /// A file cannot be opened; then nothing has changed.
    pub fn set(&self, lines: &[LogLine]) -> Result<(), LogError> {
        let fresh = open(lines)?;
        *self.outlets.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        // Fails only where the log is gone, and then there is nobody to tell.
        let _ = self.level.modify(|level| *level = least(lines));
        Ok(())
    }
}

/// Starts the log that torrc's `lines` ask for.
///
/// # Errors
/// A file cannot be opened.
pub fn start(lines: &[LogLine]) -> Result<LogHandle, LogError> {
    let outlets = Outlets(Arc::new(RwLock::new(open(lines)?)));
    let (filter, level) = reload::Layer::new(least(lines));
    let layer = tracing_subscriber::fmt::layer()
        .event_format(TorStyle)
        .with_ansi(false)
        .with_writer(outlets.clone());
    // A second start, in tests, keeps the first.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(OursOnly)
        .with(layer)
        .try_init();
    Ok(LogHandle { level, outlets })
}

/// One line to standard output from `from` upwards: the log where torrc says nothing, or is not read yet.
pub fn to_stdout(from: Severity) -> LogLine {
    LogLine {
        from,
        to: Severity::Err,
        destination: LogDestination::Stdout,
    }
}

/// What libraries say of their work may hold names and addresses that clients asked for: no word of theirs passes.
struct OursOnly;

impl<S: Subscriber> Layer<S> for OursOnly {
    fn enabled(&self, line: &Metadata<'_>, _: Context<'_, S>) -> bool {
        line.target().starts_with("relay")
    }
}

/// Where lines go.
#[derive(Clone)]
struct Outlets(Arc<RwLock<Vec<Outlet>>>);

struct Outlet {
    from: Severity,
    to: Severity,
    target: Target,
}

enum Target {
    Stdout,
    Stderr,
    File(File),
}

fn open(lines: &[LogLine]) -> Result<Vec<Outlet>, LogError> {
    let outlet = |line: &LogLine| {
        let target = match &line.destination {
            LogDestination::Stdout => Target::Stdout,
            LogDestination::Stderr => Target::Stderr,
            LogDestination::File(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                Target::File(file.map_err(|error| LogError {
                    path: path.into(),
                    error,
                })?)
            }
        };
        Ok(Outlet {
            from: line.from,
            to: line.to,
            target,
        })
    };
    lines.iter().map(outlet).collect()
}

fn least(lines: &[LogLine]) -> LevelFilter {
    match lines.iter().map(|line| line.from).min() {
        Some(Severity::Debug) => LevelFilter::TRACE,
        Some(Severity::Info) => LevelFilter::DEBUG,
        Some(Severity::Notice) => LevelFilter::INFO,
        Some(Severity::Warn) => LevelFilter::WARN,
        Some(Severity::Err) => LevelFilter::ERROR,
        None => LevelFilter::OFF,
    }
}

/// A line on its way to the outlets that want its severity.
struct OneLine<'a> {
    outlets: &'a Outlets,
    severity: Severity,
}

impl<'a> MakeWriter<'a> for Outlets {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine {
            outlets: self,
            severity: Severity::Notice,
        }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> OneLine<'a> {
        OneLine {
            outlets: self,
            severity: severity(of.level()),
        }
    }
}

impl Write for OneLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outlets = self.outlets.0.read().unwrap_or_else(PoisonError::into_inner);
        for outlet in outlets
            .iter()
            .filter(|outlet| (outlet.from..=outlet.to).contains(&self.severity))
        {
            // A full disk or a closed pipe must not end a relay; there is nowhere to say so either.
            let _ = match &outlet.target {
                Target::Stdout => io::stdout().write_all(bytes),
                Target::Stderr => io::stderr().write_all(bytes),
                Target::File(file) => (&mut &*file).write_all(bytes),
            };
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

fn severity(level: &Level) -> Severity {
    match *level {
        Level::ERROR => Severity::Err,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Notice,
        Level::DEBUG => Severity::Info,
        Level::TRACE => Severity::Debug,
    }
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
            word(severity(event.metadata().level()))
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

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Err => "err",
        Severity::Warn => "warn",
        Severity::Notice => "notice",
        Severity::Info => "info",
        Severity::Debug => "debug",
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
    fn each_outlet_takes_the_severities_it_asked_for_and_a_file_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let line = |from, to, name: &str| LogLine {
            from,
            to,
            destination: LogDestination::File(path(name)),
        };
        let lines = [
            line(Severity::Notice, Severity::Notice, "notice"),
            line(Severity::Info, Severity::Err, "all"),
        ];
        let outlets = Outlets(Arc::new(RwLock::new(open(&lines).unwrap())));
        let say = |severity, text: &str| {
            OneLine {
                outlets: &outlets,
                severity,
            }
            .write_all(text.as_bytes())
            .unwrap();
        };
        say(Severity::Warn, "w");
        say(Severity::Notice, "n");
        say(Severity::Debug, "d");
        std::fs::rename(path("all"), path("all.1")).unwrap();
        *outlets.0.write().unwrap() = open(&lines).unwrap();
        say(Severity::Err, "e");
        let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
        assert_eq!(
            (read("notice"), read("all.1"), read("all")),
            ("n".into(), "wn".into(), "e".into())
        );
        assert!(least(&lines) == LevelFilter::DEBUG);
    }

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
