//! Stories of those who want too much: circuits, connections, streams, memory.

use std::time::Duration;

use relay_engine::dos::DosOptions;
use relay_engine::settings::{Defences, StreamServices};
use relay_wire::cell::Command;
use relay_wire::relay_cells::{EndReason, RelayCommand as Relay};

use super::*;

fn all_on() -> DosOptions {
    DosOptions {
        circuit_creation_enabled: Some(true),
        connection_enabled: Some(true),
        stream_creation_enabled: Some(true),
        ..DosOptions::default()
    }
}

fn defended(seed: u64, dos: DosOptions, queued_bytes_max: Option<u64>) -> Net {
    let mut net = relays(seed);
    for relay in 0..4 {
        net.defend(relay, Defences { dos, queued_bytes_max });
    }
    net
}

/// Circuits made, and those refused, by the reason.
fn outcomes(net: &mut Net) -> (usize, Vec<u8>) {
    let (mut made, mut refused) = (0, Vec::new());
    for client in &mut net.clients {
        for event in client.events.drain(..) {
            match event {
                Event::Extended { .. } => made += 1,
                Event::Destroyed { reason, .. } => refused.push(reason),
                _ => {}
            }
        }
    }
    (made, refused)
}

/// As C tor 0.4.9.11 was seen to do, but for the last circuits of the second: shards or not.
#[test]
fn a_flood_of_circuits_from_one_address_is_refused_and_others_are_served() {
    let mut net = defended(1, all_on(), None);
    for client in 0..5 {
        net.connect(Client::new(client), 0);
    }
    net.run();
    for client in 0..5 {
        for _ in 0..80 {
            net.clients[client].create_fast();
        }
        net.run();
    }
    let (made, refused) = outcomes(&mut net);
    assert_eq!((made, refused.len()), (89, 311));
    assert!(refused.iter().all(|reason| *reason == 5), "RESOURCELIMIT");
    assert_eq!(net.relays[0].engine.commons.addresses.tally().circuits_rejected, 311);
    // What relays extend is not their flood.
    net.connect(Client::new(9), 1);
    net.run();
    let circuit = net.clients[5].create(&hop(1), Wish::Ntor);
    net.run();
    net.clients[5].extend(circuit, &hop(0), Wish::Ntor);
    net.run();
    assert_eq!(net.clients[5].hops(circuit), 2);
}

#[test]
fn two_connections_may_make_as_many_circuits_as_they_like() {
    let mut net = defended(2, all_on(), None);
    for client in 0..2 {
        net.connect(Client::new(client), 0);
    }
    net.run();
    for client in 0..2 {
        for _ in 0..200 {
            net.clients[client].create_fast();
        }
    }
    net.run();
    assert_eq!(outcomes(&mut net), (400, vec![]));
}

#[test]
fn a_flood_of_connections_from_one_address_is_turned_away_at_the_door() {
    let mut net = defended(3, all_on(), None);
    for client in 0..130 {
        net.connect(Client::new(client), 0);
    }
    net.run();
    let kept = net.clients_up.iter().filter(|up| **up).count();
    assert_eq!(kept, 40);
    assert_eq!(net.relays[0].engine.tally().channels_client_open, 40);
}

#[test]
fn a_flood_of_streams_is_refused_with_misc_or_ends_the_circuit() {
    for (defense, lives) in [(2, true), (3, false)] {
        let dos = DosOptions {
            stream_creation_defense_type: Some(defense),
            ..all_on()
        };
        let mut net = defended(4, dos, None);
        net.connect(Client::new(4), 0);
        net.run();
        let services = StreamServices {
            exits: true,
            directory: true,
            refuse_unknown_exits: Some(false),
            any_printable_name: false,
        };
        net.serve(2, services);
        net.clients[0].events.clear();
        let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
        let say = |net: &mut Net, command, stream, data: &[u8]| {
            net.clients[0].send(circuit, 2, Command::RELAY, command, stream, data);
        };
        for stream in 1..=305 {
            say(&mut net, Relay::RESOLVE, stream, b"example.com\0");
        }
        for stream in 306..=310 {
            say(&mut net, Relay::BEGIN, stream, b"example.com:80\0");
        }
        net.run();
        let told = events(&mut net);
        assert_eq!(net.relays[2].engine.tally().circuits_open, u64::from(lives));
        if !lives {
            continue;
        }
        // Each is refused in its own kind: a question with an error that passes.
        let count = |wanted, first| {
            let is = |event: &&Event| matches!(event, Event::Message { command, data, .. } if *command == wanted && data[0] == first);
            told.iter().filter(is).count()
        };
        let refused = (count(Relay::RESOLVED, 0xf0), count(Relay::END, EndReason::Misc as u8));
        assert_eq!((refused, told.len()), ((5, 5), 10));
        assert_eq!(net.relays[2].engine.tally().dos_streams_rejected, 10);
        // Directory streams are not counted, and a second brings new ones.
        say(&mut net, Relay::BEGIN_DIR, 1_000, b"");
        net.pass(Duration::from_secs(1));
        say(&mut net, Relay::RESOLVE, 1_001, b"example.com\0");
        net.run();
        assert_eq!(net.relays[2].engine.tally().streams_open, 302);
    }
}

/// A client whose first relay cannot write to it: whatever comes back waits there.
fn fill(net: &mut Net, client: usize, circuit: u32, cells: usize) {
    let wish = [0, 2, 1, 0, 0, 0, 0, 1];
    for _ in 0..cells {
        net.clients[client].send(circuit, 0, Command::RELAY, Relay::PADDING_NEGOTIATE, 0, &wish);
    }
    net.run();
}

/// TROVE-2026-043 and its kin: C tor freed circuits below functions that still worked on them when memory ran out.
#[test]
fn trove_2026_043_when_memory_is_full_the_circuits_that_waited_longest_end() {
    let most = 1_000 * 520;
    let mut net = defended(5, DosOptions::default(), Some(most));
    let mut circuits = Vec::new();
    for client in 0..6 {
        net.connect(Client::new(client as u64), 0);
        net.run();
        circuits.push(net.clients[client].create(&hop(0), Wish::NtorV3));
        net.run();
    }
    net.relays[0].sockets_take = false;
    for (client, circuit) in circuits.iter().enumerate() {
        fill(&mut net, client, *circuit, 150);
        net.pass(Duration::from_secs(1));
    }
    assert_eq!(net.relays[0].engine.tally().circuits_open, 6, "below the limit all live");
    fill(&mut net, 5, circuits[5], 150);
    let tally = net.relays[0].engine.tally();
    assert!(tally.memory_circuits_ended > 0 && tally.circuits_open > 0, "{tally:?}");
    assert!(net.relays[0].engine.commons.queued_bytes() <= most, "{tally:?}");
    net.unblock(0);
    net.run();
    // Where shards wait for nobody, each takes the oldest of its own.
    if SHARDS == 1 {
        assert!(net.clients[5].hops(circuits[5]) > 0, "the newest is the last to go");
        assert_eq!(net.clients[0].hops(circuits[0]), 0, "the oldest is the first");
    }
    let destroyed = outcomes(&mut net).1;
    assert_eq!(destroyed.len() as u64, tally.memory_circuits_ended);
    assert!(destroyed.iter().all(|reason| *reason == 5));
    for client in 0..6 {
        net.hang_up(client);
    }
    net.run();
    assert_eq!(net.relays[0].engine.commons.queued_bytes(), 0);
}

/// The same at every possible moment: the limit is reached by each kind of thing that waits.
#[test]
fn trove_2026_043_memory_that_runs_out_anywhere_leaves_nothing_behind() {
    for limit in (1..40).map(|cells| cells * 520 * 7) {
        let mut net = defended(limit, DosOptions::default(), Some(limit));
        let services = StreamServices {
            exits: true,
            directory: true,
            refuse_unknown_exits: Some(false),
            any_printable_name: false,
        };
        net.serve(2, services);
        net.connect(Client::new(limit), 0);
        net.run();
        let circuit = net.clients[0].create(&hop(0), Wish::NtorV3);
        net.run();
        for relay in [1, 2] {
            net.clients[0].extend(circuit, &hop(relay), Wish::Ntor);
            net.run();
        }
        net.clients[0].send(circuit, 2, Command::RELAY, Relay::BEGIN, 1, b"example.com:80\0");
        for relay in 0..3 {
            net.relays[relay].sockets_take = false;
            for _ in 0..60 {
                net.clients[0].send(circuit, 2, Command::RELAY, Relay::DATA, 1, &[7; 400]);
            }
            net.run();
            net.unblock(relay);
            net.run();
        }
        net.hang_up(0);
        net.run();
        for relay in &net.relays {
            let tally = relay.engine.tally();
            let left = (tally.circuits_open, tally.streams_open, relay.engine.commons.queued_bytes());
            assert_eq!(left, (0, 0, 0), "limit {limit}");
        }
    }
}

#[test]
fn trove_40680_who_fills_queues_of_relays_again_and_again_makes_no_more_circuits() {
    let mut net = defended(6, all_on(), None);
    net.connect(Client::new(6), 0);
    net.run();
    net.clients[0].events.clear();
    for round in 0..5 {
        let circuit = net.clients[0].create(&hop(0), Wish::NtorV3);
        net.run();
        let made = net.clients[0].hops(circuit) == 1;
        assert_eq!(made, round < 4, "round {round}");
        if !made {
            break;
        }
        net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
        net.run();
        net.relays[0].sockets_take = false;
        for _ in 0..2_600 {
            net.clients[0].send(circuit, 1, Command::RELAY, Relay::DROP, 0, &[]);
        }
        net.run();
        net.unblock(0);
        net.run();
        assert_eq!(net.clients[0].hops(circuit), 0, "its queue was full");
    }
    assert_eq!(net.relays[0].engine.commons.addresses.tally().addresses_marked_maxq, 1);
    assert_eq!(net.relays[0].engine.tally().dos_circuits_killed_max_cell_outq, 4);
}
