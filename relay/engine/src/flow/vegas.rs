//! Vegas: how many cells may be under way on a circuit with congestion control (proposal 324 3.3, as C tor 0.4.9 runs it).
//!
//! Owns the window of one circuit. Takes cells sent, SENDMEs with their round-trip times, and whether our own queue towards
//! the client is too long; gives the room that is left. Knows no tags: those are [`CircuitFlow`](super::CircuitFlow)'s.
//!
//! ```text
//! bdp = cwnd · min_rtt / ewma_rtt          cells that fit the path
//! queue = cwnd − bdp                       cells that wait somewhere on it
//!
//! SlowStart --queue ≥ γ, blocked, step too small, or cwnd ≥ ss_max--> Steady
//! Steady: queue > δ: to bdp + δ;  > β or blocked: one step down;  < α and window in use: one step up
//! ```

use std::time::Duration;

use super::circuit::Backlog;
use super::error::FlowError;
use super::lesson::{Leave, Lesson, SteadySignal, Step};
use super::parameters::VegasParameters;

/// An RTT that differs from the smoothed one by more than this tells of a clock, not of a network (C tor
/// `DELTA_DISCREPENCY_RATIO_MAX`).
const CLOCK_JUMP_RATIO: u64 = 5_000;

/// The window of one circuit.
#[derive(Debug, Clone)]
pub struct Vegas {
    parameters: VegasParameters,
    cwnd: u64,
    inflight: u64,
    in_slow_start: bool,
    /// Has the window been full lately? One that nobody uses must not grow (bug 40732).
    cwnd_full: bool,
    blocked: bool,
    /// SENDMEs until the window is judged again in steady state.
    until_update: u64,
    /// SENDMEs until a whole window has been acknowledged.
    until_whole_window: u64,
    rtt: RoundTrip,
    bdp: u64,
    /// What the last SENDME did.
    lesson: Lesson,
}

/// Round-trip times in microseconds; 0 is none yet.
#[derive(Debug, Clone, Copy, Default)]
struct RoundTrip {
    smoothed: u64,
    smallest: u64,
    /// The clock stood still at the last measurement.
    clock_stalled: bool,
}

impl Vegas {
    /// At the circuit's birth.
    pub fn new(parameters: VegasParameters) -> Self {
        Self {
            parameters,
            cwnd: parameters.cwnd_init,
            inflight: 0,
            in_slow_start: true,
            cwnd_full: false,
            blocked: false,
            until_update: 1,
            until_whole_window: 0,
            rtt: RoundTrip::default(),
            bdp: parameters.cwnd_init,
            lesson: Lesson::default(),
        }
    }

    /// DATA cells that may go now. 0 while a shrunken window is still overfull.
    pub fn room_cells(&self) -> u64 {
        self.cwnd.saturating_sub(self.inflight)
    }

    /// Cells that may go until so many more SENDMEs are due.
    pub(super) fn cells_of_sendmes(&self, sendmes: usize) -> u64 {
        let increment = self.parameters.sendme_inc.max(1);
        (sendmes as u64 * increment).saturating_sub(self.inflight % increment)
    }

    /// The window, in cells.
    pub fn cwnd_cells(&self) -> u64 {
        self.cwnd
    }

    /// Cells sent and not acknowledged.
    pub fn inflight_cells(&self) -> u64 {
        self.inflight
    }

    /// Whether the window still doubles.
    pub fn in_slow_start(&self) -> bool {
        self.in_slow_start
    }

    /// The smoothed round-trip time; `None` before the first measurement. Conflux chooses legs by it.
    pub fn rtt(&self) -> Option<Duration> {
        (self.rtt.smoothed > 0).then(|| Duration::from_micros(self.rtt.smoothed))
    }

    /// What the last SENDME did to the window, for metrics.
    pub fn lesson(&self) -> &Lesson {
        &self.lesson
    }

    /// Notes a DATA cell that goes; true if it is one that a SENDME will answer. The window may be full: it can shrink after
    /// the leave to read was given, and what was read then must still go, as with C tor.
    pub(super) fn on_sent(&mut self) -> bool {
        self.inflight += 1;
        self.inflight.is_multiple_of(self.parameters.sendme_inc)
    }

    /// Takes a SENDME whose tag was right. `rtt` is the time since its cell went.
    pub(super) fn on_sendme(&mut self, rtt: Duration, backlog: Backlog) -> Result<(), FlowError> {
        let acknowledged = self
            .inflight
            .checked_sub(self.parameters.sendme_inc)
            .ok_or(FlowError::UnexpectedSendme)?;
        self.lesson = Lesson::default();
        self.until_update = self.until_update.saturating_sub(1);
        self.until_whole_window = self.until_whole_window.saturating_sub(1);
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        if self.estimate(micros, backlog) {
            self.judge();
        }
        self.inflight = acknowledged;
        Ok(())
    }

    fn judge(&mut self) {
        let queue = self.cwnd.saturating_sub(self.bdp);
        self.note_fullness();
        if self.in_slow_start {
            self.lesson.step = Some(self.slow_start(queue));
        } else if self.until_update == 0 {
            let (bdp, signal) = (self.bdp, self.steady(queue));
            self.lesson.step = Some(Step::Steady { queue, bdp, signal });
        }
        self.cwnd = self.cwnd.clamp(self.parameters.cwnd_min, self.parameters.cwnd_max);
        self.rearm();
    }

    fn note_fullness(&mut self) {
        let p = &self.parameters;
        if self.inflight.saturating_add(p.cwnd_full_gap * p.sendme_inc) >= self.cwnd {
            self.cwnd_full = true;
        } else if self.inflight.saturating_mul(100) < p.cwnd_full_minpct.saturating_mul(self.cwnd) {
            self.cwnd_full = false;
        }
    }

    fn slow_start(&mut self, queue: u64) -> Step {
        let before = self.cwnd;
        let mut why = None;
        if queue >= self.parameters.gamma || self.blocked {
            self.cwnd = self.bdp.saturating_add(self.parameters.gamma);
            let dropped = before.saturating_sub(self.cwnd);
            why = Some(if self.blocked {
                Leave::Blocked
            } else {
                Leave::Gamma { dropped }
            });
        } else if self.cwnd_full {
            let step = self.slow_start_step();
            self.cwnd = self.cwnd.saturating_add(step);
            // No faster than steady state would be: nothing is left to gain here.
            let steady = self.parameters.cwnd_inc * self.parameters.cwnd_inc_rate;
            why = (step.saturating_mul(self.sendmes_per_window()) <= steady).then_some(Leave::SmallStep);
        }
        let at_max = self.cwnd >= self.parameters.ss_max;
        if at_max {
            self.cwnd = self.parameters.ss_max;
            why = why.or(Some(Leave::Max));
        }
        let Some(why) = why else {
            return Step::SlowStart { queue };
        };
        self.in_slow_start = false;
        Step::LeftSlowStart {
            queue,
            cwnd: self.cwnd,
            bdp: self.bdp,
            increment: self.slow_start_step(),
            why,
            at_max,
        }
    }

    /// Limited slow start (RFC 3742): doubling each round trip up to the cap, slower beyond (bug 40642).
    fn slow_start_step(&self) -> u64 {
        let p = &self.parameters;
        if self.cwnd <= p.ss_cap {
            return (p.cwnd_inc_pct_ss * p.sendme_inc + 50) / 100;
        }
        let step = (p.sendme_inc * p.ss_cap)
            .saturating_add(self.cwnd)
            .checked_div(self.cwnd.saturating_mul(2));
        step.unwrap_or(0).max(1)
    }

    fn steady(&mut self, queue: u64) -> SteadySignal {
        let p = &self.parameters;
        let before = self.cwnd;
        if queue > p.delta {
            self.cwnd = self.bdp.saturating_add(p.delta).saturating_sub(p.cwnd_inc);
            let dropped = before.saturating_sub(self.cwnd);
            SteadySignal::Delta { dropped }
        } else if queue > p.beta || self.blocked {
            self.cwnd = self.cwnd.saturating_sub(p.cwnd_inc);
            let blocked = self.blocked;
            SteadySignal::Beta { blocked }
        } else if self.cwnd_full && queue < p.alpha {
            self.cwnd = self.cwnd.saturating_add(p.cwnd_inc);
            SteadySignal::Alpha
        } else {
            SteadySignal::None
        }
    }

    /// Winds the counters up again, and forgets fullness when its time has come.
    fn rearm(&mut self) {
        if self.until_whole_window == 0 {
            self.until_whole_window = self.sendmes_per_window();
        }
        if self.until_update == 0 {
            self.until_update = self.sendmes_per_update();
        }
        let time_to_forget = if self.parameters.cwnd_full_per_cwnd {
            self.until_whole_window == self.sendmes_per_window()
        } else {
            self.until_update == self.sendmes_per_update()
        };
        self.cwnd_full &= !time_to_forget;
    }

    fn sendmes_per_window(&self) -> u64 {
        rounded(self.cwnd, self.parameters.sendme_inc)
    }

    /// In steady state `cwnd_inc_rate` times a window; 0 means at each SENDME.
    fn sendmes_per_update(&self) -> u64 {
        if self.in_slow_start {
            1
        } else {
            rounded(self.cwnd, self.parameters.cwnd_inc_rate * self.parameters.sendme_inc)
        }
    }

    /// Takes a measurement in; false if there is nothing to judge by.
    fn estimate(&mut self, rtt: u64, backlog: Backlog) -> bool {
        let measured = self.measure(rtt);
        if self.rtt.smoothed == 0 {
            // No clock since birth: only our own queue tells anything.
            let queued = if backlog.blocked { backlog.cells } else { 0 };
            self.bdp = self.cwnd.saturating_sub(queued).max(self.parameters.cwnd_min);
            self.blocked = backlog.blocked;
            return backlog.blocked;
        }
        let bdp = u128::from(self.cwnd) * u128::from(self.rtt.smallest) / u128::from(self.rtt.smoothed);
        self.bdp = u64::try_from(bdp).unwrap_or(u64::MAX);
        if backlog.blocked != self.blocked {
            self.blocked = backlog.blocked;
            self.until_update = 0;
        }
        measured || backlog.blocked
    }

    fn measure(&mut self, rtt: u64) -> bool {
        if self.clock_is_odd(rtt) {
            self.lesson.clock_stalled = true;
            return false;
        }
        let count = self.smoothing_count();
        let at_minimum = !self.in_slow_start && self.cwnd == self.parameters.cwnd_min;
        let times = &mut self.rtt;
        times.smoothed = smooth(rtt, times.smoothed, count);
        if times.smallest == 0 {
            times.smallest = times.smoothed;
        } else if at_minimum {
            // One freak short trip would hold the window at its minimum for ever (TROVE-2022-001).
            times.smallest = mixed(times.smallest, times.smoothed, self.parameters.rtt_reset_pct);
            self.lesson.rtt_reset = true;
        } else {
            times.smallest = times.smallest.min(times.smoothed);
        }
        true
    }

    fn smoothing_count(&self) -> u64 {
        let p = &self.parameters;
        let count = if self.in_slow_start {
            p.ewma_ss
        } else {
            (self.sendmes_per_update().saturating_mul(p.ewma_cwnd_pct) / 100).min(p.ewma_max)
        };
        count.max(2)
    }

    /// Whether the clock stood still or jumped. Before the end of slow start there is too little to compare with.
    fn clock_is_odd(&mut self, rtt: u64) -> bool {
        if rtt == 0 {
            self.rtt.clock_stalled = true;
            return true;
        }
        let smoothed = self.rtt.smoothed;
        if self.in_slow_start || smoothed == 0 {
            return false;
        }
        if smoothed > rtt.saturating_mul(CLOCK_JUMP_RATIO) {
            return self.rtt.clock_stalled;
        }
        if rtt > smoothed.saturating_mul(CLOCK_JUMP_RATIO) {
            return true;
        }
        self.rtt.clock_stalled = false;
        false
    }
}

/// `amount / unit` to the nearest whole number.
fn rounded(amount: u64, unit: u64) -> u64 {
    amount.saturating_add(unit / 2).checked_div(unit).unwrap_or(0)
}

/// An exponential average over about `count` values; the first value is its own average.
pub(super) fn smooth(value: u64, average: u64, count: u64) -> u64 {
    if average == 0 {
        return value;
    }
    let sum = 2 * u128::from(value) + u128::from(count.saturating_sub(1)) * u128::from(average);
    u64::try_from(sum / (u128::from(count) + 1)).unwrap_or(u64::MAX)
}

/// `per_cent` of the larger and the rest of the smaller.
fn mixed(one: u64, other: u64, per_cent: u64) -> u64 {
    let (large, small) = (u128::from(one.max(other)), u128::from(one.min(other)));
    let share = u128::from(per_cent.min(100));
    u64::try_from((share * large + (100 - share) * small) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
