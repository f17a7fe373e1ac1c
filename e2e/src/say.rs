//! What the person in front of the terminal reads: one line a step, with the seconds since the start.

use std::io::Write;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// Seconds since the run began. A shell wrapper that began earlier hands its start, in seconds since 1970 with a
/// fraction, in `RELAYFLEET_STARTED`.
pub fn elapsed() -> Duration {
    START.get_or_init(start).elapsed()
}

fn start() -> Instant {
    let now = Instant::now();
    earlier_start()
        .and_then(|earlier| now.checked_sub(earlier))
        .unwrap_or(now)
}

fn earlier_start() -> Option<Duration> {
    let began: f64 = std::env::var("RELAYFLEET_STARTED").ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    now.checked_sub(Duration::try_from_secs_f64(began).ok()?)
}

/// One step, with its time: `[  12.3 s] three authorities agree`.
pub fn step(text: impl AsRef<str>) {
    plain(format!("[{:6.1} s] {}", elapsed().as_secs_f64(), text.as_ref()));
}

/// Plain text for standard output. A reader that went away is no error of ours.
pub fn plain(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.as_ref().trim_end());
    let _ = out.flush();
}
