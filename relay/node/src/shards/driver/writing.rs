//! Links that have something to write.

use std::mem;

use relay_engine::door::{ChannelId, Input};

use super::pacing::spend;
use super::{Driver, WRITE_BYTES_MAX, WRITES_IN_A_TURN};
use crate::link::Stage;
use crate::rate::Way;

impl Driver {
    pub(super) fn write_all(&mut self) {
        for name in mem::take(&mut self.to_write) {
            self.write(name);
            self.count_held(name);
        }
    }

    pub(super) fn write(&mut self, name: ChannelId) {
        self.look_at_clock();
        for _ in 0..WRITES_IN_A_TURN {
            let Some(link) = self.links.get_mut(&name) else { return };
            if link.stage == Stage::Connecting {
                return;
            }
            if !link.unsent.is_empty() && link.write(&[]).is_err() {
                return self.lose(name);
            }
            if link.blocked || !link.unsent.is_empty() {
                return;
            }
            if link.stage == Stage::Closing {
                // The peer's own end tells that it has read the last bytes; closing at once could throw them away.
                let _ = link.stream.shutdown(std::net::Shutdown::Write);
                // Once: it is news of the socket itself, so to answer that with the same again would go on for ever.
                link.stage = Stage::Ended;
                return;
            }
            if link.stage != Stage::Open || !link.wants {
                return;
            }
            let Some(share) = self.share(name, Way::Write, WRITE_BYTES_MAX) else {
                return;
            };
            if !self.pull(name, share) {
                return;
            }
        }
        self.to_write.push(name);
    }

    /// Takes one batch from the engine onto the socket; `false` when the engine has no more for this link.
    pub(super) fn pull(&mut self, name: ChannelId, room_bytes_max: usize) -> bool {
        self.outbox.written.clear();
        self.hand_over(Input::Writable {
            channel: name,
            room_bytes_max,
        });
        let plain = mem::take(&mut self.outbox.written);
        let (now, more, mut ok) = (self.instant(), self.outbox.more, true);
        if let Some(link) = self.links.get_mut(&name) {
            link.wants = more;
            if !plain.is_empty() {
                let sealed = link.session.seal_into(&plain, &mut self.records);
                ok = sealed.is_ok() && {
                    let records = self.records.filled();
                    let written = link.write(records);
                    spend(&self.start.rates, now, link, Way::Write, records.len());
                    written.is_ok()
                };
            }
        }
        self.outbox.written = plain;
        self.do_all();
        if !ok {
            self.lose(name);
        }
        more
    }
}
