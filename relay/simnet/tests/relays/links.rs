use std::time::Duration;

use relay_engine::door::Report;
use relay_simnet::client::Client;
use relay_wire::cell::Command;

use super::*;

#[test]
fn a_client_shows_nothing_and_is_counted_as_one() {
    let mut net = net(100);
    let tally = net.relays[0].engine.tally();
    assert_eq!((tally.channels_client_open, tally.channels_relay_open), (1, 0));
    let circuit = net.clients[0].create_fast();
    net.run();
    assert_eq!(events(&mut net), vec![Event::Extended { circuit, hops: 1 }]);
}

#[test]
fn relays_prove_who_they_are_to_each_other() {
    let mut net = net(101);
    net.choppy = true;
    three_hops(&mut net, [Wish::NtorV3; 3]);
    let relays: Vec<_> = net
        .relays
        .iter()
        .map(|relay| relay.engine.tally().channels_relay_open)
        .collect();
    assert_eq!(relays, vec![1, 2, 1, 0]);
    assert!(
        net.relays
            .iter()
            .all(|relay| relay.reports.iter().all(|report| !is_violation(report)))
    );
}

fn is_violation(report: &Report) -> bool {
    matches!(report, Report::ProtocolViolation(_))
}

#[test]
fn an_old_client_with_short_circuit_ids_is_served() {
    let mut net = relays(102);
    net.connect(Client::speaking(102, &[3]), 0);
    net.run();
    let circuit = three_hops_after_opening(&mut net);
    assert!(circuit < 0x1_0000);
}

fn three_hops_after_opening(net: &mut Net) -> u32 {
    assert!(matches!(events(net).as_slice(), [Event::LinkOpen(_)]));
    three_hops(net, [Wish::NtorV3; 3])
}

#[test]
fn a_peer_without_a_common_version_is_left() {
    let mut net = relays(103);
    net.connect(Client::speaking(103, &[1, 2, 6]), 0);
    net.run();
    assert!(!net.clients_up[0]);
}

#[test]
fn a_slow_handshake_is_cut_after_a_minute() {
    let mut net = relays(104);
    let mut silent = Client::new(104);
    silent.output.clear();
    net.connect(silent, 0);
    net.pass(Duration::from_secs(59));
    assert!(net.clients_up[0]);
    net.pass(Duration::from_secs(2));
    assert!(!net.clients_up[0]);
    assert_eq!(net.relays[0].engine.deadline(), None, "nothing is left to wait for");
}

#[test]
fn an_idle_client_link_is_closed_within_minutes_and_padded_until_then() {
    let mut net = net(105);
    net.pass(Duration::from_secs(170));
    assert!(net.clients_up[0]);
    let padding = events(&mut net).len();
    assert!((17..=113).contains(&padding), "{padding} cells in 170 s");
    net.pass(Duration::from_secs(101));
    assert!(!net.clients_up[0]);
}

#[test]
fn a_link_with_a_circuit_is_kept_alive() {
    let mut net = net(106);
    net.clients[0].cell(0, Command::PADDING_NEGOTIATE, &[0, 1]);
    net.clients[0].create_fast();
    net.run();
    events(&mut net);
    net.pass(Duration::from_secs(3_600));
    assert!(net.clients_up[0]);
    let padding = events(&mut net);
    assert_eq!(
        padding,
        vec![Event::Padding; 12],
        "one every five minutes, none besides"
    );
}

#[test]
fn a_padding_wish_of_nonsense_harms_nothing() {
    let mut net = net(107);
    for body in [
        &[9, 9][..],
        &[0, 2, 255, 255, 0, 0],
        &[0, 2, 0, 0, 0, 0],
        &[0, 2, 0, 0, 255, 255],
    ] {
        net.clients[0].cell(0, Command::PADDING_NEGOTIATE, body);
    }
    net.run();
    let circuit = net.clients[0].create_fast();
    net.run();
    assert_eq!(events(&mut net), vec![Event::Extended { circuit, hops: 1 }]);
}

#[test]
fn a_relay_learns_that_it_is_reachable_from_a_circuit_that_came_in() {
    let mut net = net(108);
    three_hops(&mut net, [Wish::NtorV3; 3]);
    let address = hop(1).address;
    assert_eq!(net.relays[1].reports, vec![Report::OrPortReachable { address }]);
    three_hops(&mut net, [Wish::NtorV3; 3]);
    assert_eq!(net.relays[1].reports.len(), 1, "once for a link");
}

#[test]
fn an_idle_link_between_relays_ends_after_about_an_hour() {
    let mut net = net(109);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    net.pass(Duration::from_secs(6_000));
    assert_eq!(net.links_between(0, 1), 1);
    net.clients[0].cell(circuit, Command::DESTROY, &[0]);
    net.pass(Duration::from_secs(2_600));
    assert_eq!(net.links_between(0, 1), 1);
    net.pass(Duration::from_secs(2_000));
    assert_eq!(net.links_between(0, 1), 0);
}

#[test]
fn a_relay_whose_clock_is_off_is_reported_and_a_client_is_not() {
    let mut net = net(110);
    assert!(
        net.relays[0].reports.is_empty(),
        "a client may say what it likes of time"
    );
    net.relays[1].clock_ahead = Duration::from_secs(2 * 3_600);
    let circuit = net.clients[0].create_fast();
    net.run();
    net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
    net.run();
    let skews = |relay: usize| -> Vec<_> {
        let all = net.relays[relay].reports.iter();
        all.filter(|report| matches!(report, Report::ClockSkew { .. }))
            .collect()
    };
    let skew = |seconds| Report::ClockSkew {
        seconds,
        from_authority: false,
    };
    assert_eq!((skews(0), skews(1)), (vec![&skew(7_200)], vec![&skew(-7_200)]));
}

#[test]
fn certificates_of_another_year_are_refused() {
    let mut net = net(111);
    net.relays[0].clock_ahead = Duration::from_secs(3 * 365 * 24 * 3_600);
    let circuit = net.clients[0].create_fast();
    net.run();
    net.clients[0].extend(circuit, &hop(1), Wish::NtorV3);
    net.run();
    assert_eq!(net.links_between(0, 1), 0);
    assert!(net.relays[0].reports.iter().any(is_violation));
}

/// Bytes that pile up behind a slow socket come out whole and in order.
#[test]
fn a_socket_that_was_full_gets_everything_later() {
    let mut net = net(112);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    net.relays[0].sockets_take = false;
    for mark in 0..200 {
        let wish = [0, 2, mark, 0, 0, 0, 0, mark];
        let command = relay_wire::relay_cells::RelayCommand::PADDING_NEGOTIATE;
        net.clients[0].send(circuit, usize::from(mark % 3), Command::RELAY, command, 0, &wish);
    }
    net.run();
    assert_eq!(events(&mut net), vec![]);
    net.unblock(0);
    net.run();
    let answers = events(&mut net);
    assert_eq!(answers.len(), 200);
    assert!(
        answers.iter().all(|event| matches!(event, Event::Message { .. })),
        "nothing is nonsense"
    );
}
