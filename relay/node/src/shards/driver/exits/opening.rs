//! From a client's wish to an open stream.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Interest;
use relay_engine::door::{Host, Input, Refusal, StreamId, Target};
use relay_wire::relay_cells::EndReason;
use rustix::io::Errno;

use super::super::Driver;
use super::Exits;
use super::resolving::Wish;
use crate::dns::{Key, client_ttl_seconds};
use crate::exits::{Allowed, ExitSocket, Rules, Stage, reason_of};
use crate::link;
use crate::metrics::counters::{Began, Kind};

/// For TCP to come up. C tor leaves it to the system, which tries for two minutes; no client waits for half of that.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);
/// What an address that needs no resolving counts as (C tor, `DEFAULT_DNS_TTL`).
const ADDRESS_TTL_SECONDS: u32 = 30 * 60;

impl Driver {
    pub(in super::super) fn open_exit(&mut self, stream: StreamId, target: Target) {
        match &target.host {
            // The flags are about what a name may become; who names an address wants that one.
            Host::Address(address) => {
                let ttl_seconds = client_ttl_seconds(ADDRESS_TTL_SECONDS, &mut rand::rng());
                let there = SocketAddr::new(*address, target.port);
                let judged = self.exits.rules.gate.judge(there, ttl_seconds);
                self.go(stream, judged, ttl_seconds);
            }
            Host::Name(name) => {
                let key = Key::name(name);
                self.look_up(stream, key, Wish::Open(target));
            }
        }
    }

    /// The name is known: asks the gate, and begins the connection.
    pub(super) fn head_for(&mut self, stream: StreamId, resolved: &[IpAddr], ttl_seconds: u32, target: &Target) {
        let gate = &self.exits.rules.gate;
        let judged = gate.choose(resolved, target.port, target.flags, ttl_seconds);
        self.go(stream, judged, ttl_seconds);
    }

    fn go(&mut self, stream: StreamId, judged: Result<Allowed, Refusal>, ttl_seconds: u32) {
        let begun = judged.and_then(|allowed| self.begin_exit(stream, allowed, ttl_seconds));
        if let Err(refusal) = begun {
            self.refuse_exit(stream, refusal);
        }
    }

    /// There will be no stream.
    pub(super) fn refuse_exit(&mut self, stream: StreamId, refusal: Refusal) {
        self.hand_over(Input::StreamRefused { stream, refusal });
    }

    fn begin_exit(&mut self, stream: StreamId, allowed: Allowed, ttl_seconds: u32) -> Result<(), Refusal> {
        let full = self.exits.sockets.len() >= self.exits.sockets_max;
        let Some(place) = self.siblings.take_socket().filter(|_| !full) else {
            return Err(Refusal::Reason(EndReason::ResourceLimit));
        };
        let failed = |error: &io::Error| Refusal::Reason(reason_of(error));
        let address = allowed.address();
        let mut connection = link::connect(address, &self.exits.rules.outbound_bind).map_err(|error| {
            self.note_want(&error);
            failed(&error)
        })?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = Exits::token(stream).ok_or(Refusal::Reason(EndReason::Internal))?;
        self.registry
            .register(&mut connection, token, both)
            .map_err(|error| failed(&error))?;
        let counted = self.start.traffic.connections.open(Kind::Exit, Began::Us, address.ip());
        let socket = ExitSocket::new(connection, allowed, ttl_seconds, (place, counted));
        self.exits.sockets.insert(stream, socket);
        let deadline = self.now() + CONNECT_TIME_MAX;
        self.exits.set_deadline(stream, Some(deadline));
        Ok(())
    }

    /// Out of ports or descriptors: worth counting, as an operator can mend it.
    pub(in crate::shards::driver) fn note_want(&self, error: &io::Error) {
        let load = &self.start.traffic.load;
        let counter = match Errno::from_io_error(error) {
            Some(Errno::ADDRNOTAVAIL) => &load.tcp_ports_exhausted,
            Some(Errno::MFILE | Errno::NFILE) => &load.descriptors_exhausted,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The socket has news while TCP comes up; `false` when there is no stream, or not yet.
    pub(super) fn exit_connected(&mut self, stream: StreamId) -> bool {
        let Some(socket) = self.exits.sockets.get_mut(&stream) else {
            return false;
        };
        let ttl_seconds = socket.ttl_seconds;
        let judged = match socket.connected() {
            Ok(None) => return false,
            Ok(Some(peer)) => self.exits.rules.gate.judge(peer, ttl_seconds),
            Err(error) => {
                self.note_want(&error);
                Err(Refusal::Reason(reason_of(&error)))
            }
        };
        match judged {
            Ok(allowed) => {
                let Some(socket) = self.exits.sockets.get_mut(&stream) else {
                    return false;
                };
                socket.stage = Stage::Open;
                self.exits.set_deadline(stream, None);
                let address = Some((allowed.address().ip(), ttl_seconds));
                self.tell(Input::StreamConnected { stream, address });
                true
            }
            Err(refusal) => {
                self.exits.forget(stream);
                self.tell(Input::StreamRefused { stream, refusal });
                false
            }
        }
    }

    /// A reload or a newer consensus has changed where streams may go.
    pub(in super::super) fn use_exit_rules(&mut self, rules: Arc<Rules>) {
        self.exits.rules = rules;
        if !self.exits.rules.reevaluate {
            return;
        }
        let refused = |socket: &ExitSocket| {
            let judged = self.exits.rules.gate.judge(socket.peer, socket.ttl_seconds);
            socket.stage == Stage::Open && judged.is_err()
        };
        let open = self.exits.sockets.iter();
        let refused: Vec<StreamId> = open
            .filter(|(_, socket)| refused(socket))
            .map(|(stream, _)| *stream)
            .collect();
        for stream in refused {
            self.tell(Input::StreamClosed {
                stream,
                reason: EndReason::ExitPolicy,
            });
        }
    }
}
