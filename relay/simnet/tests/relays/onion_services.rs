//! Stories of introduction and rendezvous points. Client 0 is a client, client 1 a service; relay 2 introduces, relay 3 is
//! where they meet.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use relay_engine::crypto::introduction;
use relay_engine::network::{NetworkView, Parameters};
use relay_wire::cell::Command;
use relay_wire::onion_service::{AuthKey, DosParameters, EstablishIntro, Introduce1};
use relay_wire::relay_cells::RelayCommand as Relay;

use super::*;

const INTRODUCES: usize = 2;
const JOINS: usize = 3;

/// Client 0 at relay 0, client 1 at relay 1.
fn two(seed: u64) -> Net {
    let mut net = relays(seed);
    for client in 0..2 {
        net.connect(Client::new(seed + client as u64), client);
    }
    net.run();
    net.clients.iter_mut().for_each(|client| client.events.clear());
    net
}

/// A circuit of three hops that ends at `last`; each client has a middle of its own, so they come over different links.
fn circuit(net: &mut Net, client: usize, last: usize, wish: Wish) -> u32 {
    let circuit = net.clients[client].create(&hop(client), Wish::NtorV3);
    net.run();
    let middle = match (client, last) {
        (0, _) => 1,
        (_, JOINS) => 2,
        _ => 0,
    };
    for (relay, wish) in [(middle, Wish::NtorV3), (last, wish)] {
        net.clients[client].extend(circuit, &hop(relay), wish);
        net.run();
    }
    assert_eq!(net.clients[client].hops(circuit), 3);
    net.clients[client].events.clear();
    circuit
}

fn say(net: &mut Net, client: usize, circuit: u32, command: Relay, data: &[u8]) {
    let last = net.clients[client].hops(circuit) - 1;
    net.clients[client].send(circuit, last, Command::RELAY, command, 0, data);
    net.run();
}

/// What a client was told: circuit, command, data; a DESTROY is command 0 with its reason.
fn told(net: &mut Net, client: usize) -> Vec<(u32, Relay, Vec<u8>)> {
    let events = std::mem::take(&mut net.clients[client].events);
    let what = events.into_iter().map(|event| match event {
        Event::Message {
            circuit, command, data, ..
        } => (circuit, command, data),
        Event::Destroyed { circuit, reason } => (circuit, Relay(0), vec![reason]),
        other => panic!("{other:?}"),
    });
    what.collect()
}

fn service_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn auth_key(seed: u8) -> AuthKey {
    service_key(seed).verifying_key().to_bytes()
}

/// ESTABLISH_INTRO as the service would say it on this circuit.
fn establish(net: &Net, circuit: u32, seed: u8, dos: Option<DosParameters>) -> Vec<u8> {
    let nonce = net.clients[1].nonce(circuit).expect("a circuit");
    EstablishIntro::write(
        &auth_key(seed),
        dos.as_ref(),
        |maced| introduction::mac(&nonce, maced),
        |signed| service_key(seed).sign(signed).to_bytes(),
    )
}

/// A service that can be introduced.
fn introduced(net: &mut Net, seed: u8, dos: Option<DosParameters>) -> u32 {
    let circuit = circuit(net, 1, INTRODUCES, Wish::Cgo);
    let message = establish(net, circuit, seed, dos);
    say(net, 1, circuit, Relay::ESTABLISH_INTRO, &message);
    assert_eq!(told(net, 1), vec![(circuit, Relay::INTRO_ESTABLISHED, vec![0])]);
    circuit
}

/// What a client's INTRODUCE1 on a new circuit brings it.
fn ask(net: &mut Net, data: &[u8]) -> Vec<(Relay, Vec<u8>)> {
    let circuit = circuit(net, 0, INTRODUCES, Wish::Ntor);
    say(net, 0, circuit, Relay::INTRODUCE1, data);
    let told = told(net, 0);
    net.clients[0].destroy(circuit);
    net.run();
    told.into_iter().map(|(_, command, data)| (command, data)).collect()
}

fn ack(status: u8) -> Vec<(Relay, Vec<u8>)> {
    vec![(Relay::INTRODUCE_ACK, vec![0, status, 0])]
}

fn destroyed(reason: u8) -> Vec<(Relay, Vec<u8>)> {
    vec![(Relay(0), vec![reason])]
}

/// Client and service at their ends of a rendezvous.
fn meet(net: &mut Net, cookie: u8, wishes: (Wish, Wish)) -> (u32, u32) {
    let theirs = circuit(net, 0, JOINS, wishes.0);
    say(net, 0, theirs, Relay::ESTABLISH_RENDEZVOUS, &[cookie; 20]);
    assert_eq!(told(net, 0), vec![(theirs, Relay::RENDEZVOUS_ESTABLISHED, vec![])]);
    let ours = circuit(net, 1, JOINS, wishes.1);
    let message = [[cookie; 20].as_slice(), b"the service's half"].concat();
    say(net, 1, ours, Relay::RENDEZVOUS1, &message);
    assert_eq!(told(net, 0), vec![(theirs, Relay::RENDEZVOUS2, b"the service's half".to_vec())]);
    assert_eq!(told(net, 1), vec![]);
    let keys = std::array::from_fn(|at| at as u8);
    net.clients[0].meet(theirs, &keys, false);
    net.clients[1].meet(ours, &keys, true);
    (theirs, ours)
}

fn nothing_is_left(net: &mut Net) {
    for client in 0..net.clients.len() {
        net.hang_up(client);
    }
    net.run();
    for relay in &net.relays {
        assert_eq!((relay.engine.tally().circuits_open, relay.engine.cells_waiting()), (0, 0));
    }
}

#[test]
fn a_client_is_introduced_to_an_onion_service_and_meets_it() {
    let kinds = [
        (Wish::Ntor, Wish::Ntor),
        (Wish::Cgo, Wish::CongestionControl),
        (Wish::NtorV3, Wish::Cgo),
        (Wish::Cgo, Wish::Cgo),
    ];
    for (seed, wishes) in (1..).zip(kinds) {
        let mut net = two(seed);
        let point = introduced(&mut net, 7, None);
        let request = Introduce1 { auth_key: auth_key(7) }.write(b"meet me at relay 3");
        assert_eq!(ask(&mut net, &request), ack(0));
        assert_eq!(told(&mut net, 1), vec![(point, Relay::INTRODUCE2, request)]);

        let (theirs, ours) = meet(&mut net, 9, wishes);
        for round in 0..40_u16 {
            say(&mut net, 0, theirs, Relay::DROP, &round.to_be_bytes());
            say(&mut net, 1, ours, Relay::DROP, &round.to_be_bytes());
        }
        let expected = |circuit| (0..40_u16).map(move |round| (circuit, Relay::DROP, round.to_be_bytes().to_vec()));
        assert!(told(&mut net, 1).into_iter().eq(expected(ours)), "{wishes:?}");
        assert!(told(&mut net, 0).into_iter().eq(expected(theirs)), "{wishes:?}");
        nothing_is_left(&mut net);
    }
}

#[test]
fn a_service_must_prove_its_key_on_this_very_circuit() {
    let mut net = two(10);
    let other = circuit(&mut net, 1, INTRODUCES, Wish::Ntor);
    let replayed = establish(&net, other, 7, None);
    let bends: [fn(&mut Vec<u8>); 5] = [
        |message| message[0] = 0,
        |message| message[3] ^= 1,
        |message| message[40] ^= 1,
        |message| {
            let last = message.len() - 1;
            message[last] ^= 1;
        },
        |message| message.truncate(60),
    ];
    for bend in bends {
        let point = circuit(&mut net, 1, INTRODUCES, Wish::Cgo);
        let mut message = establish(&net, point, 7, None);
        bend(&mut message);
        say(&mut net, 1, point, Relay::ESTABLISH_INTRO, &message);
        assert_eq!(told(&mut net, 1), vec![(point, Relay(0), vec![11])]);
    }
    let point = circuit(&mut net, 1, INTRODUCES, Wish::Cgo);
    say(&mut net, 1, point, Relay::ESTABLISH_INTRO, &replayed);
    assert_eq!(told(&mut net, 1), vec![(point, Relay(0), vec![11])]);
    let request = Introduce1 { auth_key: auth_key(7) }.write(b"hello");
    assert_eq!(ask(&mut net, &request), ack(1), "nobody is introduced");
}

/// tor#41299: a request of the old protocol is answered, it trips nothing.
#[test]
fn trove_41299_an_introduction_of_the_old_protocol_is_refused_with_an_answer() {
    let mut net = two(11);
    introduced(&mut net, 7, None);
    let good = Introduce1 { auth_key: auth_key(7) }.write(b"hello");
    let mut legacy = good.clone();
    legacy[3] = 1;
    assert_eq!(ask(&mut net, &legacy), ack(2));
    assert_eq!(told(&mut net, 1), vec![]);
}

#[test]
fn an_introduction_that_cannot_be_made_is_answered_with_the_reason() {
    let mut net = two(12);
    introduced(&mut net, 7, None);
    let to = |seed| Introduce1 { auth_key: auth_key(seed) };
    assert_eq!(ask(&mut net, &to(8).write(b"hello")), ack(1), "another service");
    assert_eq!(ask(&mut net, &to(7).write(b"")), ack(2), "nothing to pass on");
    let mut odd = to(7).write(b"hello");
    odd[20] = 1;
    assert_eq!(ask(&mut net, &odd), ack(2), "an old kind of key");
    assert_eq!(ask(&mut net, &to(7).write(&[1; 440])), ack(2), "too long for the service's circuit");
    assert_eq!(ask(&mut net, &[0; 19]), destroyed(11), "not even a key");

    let twice = circuit(&mut net, 0, INTRODUCES, Wish::Cgo);
    say(&mut net, 0, twice, Relay::INTRODUCE1, &to(7).write(b"one"));
    say(&mut net, 0, twice, Relay::INTRODUCE1, &to(7).write(b"two"));
    let answers: Vec<_> = told(&mut net, 0).into_iter().map(|(_, command, data)| (command, data)).collect();
    assert_eq!(answers, [ack(0), destroyed(11)].concat(), "one request a circuit");
    assert_eq!(told(&mut net, 1).len(), 1);

    net.connect(Client::new(99), INTRODUCES);
    net.run();
    let near = net.clients[2].create(&hop(INTRODUCES), Wish::Ntor);
    net.run();
    net.clients[2].events.clear();
    say(&mut net, 2, near, Relay::INTRODUCE1, &to(7).write(b"hello"));
    assert_eq!(told(&mut net, 2), vec![(near, Relay(0), vec![1])], "from one hop away");
}

#[test]
fn a_service_is_introduced_only_as_often_as_it_wants() {
    let mut net = two(13);
    let dos = DosParameters {
        rate: Some(2),
        burst: Some(3),
    };
    introduced(&mut net, 7, Some(dos));
    let request = Introduce1 { auth_key: auth_key(7) }.write(b"hello");
    for _ in 0..3 {
        assert_eq!(ask(&mut net, &request), ack(0));
    }
    assert_eq!(ask(&mut net, &request), ack(1));
    net.pass(Duration::from_millis(600));
    assert_eq!(ask(&mut net, &request), ack(0));
    assert_eq!(ask(&mut net, &request), ack(1));
    assert_eq!(told(&mut net, 1).len(), 4);
}

#[test]
fn the_newest_circuit_of_a_service_is_the_one_that_is_introduced() {
    let mut net = two(14);
    let older = introduced(&mut net, 7, None);
    let newer = introduced(&mut net, 7, None);
    let request = Introduce1 { auth_key: auth_key(7) }.write(b"hello");
    net.clients[1].destroy(older);
    assert_eq!(ask(&mut net, &request), ack(0));
    assert_eq!(told(&mut net, 1), vec![(newer, Relay::INTRODUCE2, request.clone())]);
    net.clients[1].destroy(newer);
    assert_eq!(ask(&mut net, &request), ack(1));
    nothing_is_left(&mut net);
}

#[test]
fn a_cookie_serves_one_client_and_one_service_once() {
    let mut net = two(15);
    let first = circuit(&mut net, 0, JOINS, Wish::Cgo);
    say(&mut net, 0, first, Relay::ESTABLISH_RENDEZVOUS, &[5; 20]);
    assert_eq!(told(&mut net, 0).len(), 1);
    for (cookie, why) in [(&[5; 20][..], "taken"), (&[6; 19], "short"), (&[6; 21], "long")] {
        let second = circuit(&mut net, 0, JOINS, Wish::Cgo);
        say(&mut net, 0, second, Relay::ESTABLISH_RENDEZVOUS, cookie);
        assert_eq!(told(&mut net, 0), vec![(second, Relay(0), vec![11])], "{why}");
    }
    let attempts: [(&[u8], usize); 4] = [(&[6; 40], 0), (&[5; 19], 0), (&[5; 40], 1), (&[5; 40], 0)];
    for (data, met) in attempts {
        let service = circuit(&mut net, 1, JOINS, Wish::Cgo);
        say(&mut net, 1, service, Relay::RENDEZVOUS1, data);
        assert_eq!(told(&mut net, 0).len(), met);
        assert_eq!(told(&mut net, 1).len(), 1 - met, "{data:?}");
    }
    nothing_is_left(&mut net);
}

#[test]
fn a_client_one_hop_away_waits_in_vain_where_the_network_says_so() {
    for refuses in [0, 1] {
        let mut net = two(16);
        let name = "DoSRefuseSingleHopClientRendezvous".to_owned();
        let network = NetworkView {
            parameters: Parameters([(name, refuses)].into()),
            ..NetworkView::default()
        };
        net.set_network(&network.into());
        net.connect(Client::new(99), JOINS);
        net.run();
        let near = net.clients[2].create(&hop(JOINS), Wish::Ntor);
        net.run();
        net.clients[2].events.clear();
        say(&mut net, 2, near, Relay::ESTABLISH_RENDEZVOUS, &[5; 20]);
        assert_eq!(told(&mut net, 2).len(), 1 - refuses as usize);
        // The silence tells nothing: the circuit lives on.
        assert_eq!(net.relays[JOINS].engine.tally().circuits_open, 1);
    }
}

#[test]
fn a_circuit_on_duty_goes_on_to_nobody_and_takes_no_second_duty() {
    let duties: [(Relay, &[u8]); 2] = [
        (Relay::ESTABLISH_RENDEZVOUS, &[6; 20]),
        (Relay::RENDEZVOUS1, &[5; 40]),
    ];
    for (command, data) in duties {
        let mut net = two(17);
        let point = introduced(&mut net, 7, None);
        say(&mut net, 1, point, command, data);
        assert_eq!(told(&mut net, 1), vec![(point, Relay(0), vec![11])]);
    }
    let mut net = two(18);
    let point = introduced(&mut net, 7, None);
    net.clients[1].extend(point, &hop(JOINS), Wish::Ntor);
    net.run();
    assert_eq!(told(&mut net, 1), vec![(point, Relay(0), vec![11])]);
    // And who goes on to others gets no duty.
    let long = circuit(&mut net, 1, INTRODUCES, Wish::Ntor);
    net.clients[1].extend(long, &hop(JOINS), Wish::Ntor);
    net.run();
    net.clients[1].events.clear();
    net.clients[1].send(long, 2, Command::RELAY, Relay::ESTABLISH_RENDEZVOUS, 0, &[6; 20]);
    net.run();
    assert_eq!(told(&mut net, 1), vec![(long, Relay(0), vec![11])]);
    nothing_is_left(&mut net);
}

#[test]
fn when_one_side_of_a_rendezvous_goes_the_other_goes_too() {
    let kinds = (Wish::Cgo, Wish::Ntor);
    let mut net = two(19);
    let (theirs, ours) = meet(&mut net, 1, kinds);
    net.clients[0].destroy(theirs);
    net.run();
    assert_eq!(told(&mut net, 1), vec![(ours, Relay(0), vec![11])]);

    let (theirs, ours) = meet(&mut net, 2, kinds);
    net.clients[1].destroy(ours);
    net.run();
    assert_eq!(told(&mut net, 0), vec![(theirs, Relay(0), vec![11])]);

    let (theirs, _) = meet(&mut net, 3, kinds);
    net.cut(JOINS, 2);
    net.run();
    assert_eq!(told(&mut net, 0), vec![(theirs, Relay(0), vec![11])]);
    assert_eq!(net.relays[JOINS].engine.tally().circuits_open, 0);
    nothing_is_left(&mut net);
}

#[test]
fn a_client_that_waits_and_goes_takes_its_cookie_away() {
    let mut net = two(20);
    let waiting = circuit(&mut net, 0, JOINS, Wish::Ntor);
    say(&mut net, 0, waiting, Relay::ESTABLISH_RENDEZVOUS, &[5; 20]);
    net.clients[0].destroy(waiting);
    net.run();
    told(&mut net, 0);
    let again = circuit(&mut net, 0, JOINS, Wish::Ntor);
    say(&mut net, 0, again, Relay::ESTABLISH_RENDEZVOUS, &[5; 20]);
    assert_eq!(told(&mut net, 0), vec![(again, Relay::RENDEZVOUS_ESTABLISHED, vec![])]);
}

#[test]
fn a_reader_that_stands_still_ends_both_sides_before_memory_is_full() {
    let mut net = two(21);
    meet(&mut net, 1, (Wish::Ntor, Wish::Ntor));
    let ours = 0x8000_0001;
    net.relays[JOINS].sockets_take = false;
    let mut sent = 0;
    while net.relays[JOINS].engine.tally().circuits_open > 0 {
        for _ in 0..250 {
            let last = net.clients[1].hops(ours) - 1;
            net.clients[1].send(ours, last, Command::RELAY, Relay::DROP, 0, &[1]);
        }
        net.run();
        sent += 250;
        assert!(sent < 4_000, "{sent}");
    }
    assert!(sent > 2_000, "{sent}");
    net.unblock(JOINS);
    net.run();
    assert_eq!(net.relays[JOINS].engine.cells_waiting(), 0);
}

#[test]
fn what_crosses_between_shards_is_counted_off_again() {
    let mut net = two(22);
    let (theirs, ours) = meet(&mut net, 1, (Wish::Cgo, Wish::Cgo));
    // More than what may wait at once.
    for _ in 0..12 {
        for _ in 0..250 {
            net.clients[1].send(ours, 3, Command::RELAY, Relay::DROP, 0, &[1]);
            net.clients[0].send(theirs, 3, Command::RELAY, Relay::DROP, 0, &[1]);
        }
        net.run();
    }
    assert_eq!((told(&mut net, 0).len(), told(&mut net, 1).len()), (3_000, 3_000));
    nothing_is_left(&mut net);
}
