//! Padding machines of circuits: asked for, run, ended. What they do stands in `circuit/padding.rs`.

use relay_wire::circuit_padding::CircuitPaddingNegotiate;
use relay_wire::relay_cells::RelayCommand;

use super::{Engine, Verdict};
use crate::circuit::padding::{enabled, queued_cells_max};
use crate::door::{Now, Outbox};
use crate::settings::Settings;
use crate::slab::Key;
use crate::timers::Alarm;

impl Engine {
    /// PADDING_NEGOTIATE: answered, if it makes sense and somebody waits for an answer.
    pub(super) fn negotiate_circuit_padding(
        &mut self,
        now: Now,
        key: Key,
        wish: &CircuitPaddingNegotiate,
        outbox: &mut Outbox,
    ) -> Verdict {
        let enabled = self.machines_run();
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let padding = circuit.padding.get_or_insert_default();
        let agreed = padding.negotiate(now.steady, wish, enabled, &mut self.dice);
        if let Some(at) = agreed.alarm {
            self.timers.set(at, Alarm::CircuitPadding(key));
        }
        let Some(ok) = agreed.answer else {
            return Verdict::Go;
        };
        self.tally.padding_machines_refused += u64::from(!ok);
        self.tell(key, RelayCommand::PADDING_NEGOTIATED, &wish.answer(ok), outbox)
    }

    /// Whether torrc and consensus let machines run.
    fn machines_run(&self) -> bool {
        let wanted = |settings: &Settings| settings.extras.circuit_padding;
        self.settings.as_ref().is_some_and(|settings| wanted(settings)) && enabled(&self.network.parameters)
    }

    /// A machine's next cell is due.
    pub(super) fn circuit_padding_alarm(&mut self, now: Now, key: Key, outbox: &mut Outbox) {
        let queued_max = queued_cells_max(&self.network.parameters);
        let enabled = self.machines_run();
        let Some(circuit) = self.circuits.get_mut(key) else {
            return;
        };
        let queued = circuit.backward.len();
        let Some(padding) = circuit.padding.as_mut() else {
            return;
        };
        let rung = padding.rings(now.steady, &mut self.dice);
        if let Some(at) = rung.alarm {
            self.timers.set(at, Alarm::CircuitPadding(key));
        }
        // Where machines may no longer run, theirs go on in silence and end, as their clients wait for that.
        if rung.send && enabled && queued <= queued_max {
            self.tally.padding_cells_sent += 1;
            let verdict = self.tell(key, RelayCommand::DROP, &[], outbox);
            self.carry_out(now, verdict, outbox);
        }
        if let Some(ended) = rung.ended {
            let verdict = self.tell(key, RelayCommand::PADDING_NEGOTIATED, &ended.answer(true), outbox);
            self.carry_out(now, verdict, outbox);
        }
    }
}
