//! What congestion windows go through, for metrics: means over all circuits, and counts. Nothing per circuit or user.
//!
//! A [`Lesson`] is what one SENDME did to one window; [`CongestionTally`] keeps what all of them did together.

/// How many values the running mean remembers: an older one fades.
const REMEMBERED: u64 = 100;
const THOUSANDTHS: u64 = 1_000;

/// A running mean. Two of them are joined by the number of values that each has seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Mean {
    thousandths: u64,
    values: u64,
}

impl Mean {
    /// Takes one more value in.
    pub fn note(&mut self, value: u64) {
        self.values = (self.values + 1).min(REMEMBERED);
        let value = u128::from(value) * u128::from(THOUSANDTHS);
        self.thousandths = weighted(self.thousandths.into(), self.values - 1, value, 1);
    }

    /// To the nearest whole number; `None` before the first value.
    pub fn rounded(&self) -> Option<u64> {
        (self.values > 0).then(|| self.thousandths.saturating_add(THOUSANDTHS / 2) / THOUSANDTHS)
    }
}

impl std::ops::AddAssign<&Mean> for Mean {
    fn add_assign(&mut self, other: &Mean) {
        let (one, two) = (self.values, other.values);
        self.thousandths = weighted(self.thousandths.into(), one, other.thousandths.into(), two);
        self.values = one + two;
    }
}

fn weighted(one: u128, one_weight: u64, other: u128, other_weight: u64) -> u64 {
    let sum = one * u128::from(one_weight) + other * u128::from(other_weight);
    let mean = sum.checked_div(u128::from(one_weight) + u128::from(other_weight));
    u64::try_from(mean.unwrap_or(0)).unwrap_or(u64::MAX)
}

/// What one SENDME did to one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lesson {
    /// Its round-trip time could not be used: the clock stood still or jumped.
    pub clock_stalled: bool,
    /// The smallest round-trip time was begun anew, as the window had been at its least.
    pub rtt_reset: bool,
    /// What was made of it; none if it was not judged.
    pub step: Option<Step>,
}

/// How a window was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// In slow start, and it stays there.
    SlowStart {
        /// Cells that wait somewhere on the path.
        queue: u64,
    },
    /// Slow start has ended.
    LeftSlowStart {
        /// Cells that wait somewhere on the path.
        queue: u64,
        /// The window that it ends with, cells.
        cwnd: u64,
        /// Cells that fit the path.
        bdp: u64,
        /// What the next step would have been, cells.
        increment: u64,
        /// Why.
        why: Leave,
        /// The window has reached `cc_ss_max`.
        at_max: bool,
    },
    /// In steady state.
    Steady {
        /// Cells that wait somewhere on the path.
        queue: u64,
        /// Cells that fit the path.
        bdp: u64,
        /// What it did.
        signal: SteadySignal,
    },
}

/// Why slow start ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Our own queue is too long.
    Blocked,
    /// Too much waits on the path: the window shrank by so many cells.
    Gamma {
        /// Cells.
        dropped: u64,
    },
    /// Steady state would grow as fast.
    SmallStep,
    /// It has reached `cc_ss_max`.
    Max,
}

/// What steady state did to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteadySignal {
    /// Far too much waits: it shrank by so many cells.
    Delta {
        /// Cells.
        dropped: u64,
    },
    /// Too much waits, or our own queue is too long: one step down.
    Beta {
        /// Our own queue it was.
        blocked: bool,
    },
    /// One step up.
    Alpha,
    /// Nothing.
    None,
}

macro_rules! joined {
    ($(#[$on_all:meta])* pub struct $name:ident { $($(#[$on_one:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$on_all])*
        pub struct $name { $($(#[$on_one])* pub $field: $kind,)* }

        impl std::ops::AddAssign<&$name> for $name {
            fn add_assign(&mut self, other: &$name) {
                $(self.$field += &other.$field;)*
            }
        }
    };
}

joined! {
/// What all windows went through. C tor's names are those of `tor_relay_congestion_control`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CongestionTally {
    /// Window at the end of slow start, cells.
    pub exit_cwnd: Mean,
    /// What fitted the path then.
    pub exit_bdp: Mean,
    /// What the next step would have been then.
    pub exit_increment: Mean,
    /// Window of circuits that end in steady state, cells.
    pub close_cwnd: Mean,
    /// Window of circuits that end in slow start, cells.
    pub close_slow_start_cwnd: Mean,
    /// Bytes that waited for a destination when XON went.
    pub xon_backlog_bytes: Mean,
    /// Bytes that waited for a destination when XOFF went.
    pub xoff_backlog_bytes: Mean,
    /// Of steps down by one, those for our own queue, percent.
    pub blocked_percent: Mean,
    /// Of ends of slow start, those for our own queue, percent.
    pub slow_start_blocked_percent: Mean,
    /// Cells that windows lost at the end of slow start.
    pub gamma_drop: Mean,
    /// Cells that windows lost as far too much waited.
    pub delta_drop: Mean,
    /// Of judgements in steady state, steps up, percent.
    pub alpha_percent: Mean,
    /// Steps down, percent.
    pub beta_percent: Mean,
    /// Falls to delta, percent.
    pub delta_percent: Mean,
    /// Cells that wait on the path, in slow start.
    pub slow_start_queue: Mean,
    /// The same in steady state.
    pub queue: Mean,
    /// Cells that fit the path, in steady state.
    pub bdp: Mean,
    /// Times that the smallest round-trip time was begun anew.
    pub rtt_resets: u64,
    /// Round-trip times that were not used for the clock's sake.
    pub rtts_skipped: u64,
    /// Times that far too much waited.
    pub above_delta: u64,
    /// Times that slow start reached `cc_ss_max`.
    pub above_slow_start_max: u64,
    /// Times that slow start ended as its steps had become small.
    pub below_increment_floor: u64,
    /// Times that slow start ended.
    pub slow_starts_ended: u64,
}
}

impl CongestionTally {
    /// Takes in what one SENDME did.
    pub fn note(&mut self, lesson: &Lesson) {
        self.rtts_skipped += u64::from(lesson.clock_stalled);
        self.rtt_resets += u64::from(lesson.rtt_reset);
        match lesson.step {
            None => {}
            Some(Step::SlowStart { queue }) => self.slow_start_queue.note(queue),
            Some(Step::LeftSlowStart {
                queue,
                cwnd,
                bdp,
                increment,
                why,
                at_max,
            }) => {
                self.slow_start_queue.note(queue);
                self.exit_cwnd.note(cwnd);
                self.exit_bdp.note(bdp);
                self.exit_increment.note(increment);
                self.slow_starts_ended += 1;
                self.above_slow_start_max += u64::from(at_max);
                self.note_end(why);
            }
            Some(Step::Steady { queue, bdp, signal }) => {
                self.queue.note(queue);
                self.bdp.note(bdp);
                self.note_signal(signal);
            }
        }
    }

    fn note_end(&mut self, why: Leave) {
        match why {
            Leave::Blocked => self.slow_start_blocked_percent.note(100),
            Leave::Gamma { dropped } => {
                self.slow_start_blocked_percent.note(0);
                self.gamma_drop.note(dropped);
            }
            Leave::SmallStep => {
                self.slow_start_blocked_percent.note(0);
                self.below_increment_floor += 1;
            }
            Leave::Max => {}
        }
    }

    fn note_signal(&mut self, signal: SteadySignal) {
        let percent = |is: bool| if is { 100 } else { 0 };
        self.alpha_percent.note(percent(signal == SteadySignal::Alpha));
        self.beta_percent
            .note(percent(matches!(signal, SteadySignal::Beta { .. })));
        self.delta_percent
            .note(percent(matches!(signal, SteadySignal::Delta { .. })));
        match signal {
            SteadySignal::Delta { dropped } => {
                self.delta_drop.note(dropped);
                self.above_delta += 1;
            }
            SteadySignal::Beta { blocked } => self.blocked_percent.note(percent(blocked)),
            SteadySignal::Alpha | SteadySignal::None => {}
        }
    }

    /// A circuit ends with this window.
    pub fn note_close(&mut self, cwnd: u64, in_slow_start: bool) {
        match in_slow_start {
            true => self.close_slow_start_cwnd.note(cwnd),
            false => self.close_cwnd.note(cwnd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_nothing_before_its_first_value_and_forgets_old_ones() {
        let mut mean = Mean::default();
        assert_eq!(mean.rounded(), None);
        mean.note(7);
        assert_eq!(mean.rounded(), Some(7));
        mean.note(8);
        assert_eq!(mean.rounded(), Some(8), "7.5 is rounded up");
        for _ in 0..2_000 {
            mean.note(1_000);
        }
        assert_eq!(mean.rounded(), Some(1_000));
    }

    #[test]
    fn shards_that_saw_more_count_for_more_and_those_that_saw_nothing_for_nothing() {
        let (mut one, mut other) = (Mean::default(), Mean::default());
        one.note(10);
        for _ in 0..3 {
            other.note(20);
        }
        one += &other;
        one += &Mean::default();
        assert_eq!(one.rounded(), Some(18), "17.5");
    }

    #[test]
    fn each_lesson_counts_where_it_belongs() {
        let mut tally = CongestionTally::default();
        let steady = |signal| Lesson {
            step: Some(Step::Steady {
                queue: 10,
                bdp: 100,
                signal,
            }),
            ..Lesson::default()
        };
        for signal in [
            SteadySignal::Alpha,
            SteadySignal::Beta { blocked: false },
            SteadySignal::Delta { dropped: 40 },
            SteadySignal::None,
        ] {
            tally.note(&steady(signal));
        }
        tally.note(&Lesson {
            clock_stalled: true,
            ..Lesson::default()
        });
        assert_eq!((tally.above_delta, tally.rtts_skipped), (1, 1));
        assert_eq!(
            (tally.alpha_percent.rounded(), tally.delta_drop.rounded()),
            (Some(25), Some(40))
        );
        assert_eq!(
            (tally.blocked_percent.rounded(), tally.bdp.rounded()),
            (Some(0), Some(100))
        );
        assert_eq!(tally.exit_cwnd.rounded(), None);
        tally.note(&Lesson {
            step: Some(Step::LeftSlowStart {
                queue: 5,
                cwnd: 600,
                bdp: 400,
                increment: 31,
                why: Leave::Blocked,
                at_max: true,
            }),
            ..Lesson::default()
        });
        assert_eq!((tally.slow_starts_ended, tally.above_slow_start_max), (1, 1));
        assert_eq!(tally.slow_start_blocked_percent.rounded(), Some(100));
        assert_eq!(tally.gamma_drop.rounded(), None, "no cell was lost to gamma");
    }
}
