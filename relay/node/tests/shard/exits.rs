//! Stories of streams that leave the network at the second relay, with real destinations.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use relay_engine::settings::StreamServices;
use relay_formats::exit_policy::{ExitPolicy, Options};
use relay_node::exits::Rules;
use relay_node::shards::Order;
use relay_wire::relay_cells::{EndReason, RelayCommand as Relay, V0_DATA_BYTES_MAX};
use relay_wire::stream::{read_connected, read_end};
use socket2::{Domain, Socket, Type};

use super::client::Visitor;
use super::support::{self, PATIENCE, Relay as Place, Shard, rules};

pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Everywhere but port 25, this machine too.
pub(super) fn open() -> Rules {
    let lines = ExitPolicy::parse_line("reject *:25,accept *:*").unwrap().rules;
    rules(ExitPolicy::assemble(&Options {
        exit_relay: Some(true),
        reject_private: false,
        lines,
        ..Options::default()
    }))
}

pub(super) fn exit() -> Place {
    Place {
        relay: 1,
        sockets_max: 10,
        rules: open(),
        services: StreamServices {
            exits: true,
            refuse_unknown_exits: Some(false),
            ..StreamServices::default()
        },
        ..Place::default()
    }
}

/// A client at an exit, behind a middle. Both relays live as long as they are held.
pub(super) fn visit(exit: Place) -> (Visitor, [Shard; 2]) {
    visit_over(Place::default(), exit)
}

pub(super) fn visit_over(middle: Place, exit: Place) -> (Visitor, [Shard; 2]) {
    let shards = [middle.start(), exit.start()];
    let path = [shards[0].hop, shards[1].hop];
    (Visitor::over(&shards[0], &path), shards)
}

pub(super) fn destination() -> (TcpListener, String) {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

pub(super) fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Why a stream that was asked for is not there.
pub(super) fn refusal(visitor: &mut Visitor, target: &str) -> EndReason {
    visitor.begin(7, target);
    let (command, data) = hears_of_seven(visitor);
    assert_eq!(command, Relay::END);
    read_end(&data)
}

/// What is said on stream 7; flow control and other streams may come first.
pub(super) fn hears_of_seven(visitor: &mut Visitor) -> (Relay, Vec<u8>) {
    loop {
        if let (7, command, data) = visitor.hears() {
            return (command, data);
        }
    }
}

#[test]
fn a_stream_carries_bytes_both_ways_until_its_destination_ends() {
    let (mut visitor, _shards) = visit(exit());
    let (listener, address) = destination();
    visitor.begin(1, &address);
    let (_, command, data) = visitor.hears();
    assert_eq!(command, Relay::CONNECTED);
    assert_eq!(read_connected(&data).unwrap().unwrap().0, HERE);

    let mut destination = accept(&listener);
    visitor.say(1, Relay::DATA, b"how are you?");
    destination.write_all(b"hello").unwrap();
    assert_eq!(visitor.hears(), (1, Relay::DATA, b"hello".to_vec()));
    let mut heard = [0; 12];
    destination.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"how are you?");

    destination.write_all(b"well").unwrap();
    drop(destination);
    assert_eq!(visitor.hears(), (1, Relay::DATA, b"well".to_vec()));
    assert_eq!(visitor.hears(), (1, Relay::END, vec![EndReason::Done as u8]));
}

#[test]
fn a_client_that_leaves_before_its_stream_is_open_leaves_nothing_half_said() {
    let (mut visitor, _shards) = visit(exit());
    let (listener, address) = destination();
    // Before CONNECTED and without waiting for it, as clients may.
    visitor.begin(1, &address);
    visitor.say(1, Relay::DATA, b"last words");
    visitor.say(1, Relay::END, &[EndReason::Done as u8]);
    visitor.begin(2, "127.0.0.1:25");
    visitor.hears();
    drop(visitor);
    // Given up before it was open, or all of it: never a part.
    if let Ok((mut destination, _)) = listener.accept() {
        let mut heard = Vec::new();
        let _ = destination.read_to_end(&mut heard);
        assert!(heard.is_empty() || heard == b"last words");
    }
}

#[test]
fn last_bytes_arrive_before_the_end() {
    let (mut visitor, _shards) = visit(exit());
    let (listener, address) = destination();
    visitor.begin(1, &address);
    visitor.hears();
    let mut destination = accept(&listener);
    for part in 0..100_u8 {
        visitor.say(1, Relay::DATA, &[part; V0_DATA_BYTES_MAX]);
    }
    visitor.say(1, Relay::END, &[EndReason::Done as u8]);
    // Something to wait for, so that all goes out.
    assert_eq!(refusal(&mut visitor, "127.0.0.1:25"), EndReason::ExitPolicy);
    let mut heard = Vec::new();
    destination.read_to_end(&mut heard).unwrap();
    let said: Vec<u8> = (0..100).flat_map(|part| [part; V0_DATA_BYTES_MAX]).collect();
    assert!(heard == said);
}

#[test]
fn a_destination_that_breaks_off_is_told_from_one_that_ends() {
    let (mut visitor, _shards) = visit(exit());
    let (listener, address) = destination();
    visitor.begin(1, &address);
    visitor.hears();
    let destination = Socket::from(accept(&listener));
    destination.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(destination);
    assert_eq!(visitor.hears(), (1, Relay::END, vec![EndReason::ConnReset as u8]));
}

#[test]
fn a_client_learns_why_there_is_no_stream() {
    let (mut visitor, _shards) = visit(exit());
    let (listener, address) = destination();
    drop(listener);
    assert_eq!(refusal(&mut visitor, &address), EndReason::ConnectRefused);

    visitor.begin(7, "127.0.0.1:25");
    let (_, _, data) = visitor.hears();
    assert_eq!(data[..5], [EndReason::ExitPolicy as u8, 127, 0, 0, 1]);
    // IPv6Exit is off.
    assert_eq!(refusal(&mut visitor, "[::1]:80"), EndReason::ExitPolicy);
}

#[test]
fn nobody_uses_an_exit_as_a_proxy_of_one_hop() {
    let exit = exit().start();
    let mut visitor = Visitor::over(&exit, &[exit.hop]);
    let (_listener, address) = destination();
    assert_eq!(refusal(&mut visitor, &address), EndReason::TorProtocol);
}

#[test]
fn streams_beyond_the_descriptors_are_refused_and_the_others_go_on() {
    let (mut visitor, _shards) = visit(Place {
        sockets_max: 1,
        ..exit()
    });
    let (listener, address) = destination();
    visitor.begin(1, &address);
    visitor.hears();
    assert_eq!(refusal(&mut visitor, &address), EndReason::ResourceLimit);
    let mut destination = accept(&listener);
    destination.write_all(b"still here").unwrap();
    assert_eq!(visitor.hears(), (1, Relay::DATA, b"still here".to_vec()));
}

#[test]
fn a_new_policy_ends_what_it_refuses_where_torrc_wants_that() {
    let (mut visitor, shards) = visit(exit());
    let (_listener, address) = destination();
    visitor.begin(1, &address);
    visitor.hears();
    let closed = Rules {
        reevaluate: true,
        ..rules(ExitPolicy::reject_all())
    };
    shards[1].mailbox.post(Order::ExitRules(Arc::new(closed)));
    let (stream, command, data) = visitor.hears();
    assert_eq!((stream, command), (1, Relay::END));
    assert_eq!(read_end(&data), EndReason::ExitPolicy);
}

/// A destination that takes nothing until it is told to, with little room in between.
fn sleeper() -> (String, impl FnOnce() -> Vec<u8>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_recv_buffer_size(16 * 1024).unwrap();
    listener.bind(&SocketAddr::new(HERE, 0).into()).unwrap();
    listener.listen(1).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap().to_string();
    let (wake, woken) = channel();
    let reader = thread::spawn(move || {
        let mut destination = accept(&listener);
        woken.recv().unwrap();
        let mut heard = Vec::new();
        destination.read_to_end(&mut heard).unwrap();
        heard
    });
    (address, move || {
        wake.send(()).unwrap();
        reader.join().unwrap()
    })
}

#[test]
fn a_destination_that_does_not_read_holds_its_client_back() {
    let (mut visitor, _shards) = visit(exit());
    let (address, wake) = sleeper();
    visitor.begin(1, &address);
    visitor.hears();

    // The windows of a stream and of a circuit at their start; a SENDME is worth 50 and 100 cells. A refused BEGIN goes all
    // the way and back: after so many of them, what has not come is not on its way.
    let (mut stream_window, mut circuit_window, mut said, mut quiet) = (500, 1_000, Vec::new(), 0);
    while quiet < 50 {
        while stream_window > 0 && circuit_window > 0 {
            let part = [(said.len() / V0_DATA_BYTES_MAX % 251) as u8; V0_DATA_BYTES_MAX];
            visitor.say(1, Relay::DATA, &part);
            said.extend(part);
            stream_window -= 1;
            circuit_window -= 1;
        }
        assert!(said.len() < 64 << 20, "nothing holds the client back");
        visitor.begin(2, "127.0.0.1:25");
        loop {
            match visitor.hears() {
                (1, Relay::SENDME, _) => (stream_window, quiet) = (stream_window + 50, 0),
                (0, Relay::SENDME, _) => circuit_window += 100,
                (2, Relay::END, _) => break,
                other => panic!("{other:?}"),
            }
        }
        quiet += 1;
    }
    visitor.say(1, Relay::END, &[EndReason::Done as u8]);
    assert_eq!(refusal(&mut visitor, "127.0.0.1:25"), EndReason::ExitPolicy);
    let heard = wake();
    assert!(heard == said, "{} bytes of {}", heard.len(), said.len());
}

#[test]
fn a_client_that_does_not_read_holds_its_destination_back() {
    let (mut visitor, _shards) = visit(exit());
    let (listener, address) = destination();
    visitor.begin(1, &address);
    visitor.hears();
    let mut destination = accept(&listener);
    let writer = thread::spawn(move || {
        let cell = [9; 64 * 1024];
        // More than any system's buffers hold.
        (0..1_024).take_while(|_| destination.write_all(&cell).is_ok()).count()
    });
    // Without a SENDME of the client's: one window, and then nothing.
    for _ in 0..500 {
        assert_eq!(visitor.hears().1, Relay::DATA);
    }
    for _ in 0..20 {
        visitor.begin(7, "127.0.0.1:25");
        assert_eq!(visitor.hears().1, Relay::END);
    }
    drop(visitor);
    assert!(writer.join().unwrap() < 1_024, "the destination was never held back");
}

#[test]
fn a_relay_without_exit_opens_nothing() {
    let (mut visitor, _shards) = visit(Place {
        services: StreamServices::default(),
        rules: rules(ExitPolicy::reject_all()),
        ..support::Relay {
            relay: 1,
            ..Place::default()
        }
    });
    let (_listener, address) = destination();
    assert_eq!(refusal(&mut visitor, &address), EndReason::ExitPolicy);
}
