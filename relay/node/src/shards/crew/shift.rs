//! What a thread makes of its time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a thread does with its time, window by window.
pub(super) struct Shift {
    window: Duration,
    began: Instant,
    used: Duration,
    waited: Duration,
    /// Since it began.
    pub(super) rounds: u32,
}

/// In thousandths of the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// Time on a processor.
    pub(super) used: u32,
    /// Time in which it wanted none.
    pub(super) waited: u32,
}

impl Shift {
    pub(super) fn begin(window: Duration) -> Self {
        Self {
            window,
            began: Instant::now(),
            used: thread_time(),
            waited: Duration::ZERO,
            rounds: 0,
        }
    }

    /// A round later, before which it waited so long; the window's sums when that has ended.
    pub(super) fn note(&mut self, waited: Duration) -> Option<Spent> {
        self.waited += waited;
        self.rounds += 1;
        let past = self.began.elapsed();
        if past < self.window {
            return None;
        }
        let share = |part: Duration| (part.as_micros() * 1_000 / past.as_micros().max(1)) as u32;
        let used = thread_time();
        let spent = Spent {
            used: share(used.saturating_sub(self.used)),
            waited: share(self.waited),
        };
        (self.began, self.used, self.waited) = (Instant::now(), used, Duration::ZERO);
        Some(spent)
    }
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
