//! Stories of padding machines, which middles run for circuits of onion services.

use std::time::Duration;

use relay_engine::network::{NetworkView, Parameters};
use relay_wire::cell::Command;
use relay_wire::relay_cells::RelayCommand as Relay;

use super::*;

const MIDDLE: usize = 1;

fn negotiate(net: &mut Net, circuit: u32, body: &[u8]) {
    net.clients[0].send(circuit, MIDDLE, Command::RELAY, Relay::PADDING_NEGOTIATE, 0, body);
    net.run();
}

/// Answers of the middle, and how many DROP it sent.
fn heard(net: &mut Net) -> (Vec<Vec<u8>>, usize) {
    let (mut answers, mut drops) = (Vec::new(), 0);
    for event in events(net) {
        match event {
            Event::Message { hop: MIDDLE, command: Relay::PADDING_NEGOTIATED, data, .. } => answers.push(data),
            Event::Message { hop: MIDDLE, command: Relay::DROP, .. } => drops += 1,
            other => panic!("{other:?}"),
        }
    }
    (answers, drops)
}

#[test]
fn a_middle_pads_the_circuit_that_asks_for_it_and_says_when_an_introduction_has_had_all() {
    for wish in [Wish::NtorV3, Wish::Cgo] {
        let mut net = net(1);
        let circuit = three_hops(&mut net, [wish; 3]);
        negotiate(&mut net, circuit, &[0, 2, 0, 0, 0, 0, 0, 1]);
        assert_eq!(heard(&mut net), (vec![vec![0, 2, 1, 0, 0, 0, 0, 1]], 0));
        net.pass(Duration::from_millis(200));
        // Without this STOP C tor's client would hold the circuit open for an hour.
        let (answers, drops) = heard(&mut net);
        assert_eq!(answers, [[0, 1, 1, 0, 0, 0, 0, 1]]);
        assert!((7..=9).contains(&drops), "{drops}");
        // The client's own, which crossed it: an answer would be to a machine that it no longer knows.
        negotiate(&mut net, circuit, &[0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(heard(&mut net), (vec![], 0));
        // The other machine sends one cell.
        negotiate(&mut net, circuit, &[0, 2, 1, 0, 0, 0, 0, 2]);
        net.pass(Duration::from_millis(200));
        assert_eq!(heard(&mut net), (vec![vec![0, 2, 1, 1, 0, 0, 0, 2]], 1));
        negotiate(&mut net, circuit, &[0, 1, 1, 0, 0, 0, 0, 2]);
        assert_eq!(heard(&mut net), (vec![vec![0, 1, 1, 1, 0, 0, 0, 2]], 0));
    }
}

#[test]
fn a_consensus_that_ends_padding_silences_the_machines_and_they_still_say_their_end() {
    let mut net = net(5);
    let circuit = three_hops(&mut net, [Wish::Cgo; 3]);
    negotiate(&mut net, circuit, &[0, 2, 0, 0, 0, 0, 0, 1]);
    assert_eq!(heard(&mut net).0.len(), 1);
    let network = NetworkView {
        parameters: Parameters([("circpad_padding_disabled".to_owned(), 1)].into()),
        ..NetworkView::default()
    };
    net.set_network(&network.into());
    net.pass(Duration::from_millis(200));
    assert_eq!(heard(&mut net), (vec![vec![0, 1, 1, 0, 0, 0, 0, 1]], 0));
    negotiate(&mut net, circuit, &[0, 2, 0, 0, 0, 0, 0, 2]);
    assert_eq!(heard(&mut net), (vec![vec![0, 2, 2, 0, 0, 0, 0, 2]], 0));
}

#[test]
fn a_machine_that_is_stopped_sends_nothing_more() {
    let mut net = net(2);
    let circuit = three_hops(&mut net, [Wish::Cgo; 3]);
    negotiate(&mut net, circuit, &[0, 2, 0, 0, 0, 0, 0, 1]);
    negotiate(&mut net, circuit, &[0, 1, 0, 0, 0, 0, 0, 1]);
    net.pass(Duration::from_secs(1));
    assert_eq!(heard(&mut net).1, 0);
    // And one whose circuit is gone wakes nobody.
    negotiate(&mut net, circuit, &[0, 2, 0, 0, 0, 0, 0, 2]);
    net.clients[0].destroy(circuit);
    net.pass(Duration::from_secs(1));
    assert_eq!(net.relays[MIDDLE].engine.tally().circuits_open, 0);
}

#[test]
fn a_machine_that_nobody_knows_is_refused_and_the_circuit_lives() {
    let mut net = net(3);
    let circuit = three_hops(&mut net, [Wish::Cgo; 3]);
    negotiate(&mut net, circuit, &[0, 2, 7, 0, 0, 0, 0, 1]);
    assert_eq!(heard(&mut net).0, vec![vec![0, 2, 2, 7, 0, 0, 0, 1]]);
    for nonsense in [&[][..], &[0, 2, 0], &[1, 2, 0, 0, 0, 0, 0, 1], &[0, 9, 0, 0, 0, 0, 0, 1]] {
        negotiate(&mut net, circuit, nonsense);
        assert_eq!(heard(&mut net), (vec![], 0), "{nonsense:?}");
    }
    assert_eq!(net.relays[MIDDLE].engine.tally().circuits_open, 1);
}
