//! Stories of conflux: circuits over several links that carry the same streams to the third relay.

use std::collections::BTreeMap;

use relay_engine::Input;
use relay_engine::door::{Effect, StreamId};
use relay_engine::network::{NetworkView, Parameters};
use relay_engine::settings::{Defences, StreamServices};
use relay_simnet::conflux::{Legs, Said};
use relay_wire::cell::Command;
use relay_wire::conflux::{DesiredUx, Link, write_switch};
use relay_wire::relay_cells::{DestroyReason, EndReason, RelayCommand as Relay};

use super::*;

const EXIT: usize = 2;

/// The far end of a stream.
#[derive(Default)]
struct Destination {
    source: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    closed: bool,
}

struct Scene {
    net: Net,
    set: Legs,
    source: Vec<u8>,
    streams: BTreeMap<StreamId, Destination>,
    /// What the clients learnt besides.
    others: Vec<Event>,
    /// What the exit said of streams.
    said: Vec<Said>,
}

impl Scene {
    /// Client 0 at relay 0 and client 1 at relay 1: one person with two guards.
    fn new(seed: u64) -> Self {
        let mut net = relays(seed);
        for client in 0..2 {
            net.connect(Client::new(seed + client as u64), client);
        }
        let services = StreamServices {
            exits: true,
            directory: true,
            refuse_unknown_exits: Some(false),
            any_printable_name: false,
        };
        net.serve(EXIT, services);
        net.run();
        net.clients.iter_mut().for_each(|client| client.events.clear());
        let mut nonce = [seed as u8; 32];
        nonce[31] = (seed % 7) as u8;
        Self {
            net,
            set: Legs::new(nonce),
            source: Vec::new(),
            streams: BTreeMap::new(),
            others: Vec::new(),
            said: Vec::new(),
        }
    }

    /// A circuit to the exit; each client has a middle of its own, so they come over different links.
    fn circuit(&mut self, client: usize, wish: Wish) -> u32 {
        let circuit = self.net.clients[client].create(&hop(client), Wish::NtorV3);
        self.net.run();
        let middle = [1, 3][client];
        for (relay, wish) in [(middle, Wish::NtorV3), (EXIT, wish)] {
            self.net.clients[client].extend(circuit, &hop(relay), wish);
            self.net.run();
        }
        assert_eq!(self.net.clients[client].hops(circuit), 3);
        self.net.clients[client].acknowledge(circuit, 31, true);
        self.hear();
        circuit
    }

    /// A circuit that asks to be a leg.
    fn asks(&mut self, client: usize, wish: Wish, ux: DesiredUx) -> usize {
        let circuit = self.circuit(client, wish);
        let leg = self.set.link(&mut self.net.clients, client, circuit, ux);
        self.pump();
        leg
    }

    /// A leg.
    fn leg(&mut self, client: usize, wish: Wish, ux: DesiredUx) -> usize {
        let leg = self.asks(client, wish, ux);
        assert!(self.set.legs[leg].linked, "{:?}", self.others);
        leg
    }

    fn linked(seed: u64, wishes: [Wish; 2], ux: DesiredUx) -> Self {
        let mut scene = Self::new(seed);
        for (client, wish) in wishes.into_iter().enumerate() {
            scene.leg(client, wish, ux);
        }
        scene.others.clear();
        scene
    }

    fn hear(&mut self) {
        for client in 0..self.net.clients.len() {
            for event in std::mem::take(&mut self.net.clients[client].events) {
                if let Some(other) = self.set.hear(&mut self.net.clients, client, event)
                    && !matches!(other, Event::Extended { .. })
                {
                    self.others.push(other);
                }
            }
        }
        self.said.extend(self.set.delivered());
        assert_eq!(self.set.faults, Vec::<&str>::new());
    }

    /// Does what the exit wants, until nobody wants anything.
    fn pump(&mut self) {
        loop {
            self.net.run();
            self.hear();
            let mut quiet = self.net.clients.iter().all(|client| client.output.is_empty());
            // As much as the windows let through, before a SENDME comes.
            while !self.net.relays[EXIT].streams.is_empty() {
                quiet = false;
                for effect in std::mem::take(&mut self.net.relays[EXIT].streams) {
                    self.perform(effect);
                }
            }
            if quiet {
                break;
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::OpenStream { stream, .. } => {
                let source = self.source.clone();
                let hungry = !source.is_empty();
                let destination = Destination {
                    source,
                    ..Destination::default()
                };
                self.streams.insert(stream, destination);
                let address = Some(("192.0.2.80".parse().expect("an address"), 300));
                self.net.handle(EXIT, Input::StreamConnected { stream, address });
                if hungry {
                    self.net.handle(EXIT, Input::StreamReadable { stream });
                }
            }
            Effect::ReadStream { stream, bytes_max } => {
                let found = self.streams.get_mut(&stream).expect("a stream");
                let end = found.source.len().min(found.sent + bytes_max);
                let bytes = found.source[found.sent..end].to_vec();
                found.sent = end;
                let more = end < found.source.len();
                let bytes = bytes.as_slice();
                self.net.handle(EXIT, Input::StreamReceived { stream, bytes, more });
            }
            Effect::StreamWantsWrite { stream } => loop {
                let bytes = self.net.drain(EXIT, stream, 16 * 1024);
                if bytes.is_empty() {
                    break;
                }
                self.streams.get_mut(&stream).expect("a stream").received.extend(bytes);
            },
            Effect::CloseStream { stream, rest } => {
                let found = self.streams.get_mut(&stream).expect("a stream");
                found.received.extend(rest.0);
                assert!(!std::mem::replace(&mut found.closed, true), "closed twice");
            }
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, leg: usize, command: Relay, stream: u16, data: &[u8]) {
        self.set.say(&mut self.net.clients, leg, command, stream, data);
        self.pump();
    }

    fn raw(&mut self, leg: usize, command: Relay, data: &[u8]) {
        self.set.raw(&mut self.net.clients, leg, command, 0, data);
        self.pump();
    }

    fn begin(&mut self, leg: usize, stream: u16) {
        self.say(leg, Relay::BEGIN, stream, b"example.com:80\0");
    }

    fn data(&self) -> Vec<u8> {
        let data = self.said.iter().filter(|(command, ..)| *command == Relay::DATA);
        data.flat_map(|(_, _, data)| data.clone()).collect()
    }

    /// Commands and streams of what the exit said, without DATA.
    fn told(&mut self) -> Vec<(Relay, u16)> {
        let said = std::mem::take(&mut self.said);
        let others = said.into_iter().filter(|(command, ..)| *command != Relay::DATA);
        others.map(|(command, stream, _)| (command, stream)).collect()
    }

    /// Circuits that were destroyed.
    fn destroyed(&mut self) -> Vec<u32> {
        let events = std::mem::take(&mut self.others);
        let gone = events.iter().filter_map(|event| match event {
            Event::Destroyed { circuit, .. } => Some(*circuit),
            _ => None,
        });
        gone.collect()
    }

    /// Open circuits, sets and streams at the exit.
    fn open(&self) -> (u64, usize, u64) {
        let exit = &self.net.relays[EXIT].engine;
        let tally = exit.tally();
        (tally.circuits_open, exit.conflux_sets(), tally.streams_open)
    }

    fn nothing_is_left(&mut self) {
        self.pump();
        let exit = &self.net.relays[EXIT].engine;
        assert_eq!((exit.conflux_sets(), exit.tally().streams_open, exit.queued_bytes()), (0, 0, 0));
        assert!(self.streams.values().all(|stream| stream.closed));
        for client in 0..self.net.clients.len() {
            self.net.hang_up(client);
        }
        self.pump();
        for relay in &self.net.relays {
            assert_eq!((relay.engine.tally().circuits_open, relay.engine.cells_waiting()), (0, 0));
        }
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

const TWO: [Wish; 2] = [Wish::CongestionControl, Wish::CongestionControl];

#[test]
fn two_legs_carry_one_answer_and_one_question_whole_and_in_order() {
    let kinds = [TWO, [Wish::Cgo, Wish::Cgo], [Wish::CongestionControl, Wish::Cgo]];
    for (seed, wishes) in (1..).zip(kinds) {
        let mut scene = Scene::linked(seed, wishes, DesiredUx::HighThroughput);
        scene.source = pattern(400_000);
        scene.begin(0, 7);
        assert!(scene.data() == scene.source, "{wishes:?}: {}", scene.data().len());
        assert_eq!(scene.said[0].0, Relay::CONNECTED);
        let carried: Vec<u64> = scene.set.legs.iter().map(|leg| leg.data_cells).collect();
        assert!(carried.iter().all(|cells| *cells > 50), "both legs are used: {carried:?}");

        let sent = pattern(300_000);
        for (part, leg) in sent.chunks(488).zip([0, 0, 0, 1, 1].into_iter().cycle()) {
            scene.set.say(&mut scene.net.clients, leg, Relay::DATA, 7, part);
        }
        scene.pump();
        let stream = *scene.streams.keys().next().expect("a stream");
        assert!(scene.streams[&stream].received == sent, "{wishes:?}");
        scene.said.clear();
        let reason = EndReason::Done;
        scene.net.handle(EXIT, Input::StreamClosed { stream, reason });
        scene.pump();
        assert_eq!(scene.told(), vec![(Relay::END, 7)]);
        assert_eq!((scene.open(), scene.destroyed()), ((2, 1, 0), vec![]));
        assert_eq!(scene.net.relays[EXIT].engine.tally().protocol_violations, 0);
        for (leg, client) in [(0, 0), (1, 1)] {
            let circuit = scene.set.legs[leg].circuit;
            scene.net.clients[client].destroy(circuit);
        }
        scene.nothing_is_left();
    }
}

#[test]
fn who_wants_latency_gets_all_over_one_leg() {
    let mut scene = Scene::linked(10, TWO, DesiredUx::MinLatency);
    scene.source = pattern(300_000);
    scene.begin(1, 7);
    assert!(scene.data() == scene.source);
    assert!(scene.set.legs.iter().any(|leg| leg.data_cells == 0));
}

#[test]
fn a_client_that_acknowledges_on_one_leg_only_is_served_over_that_leg() {
    let mut scene = Scene::linked(11, TWO, DesiredUx::HighThroughput);
    let silent = scene.set.legs[1].circuit;
    scene.net.clients[1].acknowledge(silent, u16::MAX, true);
    scene.source = pattern(400_000);
    scene.begin(0, 7);
    assert!(scene.data() == scene.source);
    assert_eq!(scene.set.legs[1].data_cells, 124, "one window, and no more");
}

#[test]
fn streams_share_a_set_and_end_alone() {
    let mut scene = Scene::linked(12, TWO, DesiredUx::HighThroughput);
    scene.source = pattern(20_000);
    for stream in 1..=20 {
        scene.begin(usize::from(stream % 2), stream);
    }
    assert_eq!(scene.data().len(), 20 * 20_000);
    scene.say(1, Relay::END, 5, &[EndReason::Done as u8]);
    assert_eq!(scene.open(), (2, 1, 19));
    assert_eq!(scene.streams.values().filter(|stream| stream.closed).count(), 1);
}

#[test]
fn what_overtakes_waits_for_what_it_overtook() {
    let mut scene = Scene::linked(13, TWO, DesiredUx::HighThroughput);
    scene.begin(0, 7);
    // 2 and 3 on the second leg arrive before 2 .. of the first would have.
    scene.raw(1, Relay::CONFLUX_SWITCH, &write_switch(3));
    scene.set.raw(&mut scene.net.clients, 1, Relay::DATA, 7, b"third");
    scene.set.raw(&mut scene.net.clients, 1, Relay::DATA, 7, b"fourth");
    scene.pump();
    let stream = *scene.streams.keys().next().expect("a stream");
    assert_eq!(scene.streams[&stream].received, b"");
    assert!(scene.net.relays[EXIT].engine.queued_bytes() > 0, "what waits counts as memory");
    scene.set.raw(&mut scene.net.clients, 0, Relay::DATA, 7, b"first");
    scene.pump();
    assert_eq!(scene.streams[&stream].received, b"first");
    scene.set.raw(&mut scene.net.clients, 0, Relay::DATA, 7, b"second");
    scene.pump();
    assert_eq!(scene.streams[&stream].received, b"firstsecondthirdfourth");
    assert_eq!(scene.net.relays[EXIT].engine.queued_bytes(), 0);
}

#[test]
fn a_set_goes_on_without_a_leg_that_carried_nothing_and_takes_another() {
    let mut scene = Scene::linked(14, TWO, DesiredUx::MinLatency);
    scene.source = pattern(100_000);
    scene.begin(0, 7);
    let used = usize::from(scene.set.legs[1].data_cells > 0);
    assert_eq!(scene.set.legs[1 - used].data_cells, 0);
    // The client used leg 0 for BEGIN; only a leg that neither side used may go.
    if used == 0 {
        let circuit = scene.set.legs[1].circuit;
        scene.net.clients[1].destroy(circuit);
        scene.pump();
        assert_eq!(scene.open(), (1, 1, 1));
        let late = scene.leg(1, Wish::CongestionControl, DesiredUx::HighThroughput);
        scene.begin(late, 8);
        assert_eq!(scene.data().len(), 200_000);
        assert_eq!(scene.open(), (2, 1, 2));
    }
}

/// tor#40827, #40834, #40921, TROVE-2026-014, -016, -026: legs that ended in an order that nobody had thought of.
#[test]
fn trove_2026_014_016_and_026_legs_may_end_at_any_time_in_any_order() {
    for (seed, first) in (20..).zip([0, 1, 0, 1]) {
        // At each step of a set's life one leg goes, by DESTROY or with its link, then the other.
        for step in 0..6 {
            let mut scene = Scene::new(seed);
            scene.source = pattern(50_000);
            let mut circuits = Vec::new();
            for client in 0..2 {
                circuits.push(scene.circuit(client, Wish::CongestionControl));
            }
            let ux = DesiredUx::HighThroughput;
            for (client, circuit) in circuits.iter().enumerate().take(step.min(2)) {
                scene.set.link(&mut scene.net.clients, client, *circuit, ux);
            }
            if step > 2 {
                scene.pump();
            }
            if step > 3 {
                scene.begin(1, 7);
            }
            if step > 4 {
                scene.set.say(&mut scene.net.clients, 0, Relay::DATA, 7, &[1; 400]);
            }
            for client in [first, 1 - first] {
                match seed % 3 {
                    0 => scene.net.cut(EXIT, [1, 3][client]),
                    _ => scene.net.clients[client].destroy(circuits[client]),
                }
                scene.pump();
            }
            assert_eq!(scene.open(), (0, 0, 0), "{seed} {step}");
            scene.nothing_is_left();
        }
    }
}

/// TROVE-2023-007: a circuit that failed while it was linked stayed in its set.
#[test]
fn trove_2023_007_a_leg_that_goes_while_it_is_linked_leaves_nothing() {
    for seed in 30..34 {
        let mut scene = Scene::new(seed);
        for client in [0, 1, 1, 0] {
            let circuit = scene.circuit(client, Wish::CongestionControl);
            scene.set.link(&mut scene.net.clients, client, circuit, DesiredUx::NoOpinion);
            scene.net.clients[client].destroy(circuit);
        }
        scene.pump();
        assert_eq!(scene.open(), (0, 0, 0));
        scene.nothing_is_left();
    }
}

#[test]
fn the_loss_of_a_leg_in_use_ends_the_set() {
    let mut scene = Scene::linked(35, TWO, DesiredUx::HighThroughput);
    scene.source = pattern(400_000);
    scene.begin(0, 7);
    let (gone, other) = (scene.set.legs[0].circuit, scene.set.legs[1].circuit);
    scene.net.clients[0].destroy(gone);
    scene.pump();
    assert_eq!((scene.destroyed(), scene.open()), (vec![other], (0, 0, 0)));
    scene.nothing_is_left();
}

/// TROVE-2026-017: SWITCH could not be sent, and the leg was used all the same.
#[test]
fn trove_2026_017_a_leg_that_takes_nothing_more_ends_its_set() {
    let mut scene = Scene::linked(36, TWO, DesiredUx::HighThroughput);
    scene.net.relays[EXIT].sockets_take = false;
    // Each BEGIN that is not one gets an END, which no window holds back.
    for round in 0..12 {
        for stream in 1..=250 {
            scene.set.say(&mut scene.net.clients, round % 2, Relay::BEGIN, stream, b"\0");
        }
        scene.net.run();
    }
    scene.net.unblock(EXIT);
    scene.pump();
    assert_eq!(scene.open(), (0, 0, 0));
    assert_eq!(scene.destroyed().len(), 2);
    scene.nothing_is_left();
}

/// TROVE-2026-014 again: the relay stopped while a set was being made.
#[test]
fn trove_2026_014_a_relay_that_stops_ends_sets_in_every_state() {
    for links in 0..3 {
        let mut scene = Scene::new(37);
        for client in 0..2 {
            let circuit = scene.circuit(client, Wish::CongestionControl);
            if client < links {
                scene.set.link(&mut scene.net.clients, client, circuit, DesiredUx::NoOpinion);
            }
        }
        if links == 2 {
            scene.pump();
            scene.begin(0, 7);
        }
        scene.net.handle(EXIT, Input::EndCircuits);
        scene.pump();
        assert_eq!(scene.open(), (0, 0, 0));
        scene.nothing_is_left();
    }
}

/// TROVE-2026-008: a directory stream on a leg belonged to nobody.
#[test]
fn trove_2026_008_a_leg_has_no_directory() {
    let mut scene = Scene::linked(40, TWO, DesiredUx::HighThroughput);
    for leg in [0, 1] {
        scene.set.raw(&mut scene.net.clients, leg, Relay::BEGIN_DIR, 9, b"");
        scene.pump();
        assert_eq!(scene.said.last(), Some(&(Relay::END, 9, vec![EndReason::NotDirectory as u8])));
        assert_eq!(scene.told(), vec![(Relay::END, 9)]);
    }
    scene.begin(1, 9);
    assert_eq!((scene.told(), scene.open()), (vec![(Relay::CONNECTED, 9)], (2, 1, 1)));
}

/// tor#41328, TROVE-2026-025: what a circuit must be to become a leg.
#[test]
fn trove_41328_only_a_circuit_that_is_nothing_else_becomes_a_leg() {
    let link = |sent, received, ux| {
        let link = Link {
            nonce: [9; 32],
            last_seqno_sent: sent,
            last_seqno_received: received,
            desired_ux: ux,
        };
        link.write().to_vec()
    };
    let good = link(0, 0, DesiredUx::NoOpinion);
    let (mut version, mut wish) = (good.clone(), good.clone());
    (version[0], wish[49]) = (2, 5);
    type Steps = Vec<(Relay, u16, Vec<u8>)>;
    let one = |command, data: &[u8]| -> Steps { vec![(command, 0, data.to_vec())] };
    let cases: Vec<(Wish, Steps)> = vec![
        (Wish::NtorV3, one(Relay::CONFLUX_LINK, &good)),
        (Wish::Ntor, one(Relay::CONFLUX_LINK, &good)),
        (Wish::Cgo, one(Relay::CONFLUX_LINK, &version)),
        (Wish::Cgo, one(Relay::CONFLUX_LINK, &wish)),
        (Wish::Cgo, one(Relay::CONFLUX_LINK, &good[..49])),
        (Wish::Cgo, one(Relay::CONFLUX_LINK, &link(1, 0, DesiredUx::NoOpinion))),
        (Wish::Cgo, one(Relay::CONFLUX_LINK, &link(0, u64::MAX, DesiredUx::NoOpinion))),
        (Wish::Cgo, one(Relay::CONFLUX_LINKED, &good)),
        (Wish::Cgo, one(Relay::CONFLUX_LINKED_ACK, &[])),
        (Wish::Cgo, one(Relay::CONFLUX_SWITCH, &write_switch(1))),
        (Wish::Cgo, [one(Relay::CONFLUX_LINK, &good), one(Relay::CONFLUX_LINK, &good)].concat()),
        (Wish::Cgo, [one(Relay::CONFLUX_LINK, &good), one(Relay::CONFLUX_LINKED, &good)].concat()),
        (Wish::Cgo, [one(Relay::CONFLUX_LINK, &good), one(Relay::CONFLUX_SWITCH, &[0; 3])].concat()),
        (Wish::Cgo, [one(Relay::CONFLUX_LINK, &good), one(Relay::ESTABLISH_RENDEZVOUS, &[5; 20])].concat()),
        (Wish::Cgo, [one(Relay::CONFLUX_LINK, &good), one(Relay::RENDEZVOUS1, &[5; 40])].concat()),
        (Wish::Cgo, [one(Relay::CONFLUX_LINK, &good), one(Relay::EXTEND2, &[5; 40])].concat()),
        (Wish::Cgo, [one(Relay::ESTABLISH_RENDEZVOUS, &[5; 20]), one(Relay::CONFLUX_LINK, &good)].concat()),
        (
            Wish::CongestionControl,
            [vec![(Relay::BEGIN, 1, b"example.com:80\0".to_vec())], one(Relay::CONFLUX_LINK, &good)].concat(),
        ),
        (Wish::CongestionControl, [one(Relay::CONFLUX_LINK, &good), vec![(Relay::SENDME, 3, vec![])]].concat()),
    ];
    for (number, (wish, steps)) in cases.into_iter().enumerate() {
        let mut scene = Scene::new(41);
        let circuit = scene.circuit(0, wish);
        for (command, stream, data) in steps {
            assert_eq!(scene.open().0, 1, "{number}: only the last step is wrong");
            scene.net.clients[0].send(circuit, 2, Command::RELAY, command, stream, &data);
            scene.pump();
        }
        assert_eq!((scene.destroyed(), scene.open()), (vec![circuit], (0, 0, 0)), "{number}");
        assert_eq!(scene.net.relays[EXIT].engine.tally().protocol_violations, 1, "{number}");
        scene.nothing_is_left();
    }
}

#[test]
fn a_middle_is_no_end_of_a_leg() {
    let mut scene = Scene::new(42);
    let circuit = scene.circuit(0, Wish::Cgo);
    let link = Link {
        nonce: [9; 32],
        last_seqno_sent: 0,
        last_seqno_received: 0,
        desired_ux: DesiredUx::NoOpinion,
    };
    scene.net.clients[0].send(circuit, 1, Command::RELAY, Relay::CONFLUX_LINK, 0, &link.write());
    scene.pump();
    assert_eq!(scene.destroyed(), vec![circuit]);
}

#[test]
fn a_set_has_eight_legs_and_no_more() {
    let mut scene = Scene::new(43);
    for leg in 0..8 {
        scene.leg(leg % 2, Wish::CongestionControl, DesiredUx::NoOpinion);
    }
    let ninth = scene.asks(0, Wish::CongestionControl, DesiredUx::NoOpinion);
    let circuit = scene.set.legs[ninth].circuit;
    assert_eq!((scene.destroyed(), scene.open()), (vec![circuit], (8, 1, 0)));
    scene.begin(7, 1);
    assert_eq!(scene.told(), vec![(Relay::CONNECTED, 1)], "the others are as they were");
}

/// TROVE-2026-004: sets whose names began alike were one.
#[test]
fn trove_2026_004_sets_with_names_that_begin_alike_are_two() {
    let mut scene = Scene::new(44);
    scene.leg(0, Wish::CongestionControl, DesiredUx::NoOpinion);
    let mut other = scene.set.nonce;
    other[8] ^= 1;
    let first = std::mem::replace(&mut scene.set, Legs::new(other));
    scene.leg(1, Wish::CongestionControl, DesiredUx::NoOpinion);
    assert_eq!(scene.open(), (2, 2, 0));
    let circuit = first.legs[0].circuit;
    scene.net.clients[0].destroy(circuit);
    scene.pump();
    assert_eq!(scene.open(), (1, 1, 0));
}

#[test]
fn a_number_that_comes_twice_ends_the_set() {
    let mut scene = Scene::linked(45, TWO, DesiredUx::NoOpinion);
    scene.begin(0, 7);
    scene.set.raw(&mut scene.net.clients, 1, Relay::DATA, 7, b"again");
    scene.pump();
    assert_eq!((scene.destroyed().len(), scene.open()), (2, (0, 0, 0)));
    assert_eq!(scene.net.relays[EXIT].engine.tally().protocol_violations, 1);
    scene.nothing_is_left();
}

/// TROVE-2026-010, and tor#41162: what waits out of order has a limit, counts, and is given back.
#[test]
fn trove_2026_010_what_never_gets_its_turn_fills_no_memory() {
    let mut scene = Scene::new(46);
    let parameters = Parameters([("cfx_max_oooq_bytes".to_owned(), 200_000)].into());
    let network = NetworkView {
        parameters,
        ..NetworkView::default()
    };
    scene.net.set_network(&Arc::new(network));
    for client in [0, 1] {
        scene.leg(client, Wish::CongestionControl, DesiredUx::NoOpinion);
    }
    scene.others.clear();
    scene.raw(1, Relay::CONFLUX_SWITCH, &write_switch(u32::MAX - 1));
    let (mut cells, mut most) = (0, 0);
    while scene.open().1 == 1 {
        for _ in 0..50 {
            scene.set.raw(&mut scene.net.clients, 1, Relay::DATA, 7, &[1; 488]);
        }
        cells += 50;
        scene.pump();
        most = most.max(scene.net.relays[EXIT].engine.queued_bytes());
        assert!(cells < 1_000);
    }
    assert!(most > 150_000 && most <= 200_000, "{most}");
    assert_eq!((scene.destroyed().len(), scene.open()), (2, (0, 0, 0)));
    scene.nothing_is_left();
}

#[test]
fn a_set_that_hoards_goes_when_memory_is_short() {
    let mut scene = Scene::linked(47, TWO, DesiredUx::NoOpinion);
    let defences = Defences {
        queued_bytes_max: Some(200_000),
        ..Defences::default()
    };
    scene.net.defend(EXIT, defences);
    scene.begin(0, 7);
    scene.raw(1, Relay::CONFLUX_SWITCH, &write_switch(50));
    for _ in 0..500 {
        scene.set.raw(&mut scene.net.clients, 1, Relay::DATA, 7, &[1; 488]);
    }
    scene.pump();
    assert_eq!((scene.destroyed().len(), scene.open()), (2, (0, 0, 0)));
    assert_eq!(scene.net.relays[EXIT].engine.tally().memory_reclaims, 1);
    scene.nothing_is_left();
}

#[test]
fn nobody_gets_a_proxy_of_one_hop_by_a_second_leg() {
    let mut scene = Scene::new(48);
    scene.leg(0, Wish::CongestionControl, DesiredUx::NoOpinion);
    let near = scene.net.connect(Client::new(99), EXIT);
    scene.net.run();
    let circuit = scene.net.clients[near].create(&hop(EXIT), Wish::CongestionControl);
    scene.pump();
    let leg = scene.set.link(&mut scene.net.clients, near, circuit, DesiredUx::NoOpinion);
    scene.pump();
    for leg in [leg, 0] {
        scene.begin(leg, 5);
        let expected = (Relay::END, 5, vec![EndReason::TorProtocol as u8]);
        assert_eq!(scene.said.pop(), Some(expected));
    }
}

#[test]
fn a_client_is_told_why_its_set_ended() {
    let mut scene = Scene::linked(49, TWO, DesiredUx::NoOpinion);
    let circuit = scene.set.legs[0].circuit;
    scene.begin(0, 7);
    scene.net.clients[0].destroy(circuit);
    scene.pump();
    // A middle tells only that it ended, as it must.
    let reason = DestroyReason::Destroyed as u8;
    let circuit = scene.set.legs[1].circuit;
    assert_eq!(scene.others, vec![Event::Destroyed { circuit, reason }]);
}
