//! Whether a relay with a quota is awake.
//!
//! ```text
//! Awake --soft limit--> SoftLimit --quota used up--> Dormant --next interval, time to wake--> Awake
//!   |                       '--next interval, awake at once--> Awake
//!   '--interval ends, not yet time to wake--> Dormant
//! ```

use std::time::SystemTime;

use jiff::Error;
use relay_formats::facts::AccountingState;
use relay_formats::time_text;

use super::Line;
use super::ledger::Ledger;

/// Where the relay stands.
#[derive(Debug, Clone, Default)]
pub struct Hibernation {
    /// None before the first look.
    state: Option<AccountingState>,
    /// When to look whether to wake; there while not awake.
    until: Option<SystemTime>,
}

impl Hibernation {
    /// Where it stands; awake before the first look.
    pub fn state(&self) -> AccountingState {
        self.state.unwrap_or(AccountingState::Awake)
    }

    /// The terms have changed: the next look decides anew, as after a start. (C tor sleeps on to the end of the interval.)
    pub fn decide_anew(&mut self) {
        (self.state, self.until) = (None, None);
    }

    /// Looks at clock and ledger, as C tor's `consider_hibernation` does each second. `turn_bytes`: with less than that left
    /// nobody has a turn.
    ///
    /// # Errors
    /// `now` is beyond the calendar.
    pub fn consider(&mut self, now: SystemTime, ledger: &mut Ledger, turn_bytes: u64) -> Result<Vec<Line>, Error> {
        let mut lines = Vec::new();
        if self.state == Some(AccountingState::Dormant) {
            if self.until.is_some_and(|until| until > now) {
                return Ok(lines);
            }
            self.end_of_sleep(now, ledger, &mut lines)?;
        }
        if matches!(self.state, None | Some(AccountingState::Awake)) {
            self.look_awake(now, ledger, &mut lines);
        }
        if self.state == Some(AccountingState::SoftLimit) {
            if ledger.hard_limit_reached(turn_bytes) {
                self.go_dormant(now, ledger, &mut lines);
            } else if self.until.is_none_or(|until| until <= now) {
                self.end_of_sleep(now, ledger, &mut lines)?;
            }
        }
        Ok(lines)
    }

    fn look_awake(&mut self, now: SystemTime, ledger: &mut Ledger, lines: &mut Vec<Line>) {
        if ledger.soft_limit_reached() {
            let text = "Bandwidth soft limit reached; commencing hibernation. No new connections will be accepted";
            lines.push(Line::Notice(text.to_owned()));
            // After a restart the time when it was really reached stands.
            if self.state.is_some() || ledger.record().soft_limit.is_none() {
                ledger.note_soft_limit(now);
            }
            self.state = Some(AccountingState::SoftLimit);
            self.until = Some(ledger.interval().end);
        } else if now < ledger.wakes_at() {
            let when = ledger.local_text(ledger.wakes_at());
            let text = format!("Commencing hibernation. We will wake up at {when} local time.");
            lines.push(Line::Notice(text));
            self.go_dormant(now, ledger, lines);
        } else {
            self.state = Some(AccountingState::Awake);
        }
    }

    fn go_dormant(&mut self, now: SystemTime, ledger: &Ledger, lines: &mut Vec<Line>) {
        let text = "Going dormant. Blowing away remaining connections.";
        lines.push(Line::Notice(text.to_owned()));
        self.state = Some(AccountingState::Dormant);
        self.until = Some(if now < ledger.wakes_at() {
            ledger.wakes_at()
        } else {
            ledger.interval().end
        });
    }

    /// The interval has ended, or it is time to wake.
    fn end_of_sleep(&mut self, now: SystemTime, ledger: &mut Ledger, lines: &mut Vec<Line>) -> Result<(), Error> {
        lines.extend(ledger.turn(now)?);
        let wakes_at = ledger.wakes_at();
        if wakes_at <= now {
            let text = "Hibernation period ended. Resuming normal activity.";
            lines.push(Line::Notice(text.to_owned()));
            (self.state, self.until) = (Some(AccountingState::Awake), None);
            return Ok(());
        }
        self.until = Some(wakes_at);
        let when = time_text::format(wakes_at);
        if self.state == Some(AccountingState::Dormant) {
            lines.push(Line::Notice(format!(
                "Accounting period ended. This period, we will hibernate until {when} UTC"
            )));
        } else {
            lines.push(Line::Notice(format!(
                "Accounting period ended. Commencing hibernation until {when} UTC"
            )));
            self.go_dormant(now, ledger, lines);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
