//! Stories of streams that leave the network at the second relay, with real destinations.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use relay_engine::Tally;
use relay_engine::network::NetworkView;
use relay_engine::settings::{Defences, StreamServices};
use relay_formats::exit_policy::{ExitPolicy, Options};
use relay_formats::torrc::LinkBandwidth;
use relay_node::exits::{Gate, Rules};
use relay_node::shards::{Order, Sharing};
use relay_wire::relay_cells::{EndReason, RelayCommand as Relay, V0_DATA_BYTES_MAX};
use relay_wire::stream::{Answer, read_connected, read_end, read_resolved};
use socket2::{Domain, Socket, Type};

use super::client::Visitor;
use super::dns_server::{self, Record};
use super::support::{self, PATIENCE, Relay as Place, Shard, rules};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Everywhere but port 25, this machine too.
fn open() -> Rules {
    let lines = ExitPolicy::parse_line("reject *:25,accept *:*").unwrap().rules;
    rules(ExitPolicy::assemble(&Options {
        exit_relay: Some(true),
        reject_private: false,
        lines,
        ..Options::default()
    }))
}

fn exit() -> Place {
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
fn visit(exit: Place) -> (Visitor, [Shard; 2]) {
    visit_over(Place::default(), exit)
}

fn visit_over(middle: Place, exit: Place) -> (Visitor, [Shard; 2]) {
    let shards = [middle.start(), exit.start()];
    let path = [shards[0].hop, shards[1].hop];
    (Visitor::over(&shards[0], &path), shards)
}

fn destination() -> (TcpListener, String) {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Why a stream that was asked for is not there.
fn refusal(visitor: &mut Visitor, target: &str) -> EndReason {
    visitor.begin(7, target);
    let (command, data) = hears_of_seven(visitor);
    assert_eq!(command, Relay::END);
    read_end(&data)
}

/// What is said on stream 7; flow control and other streams may come first.
fn hears_of_seven(visitor: &mut Visitor) -> (Relay, Vec<u8>) {
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
fn names_are_asked_for_once_and_lead_where_the_dns_says() {
    let (resolver, asked) = dns_server::resolver(&[
        ("exit.example", Record::A(Ipv4Addr::LOCALHOST)),
        ("broken.example", Record::Failure),
    ]);
    let (mut visitor, _shards) = visit(Place {
        resolver: Some(resolver),
        ..exit()
    });
    let (listener, address) = destination();
    let port = address.parse::<SocketAddr>().unwrap().port();
    let mut open = Vec::new();
    for (stream, name) in [(1, "exit.example"), (2, "EXIT.Example")] {
        visitor.begin(stream, &format!("{name}:{port}"));
        let (_, command, data) = visitor.hears();
        assert_eq!(command, Relay::CONNECTED);
        let (address, ttl) = read_connected(&data).unwrap().unwrap();
        assert_eq!(address, HERE);
        assert!((3_360..=3_840).contains(&ttl), "{ttl}");
        open.push(accept(&listener));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    for (name, reason) in [
        ("nowhere.example:80", EndReason::ResolveFailed),
        ("broken.example:80", EndReason::ResolveFailed),
        ("exit.example:25", EndReason::ExitPolicy),
    ] {
        assert_eq!(refusal(&mut visitor, name), reason, "{name}");
    }
}

/// What a relay has counted; when it says so, the round before is over.
fn tally(exit: &Shard) -> Tally {
    let (answer, counted) = tokio::sync::oneshot::channel();
    exit.mailbox.post(Order::Count(answer));
    counted.blocking_recv().unwrap()
}

#[test]
fn what_the_dns_has_said_counts_as_memory_and_is_forgotten_when_that_is_short() {
    let (resolver, asked) = dns_server::resolver(&[("exit.example", Record::A(Ipv4Addr::LOCALHOST))]);
    let (mut visitor, shards) = visit(Place {
        resolver: Some(resolver),
        ..exit()
    });
    let (exit, (listener, address)) = (&shards[1], destination());
    let target = format!("exit.example:{}", address.parse::<SocketAddr>().unwrap().port());
    visitor.begin(1, &target);
    assert_eq!(visitor.hears().1, Relay::CONNECTED);
    let _first = accept(&listener);
    assert_eq!(tally(exit).memory_dns_bytes_reclaimed, 0);
    let held = exit.siblings.commons.held_bytes();
    assert!((100..10_000).contains(&held), "{held}");

    let limited = |queued_bytes_max| {
        let defences = Defences {
            queued_bytes_max,
            ..Defences::default()
        };
        exit.mailbox.post(Order::Settings((exit.settings)(defences)));
        tally(exit);
        tally(exit).memory_dns_bytes_reclaimed
    };
    assert_eq!(limited(Some(100 * held)), 0, "there is room");
    // Mail that lay in a box when `held` was read makes it too large a limit: then once more, without that.
    let forgotten = (0..100).any(|_| {
        let held = exit.siblings.commons.held_bytes();
        limited(Some(held + held / 8)) > 100
    });
    assert!(
        forgotten,
        "{} of {held} bytes are held",
        exit.siblings.commons.held_bytes()
    );
    limited(None);
    visitor.begin(2, &target);
    assert_eq!(visitor.hears().1, Relay::CONNECTED);
    assert_eq!(asked.load(Ordering::Relaxed), 2, "it was forgotten");
}

#[test]
fn questions_are_answered_and_odd_names_are_not_passed_on() {
    let (resolver, _) = dns_server::resolver(&[
        ("exit.example", Record::A(Ipv4Addr::new(192, 0, 2, 1))),
        ("broken.example", Record::Failure),
        ("1.2.0.192.in-addr.arpa", Record::Ptr(vec![b"exit", b"example"])),
        ("2.2.0.192.in-addr.arpa", Record::Ptr(vec![b"ex it\0", b"example"])),
    ]);
    let (mut visitor, _shards) = visit(Place {
        resolver: Some(resolver),
        ..exit()
    });
    let address = Answer::Address(Ipv4Addr::new(192, 0, 2, 1).into());
    for (question, answer) in [
        ("exit.example", address),
        ("192.0.2.1", address),
        ("1.2.0.192.in-addr.arpa", Answer::Name("exit.example")),
        ("2.2.0.192.in-addr.arpa", Answer::PermanentError),
        ("3.2.0.192.in-addr.arpa", Answer::PermanentError),
        ("nowhere.example", Answer::PermanentError),
        ("broken.example", Answer::TransientError),
    ] {
        visitor.say(9, Relay::RESOLVE, format!("{question}\0").as_bytes());
        let (_, command, data) = visitor.hears();
        assert_eq!(command, Relay::RESOLVED);
        assert_eq!(read_resolved(&data).unwrap(), [(answer, 60)], "{question}");
    }
}

#[test]
fn an_answer_that_is_cut_short_is_asked_for_again_over_tcp() {
    let (resolver, _) = dns_server::resolver(&[("long.example", Record::LongA(Ipv4Addr::LOCALHOST))]);
    let (mut visitor, _shards) = visit(Place {
        resolver: Some(resolver),
        ..exit()
    });
    visitor.say(9, Relay::RESOLVE, b"long.example\0");
    let (_, command, data) = visitor.hears();
    assert_eq!(command, Relay::RESOLVED);
    assert_eq!(read_resolved(&data).unwrap(), [(Answer::Address(HERE), 60)]);
}

#[test]
fn an_exit_for_ipv6_leads_there_by_address_and_by_name() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        println!("This machine has no IPv6: nothing is shown.");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let (resolver, _) = dns_server::resolver(&[("six.example", Record::Aaaa(Ipv6Addr::LOCALHOST))]);
    let lines = ExitPolicy::parse_line("accept *:*").unwrap().rules;
    let policy = Arc::new(ExitPolicy::assemble(&Options {
        exit_relay: Some(true),
        ipv6_exit: true,
        reject_private: false,
        lines,
        ..Options::default()
    }));
    let (mut visitor, _shards) = visit(Place {
        resolver: Some(resolver),
        rules: Rules {
            gate: Gate::new(Arc::clone(&policy), true, &NetworkView::default()),
            ipv6: true,
            ..rules(ExitPolicy::clone(&policy))
        },
        ..exit()
    });
    // The flags are "an IPv6 address will do".
    for (stream, target) in [
        (1, format!("[::1]:{port}\0")),
        (2, format!("six.example:{port}\0\0\0\0\x01")),
    ] {
        visitor.say(stream, Relay::BEGIN, target.as_bytes());
        let (told, command, data) = visitor.hears();
        assert_eq!((told, command), (stream, Relay::CONNECTED));
        assert_eq!(
            read_connected(&data).unwrap().unwrap().0,
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        );
    }
    // A client that wants IPv4 alone gets no IPv6 address.
    assert_eq!(
        refusal(&mut visitor, &format!("six.example:{port}")),
        EndReason::ResolveFailed
    );
}

#[test]
fn a_hundred_streams_at_once_each_get_their_own_bytes_back() {
    const STREAMS: u16 = 100;
    const CELLS: usize = 9;
    let (mut visitor, _shards) = visit(Place {
        sockets_max: STREAMS.into(),
        links_max: 200,
        ..exit()
    });
    let (listener, address) = destination();
    let echo = thread::spawn(move || {
        let answer = |mut destination: TcpStream| {
            let mut heard = vec![0; CELLS * V0_DATA_BYTES_MAX];
            destination.read_exact(&mut heard).unwrap();
            heard.reverse();
            destination.write_all(&heard).unwrap();
        };
        let answers: Vec<_> = (0..STREAMS)
            .map(|_| accept(&listener))
            .map(|destination| thread::spawn(move || answer(destination)))
            .collect();
        answers.into_iter().for_each(|answer| answer.join().unwrap());
    });
    let bytes = |stream: u16| -> Vec<u8> {
        let seed = usize::from(stream) * 31;
        (0..CELLS * V0_DATA_BYTES_MAX).map(|at| (at * 7 + seed) as u8).collect()
    };
    for stream in 1..=STREAMS {
        visitor.begin(stream, &address);
        for part in bytes(stream).chunks(V0_DATA_BYTES_MAX) {
            visitor.say(stream, Relay::DATA, part);
        }
    }
    let mut heard: HashMap<u16, Vec<u8>> = HashMap::new();
    let mut ended = 0;
    while ended < STREAMS {
        match visitor.hears() {
            (stream, Relay::DATA, data) => heard.entry(stream).or_default().extend(data),
            (_, Relay::END, reason) => {
                assert_eq!(reason, [EndReason::Done as u8]);
                ended += 1;
            }
            (_, Relay::CONNECTED | Relay::SENDME, _) => {}
            other => panic!("{other:?}"),
        }
    }
    echo.join().unwrap();
    for stream in 1..=STREAMS {
        let mut wanted = bytes(stream);
        wanted.reverse();
        assert!(heard.get(&stream) == Some(&wanted), "stream {stream}");
    }
}

#[test]
fn bytes_arrive_whichever_thread_runs_the_shards() {
    // A client's link is the first shard's; with two, three or four the exit's channel is another's once at least.
    let cases = [Sharing::AsLoadWants, Sharing::Apart].map(|sharing| (sharing, 3));
    for (sharing, shards) in cases
        .into_iter()
        .chain((2..=4).map(|shards| (Sharing::InTurns, shards)))
    {
        let several = |place| Place {
            shards,
            sharing,
            ..place
        };
        there_and_back_over(several(Place::default()), several(exit()), 150);
    }
}

#[test]
fn torrcs_bandwidth_slows_streams_and_loses_nothing() {
    let rate = 512 * 1024;
    let place = Place {
        bytes_per_second_max: rate,
        ..exit()
    };
    let (bytes, took) = there_and_back(place, 450);
    // Each byte goes in twice and out twice, and the burst is one second's.
    let least = 2.0 * bytes as f64 / rate as f64 - 1.0;
    assert!(took > 0.8 * least, "{took} s, but {least} s is as fast as it may be");
}

#[test]
fn a_link_of_a_peer_that_the_consensus_lacks_is_held_to_a_rate_of_its_own() {
    let (rate, burst) = (64 * 1024, 16 * 1024);
    let link = LinkBandwidth {
        bytes_per_second_max: Some(rate),
        bytes_burst_max: Some(burst),
    };
    let (bytes, took) = there_and_back(Place { link, ..exit() }, 150);
    // In over the link, then out over it; what the destination hears and says is no matter of a link's.
    let least = 2.0 * (bytes as f64 - burst as f64) / rate as f64;
    assert!(took > 0.8 * least, "{took} s, but {least} s is as fast as it may be");
}

/// Bytes that a destination hears and says again over an exit, so many cells of them, and how many seconds it took.
fn there_and_back(place: Place, cells: u32) -> (usize, f64) {
    there_and_back_over(Place::default(), place, cells)
}

fn there_and_back_over(middle: Place, place: Place, cells: u32) -> (usize, f64) {
    let (mut visitor, _shards) = visit_over(middle, place);
    let (listener, address) = destination();
    visitor.begin(1, &address);
    visitor.hears();
    let mut destination = accept(&listener);
    let begun = Instant::now();
    let echo = thread::spawn(move || {
        let mut heard = vec![0; cells as usize * V0_DATA_BYTES_MAX];
        destination.read_exact(&mut heard).unwrap();
        destination.write_all(&heard).unwrap();
        heard
    });
    let mut said = Vec::new();
    for cell in 0..cells {
        let part: Vec<u8> = (0..V0_DATA_BYTES_MAX as u32).map(|at| (at * 7 + cell) as u8).collect();
        visitor.say(1, Relay::DATA, &part);
        said.extend(part);
    }
    let mut heard = Vec::new();
    loop {
        match visitor.hears() {
            (1, Relay::DATA, data) => heard.extend(data),
            (1, Relay::END, _) => break,
            _ => {}
        }
    }
    assert!(echo.join().unwrap() == said && heard == said);
    (said.len(), begun.elapsed().as_secs_f64())
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
