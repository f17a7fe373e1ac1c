//! Several circuits of one client and their streams: what the client says in cells of its own making, what the driver
//! answers, what the consensus and the clock do meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use relay_engine::Input;
use relay_engine::crypto::onion;
use relay_engine::door::{ChannelId, Refusal, StreamId};
use relay_engine::network::{NetworkView, Parameters};
use relay_engine::settings::{Defences, StreamServices};
use relay_simnet::client::{Client, Event, Wish};
use relay_wire::cell::Command;
use relay_wire::relay_cells::{EndReason, RelayCommand};
use relay_wire::stream::Answer;

use crate::shard::{KEYS, Shard, settings};
use crate::tape::Tape;

const LINK: ChannelId = ChannelId(3);

/// Parameters that the engine listens to; the story gives them any value.
const PARAMETERS: [&str; 14] = [
    "circwindow",
    "sendme_emit_min_version",
    "cc_alg",
    "cc_cwnd_init",
    "cc_cwnd_inc",
    "cc_cwnd_min",
    "cc_sendme_inc",
    "cc_vegas_alpha_exit",
    "cc_xoff_client",
    "cc_xoff_exit",
    "cc_xon_rate",
    "circ_max_cell_queue_size",
    "CircuitPriorityHalflifeMsec",
    "DoSStreamCreationEnabled",
];

/// Messages that do something, as a fuzzer would take long to find them by their numbers.
const COMMANDS: [RelayCommand; 16] = [
    RelayCommand::BEGIN,
    RelayCommand::DATA,
    RelayCommand::END,
    RelayCommand::SENDME,
    RelayCommand::RESOLVE,
    RelayCommand::BEGIN_DIR,
    RelayCommand::XON,
    RelayCommand::XOFF,
    RelayCommand::DROP,
    RelayCommand::TRUNCATE,
    RelayCommand::ESTABLISH_RENDEZVOUS,
    RelayCommand::RENDEZVOUS1,
    RelayCommand::INTRODUCE1,
    RelayCommand::ESTABLISH_INTRO,
    RelayCommand::PADDING_NEGOTIATE,
    RelayCommand::CONFLUX_LINK,
];

struct Story {
    shard: Shard,
    client: Client,
    circuits: Vec<u32>,
    /// So far the client made all cells itself, so it must understand all answers.
    honest: bool,
}

/// The story of one link.
pub(super) fn circuits(data: &[u8]) {
    let mut story = Story {
        shard: Shard::new(),
        client: Client::new(5),
        circuits: Vec::new(),
        honest: true,
    };
    story
        .shard
        .accept(LINK, SocketAddr::from(([198, 51, 100, 200], 40_000)));
    story.exchange(usize::MAX);
    let mut tape = Tape::new(data);
    while !tape.is_empty() && story.shard.up.contains(&LINK) {
        story.step(&mut tape);
        let tally = story.shard.engine.tally();
        let queues = 2 * usize::try_from(tally.circuits_open).expect("few circuits");
        assert!(
            story.shard.engine.cells_waiting() <= 50_100 * queues,
            "queues without a bound"
        );
        assert_eq!(tally.streams_open, story.shard.streams.len() as u64);
    }
    story.exchange(usize::MAX);
    story.shard.end();
}

impl Story {
    /// Bytes both ways; a link with room for so many at most.
    fn exchange(&mut self, room_bytes_max: usize) {
        loop {
            let said = std::mem::take(&mut self.client.output);
            self.shard.receive(LINK, &said);
            let heard = self.shard.write(LINK, room_bytes_max.min(64 * 1024));
            self.client.receive(&heard);
            if said.is_empty() && (heard.is_empty() || room_bytes_max < 64 * 1024) {
                break;
            }
        }
        for event in std::mem::take(&mut self.client.events) {
            match event {
                Event::Nonsense(what) => assert!(!self.honest, "the client cannot make sense of {what}"),
                Event::Destroyed { circuit, .. } => self.circuits.retain(|known| *known != circuit),
                _ => {}
            }
        }
    }

    fn circuit(&self, tape: &mut Tape<'_>) -> u32 {
        let number = tape.below(8);
        self.circuits
            .get(number % self.circuits.len().max(1))
            .copied()
            .unwrap_or(0x8000_0001)
    }

    fn stream(&self, tape: &mut Tape<'_>) -> StreamId {
        let number = usize::from(tape.u8());
        let known = self.shard.streams.keys().nth(number % self.shard.streams.len().max(1));
        known.copied().unwrap_or(StreamId(number as u64))
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.below(24) {
            0 => {
                let circuit = self.client.create_fast();
                self.circuits.push(circuit);
                self.exchange(usize::MAX);
            }
            1 => {
                let wish = [Wish::Ntor, Wish::NtorV3, Wish::CongestionControl, Wish::Cgo][tape.below(4)];
                let circuit = self.client.create(&KEYS[0].hop, wish);
                self.circuits.push(circuit);
                self.exchange(usize::MAX);
            }
            2 => {
                for (ticket, request) in std::mem::take(&mut self.shard.work) {
                    let answer = onion::answer(&request);
                    self.shard.tell(Input::OnionAnswered { ticket, answer });
                }
                self.exchange(usize::MAX);
            }
            3..=6 => self.message(tape),
            7 => self.begin(tape),
            8 => {
                let (circuit, stream, cells) = (self.circuit(tape), 1 + tape.u8() % 4, tape.u8());
                for _ in 0..cells {
                    self.client
                        .send(circuit, 0, Command::RELAY, RelayCommand::DATA, stream.into(), &[1; 400]);
                }
            }
            9 => {
                let (circuit, cells) = (self.circuit(tape), u16::from(tape.u8()).max(1));
                let congestion = tape.coin();
                self.client.acknowledge(circuit, cells, congestion);
            }
            10 => {
                let circuit = self.circuit(tape);
                self.client.destroy(circuit);
                self.circuits.retain(|known| *known != circuit);
            }
            11 => {
                let (circuit, wish) = (self.circuit(tape), if tape.coin() { Wish::Ntor } else { Wish::Cgo });
                // One handshake at a time, as with all clients: an answer does not say to which it belongs.
                if !self.client.is_growing(circuit) {
                    self.client.extend(circuit, &KEYS[1].hop, wish);
                }
            }
            12 => {
                for (attempt, _) in std::mem::take(&mut self.shard.connects) {
                    self.shard.tell(Input::ConnectFailed { attempt });
                }
            }
            13 => {
                self.honest = false;
                let (circuit, command) = (self.circuit(tape), Command(tape.u8()));
                self.client.cell(circuit, command, tape.run());
            }
            14 => self.connected(tape),
            15 => self.received(tape),
            16 => {
                let stream = self.stream(tape);
                if self.shard.streams.get(&stream).is_some_and(|known| known.connected) {
                    self.shard.tell(Input::StreamReadable { stream });
                }
            }
            17 => {
                let (stream, room) = (self.stream(tape), usize::from(tape.u16()));
                if self.shard.streams.get(&stream).is_none_or(|known| known.connected) {
                    self.shard.write_stream(stream, room);
                }
            }
            18 => {
                let stream = self.stream(tape);
                if self.shard.streams.get(&stream).is_some_and(|known| !known.connected) {
                    return;
                }
                let reason = [EndReason::Done, EndReason::ConnReset, EndReason::Timeout][tape.below(3)];
                self.shard.tell(Input::StreamClosed { stream, reason });
            }
            19 => self.resolved(tape),
            20 => self.shard.pass(Duration::from_millis(tape.u16().into())),
            21 => {
                let room = usize::from(tape.u16());
                self.exchange(room);
            }
            22 => self.outside(tape),
            _ => self.exchange(usize::MAX),
        }
    }

    fn message(&mut self, tape: &mut Tape<'_>) {
        let (circuit, command) = (self.circuit(tape), tape.u8());
        let command = COMMANDS
            .get(usize::from(command))
            .copied()
            .unwrap_or(RelayCommand(command));
        let carrier = if tape.u8() & 7 == 7 {
            Command::RELAY_EARLY
        } else {
            Command::RELAY
        };
        let stream = u16::from(tape.u8() % 5);
        self.client.send(circuit, 0, carrier, command, stream, tape.run());
    }

    fn begin(&mut self, tape: &mut Tape<'_>) {
        let (circuit, stream) = (self.circuit(tape), 1 + u16::from(tape.u8() % 4));
        let (command, data): (_, &[u8]) = match tape.below(4) {
            0 => (RelayCommand::BEGIN_DIR, b""),
            1 => (RelayCommand::RESOLVE, b"example.com\0"),
            2 => (RelayCommand::BEGIN, b"[2001:db8::1]:443\0\0\0\0\x07"),
            _ => (RelayCommand::BEGIN, b"example.com:80\0"),
        };
        self.client.send(circuit, 0, Command::RELAY, command, stream, data);
        self.exchange(usize::MAX);
    }

    fn connected(&mut self, tape: &mut Tape<'_>) {
        let stream = self.stream(tape);
        if self
            .shard
            .streams
            .get(&stream)
            .is_some_and(|known| known.question || known.connected)
        {
            return;
        }
        let address: IpAddr = [203, 0, 113, 7].into();
        match tape.below(4) {
            0 => {
                self.shard.streams.remove(&stream);
                let refusal = match tape.coin() {
                    true => Refusal::Reason(EndReason::ConnectRefused),
                    false => Refusal::ExitPolicy {
                        address,
                        ttl_seconds: 60,
                    },
                };
                self.shard.tell(Input::StreamRefused { stream, refusal });
            }
            _ => {
                let Some(known) = self.shard.streams.get_mut(&stream) else {
                    return;
                };
                known.connected = true;
                self.shard.tell(Input::StreamConnected {
                    stream,
                    address: tape.coin().then_some((address, 60)),
                });
            }
        }
    }

    fn received(&mut self, tape: &mut Tape<'_>) {
        let (stream, wanted, more) = (self.stream(tape), usize::from(tape.u16()), tape.coin());
        let Some(bytes_max) = self
            .shard
            .streams
            .get_mut(&stream)
            .and_then(|known| known.reading.take())
        else {
            return;
        };
        // One byte too many is a driver's fault, which ends the stream and no more.
        let length = wanted.min(bytes_max + usize::from(wanted == usize::from(u16::MAX)));
        self.shard.tell(Input::StreamReceived {
            stream,
            bytes: &vec![2; length],
            more,
        });
    }

    fn resolved(&mut self, tape: &mut Tape<'_>) {
        let stream = self.stream(tape);
        if self.shard.streams.get(&stream).is_some_and(|known| !known.question) {
            return;
        }
        let answers = [
            Answer::Address([203, 0, 113, 7].into()),
            Answer::Name("host.example.com"),
            Answer::TransientError,
            Answer::PermanentError,
        ];
        let answers = &answers[tape.below(4)..];
        self.shard.streams.remove(&stream);
        self.shard.tell(Input::StreamResolved { stream, answers });
    }

    /// The world around.
    fn outside(&mut self, tape: &mut Tape<'_>) {
        match tape.below(6) {
            0 => {
                let mut parameters = Parameters::default();
                for _ in 0..tape.below(8) {
                    let name = PARAMETERS[tape.below(PARAMETERS.len())];
                    parameters.0.insert(name.to_owned(), tape.u32().cast_signed());
                }
                self.shard.tell(Input::Network(Arc::new(NetworkView {
                    parameters,
                    ..NetworkView::default()
                })));
            }
            1 => {
                let services = StreamServices {
                    exits: tape.coin(),
                    directory: tape.coin(),
                    refuse_unknown_exits: Some(tape.coin()),
                    any_printable_name: tape.coin(),
                };
                let queued_bytes_max = tape.coin().then(|| 514 * u64::from(tape.u8()));
                let defences = Defences {
                    queued_bytes_max,
                    ..Defences::default()
                };
                self.shard.tell(Input::Settings(settings(services, defences)));
            }
            2 => self.shard.tell(Input::Retire),
            3 => self.shard.tell(Input::Resume),
            4 => self.shard.tell(Input::EndCircuits),
            _ => self.shard.pass(Duration::from_secs(tape.u16().into())),
        }
    }
}
