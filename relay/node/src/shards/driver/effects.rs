//! The engine's door: it is told something, then all that it asks for is done, in order.

use relay_engine::door::{Effect, Input};

use super::{Driver, LOAD_BYTES_MAX};

impl Driver {
    /// Tells the engine, then does all that it asks for.
    pub(super) fn tell(&mut self, input: Input<'_>) {
        self.hand_over(input);
        self.do_all();
    }

    /// Does all that the engine has asked for and that is not done yet.
    pub(super) fn do_all(&mut self) {
        while let Some(effect) = self.to_do.pop_front() {
            self.perform(effect);
        }
    }

    pub(super) fn hand_over(&mut self, input: Input<'_>) {
        let now = self.engine_now();
        self.engine.handle(now, input, &mut self.outbox);
        self.to_do.extend(self.outbox.effects.drain(..));
        self.post_loads(LOAD_BYTES_MAX);
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { attempt, address } => self.connect(attempt, address),
            Effect::Export { channel, context } => {
                if let Some(material) = self.links.get(&channel).and_then(|link| link.session.export(&context)) {
                    self.hand_over(Input::Exported { channel, material });
                }
            }
            Effect::AnswerOnion { ticket, request } => {
                let mailbox = self.siblings.mailbox(self.own).cloned();
                if !mailbox.is_some_and(|mailbox| self.start.pool.take(ticket, request, mailbox)) {
                    self.hand_over(Input::OnionAnswered { ticket, answer: None });
                }
            }
            Effect::WantsWrite { channel } => {
                if let Some(link) = self.links.get_mut(&channel) {
                    link.wants = true;
                    self.to_write.push(channel);
                }
            }
            Effect::Opened { channel, relay } => self.opened(channel, relay),
            Effect::Close { channel } => self.close(channel),
            Effect::Report(report) => {
                // Full or gone: the directory part lags behind or has ended; its news is not worth a wait.
                let _ = self.start.reports.try_send(report);
            }
            for_stream @ (Effect::OpenStream { .. }
            | Effect::OpenDirectory { .. }
            | Effect::Resolve { .. }
            | Effect::ReadStream { .. }
            | Effect::StreamWantsWrite { .. }
            | Effect::CloseStream { .. }) => self.perform_for_stream(for_stream),
        }
    }
}
