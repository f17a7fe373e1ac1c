//! Stories of streams that end at the third relay.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_engine::Input;
use relay_engine::door::{Effect, Host, Question, Refusal, StreamId};
use relay_engine::settings::StreamServices;
use relay_simnet::client::Wish;
use relay_wire::cell::Command;
use relay_wire::flow_control::SendmeBody;
use relay_wire::relay_cells::{DestroyReason, EndReason, RelayCommand as Relay};
use relay_wire::stream::{self as bodies, Answer};

use super::*;

const EXIT: usize = 2;

/// The far end of a stream.
#[derive(Default)]
struct Destination {
    /// What it will send.
    source: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    /// It takes nothing.
    stubborn: bool,
    closed: bool,
}

/// The driver's part, in few lines.
#[derive(Default)]
struct World {
    streams: BTreeMap<StreamId, Destination>,
    /// What a new stream's destination will send.
    source: Vec<u8>,
    stubborn: bool,
    connects_late: Vec<StreamId>,
    late: bool,
}

impl World {
    /// Does what the exit wants, until nobody wants anything.
    fn pump(&mut self, net: &mut Net) {
        loop {
            net.run();
            let effects = std::mem::take(&mut net.relays[EXIT].streams);
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.perform(net, effect);
            }
        }
    }

    fn perform(&mut self, net: &mut Net, effect: Effect) {
        match effect {
            Effect::OpenStream { stream, .. } | Effect::OpenDirectory { stream, .. } => {
                let destination = Destination {
                    source: self.source.clone(),
                    stubborn: self.stubborn,
                    ..Destination::default()
                };
                self.streams.insert(stream, destination);
                if self.late {
                    self.connects_late.push(stream);
                } else {
                    self.connect(net, stream);
                }
            }
            Effect::ReadStream { stream, bytes_max } => {
                let found = self.streams.get_mut(&stream).expect("a stream");
                let end = found.source.len().min(found.sent + bytes_max);
                let bytes = found.source[found.sent..end].to_vec();
                found.sent = end;
                let more = end < found.source.len();
                let received = Input::StreamReceived {
                    stream,
                    bytes: &bytes,
                    more,
                };
                net.handle(EXIT, received);
            }
            Effect::StreamWantsWrite { stream } => {
                let found = self.streams.get_mut(&stream).expect("a stream");
                while !found.stubborn {
                    let bytes = net.drain(EXIT, stream, 16 * 1024);
                    if bytes.is_empty() {
                        break;
                    }
                    found.received.extend(bytes);
                }
            }
            Effect::CloseStream { stream, rest } => {
                if let Some(found) = self.streams.get_mut(&stream) {
                    found.received.extend(rest.0);
                    assert!(!std::mem::replace(&mut found.closed, true), "closed twice");
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn connect(&mut self, net: &mut Net, stream: StreamId) {
        let address = Some(("192.0.2.80".parse().expect("an address"), 300));
        net.handle(EXIT, Input::StreamConnected { stream, address });
        if !self.source.is_empty() {
            net.handle(EXIT, Input::StreamReadable { stream });
        }
    }

    fn only(&self) -> &Destination {
        assert_eq!(self.streams.len(), 1);
        self.streams.values().next().expect("a stream")
    }
}

/// An exit that knows its neighbours.
fn exit_net(seed: u64) -> Net {
    let mut net = net(seed);
    let services = StreamServices {
        exits: true,
        directory: true,
        refuse_unknown_exits: Some(false),
        any_printable_name: false,
    };
    net.serve(EXIT, services);
    net
}

fn say(net: &mut Net, circuit: u32, command: Relay, stream_id: u16, data: &[u8]) {
    net.clients[0].send(circuit, 2, Command::RELAY, command, stream_id, data);
}

/// Command, stream, data.
type Told = (Relay, u16, Vec<u8>);

/// What the client was told: commands and streams, DATA put together.
fn told(net: &mut Net) -> (Vec<Told>, Vec<u8>) {
    let (mut others, mut data) = (Vec::new(), Vec::new());
    for event in events(net) {
        match event {
            Event::Message {
                command: Relay::DATA,
                data: part,
                ..
            } => data.extend(part),
            Event::Message {
                command,
                stream_id,
                data,
                ..
            } => others.push((command, stream_id, data)),
            Event::Destroyed { reason, .. } => others.push((Relay(0), 0, vec![reason])),
            other => panic!("{other:?}"),
        }
    }
    (others, data)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

const KINDS: [(Wish, u16, bool); 3] = [
    (Wish::Ntor, 100, false),
    (Wish::CongestionControl, 31, true),
    (Wish::Cgo, 31, true),
];

#[test]
fn an_answer_arrives_whole_with_every_crypto_and_flow_control() {
    download(1_000_000);
}

#[test]
#[ignore = "a minute without optimisation"]
fn an_answer_of_ten_megabytes_arrives_whole_with_every_crypto_and_flow_control() {
    download(10_000_000);
}

fn download(bytes: usize) {
    for (seed, (wish, cells_per_sendme, cc)) in (100..).zip(KINDS) {
        let mut net = exit_net(seed);
        let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, wish]);
        net.clients[0].acknowledge(circuit, cells_per_sendme, cc);
        let mut world = World {
            source: pattern(bytes),
            ..World::default()
        };
        say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
        world.pump(&mut net);
        let (others, data) = told(&mut net);
        assert_eq!(others[0].0, Relay::CONNECTED);
        assert_eq!(
            others[0].2,
            bodies::connected("192.0.2.80".parse().expect("an address"), 300).as_bytes()
        );
        assert!(
            data == world.source,
            "{wish:?}: {} of {}",
            data.len(),
            world.source.len()
        );
        let stream = *world.streams.keys().next().expect("a stream");
        let reason = EndReason::Done;
        net.handle(EXIT, Input::StreamClosed { stream, reason });
        world.pump(&mut net);
        assert_eq!(told(&mut net).0, vec![(Relay::END, 7, vec![6])]);
        assert!(world.only().closed);
        assert_eq!(net.relays[EXIT].engine.tally().streams_open, 0);
        assert_eq!(net.relays[EXIT].engine.tally().protocol_violations, 0);
    }
}

#[test]
fn an_upload_arrives_whole_with_every_crypto_and_flow_control() {
    upload(1_000_000);
}

#[test]
#[ignore = "a minute without optimisation"]
fn an_upload_of_ten_megabytes_arrives_whole_with_every_crypto_and_flow_control() {
    upload(10_000_000);
}

fn upload(bytes: usize) {
    for (seed, (wish, _, cc)) in (110..).zip(KINDS) {
        let mut net = exit_net(seed);
        let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, wish]);
        let mut world = World::default();
        say(&mut net, circuit, Relay::BEGIN, 7, b"192.0.2.80:80\0");
        world.pump(&mut net);
        let sent = pattern(bytes);
        let mut sendmes = 0;
        for bite in sent.chunks(488 * 400) {
            for part in bite.chunks(488) {
                say(&mut net, circuit, Relay::DATA, 7, part);
            }
            world.pump(&mut net);
            let others = told(&mut net).0;
            sendmes += others
                .iter()
                .filter(|(command, stream, _)| (*command, *stream) == (Relay::SENDME, 7))
                .count();
        }
        assert!(world.only().received == sent, "{wish:?}");
        assert_eq!(
            sendmes > 0,
            !cc,
            "{wish:?}: streams have SENDMEs exactly without congestion control"
        );
        say(&mut net, circuit, Relay::END, 7, &[]);
        world.pump(&mut net);
        assert!(world.only().closed);
    }
}

#[test]
fn a_client_that_acknowledges_nothing_gets_one_window_and_no_more() {
    for (seed, (wish, window)) in (120..).zip([
        (Wish::Ntor, 500 * 498),
        (Wish::CongestionControl, 124 * 498),
        (Wish::Cgo, 124 * 488),
    ]) {
        let mut net = exit_net(seed);
        let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, wish]);
        let mut world = World {
            source: pattern(1_000_000),
            ..World::default()
        };
        say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
        world.pump(&mut net);
        assert_eq!(told(&mut net).1.len(), window, "{wish:?}");
        assert_eq!(world.only().sent, window, "what has no room stays with the destination");
    }
}

#[test]
fn a_sendme_with_a_wrong_tag_ends_the_circuit_and_its_streams() {
    for (seed, (wish, _, _)) in (130..).zip(KINDS) {
        let mut net = exit_net(seed);
        let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, wish]);
        let mut world = World {
            source: pattern(1_000_000),
            ..World::default()
        };
        say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
        world.pump(&mut net);
        told(&mut net);
        let length = if wish == Wish::Cgo { 16 } else { 20 };
        let body = SendmeBody::v1(&[9; 20][..length]).expect("a body");
        say(&mut net, circuit, Relay::SENDME, 0, body.as_bytes());
        world.pump(&mut net);
        assert_eq!(
            told(&mut net).0,
            vec![(Relay(0), 0, vec![DestroyReason::Destroyed as u8])]
        );
        assert!(world.only().closed);
        let tally = net.relays[EXIT].engine.tally();
        assert_eq!(
            (tally.circuits_open, tally.streams_open, tally.protocol_violations),
            (0, 0, 1)
        );
    }
}

#[test]
fn a_sendme_for_nothing_ends_the_circuit() {
    let mut net = exit_net(140);
    let circuit = three_hops(&mut net, [Wish::Ntor; 3]);
    let body = SendmeBody::v1(&[9; 20]).expect("a body");
    say(&mut net, circuit, Relay::SENDME, 0, body.as_bytes());
    net.run();
    assert_eq!(net.relays[EXIT].engine.tally().circuits_open, 0);
}

#[test]
fn a_client_that_overruns_its_stream_window_loses_the_circuit_at_cell_501() {
    let mut net = exit_net(141);
    let circuit = three_hops(&mut net, [Wish::Ntor; 3]);
    let mut world = World {
        stubborn: true,
        ..World::default()
    };
    say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
    for _ in 0..500 {
        say(&mut net, circuit, Relay::DATA, 7, &[1; 498]);
    }
    world.pump(&mut net);
    assert_eq!(net.relays[EXIT].engine.tally().circuits_open, 1);
    say(&mut net, circuit, Relay::DATA, 7, &[1; 498]);
    world.pump(&mut net);
    assert_eq!(net.relays[EXIT].engine.tally().circuits_open, 0);
    assert!(world.only().closed);
    assert_eq!(
        world.only().received.len(),
        500 * 498,
        "what was held goes out with the end"
    );
}

#[test]
fn data_before_connected_waits_for_the_destination() {
    let mut net = exit_net(142);
    let circuit = three_hops(&mut net, [Wish::Cgo; 3]);
    let mut world = World {
        late: true,
        ..World::default()
    };
    say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
    say(&mut net, circuit, Relay::DATA, 7, b"GET / HTTP/1.0\r\n\r\n");
    world.pump(&mut net);
    assert!(world.only().received.is_empty());
    let stream = world.connects_late[0];
    world.connect(&mut net, stream);
    world.pump(&mut net);
    assert_eq!(world.only().received, b"GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn a_destination_that_takes_nothing_brings_xoff_and_then_xon() {
    let mut net = exit_net(143);
    let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, Wish::CongestionControl]);
    let mut world = World {
        stubborn: true,
        ..World::default()
    };
    say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
    for _ in 0..600 {
        say(&mut net, circuit, Relay::DATA, 7, &[1; 498]);
    }
    world.pump(&mut net);
    net.pass(Duration::from_millis(20));
    say(&mut net, circuit, Relay::DATA, 7, &[1; 498]);
    world.pump(&mut net);
    let xoffs = told(&mut net).0;
    assert_eq!(
        xoffs
            .iter()
            .filter(|(command, stream, _)| (*command, *stream) == (Relay::XOFF, 7))
            .count(),
        1
    );
    let stream = *world.streams.keys().next().expect("a stream");
    while !net.drain(EXIT, stream, 16 * 1024).is_empty() {}
    world.pump(&mut net);
    let xons = told(&mut net).0;
    assert!(
        xons.iter()
            .any(|(command, stream, _)| (*command, *stream) == (Relay::XON, 7)),
        "{xons:?}"
    );
}

#[test]
fn a_client_that_ignores_xoff_loses_the_circuit_before_it_fills_our_memory() {
    let mut net = exit_net(144);
    let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, Wish::CongestionControl]);
    let mut world = World {
        stubborn: true,
        ..World::default()
    };
    say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
    let mut cells = 0;
    while net.relays[EXIT].engine.tally().streams_begun == 0 || net.relays[EXIT].engine.tally().circuits_open == 1 {
        for _ in 0..500 {
            say(&mut net, circuit, Relay::DATA, 7, &[1; 498]);
        }
        cells += 500;
        world.pump(&mut net);
        assert!(cells < 12_000);
    }
    assert!(cells > 10_000);
}

#[test]
fn an_xoff_from_the_client_holds_the_destination_back_until_xon() {
    let mut net = exit_net(145);
    let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, Wish::Cgo]);
    net.clients[0].acknowledge(circuit, 31, true);
    let mut world = World {
        source: pattern(400_000),
        late: true,
        ..World::default()
    };
    say(&mut net, circuit, Relay::BEGIN, 7, b"example.com:80\0");
    say(&mut net, circuit, Relay::XOFF, 7, &[0]);
    world.pump(&mut net);
    let stream = world.connects_late[0];
    world.connect(&mut net, stream);
    world.pump(&mut net);
    assert_eq!(told(&mut net).1.len(), 0);
    // 100,000 bytes a second, of which one second's worth may go at once.
    say(&mut net, circuit, Relay::XON, 7, &[0, 0, 0, 0, 100]);
    world.pump(&mut net);
    let first = told(&mut net).1.len();
    assert!((99_000..=100_000).contains(&first), "{first}");
    for _ in 0..40 {
        net.pass(Duration::from_millis(100));
        world.pump(&mut net);
    }
    assert_eq!(first + told(&mut net).1.len(), 400_000);
}

#[test]
fn streams_share_a_circuit_and_end_alone() {
    let mut net = exit_net(146);
    let circuit = three_hops(&mut net, [Wish::Cgo; 3]);
    net.clients[0].acknowledge(circuit, 31, true);
    let mut world = World {
        source: pattern(50_000),
        ..World::default()
    };
    for stream in 1..=32 {
        say(&mut net, circuit, Relay::BEGIN, stream, b"example.com:80\0");
    }
    world.pump(&mut net);
    assert_eq!(told(&mut net).1.len(), 32 * 50_000);
    say(&mut net, circuit, Relay::END, 5, &[EndReason::Done as u8]);
    world.pump(&mut net);
    assert_eq!(world.streams.values().filter(|stream| stream.closed).count(), 1);
    assert_eq!(net.relays[EXIT].engine.tally().streams_open, 31);
    net.clients[0].destroy(circuit);
    world.pump(&mut net);
    assert!(world.streams.values().all(|stream| stream.closed));
    assert_eq!(net.relays[EXIT].engine.tally().streams_open, 0);
}

#[test]
fn refusals_and_answers_reach_the_client_in_its_own_words() {
    let mut net = exit_net(147);
    let circuit = three_hops(&mut net, [Wish::Cgo; 3]);
    let address = "192.0.2.7".parse().expect("an address");
    say(&mut net, circuit, Relay::BEGIN, 1, b"example.com:25\0");
    say(&mut net, circuit, Relay::RESOLVE, 2, b"example.com\0");
    say(&mut net, circuit, Relay::BEGIN, 3, b"example.com\0");
    net.run();
    for effect in std::mem::take(&mut net.relays[EXIT].streams) {
        match effect {
            Effect::OpenStream { stream, target } => {
                assert!(target.host == Host::Name("example.com".into()) && target.port == 25);
                let refusal = Refusal::ExitPolicy {
                    address,
                    ttl_seconds: 300,
                };
                net.handle(EXIT, Input::StreamRefused { stream, refusal });
            }
            Effect::Resolve { stream, question } => {
                assert!(question == Question::Forward(Host::Name("example.com".into())));
                let answers = &[Answer::Address(address)];
                net.handle(EXIT, Input::StreamResolved { stream, answers });
            }
            other => panic!("{other:?}"),
        }
    }
    net.run();
    let mut answers = told(&mut net).0;
    answers.sort_by_key(|(_, stream, _)| *stream);
    let expected = vec![
        (Relay::END, 1, vec![4, 192, 0, 2, 7, 0, 0, 1, 44]),
        (Relay::RESOLVED, 2, vec![4, 4, 192, 0, 2, 7, 0, 0, 0, 60]),
        (Relay::END, 3, vec![EndReason::TorProtocol as u8]),
    ];
    assert_eq!(answers, expected);
    assert_eq!(net.relays[EXIT].engine.tally().streams_open, 0);
}

#[test]
fn nobody_gets_a_proxy_of_one_hop_and_a_directory_learns_who_asks() {
    let mut net = exit_net(148);
    net.serve(
        0,
        StreamServices {
            exits: true,
            directory: true,
            ..StreamServices::default()
        },
    );
    let circuit = net.clients[0].create(&hop(0), Wish::Ntor);
    net.run();
    events(&mut net);
    net.clients[0].send(circuit, 0, Command::RELAY, Relay::BEGIN, 1, b"example.com:80\0");
    net.clients[0].send(circuit, 0, Command::RELAY, Relay::BEGIN_DIR, 2, b"");
    net.run();
    assert_eq!(
        told(&mut net).0,
        vec![(Relay::END, 1, vec![EndReason::TorProtocol as u8])]
    );
    let effects = std::mem::take(&mut net.relays[0].streams);
    assert!(
        matches!(effects.as_slice(), [Effect::OpenDirectory { asker: Some(_), .. }]),
        "{effects:?}"
    );
    let text = format!("{effects:?}");
    assert!(text.contains("[client]") && !text.contains("198.51"), "{text}");
}

#[test]
fn messages_for_streams_that_are_not_there_are_dropped_and_leave_nothing() {
    let mut net = exit_net(149);
    let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, Wish::Cgo]);
    for stream in 1..=5_000 {
        say(&mut net, circuit, Relay::DATA, stream, &[1; 10]);
        say(&mut net, circuit, Relay::END, stream, &[]);
        // Queues hold 2,500 cells.
        if stream % 500 == 0 {
            net.run();
        }
    }
    let tally = net.relays[EXIT].engine.tally();
    assert_eq!(
        (tally.stray_stream_cells, tally.streams_open, tally.circuits_open),
        (10_000, 0, 1)
    );
}

#[test]
fn a_circuit_may_have_so_many_streams_and_no_more() {
    let mut net = exit_net(150);
    let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, Wish::NtorV3]);
    for stream in 1..=4_100 {
        say(&mut net, circuit, Relay::BEGIN, stream, b"example.com:80\0");
        if stream % 500 == 0 {
            net.run();
        }
    }
    net.run();
    assert_eq!(net.relays[EXIT].engine.tally().streams_open, 4_096);
    let ends = told(&mut net).0;
    assert_eq!(ends.len(), 4);
    assert!(
        ends.iter()
            .all(|(command, _, data)| (*command, data.as_slice()) == (Relay::END, &[EndReason::Misc as u8][..]))
    );
}

#[test]
fn an_exit_refuses_relays_that_nobody_knows_unless_told_otherwise() {
    let mut net = net(151);
    net.serve(
        EXIT,
        StreamServices {
            exits: true,
            ..StreamServices::default()
        },
    );
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    say(&mut net, circuit, Relay::BEGIN, 1, b"example.com:80\0");
    net.run();
    assert_eq!(told(&mut net).0, vec![(Relay::END, 1, vec![EndReason::Misc as u8])]);
}
