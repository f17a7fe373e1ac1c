//! One engine and the least of a driver: does at once what must be done, keeps what a story may delay, and watches that
//! the engine asks only for what its door promises.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use relay_engine::door::{AttemptId, ChannelFacts, ChannelId, OnionRequest, Role, StreamId, Ticket};
use relay_engine::settings::{Defences, Settings, StreamServices};
use relay_engine::{Effect, Engine, Input, Now, Outbox, Tally};
use relay_simnet::keys::{Keys, birthday};

/// The relay under test, and its neighbour.
pub(crate) static KEYS: LazyLock<[Arc<Keys>; 2]> = LazyLock::new(|| {
    [1, 2].map(|number| {
        let address = SocketAddr::from(([192, 0, 2, number], 9001));
        Arc::new(Keys::new(number.into(), address).expect("seeds that make keys"))
    })
});

/// What the first relay is told of itself.
pub(crate) fn settings(services: StreamServices, defences: Defences) -> Arc<Settings> {
    let old = &KEYS[0].settings;
    Arc::new(Settings {
        rsa_identity: old.rsa_identity,
        ed25519_identity: old.ed25519_identity,
        advertised: old.advertised.clone(),
        onion_keys: old.onion_keys.clone(),
        extend_allow_private_addresses: false,
        services,
        defences,
        extras: old.extras,
    })
}

/// What the driver knows of a stream.
#[derive(Default)]
pub(crate) struct Stream {
    /// It is a question, which is answered and over.
    pub(crate) question: bool,
    pub(crate) connected: bool,
    /// Bytes that the engine wants to read.
    pub(crate) reading: Option<usize>,
    pub(crate) wants_write: bool,
}

/// An engine, its driver and its clock.
pub(crate) struct Shard {
    pub(crate) engine: Engine,
    outbox: Outbox,
    pub(crate) steady: Duration,
    /// Sessions that are up.
    pub(crate) up: BTreeSet<ChannelId>,
    /// Sessions that have something to send.
    pub(crate) wants_write: BTreeSet<ChannelId>,
    /// Wishes that wait for the story.
    pub(crate) connects: Vec<(AttemptId, SocketAddr)>,
    pub(crate) exports: Vec<(ChannelId, [u8; 32])>,
    pub(crate) work: Vec<(Ticket, OnionRequest)>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    streams_seen: BTreeSet<StreamId>,
}

impl Shard {
    /// A relay that serves everything.
    pub(crate) fn new() -> Self {
        let mut shard = Self {
            engine: Engine::new([3; 32]),
            outbox: Outbox::default(),
            steady: Duration::from_secs(1),
            up: BTreeSet::new(),
            wants_write: BTreeSet::new(),
            connects: Vec::new(),
            exports: Vec::new(),
            work: Vec::new(),
            streams: BTreeMap::new(),
            streams_seen: BTreeSet::new(),
        };
        let services = StreamServices {
            exits: true,
            directory: true,
            refuse_unknown_exits: Some(false),
            any_printable_name: false,
        };
        shard.tell(Input::Settings(settings(services, Defences::default())));
        shard
    }

    /// Tells the engine something and sorts what it wants.
    pub(crate) fn tell(&mut self, input: Input<'_>) {
        let now = Now {
            steady: self.steady,
            wall: birthday() + self.steady,
        };
        self.engine.handle(now, input, &mut self.outbox);
        assert_eq!(
            self.outbox.carry.waiting().count(),
            0,
            "mail for a shard that is not there"
        );
        for effect in std::mem::take(&mut self.outbox.effects) {
            self.sort(effect);
        }
    }

    fn sort(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { attempt, address } => self.connects.push((attempt, address)),
            Effect::Export { channel, context } => {
                assert!(self.up.contains(&channel));
                self.exports.push((channel, context));
            }
            Effect::AnswerOnion { ticket, request } => {
                assert!(request.client.len() <= 505);
                self.work.push((ticket, request));
            }
            Effect::WantsWrite { channel } => {
                assert!(self.up.contains(&channel), "wants to write to a session that is gone");
                assert!(self.wants_write.insert(channel), "said twice");
            }
            // A session may be closed in answer to its end.
            Effect::Close { channel } => drop(self.up.remove(&channel)),
            Effect::Opened { .. } | Effect::Report(_) => {}
            Effect::OpenStream { stream, target } => {
                assert_ne!(target.port, 0);
                self.born(stream, false);
            }
            Effect::OpenDirectory { stream, .. } => self.born(stream, false),
            Effect::Resolve { stream, .. } => self.born(stream, true),
            Effect::ReadStream { stream, bytes_max } => {
                assert!((1..=1 << 20).contains(&bytes_max), "reads {bytes_max} bytes");
                let known = self.streams.get_mut(&stream).expect("reads a stream that is gone");
                assert!(known.connected, "reads before it is connected");
                assert_eq!(known.reading.replace(bytes_max), None, "reads twice at once");
            }
            Effect::StreamWantsWrite { stream } => {
                let known = self.streams.get_mut(&stream).expect("writes to a stream that is gone");
                assert!(!known.wants_write, "said twice");
                known.wants_write = true;
            }
            Effect::CloseStream { stream, rest } => {
                assert!(self.streams.remove(&stream).is_some(), "closes a stream that is gone");
                assert!(rest.0.len() <= 4 << 20);
            }
        }
    }

    fn born(&mut self, stream: StreamId, question: bool) {
        assert!(self.streams_seen.insert(stream), "a name is given twice");
        self.streams.insert(
            stream,
            Stream {
                question,
                ..Stream::default()
            },
        );
    }

    /// A session that the peer has begun.
    pub(crate) fn accept(&mut self, channel: ChannelId, peer: SocketAddr) {
        let credentials = Arc::clone(&KEYS[0].responder);
        self.channel_up(channel, peer, Role::Responder { credentials });
    }

    /// A session that we have begun, to the neighbour.
    pub(crate) fn connected(&mut self, channel: ChannelId, attempt: AttemptId, address: SocketAddr) {
        let role = Role::Initiator {
            attempt,
            peer_tls_certificate_sha256: KEYS[1].responder.tls_certificate_sha256,
            credentials: Arc::clone(&KEYS[0].initiator),
        };
        self.channel_up(channel, address, role);
    }

    fn channel_up(&mut self, channel: ChannelId, peer: SocketAddr, role: Role) {
        self.up.insert(channel);
        let local = KEYS[0].hop.address;
        self.tell(Input::ChannelUp {
            channel,
            facts: ChannelFacts { role, peer, local },
        });
    }

    /// Bytes of the peer's.
    pub(crate) fn receive(&mut self, channel: ChannelId, bytes: &[u8]) {
        for piece in bytes.to_vec().chunks_mut(64 * 1024) {
            if self.up.contains(&channel) {
                self.tell(Input::Received { channel, bytes: piece });
            }
        }
    }

    /// What a session is to send, with room for so many bytes.
    pub(crate) fn write(&mut self, channel: ChannelId, room_bytes_max: usize) -> Vec<u8> {
        self.wants_write.remove(&channel);
        self.tell(Input::Writable {
            channel,
            room_bytes_max,
        });
        let written = std::mem::take(&mut self.outbox.written);
        assert!(written.len() <= room_bytes_max);
        written
    }

    /// What a stream's destination is to get.
    pub(crate) fn write_stream(&mut self, stream: StreamId, room_bytes_max: usize) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.wants_write = false;
        }
        self.tell(Input::StreamWritable { stream, room_bytes_max });
        let written = std::mem::take(&mut self.outbox.written);
        assert!(written.len() <= room_bytes_max);
    }

    /// The session has ended.
    pub(crate) fn down(&mut self, channel: ChannelId) {
        self.up.remove(&channel);
        self.wants_write.remove(&channel);
        self.tell(Input::ChannelDown { channel });
    }

    /// Lets time pass; says what is due on the way, but not for ever.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.steady + time;
        for _ in 0..64 {
            match self.engine.deadline().filter(|due| *due <= end) {
                Some(due) => {
                    self.steady = self.steady.max(due);
                    self.tell(Input::Timeout);
                }
                None => break,
            }
        }
        self.steady = end;
        self.tell(Input::Timeout);
        let late = self.engine.deadline().is_some_and(|due| due <= end);
        assert!(!late, "a deadline that has come is not met by Timeout");
    }

    /// Nothing may be left when all sessions are gone.
    pub(crate) fn end(mut self) {
        for channel in self.up.clone() {
            self.down(channel);
        }
        for (attempt, _) in std::mem::take(&mut self.connects) {
            self.tell(Input::ConnectFailed { attempt });
        }
        self.pass(Duration::from_secs(600));
        let Tally {
            circuits_open,
            channels_relay_open,
            channels_client_open,
            streams_open,
            ..
        } = self.engine.tally();
        assert_eq!(
            (circuits_open, channels_relay_open, channels_client_open, streams_open),
            (0, 0, 0, 0)
        );
        assert_eq!(self.engine.cells_waiting(), 0);
        assert!(self.streams.is_empty(), "streams that nobody closed");
    }
}
