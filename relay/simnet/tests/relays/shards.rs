//! Stories that only several shards can tell. Clients of a relay sit on its shards in turn.

use relay_engine::Input;
use relay_engine::network::NetworkView;
use relay_wire::cell::Command;
use relay_wire::relay_cells::{DestroyReason, RelayCommand as Relay};

use super::*;

/// One client of relay 0 on each of its three shards.
fn clients_everywhere(seed: u64) -> Net {
    let mut net = relays(seed);
    for client in 0..3 {
        net.connect(Client::new(seed + client), 0);
    }
    net.run();
    net
}

/// A circuit of each client to relay 0 and, if told so, on to relay 1.
fn circuits(net: &mut Net, extended: bool) -> Vec<u32> {
    let circuits: Vec<_> = (0..3)
        .map(|client| net.clients[client].create(&hop(0), Wish::NtorV3))
        .collect();
    net.run();
    if extended {
        for (client, circuit) in circuits.iter().enumerate() {
            net.clients[client].extend(*circuit, &hop(1), Wish::NtorV3);
        }
        net.run();
        for (client, circuit) in circuits.iter().enumerate() {
            assert_eq!(net.clients[client].hops(*circuit), 2);
        }
    }
    circuits
}

fn ask(net: &mut Net, client: usize, circuit: u32, hop: usize) {
    let wish = [0, 2, 1, 0, 0, 0, 0, 1];
    let command = Relay::PADDING_NEGOTIATE;
    net.clients[client].send(circuit, hop, Command::RELAY, command, 0, &wish);
}

fn messages(net: &mut Net, client: usize) -> usize {
    let events = std::mem::take(&mut net.clients[client].events);
    let is_message = |event: &&Event| matches!(event, Event::Message { .. });
    events.iter().filter(is_message).count()
}

#[test]
fn all_shards_share_one_link_to_a_relay() {
    let mut net = clients_everywhere(1);
    let circuits = circuits(&mut net, true);
    assert_eq!(net.relays[0].connects.len(), 1);
    assert_eq!(net.relays[0].engine.guests(), 2, "the third lives where the link is");
    for (client, circuit) in circuits.iter().enumerate() {
        for _ in 0..500 {
            ask(&mut net, client, *circuit, 1);
        }
        net.run();
        assert_eq!(messages(&mut net, client), 500);
    }
    assert_eq!(net.relays[0].engine.cells_waiting(), 0);
}

#[test]
fn shards_that_want_a_relay_at_the_same_time_wait_for_one_link() {
    for seed in 0..20 {
        let mut net = clients_everywhere(seed);
        net.choppy = true;
        circuits(&mut net, true);
        assert_eq!((net.relays[0].connects.len(), net.relays[0].engine.guests()), (1, 2));
    }
}

#[test]
fn a_link_that_the_other_relay_began_serves_all_shards() {
    for inbound in 0..3 {
        let mut net = relays(3);
        // The link from relay 1 comes to another of relay 0's shards each time.
        (0..inbound).for_each(|seed| _ = net.connect(Client::new(seed), 0));
        let other = net.connect(Client::new(9), 1);
        net.run();
        let circuit = net.clients[other].create(&hop(1), Wish::NtorV3);
        net.run();
        net.clients[other].extend(circuit, &hop(0), Wish::NtorV3);
        net.run();
        assert_eq!(net.clients[other].hops(circuit), 2);
        let first = net.clients.len();
        (0..3).for_each(|seed| _ = net.connect(Client::new(20 + seed), 0));
        net.run();
        for client in first..first + 3 {
            let circuit = net.clients[client].create(&hop(0), Wish::Cgo);
            net.run();
            net.clients[client].extend(circuit, &hop(1), Wish::Cgo);
            net.run();
            assert_eq!(net.clients[client].hops(circuit), 2);
        }
        assert!(net.relays[0].connects.is_empty(), "inbound at shard {inbound}");
        assert_eq!(net.relays[0].engine.guests(), 2);
        // And when it is gone, one of them makes the next.
        net.cut(0, 1);
        net.run();
        assert_eq!(net.relays[0].engine.guests(), 0);
        for client in first..first + 3 {
            let circuit = net.clients[client].create(&hop(0), Wish::Cgo);
            net.run();
            net.clients[client].extend(circuit, &hop(1), Wish::Cgo);
            net.run();
            assert_eq!(net.clients[client].hops(circuit), 2);
        }
        assert_eq!(net.relays[0].connects.len(), 1);
    }
}

#[test]
fn ends_reach_every_shard_from_both_sides() {
    let mut net = clients_everywhere(4);
    let made = circuits(&mut net, true);
    net.clients[0].destroy(made[0]);
    net.hang_up(1);
    net.run();
    assert_eq!(net.relays[1].engine.tally().circuits_open, 1);
    // The last relay ends it: it does not do this.
    net.clients[2].send(made[2], 1, Command::RELAY, Relay::ESTABLISH_INTRO, 0, &[0; 40]);
    net.run();
    let (circuit, reason) = (made[2], DestroyReason::Destroyed as u8);
    assert_eq!(
        net.clients[2].events.last(),
        Some(&Event::Destroyed { circuit, reason })
    );
    for relay in &net.relays {
        assert_eq!((relay.engine.tally().circuits_open, relay.engine.guests()), (0, 0));
    }
}

#[test]
fn a_circuit_that_ends_while_another_shard_is_asked_leaves_no_guest() {
    for seed in 0..40 {
        let mut net = clients_everywhere(seed);
        net.choppy = seed % 2 == 0;
        let made = circuits(&mut net, false);
        for (client, circuit) in made.iter().enumerate() {
            net.clients[client].extend(*circuit, &hop(1), Wish::Ntor);
            match seed % 3 {
                0 => net.clients[client].destroy(*circuit),
                1 => net.clients[client].send(*circuit, 0, Command::RELAY, Relay::TRUNCATE, 0, &[0]),
                _ => {
                    net.clients[client].send(*circuit, 0, Command::RELAY, Relay::TRUNCATE, 0, &[0]);
                    net.clients[client].extend(*circuit, &hop(2), Wish::Ntor);
                }
            }
        }
        net.run();
        let circuits = [0, 3, 3][seed as usize % 3];
        assert_eq!(net.relays[0].engine.tally().circuits_open, circuits, "seed {seed}");
        let onward = net.relays[1].engine.tally().circuits_open + net.relays[2].engine.tally().circuits_open;
        assert_eq!(onward, [0, 0, 3][seed as usize % 3], "seed {seed}");
        let guests = net.relays[0].engine.guests();
        assert!(guests as u64 <= onward, "seed {seed}: {guests} guests");
    }
}

#[test]
fn a_circuit_whose_cells_pile_up_on_another_shard_is_ended_and_its_memory_comes_back() {
    let mut net = clients_everywhere(5);
    let made = circuits(&mut net, true);
    net.relays[0].sockets_take = false;
    for (client, circuit) in made.iter().enumerate() {
        for _ in 0..2_500 {
            net.clients[client].send(*circuit, 1, Command::RELAY, Relay::DROP, 0, &[]);
        }
    }
    net.run();
    assert_eq!(net.relays[0].engine.tally().circuits_open, 3);
    assert_eq!(net.relays[0].engine.cells_waiting(), 7_500);
    for (client, circuit) in made.iter().enumerate() {
        net.clients[client].send(*circuit, 1, Command::RELAY, Relay::DROP, 0, &[]);
    }
    net.run();
    assert_eq!(net.relays[0].engine.cells_waiting(), 0);
    assert_eq!(
        (
            net.relays[0].engine.tally().circuits_open,
            net.relays[0].engine.guests()
        ),
        (0, 0)
    );
    net.unblock(0);
    net.run();
    assert_eq!(net.relays[1].engine.tally().circuits_open, 0);
}

/// What has been written no longer counts, however much that is in all.
#[test]
fn a_circuit_over_two_shards_lives_as_long_as_its_cells_go_out() {
    let mut net = clients_everywhere(6);
    let made = circuits(&mut net, true);
    for _ in 0..4 {
        for (client, circuit) in made.iter().enumerate() {
            for _ in 0..1_000 {
                ask(&mut net, client, *circuit, 1);
            }
            net.run();
            assert_eq!(messages(&mut net, client), 1_000);
        }
    }
    assert_eq!(net.relays[0].engine.tally().circuits_open, 3);
}

#[test]
fn a_client_that_reads_nothing_loses_its_circuit_wherever_its_cells_come_from() {
    let mut net = clients_everywhere(7);
    let made = circuits(&mut net, true);
    // The answers pile up at relay 1, and then come all at once to relay 0, which holds fewer.
    net.relays[1].sockets_take = false;
    for (client, circuit) in made.iter().enumerate() {
        for _ in 0..1_200 {
            ask(&mut net, client, *circuit, 1);
        }
    }
    net.run();
    let mut network = NetworkView::default();
    network
        .parameters
        .0
        .insert("circ_max_cell_queue_size".to_owned(), 1_000);
    net.handle(0, Input::Network(Arc::new(network)));
    net.relays[0].sockets_take = false;
    assert_eq!(net.relays[0].engine.tally().circuits_open, 3);
    net.unblock(1);
    net.run();
    assert_eq!(
        (
            net.relays[0].engine.tally().circuits_open,
            net.relays[0].engine.guests()
        ),
        (0, 0)
    );
    assert_eq!(net.relays[0].engine.cells_waiting(), 0);
    net.unblock(0);
    net.run();
    assert_eq!(net.relays[1].engine.tally().circuits_open, 0);
}
