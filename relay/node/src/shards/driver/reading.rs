//! Links that have something to read.

use std::mem;
use std::sync::Arc;

use relay_engine::door::{ChannelFacts, ChannelId, Input, Role};

use super::pacing::spend;
use super::{Driver, READ_BYTES_MAX};
use crate::link::{Beginner, Incoming, Stage};
use crate::rate::Way;

impl Driver {
    pub(super) fn on_event(&mut self, name: ChannelId, event: &mio::event::Event) {
        let Some(link) = self.links.get_mut(&name) else { return };
        link.ended |= event.is_read_closed() || event.is_error();
        if event.is_writable() {
            if link.stage == Stage::Connecting {
                // Writable with an error, or without a peer: the connection has failed.
                if !matches!(link.stream.take_error(), Ok(None)) || link.stream.peer_addr().is_err() {
                    return self.lose(name);
                }
                link.stage = Stage::Handshaking;
            }
            link.blocked = false;
            self.to_write.push(name);
        }
        if event.is_readable() || self.links.get(&name).is_some_and(|link| link.ended) {
            self.on_readable(name);
        }
    }

    pub(super) fn on_readable(&mut self, name: ChannelId) {
        self.look_at_clock();
        let now = self.instant();
        let Some(link) = self.links.get_mut(&name) else { return };
        if link.stage == Stage::Connecting {
            return;
        }
        let Some(share) = self.share(name, Way::Read, READ_BYTES_MAX) else {
            return;
        };
        let Some(link) = self.links.get_mut(&name) else { return };
        let held = link.session.unfinished(&mut self.cipher);
        let room = self.cipher.get_mut(held..held + share).unwrap_or_default();
        let length = match link.read(room) {
            Ok(Incoming::Bytes(length, more)) => {
                spend(&self.start.rates, now, link, Way::Read, length);
                if more {
                    self.to_read.push(name);
                }
                held + length
            }
            Ok(Incoming::Nothing) => return,
            Ok(Incoming::End) | Err(_) => return self.lose(name),
        };
        // What a peer says after the engine has closed the channel reaches nobody.
        if matches!(link.stage, Stage::Closing | Stage::Ended) {
            return;
        }
        let (mut plain, mut sealed) = (mem::take(&mut self.plain), mem::take(&mut self.sealed));
        plain.clear();
        sealed.clear();
        let cipher = self.cipher.get_mut(..length).unwrap_or_default();
        let progress = link.session.receive_into(cipher, &mut plain, &mut sealed);
        let written = if sealed.is_empty() { Ok(()) } else { link.write(&sealed) };
        spend(&self.start.rates, now, link, Way::Write, sealed.len());
        let just_up = link.stage == Stage::Handshaking && progress.as_ref().is_ok_and(|progress| progress.established);
        if just_up {
            self.raise(name);
        }
        for bytes in plain.filled_mut().chunks_mut(READ_BYTES_MAX) {
            self.tell(Input::Received { channel: name, bytes });
        }
        (self.plain, self.sealed) = (plain, sealed);
        match progress {
            Ok(progress) if !progress.peer_closed && written.is_ok() => self.count_held(name),
            _ => self.lose(name),
        }
    }

    /// TLS is up: the link becomes a channel.
    pub(super) fn raise(&mut self, name: ChannelId) {
        let Some(link) = self.links.get_mut(&name) else { return };
        let role = match &link.beginner {
            Beginner::Peer(credentials) => Role::Responder {
                credentials: Arc::clone(credentials),
            },
            Beginner::Us(attempt, credentials) => match link.session.peer_certificate_sha256() {
                Some(peer_tls_certificate_sha256) => Role::Initiator {
                    attempt: *attempt,
                    peer_tls_certificate_sha256,
                    credentials: Arc::clone(credentials),
                },
                None => return self.lose(name),
            },
        };
        let Ok(local) = link.stream.local_addr() else {
            return self.lose(name);
        };
        // Its time goes on until the engine says that the cells of the handshake are through as well.
        link.stage = Stage::Open;
        let facts = ChannelFacts {
            role,
            peer: link.peer,
            local,
        };
        self.tell(Input::ChannelUp { channel: name, facts });
    }
}
