//! The engine's words for streams that end here.

use relay_engine::door::{Input, Refusal, StreamId};
use relay_wire::relay_cells::EndReason;

use super::Driver;

impl Driver {
    /// Not asked for: our settings allow no streams yet.
    pub(super) fn refuse_stream(&mut self, stream: StreamId) {
        let refusal = Refusal::Reason(EndReason::NotDirectory);
        self.hand_over(Input::StreamRefused { stream, refusal });
    }
}
