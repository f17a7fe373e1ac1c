use proptest::prelude::*;
use relay_simnet::client::Client;
use relay_wire::cell::{CircIdWidth, Command, write_fixed, write_variable};
use relay_wire::relay_cells::DestroyReason;

use super::*;

/// The cells of the link handshake, as an initiator could send them.
fn handshake_cells() -> Vec<(Command, Vec<u8>)> {
    let initiator = &keys()[1].initiator;
    let netinfo = vec![0, 0, 0, 0, 4, 4, 192, 0, 2, 1, 0];
    vec![
        (Command::CERTS, initiator.certs_body.clone()),
        (Command::AUTH_CHALLENGE, [&[7; 32][..], &[0, 1, 0, 3]].concat()),
        (Command::AUTHENTICATE, [&[0, 3, 1, 96][..], &[9; 352]].concat()),
        (Command::NETINFO, netinfo),
        (Command::VPADDING, vec![1, 2, 3]),
        (Command::VERSIONS, vec![0, 4, 0, 5]),
        (Command::PADDING, vec![]),
        (Command::CREATE_FAST, vec![1; 20]),
    ]
}

/// TROVE-2026-006 was a CERTS and an AUTH_CHALLENGE out of order.
#[test]
fn trove_2026_006_no_order_of_handshake_cells_opens_a_link_as_a_relay() {
    let cells = handshake_cells();
    for first in 0..cells.len() {
        for second in 0..cells.len() {
            for third in 0..cells.len() {
                let mut net = relays(200);
                let client = net.connect(Client::new(200), 0);
                net.clients[client].shakes_hands = false;
                let mut bytes = Vec::new();
                for number in [first, second, third] {
                    let (command, body) = &cells[number];
                    if command.is_variable() {
                        write_variable(&mut bytes, CircIdWidth::Four, *command, body).unwrap();
                    } else {
                        let circuit = if *command == Command::CREATE_FAST {
                            0x8000_0007
                        } else {
                            0
                        };
                        write_fixed(&mut bytes, CircIdWidth::Four, circuit, *command, body);
                    }
                }
                // The client says VERSIONS only; what follows is the stranger's.
                let versions = std::mem::take(&mut net.clients[client].output);
                net.inject(client, &versions);
                net.inject(client, &bytes);
                net.run();
                let tally = net.relays[0].engine.tally();
                assert_eq!(tally.channels_relay_open, 0, "{first} {second} {third}");
                let order = [first, second, third].map(|number| cells[number].0);
                let netinfo = order.iter().position(|command| *command == Command::NETINFO);
                let harmless = |command: &Command| [Command::VPADDING, Command::CERTS].contains(command);
                let opens = netinfo.is_some_and(|at| {
                    order[..at].iter().all(harmless)
                        && order[..at].iter().filter(|command| **command == Command::CERTS).count() <= 1
                });
                let closes_after = netinfo.is_some_and(|at| {
                    order[at + 1..].iter().any(|command| {
                        [
                            Command::CERTS,
                            Command::AUTH_CHALLENGE,
                            Command::AUTHENTICATE,
                            Command::NETINFO,
                        ]
                        .contains(command)
                    })
                });
                let open = tally.channels_client_open == 1;
                assert_eq!(open, opens && !closes_after, "{order:?}");
            }
        }
    }
}

/// What a peer proves for one session is worth nothing in another.
#[test]
fn a_forged_authenticate_closes_the_link() {
    let mut net = relays(201);
    let client = net.connect(Client::new(201), 0);
    let mut bytes = std::mem::take(&mut net.clients[client].output);
    for (command, body) in handshake_cells()
        .into_iter()
        .filter(|(command, _)| [Command::CERTS, Command::AUTHENTICATE].contains(command))
    {
        write_variable(&mut bytes, CircIdWidth::Four, command, &body).unwrap();
    }
    net.inject(client, &bytes);
    net.run();
    assert!(!net.clients_up[client]);
}

#[test]
fn certificates_twice_in_one_cell_close_the_link() {
    let mut net = relays(202);
    let client = net.connect(Client::new(202), 0);
    let mut bytes = std::mem::take(&mut net.clients[client].output);
    let once = &keys()[1].initiator.certs_body;
    let mut twice = vec![once[0] * 2];
    twice.extend_from_slice(&once[1..]);
    twice.extend_from_slice(&once[1..]);
    write_variable(&mut bytes, CircIdWidth::Four, Command::CERTS, &twice).unwrap();
    net.inject(client, &bytes);
    net.run();
    assert!(!net.clients_up[client]);
}

#[test]
fn a_circuit_id_of_the_wrong_half_is_refused() {
    let mut net = net(203);
    net.clients[0].cell(7, Command::CREATE_FAST, &[1; 20]);
    net.run();
    let refused = Event::Destroyed {
        circuit: 7,
        reason: DestroyReason::TorProtocol as u8,
    };
    assert_eq!(events(&mut net), vec![refused]);
}

#[test]
fn tap_and_broken_handshakes_are_refused_with_a_destroy() {
    let mut net = net(204);
    let bodies: [(Command, &[u8]); 5] = [
        (Command::CREATE, &[1; 186]),
        (Command::CREATE2, &[0, 0, 0, 186]),
        (Command::CREATE2, &[0, 2, 255, 255]),
        (Command::CREATE2, &[0, 9, 0, 1, 1]),
        (Command::CREATE2, &[0, 2, 0, 3, 1, 2, 3]),
    ];
    for (command, body) in bodies {
        let circuit = net.clients[0].fresh_circuit();
        net.clients[0].cell(circuit, command, body);
        net.run();
        let refused = Event::Destroyed {
            circuit,
            reason: DestroyReason::TorProtocol as u8,
        };
        assert_eq!(events(&mut net), vec![refused], "{command:?} {body:?}");
    }
    assert_eq!(net.relays[0].engine.tally().circuits_open, 0);
}

#[test]
fn cells_before_the_handshake_is_answered_end_the_circuit() {
    let mut net = net(205);
    net.relays[0].workers_run = false;
    let circuit = net.clients[0].create(&hop(0), Wish::NtorV3);
    net.clients[0].cell(circuit, Command::RELAY, &[0; 509]);
    net.run();
    assert_eq!(
        events(&mut net),
        vec![Event::Destroyed {
            circuit,
            reason: DestroyReason::TorProtocol as u8
        }]
    );
    net.work(0);
    net.run();
    assert_eq!(events(&mut net), vec![], "the late answer finds nobody");
}

#[test]
fn cells_of_unknown_circuits_are_dropped_and_the_link_lives() {
    let mut net = net(206);
    for command in [
        Command::RELAY,
        Command::RELAY_EARLY,
        Command::CREATED2,
        Command::CREATED_FAST,
        Command::DESTROY,
    ] {
        net.clients[0].cell(0x8000_0099, command, &[1; 509]);
    }
    for command in [
        Command(13),
        Command(77),
        Command::AUTHORIZE,
        Command(200),
        Command::VERSIONS,
    ] {
        net.clients[0].cell(0, command, &[1, 2]);
    }
    let circuit = net.clients[0].create_fast();
    net.run();
    assert_eq!(events(&mut net), vec![Event::Extended { circuit, hops: 1 }]);
}

#[test]
fn a_circuit_id_in_use_is_not_made_anew() {
    let mut net = net(207);
    let circuit = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    net.clients[0].cell(circuit, Command::CREATE_FAST, &[1; 20]);
    net.run();
    assert_eq!(events(&mut net), vec![]);
    assert_eq!(net.relays[0].engine.tally().circuits_open, 1);
}

/// TROVE-2021-005: ids of the peer's choice go through a keyed hash, and a hundred thousand of them cost nothing else.
#[test]
fn trove_2021_005_circuits_in_great_number_come_and_go() {
    let mut net = net(208);
    for _ in 0..5 {
        let circuits: Vec<_> = (0..4_000).map(|_| net.clients[0].create_fast()).collect();
        net.run();
        assert_eq!(net.relays[0].engine.tally().circuits_open, 4_000);
        for circuit in circuits {
            net.clients[0].cell(circuit, Command::DESTROY, &[0]);
        }
        net.run();
        assert_eq!(net.relays[0].engine.tally().circuits_open, 0);
    }
    assert_eq!(net.relays[0].engine.cells_waiting(), 0);
}

/// Somebody who makes circuits and never reads must not fill our memory with answers.
#[test]
fn trove_2019_001_a_peer_that_reads_nothing_is_left_at_last() {
    let mut net = net(209);
    net.relays[0].sockets_take = false;
    for _ in 0..20_001 {
        let circuit = net.clients[0].fresh_circuit();
        net.clients[0].cell(circuit, Command::CREATE, &[]);
    }
    net.run();
    assert!(!net.clients_up[0]);
}

/// Cells of an open link, as somebody between two relays sees them: the command is behind the circuit's id.
fn cells(bytes: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    bytes.chunks_exact_mut(514)
}

/// tor-spec, "RELAY_EARLY cells": only clients send them, and a relay that gets one from behind ends the circuit.
#[test]
fn relay_early_from_behind_ends_the_circuit() {
    let mut net = net(212);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    net.meddler = Some((1, 0, |bytes| {
        for cell in cells(bytes).filter(|cell| cell[4] == Command::RELAY.0) {
            cell[4] = Command::RELAY_EARLY.0;
        }
    }));
    let wish = [0, 2, 1, 0, 0, 0, 0, 1];
    let ask = relay_wire::relay_cells::RelayCommand::PADDING_NEGOTIATE;
    net.clients[0].send(circuit, 2, Command::RELAY, ask, 0, &wish);
    net.run();
    let told = events(&mut net);
    assert!(matches!(told.as_slice(), [Event::Destroyed { .. }]), "{told:?}");
    assert!(net.clients_up[0]);
    assert_eq!(net.relays[0].engine.tally().circuits_open, 0);
}

/// TROVE-2026-003: a next hop whose CREATED2 says that it is longer than its cell.
#[test]
fn trove_2026_003_a_next_hop_that_lies_about_a_length_ends_the_circuit() {
    let mut net = net(213);
    let first = net.clients[0].create(&hop(0), Wish::NtorV3);
    net.run();
    net.clients[0].extend(first, &hop(1), Wish::NtorV3);
    net.run();
    let second = net.clients[0].create(&hop(0), Wish::NtorV3);
    net.run();
    events(&mut net);
    net.meddler = Some((1, 0, |bytes| {
        for cell in cells(bytes).filter(|cell| cell[4] == Command::CREATED2.0) {
            cell[5..7].fill(0xff);
        }
    }));
    net.clients[0].extend(second, &hop(1), Wish::NtorV3);
    net.run();
    let told = events(&mut net);
    assert!(
        matches!(told.as_slice(), [Event::Destroyed { circuit, .. }] if *circuit == second),
        "{told:?}"
    );
    assert_eq!(net.clients[0].hops(first), 2, "the link and its other circuits live");
}

/// Names of the consensus parameters that the engine reads: strings of its own source behind a word that reads one.
fn parameters_read() -> Vec<String> {
    fn sources(folder: &std::path::Path, found: &mut String) {
        for entry in std::fs::read_dir(folder).expect("the engine's source").flatten() {
            match entry.path() {
                path if path.is_dir() => sources(&path, found),
                path => found.push_str(&std::fs::read_to_string(path).expect("text")),
            }
        }
    }
    let mut text = String::new();
    sources(concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/src").as_ref(), &mut text);
    let strings = text.split('"').skip(1);
    let is_name = |text: &&str| {
        let shape = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        (5..40).contains(&text.len()) && text.chars().all(shape)
    };
    let begins = |text: &&str| {
        ["cc_", "nf_", "DoS", "circ", "onion_queue", "Hi", "Circuit", "Extend", "allow_", "refuse", "cfx_", "cell"]
            .iter()
            .any(|start| text.starts_with(start))
    };
    let mut names: Vec<String> = strings.filter(is_name).filter(begins).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// A majority of authorities may vote for anything. Whatever they vote for, alone or all at once, a relay goes on.
#[test]
fn no_parameter_of_the_consensus_stops_a_relay() {
    let names = parameters_read();
    assert!(names.len() > 40, "{names:?}");
    for value in [0, -1, 1, i32::MIN, i32::MAX] {
        let alone = names.iter().map(|name| vec![name.clone()]);
        for voted in alone.chain([names.clone()]) {
            let view = relay_engine::network::NetworkView {
                parameters: relay_engine::network::Parameters(voted.iter().map(|name| (name.clone(), value)).collect()),
                ..Default::default()
            };
            let mut net = net(210);
            net.set_network(&Arc::new(view));
            let fast = net.clients[0].create_fast();
            let circuit = net.clients[0].create(&hop(0), Wish::NtorV3);
            net.run();
            net.clients[0].extend(circuit, &hop(1), Wish::Cgo);
            net.run();
            net.pass(std::time::Duration::from_secs(700));
            net.clients[0].cell(fast, Command::DESTROY, &[0]);
            net.hang_up(0);
            net.run();
            let stranger = net.connect(Client::new(211), 0);
            net.run();
            assert!(net.clients_up[stranger], "{voted:?} = {value}: nobody is let in");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_at_all_make_a_relay_panic(seed: u64, bytes in proptest::collection::vec(any::<u8>(), 0..4_000)) {
        let mut net = relays(seed);
        net.choppy = true;
        let client = net.connect(Client::new(seed), 0);
        net.inject(client, &bytes);
        net.run();
    }

    #[test]
    fn no_cells_on_an_open_link_make_a_relay_panic(
        seed: u64,
        cells in proptest::collection::vec((0_u8..14, 0_u32..4, proptest::collection::vec(any::<u8>(), 0..40)), 1..60),
    ) {
        let mut net = net(seed);
        net.choppy = true;
        let circuit = net.clients[0].create(&hop(0), Wish::NtorV3);
        net.run();
        net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
        net.run();
        for (command, near, body) in cells {
            net.clients[0].cell(circuit.wrapping_add(near), Command(command), &body);
        }
        net.run();
        net.hang_up(0);
        net.run();
        for relay in &net.relays {
            prop_assert_eq!(relay.engine.tally().circuits_open, 0);
            prop_assert_eq!(relay.engine.cells_waiting(), 0);
        }
    }

    #[test]
    fn no_message_makes_a_relay_panic(
        seed: u64,
        messages in proptest::collection::vec(
            (any::<u8>(), any::<u16>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60)), 1..20),
    ) {
        let mut net = net(seed);
        let circuit = net.clients[0].create(&hop(0), if seed % 2 == 0 { Wish::Cgo } else { Wish::Ntor });
        net.run();
        for (command, stream_id, early, data) in messages {
            let carrier = if early { Command::RELAY_EARLY } else { Command::RELAY };
            let command = relay_wire::relay_cells::RelayCommand(command);
            net.clients[0].send(circuit, 0, carrier, command, stream_id, &data);
        }
        net.run();
        prop_assert!(net.clients_up[0], "no message closes a link");
    }
}
