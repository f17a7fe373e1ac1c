//! How often a destination is written to. Cells of thirty clients come mixed: whoever writes each stream's bytes as they come
//! pays a system call, and wakes the destination, for one or two cells of each. So a stream that moves much waits a moment
//! after each write. Knows no socket and no engine.

use std::time::Duration;

/// So long a busy stream's bytes wait for those that follow (our own number): C tor's scheduler may keep a cell for 2 ms at
/// each relay on its way here.
const BETWEEN_WRITES: Duration = Duration::from_millis(3);
/// What is worth a write of its own, and waits for nothing (our own number): 33 cells.
const WORTH_A_WRITE_BYTES: usize = 16 * 1024;
/// What makes a stream busy is counted over such times.
const WINDOW: Duration = Duration::from_millis(64);
/// Half a MiB a second at least: beyond all typing.
const BUSY_BYTES_MIN: usize = 32 * 1024;
/// 16 MiB a second at most: what is faster fills its writes by itself, and would fill the client's window meanwhile.
const BUSY_BYTES_MAX: usize = 1024 * 1024;

/// When a stream wrote, and how much of late.
#[derive(Debug, Default)]
pub struct Pace {
    window_began: Duration,
    window_bytes: usize,
    busy: bool,
    emptied: Option<Duration>,
}

impl Pace {
    /// So many bytes have been written, and whether these were all.
    pub fn note(&mut self, now: Duration, bytes: usize, all: bool) {
        self.roll(now);
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        self.emptied = all.then_some(now);
    }

    /// Until when what waits now is to wait for more. None: it goes at once.
    pub fn holds_until(&mut self, now: Duration, waiting_bytes: usize) -> Option<Duration> {
        self.roll(now);
        if waiting_bytes >= WORTH_A_WRITE_BYTES {
            return None;
        }
        let until = self.emptied? + BETWEEN_WRITES;
        (self.busy && until > now).then_some(until)
    }

    fn roll(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.window_began);
        if passed < WINDOW {
            return;
        }
        // After a pause nobody is busy.
        let followed = passed < WINDOW * 2;
        self.busy = followed && (BUSY_BYTES_MIN..=BUSY_BYTES_MAX).contains(&self.window_bytes);
        (self.window_began, self.window_bytes) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write of so many bytes each millisecond for 200 ms.
    fn after(bytes: usize) -> (Pace, Duration) {
        let (mut pace, mut now) = (Pace::default(), Duration::from_secs(1));
        for _ in 0..200 {
            now += Duration::from_millis(1);
            pace.note(now, bytes, true);
        }
        (pace, now)
    }

    #[test]
    fn a_busy_stream_waits_three_milliseconds_and_no_longer() {
        let (mut pace, now) = after(2_000);
        assert_eq!(pace.holds_until(now, 500), Some(now + BETWEEN_WRITES));
        assert_eq!(pace.holds_until(now + BETWEEN_WRITES, 500), None);
    }

    #[test]
    fn typing_and_torrents_of_bytes_go_at_once() {
        for bytes in [40, 100_000] {
            let (mut pace, now) = after(bytes);
            assert_eq!(pace.holds_until(now, 500), None, "{bytes} a millisecond");
        }
    }

    #[test]
    fn a_busy_stream_whose_bytes_are_worth_a_write_does_not_wait() {
        let (mut pace, now) = after(2_000);
        assert_eq!(pace.holds_until(now, WORTH_A_WRITE_BYTES), None);
        let until = Some(now + BETWEEN_WRITES);
        assert_eq!(pace.holds_until(now, WORTH_A_WRITE_BYTES - 1), until);
    }

    #[test]
    fn what_the_socket_has_not_taken_whole_waits_for_nothing_else() {
        let (mut pace, now) = after(2_000);
        pace.note(now, 2_000, false);
        assert_eq!(pace.holds_until(now, 500), None);
    }

    #[test]
    fn after_a_pause_a_stream_is_not_busy() {
        let (mut pace, now) = after(2_000);
        let later = now + Duration::from_secs(3);
        assert_eq!(pace.holds_until(later, 500), None);
        pace.note(later, 500, true);
        assert_eq!(pace.holds_until(later, 500), None);
    }
}
