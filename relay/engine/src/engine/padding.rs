//! Padding machines of circuits: asked for, run, ended. What they do stands in `circuit/padding.rs`.

use relay_wire::circuit_padding::CircuitPaddingNegotiate;
use relay_wire::relay_cells::RelayCommand;

use super::{Engine, Verdict};
use crate::circuit::padding::{enabled, queued_cells_max};
use crate::door::{Now, Outbox};
use crate::slab::Key;
use crate::timers::Alarm;

impl Engine {
    /// PADDING_NEGOTIATE: always answered, if it makes sense.
    pub(super) fn negotiate_circuit_padding(
        &mut self,
        now: Now,
        key: Key,
        wish: &CircuitPaddingNegotiate,
        outbox: &mut Outbox,
    ) -> Verdict {
        let wanted = self
            .settings
            .as_ref()
            .is_some_and(|settings| settings.extras.circuit_padding);
        let enabled = wanted && enabled(&self.network.parameters);
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let padding = circuit.padding.get_or_insert_default();
        let agreed = padding.negotiate(now.steady, wish, enabled, &mut self.dice);
        if let Some(at) = agreed.alarm {
            self.timers.set(at, Alarm::CircuitPadding(key));
        }
        self.tally.padding_machines_refused += u64::from(!agreed.ok);
        self.tell(key, RelayCommand::PADDING_NEGOTIATED, &wish.answer(agreed.ok), outbox)
    }

    /// A machine's next cell is due.
    pub(super) fn circuit_padding_alarm(&mut self, now: Now, key: Key, outbox: &mut Outbox) {
        let queued_max = queued_cells_max(&self.network.parameters);
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
        if rung.send && queued < queued_max {
            self.tally.padding_cells_sent += 1;
            let verdict = self.tell(key, RelayCommand::DROP, &[], outbox);
            self.carry_out(now, verdict, outbox);
        }
    }
}
