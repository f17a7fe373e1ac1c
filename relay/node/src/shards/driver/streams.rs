//! The engine's words for streams: which of the places that serve them each one is for.

use relay_engine::door::Effect;

use super::Driver;

impl Driver {
    /// One of the words that name a stream.
    pub(super) fn perform_for_stream(&mut self, effect: Effect) {
        match effect {
            Effect::OpenStream { stream, target } => self.open_exit(stream, target),
            Effect::Resolve { stream, question } => self.resolve(stream, question),
            Effect::OpenDirectory { stream, asker } => self.open_directory(stream, asker),
            Effect::ReadStream { stream, bytes_max } if self.directory.has(stream) => {
                self.read_answer(stream, bytes_max);
            }
            Effect::StreamWantsWrite { stream } if self.directory.has(stream) => self.hear_request(stream),
            Effect::CloseStream { stream, .. } if self.directory.has(stream) => self.close_directory(stream),
            Effect::ReadStream { stream, bytes_max } => self.read_exit(stream, bytes_max),
            Effect::StreamWantsWrite { stream } => self.exit_wants_write(stream),
            Effect::CloseStream { stream, rest } => self.close_exit(stream, rest),
            _ => {}
        }
    }
}
