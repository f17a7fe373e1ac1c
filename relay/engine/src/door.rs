//! The door of the engine: everything it is told, and everything it asks for.
//!
//! `Engine::handle(now, Input, &mut Outbox)` is the only way in. All consequences of an input are in
//! the box when the call returns; the driver lends the box, empties it and lends it again. The engine
//! knows no socket, clock, dice or file: time comes with each call, randomness as a seed at birth,
//! public-key work goes out as a ticket and comes back as an input.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use relay_formats::fingerprint::RsaIdentity;
use relay_wire::relay_cells::EndReason;
use relay_wire::stream::Answer;

use crate::flow::CongestionTally;
use crate::network::NetworkView;
use crate::settings::{InitiatorCredentials, ResponderCredentials, Settings};

pub mod carry;
mod streams;

pub use carry::{Carry, Load, ShardId};
pub use streams::{BeginFlags, ClientAddress, Host, Question, Refusal, StreamBytes, StreamId, Target};

/// The driver's name for one TLS session. The driver counts upwards and never names two sessions alike,
/// so a late input about a closed channel finds nobody and is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u64);

/// The engine's name for one wish to have a channel to a relay. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

/// The engine's name for one piece of public-key work. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What the engine is told.
pub enum Input<'a> {
    /// The relay's own settings, at birth and after each reload.
    Settings(Arc<Settings>),
    /// The newest consensus, as far as the engine needs it.
    Network(Arc<NetworkView>),
    /// TLS is up; nothing has been said on it yet.
    ChannelUp {
        /// The session's name from now on.
        channel: ChannelId,
        /// What TLS and the socket know of the peer.
        facts: ChannelFacts,
    },
    /// Plain bytes from the session, as many as were there (64 KiB at most). Cells are
    /// crypted on their way into queues; of an unfinished last cell the engine keeps a copy.
    Received {
        /// Where they came from.
        channel: ChannelId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The session can take this many more plain bytes now. The answer is in [`Outbox::written`].
    Writable {
        /// Which session.
        channel: ChannelId,
        /// Plain bytes that it takes at most.
        room_bytes_max: usize,
    },
    /// The answer to [`Effect::Export`].
    Exported {
        /// Which session.
        channel: ChannelId,
        /// Exported keying material (RFC 5705), 32 bytes.
        material: [u8; 32],
    },
    /// The session is gone, whoever ended it.
    ChannelDown {
        /// Which session.
        channel: ChannelId,
    },
    /// The answer to [`Effect::Connect`] when there is no session: refused, timed out, TLS failed.
    ConnectFailed {
        /// The engine's name for the attempt.
        attempt: AttemptId,
    },
    /// The answer to [`Effect::AnswerOnion`].
    OnionAnswered {
        /// The ticket that the work went out with.
        ticket: Ticket,
        /// The reply and the keys, or `None` where the handshake is to be refused.
        answer: Option<OnionAnswer>,
    },
    /// A deadline that [`Engine::deadline`](crate::Engine::deadline) named has come.
    Timeout,
    /// The relay is about to stop: refuse new circuits and channels, let the open ones end.
    Retire,
    /// The relay ends: all circuits are destroyed, and each side of them is told. The driver closes a channel when it has
    /// nothing more to say.
    EndCircuits,
    /// Takes `Retire` back: the relay was only asleep.
    Resume,
    /// The answer to [`Effect::OpenStream`] and [`Effect::OpenDirectory`]: the stream is open.
    StreamConnected {
        /// Which stream.
        stream: StreamId,
        /// The address that it goes to, and for how many seconds the client may remember it (after clipping). `None` for
        /// directory streams: their CONNECTED is empty.
        address: Option<(IpAddr, u32)>,
    },
    /// The other answer: there will be no stream. The driver forgets it with this; no [`Effect::CloseStream`] follows.
    StreamRefused {
        /// Which stream.
        stream: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to [`Effect::Resolve`]. The driver forgets the question with this.
    StreamResolved {
        /// Which question.
        stream: StreamId,
        /// What goes into RESOLVED, in this order, as far as it fits; an error is an answer too. The engine sets the TTL.
        answers: &'a [Answer<'a>],
    },
    /// The destination has sent something, or ended its side. Said once, and again only after a
    /// [`Input::StreamReceived`] whose `more` was false.
    StreamReadable {
        /// Which stream.
        stream: StreamId,
    },
    /// The answer to [`Effect::ReadStream`]: at most as many bytes as it asked for.
    StreamReceived {
        /// Which stream.
        stream: StreamId,
        /// From the destination; perhaps none. More than was asked for ends the stream: they would have no place.
        bytes: &'a [u8],
        /// Whether there may be more to read at once. If not, `StreamReadable` comes first.
        more: bool,
    },
    /// The destination can take this many more bytes now. The answer is in [`Outbox::written`].
    StreamWritable {
        /// Which stream.
        stream: StreamId,
        /// Bytes that it takes at most.
        room_bytes_max: usize,
    },
    /// The destination has ended the stream, all that it sent before is read; or the stream broke. The client gets END; the
    /// answer is [`Effect::CloseStream`], unless that has been said already.
    StreamClosed {
        /// Which stream.
        stream: StreamId,
        /// What END says: `Done` for an orderly end, `ConnReset`, `Timeout` and so on.
        reason: EndReason,
    },
    /// What another shard had in its [`Outbox::carry`] for this one. Loads of one shard come in its order.
    Carried {
        /// Which shard.
        from: ShardId,
        /// What it has to say; empty when the call returns, so that its memory can serve again.
        load: &'a mut Load,
    },
}

/// What TLS and the socket know when a session comes up.
pub struct ChannelFacts {
    /// Who began, and what that side needs for the in-protocol handshake (tor-spec, "Negotiating and initializing channels").
    pub role: Role,
    /// The peer's address as the socket sees it. Never logged: it may be a client.
    pub peer: SocketAddr,
    /// Our address of this session as the socket sees it.
    pub local: SocketAddr,
}

/// Who began the session.
pub enum Role {
    /// The peer connected to us.
    Responder {
        /// What we show; belongs to the TLS certificate that this session used.
        credentials: Arc<ResponderCredentials>,
    },
    /// We connected to the peer, because the engine asked for it.
    Initiator {
        /// The engine's own name for its wish.
        attempt: AttemptId,
        /// SHA-256 of the DER of the certificate that the peer showed in TLS.
        peer_tls_certificate_sha256: [u8; 32],
        /// What we show to authenticate as a relay.
        credentials: Arc<InitiatorCredentials>,
    },
}

/// What the engine asks for, in the order in which it is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Connect to a relay over TCP and TLS; answer with `ChannelUp` or `ConnectFailed`.
    Connect {
        /// The engine's name for this wish.
        attempt: AttemptId,
        /// Where to.
        address: SocketAddr,
    },
    /// Export keying material with label `EXPORTER FOR TOR TLS CLIENT BINDING AUTH0003`; answer with `Exported`.
    Export {
        /// Which session.
        channel: ChannelId,
        /// The exporter's context: the initiator's RSA identity, SHA-256 of its DER.
        context: [u8; 32],
    },
    /// Do the server's half of a circuit handshake; answer with `OnionAnswered`.
    AnswerOnion {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What the client sent.
        request: OnionRequest,
    },
    /// This session has something to send: say `Writable` as soon as it takes bytes. Said once
    /// until a `Writable` has emptied the queue.
    WantsWrite {
        /// Which session.
        channel: ChannelId,
    },
    /// The link handshake is through. Until this is said, the driver may end the session at any time: for taking too long,
    /// or because too many others wait as well.
    Opened {
        /// Which session.
        channel: ChannelId,
        /// The relay that the peer has proven to be; none where it has proven nothing, as clients do.
        relay: Option<RsaIdentity>,
    },
    /// End the session after what `written` holds for it has gone out. `ChannelDown` follows.
    Close {
        /// Which session.
        channel: ChannelId,
    },
    /// Something that the process may log, count or act upon. Says nothing about any client.
    Report(Report),
    /// Resolve where needed, check the exit policy for the address, connect; answer with `StreamConnected` or
    /// `StreamRefused`. Only with [`StreamServices::exits`](crate::settings::StreamServices).
    OpenStream {
        /// The engine's name for it.
        stream: StreamId,
        /// Where to.
        target: Target,
    },
    /// A stream to our own directory server, which speaks HTTP; answer with `StreamConnected` or `StreamRefused`. Only with
    /// [`StreamServices::directory`](crate::settings::StreamServices).
    OpenDirectory {
        /// The engine's name for it.
        stream: StreamId,
        /// Who asks, for statistics and limits; only where the hop before us is a client.
        asker: Option<ClientAddress>,
    },
    /// Ask the DNS; answer with `StreamResolved`. Only with [`StreamServices::exits`](crate::settings::StreamServices).
    Resolve {
        /// The engine's name for the question.
        stream: StreamId,
        /// What it is.
        question: Question,
    },
    /// Read now up to so many bytes of what the destination has sent, and answer with one `StreamReceived`, even if it is
    /// empty, or with `StreamClosed`. The room is kept free for the answer, so it is to come at once. While the engine does
    /// not say this, the bytes stay where they are: that is how the destination is held back.
    ReadStream {
        /// Which stream.
        stream: StreamId,
        /// Bytes at most; a whole number of cells.
        bytes_max: usize,
    },
    /// There is something for the destination: say `StreamWritable` as soon as it takes bytes. Said once until a
    /// `StreamWritable` has emptied the queue.
    StreamWantsWrite {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream is over for the client. Write `rest` to the destination, as far as it takes it within some seconds, and
    /// end it. A stream that is not connected yet is given up; a question need not be answered. The engine has forgotten
    /// the name.
    CloseStream {
        /// Which stream.
        stream: StreamId,
        /// What the client had sent before its end; bounded like the queue that it comes from.
        rest: StreamBytes,
    },
}

/// One circuit handshake to be answered by public-key work.
pub struct OnionRequest {
    /// Which handshake: ntor (2) or ntor-v3 (3), as CREATE2 names it.
    pub handshake: crate::crypto::onion::Handshake,
    /// The client's half, at most 505 bytes.
    pub client: Vec<u8>,
    /// Keys and parameters of the time when the cell came in.
    pub settings: Arc<Settings>,
    /// The consensus of that time.
    pub network: Arc<NetworkView>,
    /// Dice for this one answer.
    pub seed: [u8; 32],
}

impl std::fmt::Debug for OnionRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnionRequest")
    }
}

pub use crate::crypto::onion::OnionAnswer;

/// News for the process. Nothing in here can carry a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A circuit was created on an inbound channel whose peer named this published address of ours:
    /// the ORPort is reachable (relay-reference 4.4).
    OrPortReachable {
        /// Our own address as the peer saw it.
        address: SocketAddr,
    },
    /// An authenticated peer's clock differs from ours (tor-spec, NETINFO).
    ClockSkew {
        /// Theirs less ours, in seconds.
        seconds: i64,
        /// Whether the consensus knows the peer as an authority.
        from_authority: bool,
    },
    /// Too much waited in our queues: so many circuits were ended, and so many bytes given back.
    MemoryReclaimed {
        /// Circuits.
        circuits: u64,
        /// Bytes that had waited in their queues.
        bytes: u64,
    },
    /// A relay broke the protocol; the text names the rule, never the peer's address.
    ProtocolViolation(&'static str),
}

/// What the driver lends and empties. Reused, so that steady work allocates nothing.
#[derive(Default)]
pub struct Outbox {
    /// Wishes, in order.
    pub effects: Vec<Effect>,
    /// The answer to the last `Writable`: plain bytes for that session, never more than its room. Cells of circuits
    /// come whole; the link handshake's longer ones may be cut where the room ends. Empty means that nothing waits, or that
    /// not even a cell has room.
    /// Also the answer to the last `StreamWritable`: bytes for that stream's destination.
    pub written: Vec<u8>,
    /// Said with the answer to the last `Writable`: there is more for that session, and it will not be wished for again. Else
    /// [`Effect::WantsWrite`] comes with the next thing that waits.
    pub more: bool,
    /// What the other shards of the relay are to be told, by `Input::Carried`: at the end of the driver's round, or
    /// earlier where much has gathered. Always empty where there is one shard.
    pub carry: Carry,
}

/// Gives a struct of numbers its sum, so that a new number cannot be forgotten there.
macro_rules! summed {
    ($(#[$on_all:meta])* pub struct $name:ident { $($(#[$on_one:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$on_all])*
        pub struct $name { $($(#[$on_one])* pub $field: $kind,)* }

        impl std::ops::AddAssign<&$name> for $name {
            /// Joins what two shards have counted.
            fn add_assign(&mut self, other: &$name) {
                $(self.$field += &other.$field;)*
            }
        }
    };
}

summed! {
/// Plain numbers about the engine, for metrics. Sums and levels only; nothing per peer or user.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Circuits open now.
    pub circuits_open: u64,
    /// Channels open now, authenticated as relays.
    pub channels_relay_open: u64,
    /// Channels open now that nobody authenticated: clients and bridges.
    pub channels_client_open: u64,
    /// Cells that went through, both directions.
    pub cells_relayed: u64,
    /// CREATE_FAST handshakes answered.
    pub onionskins_fast: u64,
    /// ntor handshakes that went to the workers.
    pub onionskins_ntor: u64,
    /// ntor-v3 handshakes that went to the workers.
    pub onionskins_ntor_v3: u64,
    /// Handshakes that the queue refused, of both kinds.
    pub onionskins_dropped: u64,
    /// Those of them that were ntor.
    pub onionskins_ntor_dropped: u64,
    /// DESTROY cells received.
    pub destroy_cells: u64,
    /// Circuits closed because their client broke the protocol.
    pub protocol_violations: u64,
    /// RELAY_DROP messages received.
    pub drop_cells: u64,
    /// Streams open now or being opened, questions included.
    pub streams_open: u64,
    /// BEGIN, BEGIN_DIR and RESOLVE that were handed to the driver.
    pub streams_begun: u64,
    /// Those of them that were BEGIN_DIR.
    pub streams_directory: u64,
    /// Those of them that were RESOLVE.
    pub streams_resolve: u64,
    /// XON messages sent.
    pub xon_sent: u64,
    /// XOFF messages sent.
    pub xoff_sent: u64,
    /// Circuits that were made with congestion control.
    pub congestion_circuits_opened: u64,
    /// Those of them that have ended.
    pub congestion_circuits_closed: u64,
    /// Circuits that became legs of conflux sets.
    pub conflux_legs_linked: u64,
    /// SWITCH messages sent.
    pub conflux_switches_sent: u64,
    /// DROP messages sent by padding machines.
    pub padding_cells_sent: u64,
    /// PADDING_NEGOTIATE answered with an error.
    pub padding_machines_refused: u64,
    /// Messages for streams that are not there any more, or never were.
    pub stray_stream_cells: u64,
    /// Circuits refused: their client's address was marked. This and the next four are the relay's, told by its first shard.
    pub dos_circuits_rejected: u64,
    /// Addresses marked for making too many circuits.
    pub dos_addresses_marked: u64,
    /// Addresses marked for filling queues away from them.
    pub dos_addresses_marked_maxq: u64,
    /// Connections refused: their address made too many in too short a time.
    pub dos_connections_rejected: u64,
    /// Connections refused: their address had too many.
    pub dos_concurrent_connections_rejected: u64,
    /// Circuits ended because a queue of theirs was full.
    pub dos_circuits_killed_max_cell: u64,
    /// Those of them whose queue away from the client was full.
    pub dos_circuits_killed_max_cell_outq: u64,
    /// ESTABLISH_RENDEZVOUS from one hop away that got no answer.
    pub dos_single_hop_refused: u64,
    /// INTRODUCE1 refused: the service wants no more for now.
    pub dos_introduce2_rejected: u64,
    /// BEGIN and RESOLVE that came faster than a circuit's client may send them.
    pub dos_streams_rejected: u64,
    /// Times that too much waited in the queues of all shards.
    pub memory_reclaims: u64,
    /// Circuits ended for that.
    pub memory_circuits_ended: u64,
    /// Bytes that waited in their queues.
    pub memory_bytes_reclaimed: u64,
    /// Bytes of answers of the DNS that were forgotten for the same reason.
    pub memory_dns_bytes_reclaimed: u64,
    /// Cells of onion services and their clients.
    pub onion_services: OnionServiceTally,
    /// What congestion windows went through.
    pub congestion: CongestionTally,
}
}

summed! {
/// Cells of onion services and their clients, by what became of them; C tor's words are those of its metrics.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct OnionServiceTally {
    /// ESTABLISH_INTRO that made an introduction point.
    pub est_intro_success: u64,
    /// Those that cannot be read, or prove nothing.
    pub est_intro_malformed: u64,
    /// Those on circuits that have another duty, or go on.
    pub est_intro_unsuitable_circuit: u64,
    /// Those whose circuit ended with the answer.
    pub est_intro_circuit_dead: u64,
    /// ESTABLISH_RENDEZVOUS that made a rendezvous point.
    pub est_rend_success: u64,
    /// Those on circuits that have another duty, or go on.
    pub est_rend_unsuitable_circuit: u64,
    /// Those from one hop away that got no answer.
    pub est_rend_single_hop: u64,
    /// Those whose cookie is none.
    pub est_rend_malformed: u64,
    /// Those with a cookie that somebody waits with already.
    pub est_rend_duplicate_cookie: u64,
    /// Those whose circuit ended with the answer.
    pub est_rend_circuit_dead: u64,
    /// INTRODUCE1 that went on to their service.
    pub intro1_success: u64,
    /// Those whose service's circuit ended with it.
    pub intro1_circuit_dead: u64,
    /// Those that cannot be read.
    pub intro1_malformed: u64,
    /// Those for services that are not here.
    pub intro1_unknown_service: u64,
    /// Those for services that want no more for now.
    pub intro1_rate_limited: u64,
    /// The second on a circuit, or one on a circuit that has another duty or goes on.
    pub intro1_circuit_reused: u64,
    /// Those from one hop away.
    pub intro1_single_hop: u64,
    /// RENDEZVOUS1 that found their client.
    pub rend1_success: u64,
    /// Those on circuits that have another duty, or go on.
    pub rend1_unsuitable_circuit: u64,
    /// Those without a whole cookie.
    pub rend1_malformed: u64,
    /// Those with a cookie that nobody waits with.
    pub rend1_unknown_cookie: u64,
    /// Those whose client's circuit ended with it.
    pub rend1_circuit_dead: u64,
}
}

/// The time as an input sees it: the steady clock for durations, the wall clock for certificates and documents.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time since the driver's start; never goes back.
    pub steady: Duration,
    /// The date. May jump.
    pub wall: SystemTime,
}
