//! Faults that C tor had, by their numbers: what ours does where it went wrong. Those whose story belongs to another file
//! stand there, by the same kind of name.

use relay_engine::settings::StreamServices;
use relay_wire::cell::Command;
use relay_wire::flow_control::SendmeBody;
use relay_wire::relay_cells::{DestroyReason, RelayCommand as Relay};

use super::*;

fn exit(net: &mut Net, relay: usize) {
    let services = StreamServices {
        exits: true,
        directory: true,
        refuse_unknown_exits: Some(false),
        any_printable_name: false,
    };
    net.serve(relay, services);
}

fn say(net: &mut Net, circuit: u32, hop: usize, command: Relay, stream_id: u16, data: &[u8]) {
    net.clients[0].send(circuit, hop, Command::RELAY, command, stream_id, data);
    net.run();
}

fn destroyed(circuit: u32, reason: DestroyReason) -> Event {
    let reason = reason as u8;
    Event::Destroyed { circuit, reason }
}

/// TROVE-2020-004: a second negotiation of padding leaked the first one's memory.
#[test]
fn trove_2020_004_padding_is_negotiated_again_and_again_and_nothing_is_kept() {
    let mut net = net(900);
    let circuit = net.clients[0].create(&hop(0), Wish::Cgo);
    net.run();
    events(&mut net);
    for counter in 0..2_000_u32 {
        let [a, b, c, d] = counter.to_be_bytes();
        say(&mut net, circuit, 0, Relay::PADDING_NEGOTIATE, 0, &[0, 2, 1, 0, a, b, c, d]);
    }
    let answers = events(&mut net);
    let is_answer = |event: &&Event| matches!(event, Event::Message { command: Relay::PADDING_NEGOTIATED, .. });
    assert_eq!(answers.iter().filter(is_answer).count(), 2_000);
    assert_eq!((net.relays[0].engine.cells_waiting(), net.relays[0].engine.tally().circuits_open), (0, 1));
}

/// TROVE-2021-003: what came late for a stream that had ended was taken for something else.
#[test]
fn trove_2021_003_what_comes_late_for_an_ended_stream_is_passed_over() {
    let mut net = net(901);
    exit(&mut net, 2);
    let circuit = three_hops(&mut net, [Wish::NtorV3; 3]);
    say(&mut net, circuit, 2, Relay::RESOLVE, 7, b"example.com\0");
    say(&mut net, circuit, 2, Relay::END, 7, &[6]);
    for (command, data) in [
        (Relay::DATA, &[1; 100][..]),
        (Relay::END, &[]),
        (Relay::CONNECTED, &[0; 8]),
        (Relay::RESOLVED, &[0xf0, 0, 0, 0, 0, 60]),
        (Relay::SENDME, &[]),
    ] {
        say(&mut net, circuit, 2, command, 7, data);
    }
    let tally = net.relays[2].engine.tally();
    assert_eq!((tally.circuits_open, tally.streams_open, tally.protocol_violations), (1, 0, 0));
    assert_eq!(events(&mut net), vec![]);
}

/// TROVE-2025-016: bytes behind the end of an EXTEND in the newer format of relay messages were read.
#[test]
fn trove_2025_016_an_extend_that_is_cut_anywhere_ends_its_circuit_and_nothing_else() {
    let mut net = net(902);
    let whole = 4 + 5 * 8;
    for length in 0..whole {
        let circuit = net.clients[0].create(&hop(0), Wish::Cgo);
        net.run();
        events(&mut net);
        let mut message = vec![2, 0, 6, 192, 0, 2, 2, 0x23, 0x29, 2, 20];
        message.resize(whole, 7);
        message.truncate(length);
        net.clients[0].send(circuit, 0, Command::RELAY_EARLY, Relay::EXTEND2, 0, &message);
        net.run();
        assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::TorProtocol)], "{length}");
    }
    assert_eq!(net.relays[0].connects, vec![]);
}

/// tor#41191: old clients acknowledge without proof; they are to get a consensus, and no more.
#[test]
fn trove_41191_an_acknowledgement_without_proof_counts_on_a_fast_circuit_only() {
    for fast in [true, false] {
        let mut net = net(903);
        exit(&mut net, 0);
        let circuit = match fast {
            true => net.clients[0].create_fast(),
            false => net.clients[0].create(&hop(0), Wish::Ntor),
        };
        net.run();
        say(&mut net, circuit, 0, Relay::BEGIN_DIR, 1, b"");
        let effects = std::mem::take(&mut net.relays[0].streams);
        let [relay_engine::Effect::OpenDirectory { stream, .. }] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        let (stream, address) = (*stream, None);
        net.handle(0, relay_engine::Input::StreamConnected { stream, address });
        net.handle(0, relay_engine::Input::StreamReadable { stream });
        net.run();
        // A window's worth of an answer, so that there is something to acknowledge.
        loop {
            let effects = std::mem::take(&mut net.relays[0].streams);
            let Some(relay_engine::Effect::ReadStream { bytes_max, .. }) = effects.first() else {
                break;
            };
            let bytes = vec![1; *bytes_max];
            let (bytes, more) = (bytes.as_slice(), true);
            net.handle(0, relay_engine::Input::StreamReceived { stream, bytes, more });
            net.run();
        }
        let body = SendmeBody::V0;
        say(&mut net, circuit, 0, Relay::SENDME, 0, body.as_bytes());
        assert_eq!(net.relays[0].engine.tally().circuits_open, u64::from(fast));
    }
}

/// TROVE-2026-025 and tor#41328: a leg was linked to a circuit that had streams, or a duty, already.
#[test]
fn trove_2026_025_a_link_of_conflux_on_a_circuit_with_streams_ends_it() {
    let mut net = net(904);
    exit(&mut net, 2);
    let link = [&[1][..], &[9; 32], &[0; 16], &[3]].concat();
    for (command, data) in [(Relay::BEGIN, &b"example.com:80\0"[..]), (Relay::RESOLVE, b"example.com\0")] {
        let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, Wish::Cgo]);
        say(&mut net, circuit, 2, command, 1, data);
        say(&mut net, circuit, 2, Relay::CONFLUX_LINK, 0, &link);
        assert!(events(&mut net).contains(&destroyed(circuit, DestroyReason::Destroyed)), "{command:?}");
        let tally = net.relays[2].engine.tally();
        assert_eq!((tally.circuits_open, tally.streams_open), (0, 0));
    }
}

#[test]
fn trove_41328_a_link_of_conflux_on_a_circuit_on_duty_ends_it() {
    let mut net = net(905);
    let link = [&[1][..], &[9; 32], &[0; 16], &[3]].concat();
    let circuit = three_hops(&mut net, [Wish::NtorV3, Wish::NtorV3, Wish::Cgo]);
    say(&mut net, circuit, 2, Relay::ESTABLISH_RENDEZVOUS, 0, &[5; 20]);
    events(&mut net);
    say(&mut net, circuit, 2, Relay::CONFLUX_LINK, 0, &link);
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::Destroyed)]);
    // And nobody finds the client that waited.
    let service = three_hops(&mut net, [Wish::NtorV3; 3]);
    say(&mut net, service, 2, Relay::RENDEZVOUS1, 0, &[5; 40]);
    assert_eq!(events(&mut net), vec![destroyed(service, DestroyReason::Destroyed)]);
}

/// tor#40604: links that came and went were not all given back.
#[test]
fn trove_40604_links_that_come_and_go_leave_nothing() {
    let mut net = relays(906);
    for client in 0..600 {
        net.connect(Client::new(client), 0);
        if client % 3 > 0 {
            net.run();
        }
        if client % 3 > 1 {
            net.clients[client as usize].create_fast();
            net.run();
        }
        net.hang_up(client as usize);
    }
    net.run();
    let tally = net.relays[0].engine.tally();
    assert_eq!((tally.channels_client_open, tally.circuits_open), (0, 0));
    net.pass(std::time::Duration::from_secs(600));
    assert_eq!(net.relays[0].engine.deadline(), None);
}

/// tor#40623: TRUNCATED instead of DESTROY let the client's queue grow.
#[test]
fn trove_40623_a_circuit_that_ends_behind_us_ends_here_too() {
    let mut net = net(907);
    let circuit = three_hops(&mut net, [Wish::Cgo; 3]);
    net.cut(1, 2);
    net.run();
    assert_eq!(events(&mut net), vec![destroyed(circuit, DestroyReason::Destroyed)]);
    let open = net.relays.iter().map(|relay| relay.engine.tally().circuits_open);
    assert_eq!(open.sum::<u64>(), 0);
}
