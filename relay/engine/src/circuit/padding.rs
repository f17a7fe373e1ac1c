//! Padding machines of circuits, the relay's side (padding-spec, "Circuit-level padding"; C tor
//! `circuitpadding_machines.c`): a circuit to an introduction or rendezvous point is to look like any other that begins.
//!
//! ```text
//! client ──PADDING_NEGOTIATE START──▶ middle
//!        ◀─PADDING_NEGOTIATED─────── then DROP cells, so many, so far apart
//!        ◀─PADDING_NEGOTIATED STOP── after the last one, at introductions: until then the client holds the circuit open
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

    fn number(self) -> u8 {
        match self {
            Self::Introduction => 0,
            Self::Rendezvous => 1,
        }
    }

    /// Whether it tells the client that it has sent all.
    fn says_its_end(self) -> bool {
        self == Self::Introduction
    }

    /// Cells that it sends in all. C tor draws a fraction between 7 and 10 and cuts it off, so 10 never comes.
    fn cells(self, dice: &mut impl RngExt) -> u8 {
        match self {
            Self::Introduction => dice.random_range(7..10),
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
    /// What PADDING_NEGOTIATED says, OK or ERR; nothing where nobody waits for it.
    pub(crate) answer: Option<bool>,
    /// The alarm that is to be set.
    pub(crate) alarm: Option<Duration>,
}

/// What is to be done when the alarm rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rung {
    /// A DROP is due.
    pub(crate) send: bool,
    /// And behind it the word that it was the last one: as an answer to this STOP, which nobody has asked for.
    pub(crate) ended: Option<CircuitPaddingNegotiate>,
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
    /// STOP ends the machine that it names and no newer one. One that ends nothing has crossed our own, or is for a machine
    /// of long ago: its sender has forgotten it and would complain of an answer.
    pub(crate) fn negotiate(
        &mut self,
        now: Duration,
        wish: &CircuitPaddingNegotiate,
        enabled: bool,
        dice: &mut impl RngExt,
    ) -> Agreed {
        let known = Machine::of_number(wish.machine);
        let said = |answer| Agreed { answer, alarm: None };
        match wish.command {
            PaddingCommand::Start => {
                let Some(machine) = known.filter(|_| enabled) else {
                    return said(Some(false));
                };
                self.machine = Some((machine, machine.cells(dice)));
                self.counter = wish.counter;
                self.due = now + machine.wait(dice);
                Agreed {
                    answer: Some(true),
                    alarm: self.arm(),
                }
            }
            PaddingCommand::Stop => {
                let named = |(machine, _): &(Machine, u8)| {
                    Some(*machine) == known && (wish.counter == 0 || wish.counter == self.counter)
                };
                if !self.machine.as_ref().is_some_and(named) {
                    return said(None);
                }
                self.machine = None;
                said(Some(true))
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

    /// The alarm has rung. When it has sent all, a machine either says so and is gone, or stays until STOP.
    pub(crate) fn rings(&mut self, now: Duration, dice: &mut impl RngExt) -> Rung {
        if self.alarm_at.is_some_and(|at| at > now) {
            return Rung::default();
        }
        self.alarm_at = None;
        let mut rung = Rung::default();
        let Some((machine, left)) = self.machine.as_mut().filter(|(_, left)| *left > 0) else {
            return rung;
        };
        if self.due <= now {
            rung.send = true;
            *left -= 1;
            self.due = now + machine.wait(dice);
        }
        if *left > 0 {
            rung.alarm = self.arm();
        } else if machine.says_its_end() {
            rung.ended = Some(CircuitPaddingNegotiate {
                command: PaddingCommand::Stop,
                machine: machine.number(),
                counter: self.counter,
            });
            self.machine = None;
        }
        rung
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
    fn an_introduction_gets_seven_to_nine_cells_and_a_rendezvous_one() {
        let mut dice = StdRng::from_seed([1; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut padding = CircuitPadding::default();
            let agreed = padding.negotiate(Duration::ZERO, &wish(PaddingCommand::Start, 0, 1), true, &mut dice);
            assert_eq!(agreed.answer, Some(true));
            let (cells, least, most) = run(&mut padding, agreed.alarm, &mut dice);
            seen.insert(cells);
            assert!(least >= Duration::from_millis(1) && most <= Duration::from_millis(10));
            let mut padding = CircuitPadding::default();
            let agreed = padding.negotiate(Duration::ZERO, &wish(PaddingCommand::Start, 1, 1), true, &mut dice);
            assert_eq!(run(&mut padding, agreed.alarm, &mut dice).0, 1);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn a_machine_that_nobody_knows_or_that_is_turned_off_is_refused() {
        let mut dice = StdRng::from_seed([2; 32]);
        let mut padding = CircuitPadding::default();
        let answered = |answer| Agreed { answer, alarm: None };
        let refused = answered(Some(false));
        let mut ask = |wish, enabled| padding.negotiate(Duration::ZERO, &wish, enabled, &mut dice);
        assert_eq!(ask(wish(PaddingCommand::Start, 2, 1), true), refused);
        assert_eq!(ask(wish(PaddingCommand::Start, 0, 1), false), refused);
        assert_eq!(
            ask(wish(PaddingCommand::Stop, 0, 1), true),
            answered(None),
            "never begun"
        );
    }

    #[test]
    fn an_old_stop_ends_no_new_machine() {
        let mut dice = StdRng::from_seed([3; 32]);
        let mut padding = CircuitPadding::default();
        let mut ask = |padding: &mut CircuitPadding, wish| padding.negotiate(Duration::ZERO, &wish, true, &mut dice);
        ask(&mut padding, wish(PaddingCommand::Start, 0, 1));
        ask(&mut padding, wish(PaddingCommand::Start, 0, 2));
        for (machine, counter) in [(0, 1), (0, 3), (1, 2)] {
            let agreed = ask(&mut padding, wish(PaddingCommand::Stop, machine, counter));
            assert_eq!(agreed.answer, None, "{machine} {counter}");
            assert!(padding.machine.is_some());
        }
        let agreed = ask(&mut padding, wish(PaddingCommand::Stop, 0, 2));
        assert_eq!(agreed.answer, Some(true));
        assert!(padding.machine.is_none());
    }

    #[test]
    fn the_machine_of_an_introduction_says_that_it_has_ended_and_the_other_one_does_not() {
        let mut dice = StdRng::from_seed([5; 32]);
        for (machine, says) in [(0, true), (1, false)] {
            let mut padding = CircuitPadding::default();
            let mut alarm = padding
                .negotiate(
                    Duration::ZERO,
                    &wish(PaddingCommand::Start, machine, 3),
                    true,
                    &mut dice,
                )
                .alarm;
            let mut ended = Vec::new();
            while let Some(at) = alarm {
                let rung = padding.rings(at, &mut dice);
                assert!(
                    rung.ended.is_none() || (rung.send && rung.alarm.is_none()),
                    "with the last cell"
                );
                ended.extend(rung.ended);
                alarm = rung.alarm;
            }
            let expected = says.then(|| wish(PaddingCommand::Stop, machine, 3));
            assert_eq!(ended, Vec::from_iter(expected));
            let stop = padding.negotiate(Duration::ZERO, &wish(PaddingCommand::Stop, machine, 3), true, &mut dice);
            assert_eq!(
                stop.answer,
                (!says).then_some(true),
                "a STOP that crossed ours is not answered"
            );
        }
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
        assert!(cells <= 9, "{cells}");
    }
}
