use std::time::Duration;

use relay_engine::network::NetworkView;
use relay_simnet::client::Client;
use relay_wire::cell::Command;
use relay_wire::relay_cells::{DestroyReason, RelayCommand as Relay};

use super::*;

fn destroyed(circuit: u32, reason: DestroyReason) -> Event {
    Event::Destroyed {
        circuit,
        reason: reason as u8,
    }
}

fn message(circuit: u32, hop: usize, command: Relay, stream_id: u16, data: &[u8]) -> Event {
    Event::Message {
        circuit,
        hop,
        command,
        stream_id,
        data: data.to_vec(),
    }
}

/// A padding wish is the one message that every relay answers with what it got: an echo.
fn echo(net: &mut Net, circuit: u32, hop: usize, mark: u8) {
    // No padding machine has so high a number.
    let mark = mark + 100;
    net.clients[0].send(
        circuit,
        hop,
        Command::RELAY,
        Relay::PADDING_NEGOTIATE,
        0,
        &[0, 2, mark, 0, 0, 0, 0, mark],
    );
    net.run();
    let answer = message(
        circuit,
        hop,
        Relay::PADDING_NEGOTIATED,
        0,
        &[0, 2, 2, mark, 0, 0, 0, mark],
    );
    assert_eq!(events(net), vec![answer]);
}

#[test]
fn a_first_hop_needs_no_public_key() {
    let mut net = net(1);
    let circuit = net.clients[0].create_fast();
    net.run();
    assert_eq!(events(&mut net), vec![Event::Extended { circuit, hops: 1 }]);
    echo(&mut net, circuit, 0, 7);
    assert_eq!(net.relays[0].engine.tally().onionskins_fast, 1);
}

#[test]
fn trove_2026_033_three_hops_of_any_crypto_carry_cells_both_ways() {
    let wishes = [
        [Wish::Ntor, Wish::Ntor, Wish::Ntor],
        [Wish::NtorV3, Wish::NtorV3, Wish::Cgo],
        [Wish::Cgo, Wish::Cgo, Wish::Cgo],
        [Wish::Cgo, Wish::NtorV3, Wish::CongestionControl],
    ];
    for (seed, wishes) in (2..).zip(wishes) {
        let mut net = net(seed);
        net.choppy = seed % 2 == 0;
        let circuit = three_hops(&mut net, wishes);
        for mark in 0..60 {
            echo(&mut net, circuit, usize::from(mark % 3), mark);
        }
        assert!(net.relays[0].engine.tally().cells_relayed > 80);
        assert_eq!(net.relays[0].engine.cells_waiting(), 0);
        assert!(
            net.relays
                .iter()
                .all(|relay| relay.engine.tally().protocol_violations == 0)
        );
    }
}

#[test]
fn two_circuits_to_one_relay_share_one_link() {
    let mut net = net(10);
    three_hops(&mut net, [Wish::Ntor; 3]);
    three_hops(&mut net, [Wish::NtorV3; 3]);
    assert_eq!((net.links_between(0, 1), net.links_between(1, 2)), (1, 1));
    assert_eq!(net.relays[1].connects.len(), 1);
}

#[test]
fn circuits_that_want_the_same_relay_at_once_wait_for_one_link() {
    let mut net = net(11);
    let circuits: Vec<_> = (0..5).map(|_| net.clients[0].create(&hop(0), Wish::NtorV3)).collect();
    net.run();
    events(&mut net);
    for circuit in &circuits {
        net.clients[0].extend(*circuit, &hop(1), Wish::NtorV3);
    }
    net.run();
    let extended = events(&mut net)
        .into_iter()
        .filter(|event| matches!(event, Event::Extended { hops: 2, .. }));
    assert_eq!(extended.count(), 5);
    assert_eq!(net.links_between(0, 1), 1);
}

/// The link that the second relay opened to the first serves circuits from the first to the second.
#[test]
fn a_link_serves_both_ways_whoever_began_it() {
    let mut net = net(12);
    let other = net.connect(Client::new(99), 1);
    net.run();
    let circuit = net.clients[other].create(&hop(1), Wish::Ntor);
    net.run();
    net.clients[other].extend(circuit, &hop(0), Wish::Ntor);
    net.run();
    assert_eq!(net.links_between(1, 0), 1);
    three_hops(&mut net, [Wish::NtorV3; 3]);
    assert_eq!(net.links_between(0, 1), 1);
    assert!(net.relays[0].connects.is_empty());
}

#[test]
fn a_destroy_from_the_client_goes_to_the_end() {
    let mut net = net(13);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    net.clients[0].cell(circuit, Command::DESTROY, &[DestroyReason::Finished as u8]);
    net.run();
    assert!(net.relays.iter().all(|relay| relay.engine.tally().circuits_open == 0));
    let destroys: Vec<_> = net
        .relays
        .iter()
        .map(|relay| relay.engine.tally().destroy_cells)
        .collect();
    assert_eq!(destroys, vec![1, 1, 1, 0]);
}

/// tor#40649: the reason would be a side channel.
#[test]
fn trove_40649_a_destroy_from_behind_arrives_with_the_reason_destroyed() {
    let mut net = net(14);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    // The last relay does not do this, so it says TORPROTOCOL; the client must not learn that.
    net.clients[0].send(circuit, 2, Command::RELAY, Relay::ESTABLISH_INTRO, 0, &[0; 40]);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::Destroyed)]);
    assert!(net.relays.iter().all(|relay| relay.engine.tally().circuits_open == 0));
}

#[test]
fn a_lost_link_ends_its_circuits_and_only_those() {
    let mut net = net(15);
    let lost = three_hops(&mut net, [Wish::NtorV3; 3]);
    let kept = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    net.cut(0, 1);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(lost, DestroyReason::ChannelClosed)]);
    echo(&mut net, kept, 0, 3);
    assert_eq!(net.relays[2].engine.tally().circuits_open, 0);
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_behind() {
    let mut net = net(16);
    three_hops(&mut net, [Wish::Cgo; 3]);
    net.hang_up(0);
    net.run();
    for relay in &net.relays {
        let tally = relay.engine.tally();
        assert_eq!(
            (
                tally.circuits_open,
                tally.channels_client_open,
                relay.engine.cells_waiting()
            ),
            (0, 0, 0)
        );
    }
}

#[test]
fn nine_early_cells_are_one_too_many() {
    let mut net = net(17);
    let circuit = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    for _ in 0..8 {
        net.clients[0].send(circuit, 0, Command::RELAY_EARLY, Relay::DROP, 0, &[]);
    }
    net.run();
    assert_eq!((events(&mut net), net.relays[0].engine.tally().drop_cells), (vec![], 8));
    net.clients[0].send(circuit, 0, Command::RELAY_EARLY, Relay::DROP, 0, &[]);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::TorProtocol)]);
}

#[test]
fn an_extend_that_is_not_early_ends_the_circuit_unless_the_consensus_allows_it() {
    for (allowed, seed) in [(0, 18), (1, 19)] {
        let mut net = net(seed);
        let mut network = NetworkView::default();
        network.parameters.0.insert("AllowNonearlyExtend".into(), allowed);
        net.set_network(&Arc::new(network));
        let circuit = net.clients[0].create_fast();
        net.run();
        events(&mut net);
        net.clients[0].extend_oddly(circuit, Command::RELAY, &hop(1), Wish::NtorV3, |_| ());
        net.run();
        let expected = match allowed {
            1 => Event::Extended { circuit, hops: 2 },
            _ => destroyed(circuit, DestroyReason::TorProtocol),
        };
        assert_eq!(events(&mut net), vec![expected]);
    }
}

/// tor#40563, and networks without `ExtendByEd25519ID`.
#[test]
fn a_client_that_names_no_ed25519_identity_gets_the_relay_with_that_fingerprint() {
    let mut net = net(40);
    for _ in 0..2 {
        let circuit = net.clients[0].create_fast();
        net.run();
        events(&mut net);
        net.clients[0].extend_oddly(circuit, Command::RELAY_EARLY, &hop(1), Wish::Ntor, |message| {
            message.ed25519_identity = None;
        });
        net.run();
        assert_eq!(events(&mut net), vec![Event::Extended { circuit, hops: 2 }]);
    }
    three_hops(&mut net, [Wish::NtorV3; 3]);
    assert_eq!(net.links_between(0, 1), 1, "the link is known by both identities");
}

#[test]
fn a_second_extend_while_one_is_under_way_ends_the_circuit() {
    let mut net = net(41);
    let circuit = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
    net.clients[0].extend(circuit, &hop(2), Wish::NtorV3);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::TorProtocol)]);
    assert!(net.relays.iter().all(|relay| relay.engine.tally().circuits_open == 0));
}

/// A relay behind an address that it does not call its own serves only who asked for that very address.
#[test]
fn a_link_to_an_odd_address_is_not_taken_for_the_real_one() {
    let mut net = net(42);
    let odd = Hop {
        address: "198.51.100.7:9001".parse().unwrap(),
        ..hop(1)
    };
    net.detours.insert(odd.address, 1);
    for (target, links) in [(odd, 1), (odd, 1), (hop(1), 2), (hop(1), 2), (odd, 2)] {
        let circuit = net.clients[0].create_fast();
        net.run();
        net.clients[0].extend(circuit, &target, Wish::NtorV3);
        net.run();
        assert_eq!(events(&mut net).pop(), Some(Event::Extended { circuit, hops: 2 }));
        assert_eq!(net.links_between(0, 1), links);
    }
}

#[test]
fn a_truncated_circuit_can_go_elsewhere() {
    let mut net = net(20);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    net.clients[0].send(
        circuit,
        0,
        Command::RELAY,
        Relay::TRUNCATE,
        0,
        &[DestroyReason::Requested as u8],
    );
    net.run();
    let truncated = message(circuit, 0, Relay::TRUNCATED, 0, &[DestroyReason::Requested as u8]);
    assert_eq!(events(&mut net), vec![truncated]);
    assert_eq!(net.relays[2].engine.tally().circuits_open, 0);
    net.clients[0].truncate(circuit, 1);
    net.clients[0].extend(circuit, &hop(3), Wish::NtorV3);
    net.run();
    assert_eq!(events(&mut net), vec![Event::Extended { circuit, hops: 2 }]);
    echo(&mut net, circuit, 1, 5);
}

#[test]
fn trove_2026_056_a_relay_that_cannot_be_reached_is_told_and_remembered() {
    let mut net = net(21);
    let nowhere = Hop {
        address: "192.0.2.99:9001".parse().unwrap(),
        ..hop(1)
    };
    let ask = |net: &mut Net| {
        let circuit = net.clients[0].create_fast();
        net.run();
        events(net);
        net.clients[0].extend(circuit, &nowhere, Wish::NtorV3);
        net.run();
        assert_eq!(events(net), vec![destroyed(circuit, DestroyReason::ConnectFailed)]);
    };
    ask(&mut net);
    ask(&mut net);
    assert_eq!(net.relays[0].connects.len(), 1, "not tried again at once");
    net.pass(Duration::from_secs(61));
    events(&mut net);
    ask(&mut net);
    assert_eq!(net.relays[0].connects.len(), 2, "but after a minute");
}

/// TROVE-2020-005: who answers at the address must be the relay that was asked for.
#[test]
fn trove_2020_005_circuits_do_not_go_on_to_a_relay_of_another_identity() {
    let mut net = net(22);
    net.detours.insert(hop(1).address, 2);
    let circuit = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::OrIdentity)]);
    assert_eq!(
        (net.links_between(0, 2), net.relays[2].engine.tally().circuits_open),
        (0, 0)
    );
}

#[test]
fn a_wrong_ed25519_identity_is_as_bad_as_a_wrong_fingerprint() {
    let mut net = net(23);
    let circuit = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    let chimera = Hop {
        ed25519_identity: hop(2).ed25519_identity,
        ..hop(1)
    };
    net.clients[0].extend(circuit, &chimera, Wish::Ntor);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::OrIdentity)]);
}

#[test]
fn trove_2017_012_a_circuit_does_not_go_back_where_it_came_from_nor_to_itself() {
    for (target, seed) in [(0, 24), (1, 25)] {
        let mut net = net(seed);
        let circuit = net.clients[0].create(&hop(0), Wish::NtorV3);
        net.run();
        net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
        net.run();
        events(&mut net);
        net.clients[0].extend(circuit, &hop(target), Wish::NtorV3);
        net.run();
        assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::Destroyed)]);
    }
}

#[test]
fn trove_41393_a_closed_circuit_is_not_extended_when_its_link_comes_up() {
    let mut net = net(26);
    let circuit = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
    net.clients[0].cell(circuit, Command::DESTROY, &[0]);
    net.run();
    assert_eq!(net.relays[1].engine.tally().onionskins_ntor_v3, 0);
    assert_eq!(net.relays[0].engine.tally().circuits_open, 0);
}

#[test]
fn a_wrong_onion_key_is_refused() {
    for wish in [Wish::Ntor, Wish::NtorV3] {
        let mut net = net(27);
        let wrong = Hop {
            onion_key: hop(1).onion_key,
            ..hop(0)
        };
        let circuit = net.clients[0].create(&wrong, wish);
        net.run();
        assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::TorProtocol)]);
    }
}

#[test]
fn a_middle_says_what_it_is_not() {
    let mut net = net(28);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    net.clients[0].send(circuit, 2, Command::RELAY, Relay::BEGIN, 5, b"example.com:80\0");
    net.clients[0].send(circuit, 2, Command::RELAY, Relay::BEGIN_DIR, 6, b"");
    net.clients[0].send(circuit, 2, Command::RELAY, Relay::RESOLVE, 7, b"example.com\0");
    net.run();
    let expected = vec![
        message(circuit, 2, Relay::END, 5, &[4]),
        message(circuit, 2, Relay::END, 6, &[14]),
        message(circuit, 2, Relay::RESOLVED, 7, &[0xf1, 0, 0, 0, 0, 60]),
    ];
    assert_eq!(events(&mut net), expected);
}

/// Data for a stream that is not there is thrown away, but its flow control goes on: tag and all.
#[test]
fn every_hundredth_data_cell_is_acknowledged() {
    let mut net = net(29);
    let circuit = three_hops(&mut net, [Wish::Ntor; 3]);
    for _ in 0..250 {
        net.clients[0].send(circuit, 2, Command::RELAY, Relay::DATA, 9, &[1; 400]);
    }
    net.run();
    let sendmes = events(&mut net);
    assert_eq!(sendmes.len(), 2);
    for sendme in sendmes {
        let Event::Message {
            hop: 2,
            command: Relay::SENDME,
            stream_id: 0,
            data,
            ..
        } = sendme
        else {
            panic!("{sendme:?}")
        };
        assert_eq!((data.len(), &data[..3]), (23, &[1, 0, 20][..]));
    }
}

/// C tor's rule: whoever lets that many cells pile up ignores its window.
#[test]
fn a_circuit_whose_reader_stands_still_is_ended_and_its_memory_comes_back() {
    let mut net = net(30);
    let circuit = three_hops(&mut net, [Wish::Ntor; 3]);
    net.relays[0].sockets_take = false;
    for _ in 0..2_499 {
        net.clients[0].send(circuit, 2, Command::RELAY, Relay::DROP, 0, &[]);
    }
    net.run();
    assert_eq!(net.relays[0].engine.cells_waiting(), 2_499);
    assert_eq!(net.relays[0].engine.tally().circuits_open, 1);
    for _ in 0..2 {
        net.clients[0].send(circuit, 2, Command::RELAY, Relay::DROP, 0, &[]);
    }
    net.run();
    assert_eq!(net.relays[0].engine.cells_waiting(), 0);
    assert_eq!(net.relays[0].engine.tally().circuits_open, 0);
}

/// C tor's rule: fifty may wait whatever it takes; after that it goes by how long the workers took so far.
#[test]
fn a_handshake_that_would_wait_too_long_is_refused_at_once() {
    let mut net = net(31);
    net.relays[0].workers_run = false;
    let refused = |net: &mut Net| {
        let reason = DestroyReason::ResourceLimit as u8;
        events(net)
            .into_iter()
            .filter(|event| matches!(event, Event::Destroyed { reason: found, .. } if *found == reason))
            .count()
    };
    for _ in 0..128 + 60 {
        net.clients[0].create(&hop(0), Wish::NtorV3);
    }
    net.run();
    assert_eq!(
        refused(&mut net),
        0,
        "128 are with the workers, 60 wait, and nobody knows yet how long it takes"
    );
    net.pass(Duration::from_secs(2));
    net.work(0);
    net.clients[0].create(&hop(0), Wish::NtorV3);
    net.run();
    net.clients[0].create(&hop(0), Wish::NtorV3);
    net.run();
    assert_eq!(
        refused(&mut net),
        0,
        "the rest went to the workers, so hardly anybody waits"
    );
    assert_eq!(net.relays[0].engine.tally().onionskins_dropped, 0);
}

#[test]
fn a_handshake_that_waited_for_five_seconds_is_given_up() {
    let mut net = net(33);
    net.relays[0].workers_run = false;
    for _ in 0..128 + 40 {
        net.clients[0].create(&hop(0), Wish::NtorV3);
    }
    net.pass(Duration::from_millis(4_900));
    assert_eq!(events(&mut net), vec![]);
    net.pass(Duration::from_millis(200));
    let given_up = events(&mut net);
    assert_eq!(given_up.len(), 40, "those that no worker had yet");
    assert_eq!(net.relays[0].engine.tally().onionskins_dropped, 40);
    net.work(0);
    net.run();
    let made = events(&mut net)
        .into_iter()
        .filter(|event| matches!(event, Event::Extended { .. }))
        .count();
    assert_eq!(made, 128);
}

#[test]
fn a_retiring_relay_takes_no_new_circuits_and_keeps_the_old() {
    let mut net = net(32);
    let old = net.clients[0].create_fast();
    net.run();
    events(&mut net);
    net.handle(0, relay_engine::Input::Retire);
    let new = net.clients[0].create_fast();
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(new, DestroyReason::Hibernating)]);
    echo(&mut net, old, 0, 1);
}

/// Clients learn a new onion key hours late; until then the old one must do (tor-spec, "onion-key-grace-period-days").
#[test]
fn the_onion_key_of_yesterday_serves_while_its_grace_lasts() {
    use relay_engine::settings::{OnionKey, Settings};
    use x25519_dalek::{PublicKey, StaticSecret};

    let mut net = net(50);
    let ours = &keys()[0].settings;
    let fresh = StaticSecret::from([9; 32]);
    let settings = |onion_keys| {
        let (rsa_identity, ed25519_identity) = (ours.rsa_identity, ours.ed25519_identity);
        let advertised = ours.advertised.clone();
        let extend_allow_private_addresses = false;
        let services = ours.services.clone();
        let defences = ours.defences.clone();
        Settings {
            rsa_identity,
            ed25519_identity,
            advertised,
            onion_keys,
            extend_allow_private_addresses,
            services,
            defences,
            extras: ours.extras,
        }
    };
    let old_and_new = settings(vec![OnionKey::from(&fresh), ours.onion_keys[0].clone()]);
    let new_hop = Hop {
        onion_key: PublicKey::from(&fresh),
        ..hop(0)
    };
    net.handle(0, relay_engine::Input::Settings(Arc::new(old_and_new)));
    for relay in [hop(0), new_hop] {
        let circuit = net.clients[0].create(&relay, Wish::NtorV3);
        net.run();
        assert_eq!(events(&mut net), vec![Event::Extended { circuit, hops: 1 }]);
    }
    net.handle(0, relay_engine::Input::Settings(Arc::new(settings(vec![OnionKey::from(&fresh)]))));
    let circuit = net.clients[0].create(&hop(0), Wish::NtorV3);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::TorProtocol)]);
}
