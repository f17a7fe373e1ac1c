//! Links that end: by the engine's wish, by the peer, by a deadline.

use relay_engine::door::{ChannelId, Input};
use relay_engine::keyed;

use super::pacing::spend;
use super::{CLOSING_TIME_MAX, Driver, WRITE_BYTES_MAX};
use crate::link::{Beginner, Stage};
use crate::rate::Way;

impl Driver {
    /// The engine wants the channel to end, after what it has still to say.
    pub(super) fn close(&mut self, name: ChannelId) {
        if self.links.get(&name).is_none_or(|link| link.stage != Stage::Open) {
            return;
        }
        let now = self.instant();
        while self
            .links
            .get(&name)
            .is_some_and(|link| link.wants && link.unsent.len() < WRITE_BYTES_MAX)
        {
            self.outbox.written.clear();
            self.hand_over(Input::Writable {
                channel: name,
                room_bytes_max: WRITE_BYTES_MAX,
            });
            let Some(link) = self.links.get_mut(&name) else { return };
            link.wants = !self.outbox.written.is_empty();
            self.sealed.clear();
            if link.session.seal(&self.outbox.written, &mut self.sealed).is_err() || link.write(&self.sealed).is_err() {
                break;
            }
            spend(&self.start.rates, now, link, Way::Write, self.sealed.len());
        }
        let deadline = self.now() + CLOSING_TIME_MAX;
        self.settle(name);
        if let Some(link) = self.links.get_mut(&name) {
            self.sealed.clear();
            if link.session.seal_end(&mut self.sealed).is_ok() {
                let _ = link.write(&self.sealed);
            }
            link.stage = Stage::Closing;
            link.wants = false;
            link.deadline = Some(deadline);
            self.deadlines.insert((deadline, name));
            self.to_write.push(name);
        }
        self.hand_over(Input::ChannelDown { channel: name });
    }

    /// The link is gone; the engine is told what it must know.
    pub(super) fn lose(&mut self, name: ChannelId) {
        self.settle(name);
        let Some(link) = self.links.remove(&name) else { return };
        keyed::shrink(&mut self.links);
        self.link_bytes = self.link_bytes.saturating_sub(link.counted_bytes);
        match (link.stage, link.beginner) {
            (Stage::Open, _) => self.tell(Input::ChannelDown { channel: name }),
            (Stage::Connecting | Stage::Handshaking, Beginner::Us(attempt, _)) => {
                self.tell(Input::ConnectFailed { attempt });
            }
            (Stage::Connecting | Stage::Handshaking, Beginner::Peer(_)) | (Stage::Closing | Stage::Ended, _) => {}
        }
    }

    pub(super) fn on_deadlines(&mut self) {
        let now = self.now();
        while let Some((deadline, name)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, name));
            self.lose(name);
        }
        self.end_stuck();
        self.sweep_directory();
        if self.engine.deadline().is_some_and(|deadline| deadline <= now) {
            self.tell(Input::Timeout);
        }
    }
}
