//! Padding machines of circuits, the relay's side (padding-spec, "Circuit-level padding"; C tor
//! `circuitpadding_machines.c`): a circuit to an introduction or rendezvous point is to look like any other that begins.
//!
//! ```text
//! client ──PADDING_NEGOTIATE START──▶ middle
//!        ◀─PADDING_NEGOTIATED─────── then DROP cells, so many, so far apart
//!        ──PADDING_NEGOTIATE STOP───▶ the machine is forgotten
//! ```
//! At most one machine a circuit, as the two of C tor stand in one place.

use std::time::Duration;

use rand::RngExt;
use relay_wire::circuit_padding::{CircuitPaddingNegotiate, PaddingCommand};

use crate::network::Parameters;

/// What may be asked for, by C tor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    /// For circuits to introduction points: as many cells as other circuits get while they begin.
    Introduction,
    /// For circuits to rendezvous points: one cell.
    Rendezvous,
}

impl Machine {
    fn of_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Introduction),
            1 => Some(Self::Rendezvous),
            _ => None,
        }
    }

    /// Cells that it sends in all.
    fn cells(self, dice: &mut impl RngExt) -> u8 {
        match self {
            Self::Introduction => dice.random_range(7..=10),
            Self::Rendezvous => 1,
        }
    }

    /// Time before its next cell.
    fn wait(self, dice: &mut impl RngExt) -> Duration {
        let micros = match self {
            Self::Introduction => dice.random_range(1_000..=10_000),
            Self::Rendezvous => dice.random_range(0..=1_000),
        };
        Duration::from_micros(micros)
    }
}

/// The machine of one circuit, and what is left of those before it.
#[derive(Debug, Default)]
pub(crate) struct CircuitPadding {
    machine: Option<(Machine, u8)>,
    /// The newest machine's.
    counter: u32,
    /// When its next cell is due.
    due: Duration,
    /// The alarm that is set, perhaps for a machine that is gone: there is never more than one.
    alarm_at: Option<Duration>,
}

/// What becomes of a client's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Whether PADDING_NEGOTIATED says OK.
    pub(crate) ok: bool,
    /// The alarm that is to be set.
    pub(crate) alarm: Option<Duration>,
}

/// What is to be done when the alarm rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) send: bool,
    pub(crate) alarm: Option<Duration>,
}

/// Whether machines run at all: param-spec `circpad_padding_disabled`.
pub(crate) fn enabled(parameters: &Parameters) -> bool {
    parameters.clamped("circpad_padding_disabled", 0, 0, 1) == 0
}

/// Cells that wait on a circuit, above which it is not padded: `circpad_max_circ_queued_cells`.
pub(crate) fn queued_cells_max(parameters: &Parameters) -> usize {
    parameters.clamped("circpad_max_circ_queued_cells", 1_000, 0, 50_000) as usize
}

impl CircuitPadding {
    /// A client's wish, where machines run if `enabled`. A second START takes the first one's place (TROVE-2020-004); a
    /// STOP ends the machine that it names and no newer one, and is answered with ERR where it can mean none.
    pub(crate) fn negotiate(
        &mut self,
        now: Duration,
        wish: &CircuitPaddingNegotiate,
        enabled: bool,
        dice: &mut impl RngExt,
    ) -> Agreed {
        let known = Machine::of_number(wish.machine);
        match wish.command {
            PaddingCommand::Start => {
                let Some(machine) = known.filter(|_| enabled) else {
                    return Agreed { ok: false, alarm: None };
                };
                self.machine = Some((machine, machine.cells(dice)));
                self.counter = wish.counter;
                self.due = now + machine.wait(dice);
                Agreed {
                    ok: true,
                    alarm: self.arm(),
                }
            }
            PaddingCommand::Stop => {
                let named = |(machine, _): &(Machine, u8)| {
                    Some(*machine) == known && (wish.counter == 0 || wish.counter == self.counter)
                };
                let ends = self.machine.as_ref().is_some_and(named);
                if ends {
                    self.machine = None;
                }
                Agreed {
                    ok: ends || wish.counter <= self.counter,
                    alarm: None,
                }
            }
        }
    }

    /// Sets an alarm, unless one that comes first is set.
    fn arm(&mut self) -> Option<Duration> {
        if self.alarm_at.is_some_and(|at| at <= self.due) {
            return None;
        }
        self.alarm_at = Some(self.due);
        self.alarm_at
    }

    /// The alarm has rung. The machine stays when it has sent all, until STOP.
    pub(crate) fn rings(&mut self, now: Duration, dice: &mut impl RngExt) -> Rung {
        if self.alarm_at.is_some_and(|at| at > now) {
            return Rung {
                send: false,
                alarm: None,
            };
        }
        self.alarm_at = None;
        let mut send = false;
        if let Some((machine, left)) = &mut self.machine
            && *left > 0
        {
            if self.due <= now {
                send = true;
                *left -= 1;
                self.due = now + machine.wait(dice);
            }
            if *left > 0 {
                let alarm = self.arm();
                return Rung { send, alarm };
            }
        }
        Rung { send, alarm: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    fn wish(command: PaddingCommand, machine: u8, counter: u32) -> CircuitPaddingNegotiate {
        CircuitPaddingNegotiate {
            command,
            machine,
            counter,
        }
    }

    /// Cells that a machine sends, with the shortest and longest time between.
    fn run(padding: &mut CircuitPadding, first: Option<Duration>, dice: &mut StdRng) -> (usize, Duration, Duration) {
        let (mut cells, mut least, mut most) = (0, Duration::MAX, Duration::ZERO);
        let (mut alarm, mut last) = (first, Duration::ZERO);
        while let Some(at) = alarm {
            let rung = padding.rings(at, dice);
            if rung.send {
                cells += 1;
                (least, most) = (least.min(at - last), most.max(at - last));
                last = at;
            }
            alarm = rung.alarm;
        }
        (cells, least, most)
    }

    #[test]
    fn an_introduction_gets_seven_to_ten_cells_and_a_rendezvous_one() {
        let mut dice = StdRng::from_seed([1; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut padding = CircuitPadding::default();
            let agreed = padding.negotiate(Duration::ZERO, &wish(PaddingCommand::Start, 0, 1), true, &mut dice);
            assert!(agreed.ok);
            let (cells, least, most) = run(&mut padding, agreed.alarm, &mut dice);
            seen.insert(cells);
            assert!(least >= Duration::from_millis(1) && most <= Duration::from_millis(10));
            let mut padding = CircuitPadding::default();
            let agreed = padding.negotiate(Duration::ZERO, &wish(PaddingCommand::Start, 1, 1), true, &mut dice);
            assert_eq!(run(&mut padding, agreed.alarm, &mut dice).0, 1);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [7, 8, 9, 10]);
    }

    #[test]
    fn a_machine_that_nobody_knows_or_that_is_turned_off_is_refused() {
        let mut dice = StdRng::from_seed([2; 32]);
        let mut padding = CircuitPadding::default();
        let refused = Agreed { ok: false, alarm: None };
        let mut ask = |wish, enabled| padding.negotiate(Duration::ZERO, &wish, enabled, &mut dice);
        assert_eq!(ask(wish(PaddingCommand::Start, 2, 1), true), refused);
        assert_eq!(ask(wish(PaddingCommand::Start, 0, 1), false), refused);
        assert_eq!(ask(wish(PaddingCommand::Stop, 0, 1), true), refused, "never begun");
    }

    #[test]
    fn an_old_stop_ends_no_new_machine() {
        let mut dice = StdRng::from_seed([3; 32]);
        let mut padding = CircuitPadding::default();
        let mut ask = |padding: &mut CircuitPadding, wish| padding.negotiate(Duration::ZERO, &wish, true, &mut dice);
        ask(&mut padding, wish(PaddingCommand::Start, 0, 1));
        ask(&mut padding, wish(PaddingCommand::Start, 0, 2));
        assert!(
            ask(&mut padding, wish(PaddingCommand::Stop, 0, 1)).ok,
            "it was one, once"
        );
        assert!(padding.machine.is_some());
        assert!(!ask(&mut padding, wish(PaddingCommand::Stop, 0, 3)).ok, "never begun");
        assert!(padding.machine.is_some());
        assert!(ask(&mut padding, wish(PaddingCommand::Stop, 0, 2)).ok);
        assert!(padding.machine.is_none());
    }

    /// TROVE-2020-004: each START leaked what the one before had.
    #[test]
    fn trove_2020_004_a_hundred_thousand_starts_leave_one_machine_and_one_alarm() {
        let mut dice = StdRng::from_seed([4; 32]);
        let mut padding = CircuitPadding::default();
        let mut alarms = Vec::new();
        for counter in 0..100_000 {
            let start = wish(PaddingCommand::Start, 0, counter);
            let agreed = padding.negotiate(Duration::ZERO, &start, true, &mut dice);
            alarms.extend(agreed.alarm);
        }
        // One for each time that the newest is due before all others.
        assert!(alarms.len() < 100, "{}", alarms.len());
        alarms.sort();
        let cells: usize = alarms
            .iter()
            .map(|alarm| run(&mut padding, Some(*alarm), &mut dice).0)
            .sum();
        assert!(cells <= 10, "{cells}");
    }
}
