use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay_simnet::client::Client;
use relay_wire::cell::Command;
use relay_wire::relay_cells::RelayCommand;

use super::*;

const SEEDS: u64 = 40;

/// Clients come and go, circuits grow and die, links break, sockets stand still, time passes. Whatever happens: nobody
/// panics, no cell is misread, and when all clients are gone nothing of them is left anywhere.
#[test]
fn whatever_happens_nothing_is_left_of_clients_that_are_gone() {
    let (mut extended, mut messages) = (0, 0);
    for seed in 0..SEEDS {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut net = relays(seed);
        net.choppy = dice.random();
        let mut circuits: Vec<(usize, u32)> = Vec::new();
        for _ in 0..120 {
            step(&mut net, &mut dice, &mut circuits);
            if dice.random_range(0..3) == 0 {
                net.run();
            }
        }
        for relay in 0..net.relays.len() {
            net.unblock(relay);
        }
        net.run();
        for client in &mut net.clients {
            for event in client.events.drain(..) {
                match event {
                    Event::Nonsense(what) => panic!("seed {seed}: {what}"),
                    Event::Extended { .. } => extended += 1,
                    Event::Message { .. } => messages += 1,
                    _ => {}
                }
            }
        }
        for client in 0..net.clients.len() {
            net.hang_up(client);
        }
        net.run();
        for (number, relay) in net.relays.iter().enumerate() {
            let tally = relay.engine.tally();
            let left = (
                tally.circuits_open,
                tally.channels_client_open,
                relay.engine.cells_waiting(),
                relay.engine.guests(),
            );
            assert_eq!(left, (0, 0, 0, 0), "seed {seed}, relay {number}");
        }
        net.pass(Duration::from_secs(3 * 3_600));
        for (number, relay) in net.relays.iter().enumerate() {
            assert_eq!(
                relay.engine.tally().channels_relay_open,
                0,
                "seed {seed}, relay {number}"
            );
            assert_eq!(relay.engine.deadline(), None, "seed {seed}, relay {number}");
        }
    }
    assert!(
        extended > 10 * SEEDS && messages > 5 * SEEDS,
        "{extended} extended, {messages} messages"
    );
}

fn step(net: &mut Net, dice: &mut StdRng, circuits: &mut Vec<(usize, u32)>) {
    let wishes = [Wish::Ntor, Wish::NtorV3, Wish::CongestionControl, Wish::Cgo];
    let wish = wishes[dice.random_range(0..wishes.len())];
    let some = (!circuits.is_empty()).then(|| circuits[dice.random_range(0..circuits.len().max(1))]);
    match (dice.random_range(0..30), some) {
        (0..=1, _) => {
            let relay = dice.random_range(0..4);
            net.connect(Client::new(dice.random()), relay);
            // A client that is to create circuits must know the link's version.
            net.run();
        }
        (2..=6, _) if !net.clients.is_empty() => {
            let client = dice.random_range(0..net.clients.len());
            if let Some(relay) = net.relay_of(client).filter(|_| net.clients[client].is_open()) {
                let circuit = net.clients[client].create(&hop(relay), wish);
                circuits.push((client, circuit));
            }
        }
        (7..=12, Some((client, circuit))) => {
            let relay = dice.random_range(0..4);
            // While one hop is being added, another must not be: that is the client's own duty.
            if !net.clients[client].is_growing(circuit) {
                net.clients[client].extend(circuit, &hop(relay), wish);
            }
        }
        (13..=22, Some((client, circuit))) => {
            let hops = net.clients[client].hops(circuit);
            if hops > 0 {
                let wish = [0, 2, 1, 0, 0, 0, 0, 1];
                let command = RelayCommand::PADDING_NEGOTIATE;
                net.clients[client].send(circuit, dice.random_range(0..hops), Command::RELAY, command, 0, &wish);
            }
        }
        (23, Some((client, circuit))) => net.clients[client].destroy(circuit),
        (24, _) if !net.clients.is_empty() => net.hang_up(dice.random_range(0..net.clients.len())),
        (25, _) => net.cut(dice.random_range(0..4), dice.random_range(0..4)),
        (26, _) => net.relays[dice.random_range(0..4)].sockets_take = false,
        (27, _) => net.unblock(dice.random_range(0..4)),
        (28, _) => net.pass(Duration::from_millis(dice.random_range(0..20_000))),
        _ => net.run(),
    }
}
