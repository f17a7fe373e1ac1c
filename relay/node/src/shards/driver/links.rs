//! New links: accepted, or begun by the engine's wish.

use std::io::ErrorKind;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpListener;
use mio::{Interest, Token};
use relay_engine::door::{AttemptId, ChannelId, Input};
use relay_formats::fingerprint::RsaIdentity;

use super::{ACCEPT_PAUSE, ACCEPTS_IN_A_TURN, Driver, HANDSHAKE_TIME_MAX};
use crate::link::{self, Beginner, Link, Proven, Stage};
use crate::metrics::counters::Kind;
use crate::shards::{Order, Place};
use crate::tls::Session;

impl Driver {
    pub(super) fn note_listener(&mut self, number: usize) {
        if !self.to_accept.contains(&number) {
            self.to_accept.push(number);
        }
    }

    pub(super) fn accept_all(&mut self) {
        if self.accept_again.is_some_and(|again| again <= self.now()) {
            self.accept_again = None;
            (0..self.start.listeners.len()).for_each(|number| self.note_listener(number));
        }
        for number in mem::take(&mut self.to_accept) {
            let mut drained = false;
            for _ in 0..ACCEPTS_IN_A_TURN {
                drained = true;
                match self.start.listeners.get(number).map(TcpListener::accept) {
                    Some(Ok((stream, peer))) => self.hand_out(stream, peer),
                    Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => break,
                    // The peer went away before we came.
                    Some(Err(error))
                        if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                    Some(Err(error)) => {
                        tracing::warn!("Couldn't accept a connection: {error}. Trying again.");
                        self.accept_again = Some(self.now() + ACCEPT_PAUSE);
                        break;
                    }
                    None => break,
                }
                drained = false;
            }
            // Edge-triggered: until the listener says that it has no more, it is asked again.
            if !drained {
                self.note_listener(number);
            }
        }
    }

    /// A new connection goes to the shard with the fewest links.
    fn hand_out(&mut self, stream: mio::net::TcpStream, peer: SocketAddr) {
        let shard = self.siblings.lightest();
        let Some(place) = self.siblings.take_place(shard) else {
            self.start.traffic.connections.reject(Kind::Or, peer.ip());
            return;
        };
        // Before any work is done for it.
        let Ok(visit) = self.siblings.commons.addresses.connect(self.now(), peer.ip()) else {
            self.start.traffic.connections.reject(Kind::Or, peer.ip());
            return;
        };
        let place = place.visited(visit);
        match self.siblings.mailbox(shard) {
            Some(mailbox) if shard != self.own => mailbox.post(Order::Welcome { stream, peer, place }),
            _ => self.welcome(stream, peer, place),
        }
    }

    pub(super) fn welcome(&mut self, stream: mio::net::TcpStream, peer: SocketAddr, place: Place) {
        // It was on its way when the relay was told to stop.
        if self.stop_at.is_some() {
            return;
        }
        link::tune(&stream);
        let keys = Arc::clone(&self.start.link_keys);
        let Ok(session) = Session::accept(&keys.tls) else {
            return;
        };
        let kept = self.keep(
            stream,
            session,
            Beginner::Peer(Arc::clone(&keys.responder)),
            Stage::Handshaking,
            peer,
            place,
        );
        let Some(name) = kept else { return };
        // Names grow: the first is the one that has been in the door longest. An honest handshake takes milliseconds.
        self.half_open.insert(name);
        if self.half_open.len() > self.start.half_open_max
            && let Some(oldest) = self.half_open.first().copied()
        {
            self.start.traffic.connections.reject(Kind::Or, peer.ip());
            self.lose(oldest);
        }
    }

    /// The link handshake is through.
    pub(super) fn opened(&mut self, name: ChannelId, relay: Option<RsaIdentity>) {
        self.settle(name);
        if let Some(link) = self.links.get_mut(&name) {
            link.proven = Some(relay.map_or(Proven::Nobody, Proven::Relay));
            self.limit_link(name);
        }
    }

    /// The link has no deadline any more, and stands in nobody's way.
    pub(super) fn settle(&mut self, name: ChannelId) {
        self.half_open.remove(&name);
        if let Some(deadline) = self.links.get_mut(&name).and_then(|link| link.deadline.take()) {
            self.deadlines.remove(&(deadline, name));
        }
    }

    pub(super) fn connect(&mut self, attempt: AttemptId, address: SocketAddr) {
        let begun = self.begin(attempt, address);
        if begun.is_none() {
            self.hand_over(Input::ConnectFailed { attempt });
        }
    }

    pub(super) fn begin(&mut self, attempt: AttemptId, address: SocketAddr) -> Option<()> {
        let place = self.siblings.take_place(self.own)?;
        let stream = link::connect(address, &self.start.outbound_bind)
            .inspect_err(|error| self.note_want(error))
            .ok()?;
        link::tune(&stream);
        let keys = Arc::clone(&self.start.link_keys);
        let mut hello = Vec::new();
        let session = Session::connect(&keys.tls, &mut hello).ok()?;
        let beginner = Beginner::Us(attempt, Arc::clone(&keys.initiator));
        let name = self.keep(stream, session, beginner, Stage::Connecting, address, place)?;
        let link = self.links.get_mut(&name)?;
        link.unsent = hello;
        link.blocked = true;
        Some(())
    }

    pub(super) fn keep(
        &mut self,
        mut stream: mio::net::TcpStream,
        session: Session,
        beginner: Beginner,
        stage: Stage,
        peer: SocketAddr,
        place: Place,
    ) -> Option<ChannelId> {
        let name = ChannelId(self.next_link);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut stream, Token(usize::try_from(name.0).ok()?), both)
            .ok()?;
        self.next_link += 1;
        let deadline = self.now() + HANDSHAKE_TIME_MAX;
        self.deadlines.insert((deadline, name));
        let traffic = Arc::clone(&self.start.traffic);
        let link = Link {
            stream,
            session,
            counted: traffic.connections.open(Kind::Or, beginner.began(), peer.ip()),
            beginner,
            stage,
            peer,
            traffic,
            proven: None,
            buckets: None,
            _place: place,
            deadline: Some(deadline),
            wants: false,
            unsent: Vec::new(),
            counted_bytes: 0,
            stuck_since: None,
            blocked: false,
            ended: false,
        };
        self.links.insert(name, link);
        Some(name)
    }
}
