//! The engine's words for streams: which of the places that serve them each one is for.

use relay_engine::door::{Effect, Input, Refusal};
use relay_wire::relay_cells::EndReason;

use super::Driver;

impl Driver {
    /// One of the words that name a stream.
    pub(super) fn perform_for_stream(&mut self, effect: Effect) {
        match effect {
            Effect::OpenStream { stream, target } => self.open_exit(stream, target),
            Effect::Resolve { stream, question } => self.resolve(stream, question),
            // Not asked for: our settings do not allow it yet.
            Effect::OpenDirectory { stream, .. } => {
                let refusal = Refusal::Reason(EndReason::NotDirectory);
                self.hand_over(Input::StreamRefused { stream, refusal });
            }
            Effect::ReadStream { stream, bytes_max } => self.read_exit(stream, bytes_max),
            Effect::StreamWantsWrite { stream } => self.exit_wants_write(stream),
            Effect::CloseStream { stream, rest } => self.close_exit(stream, rest),
            _ => {}
        }
    }
}
