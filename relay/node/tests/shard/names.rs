//! Names that streams of an exit lead to, and what the DNS says of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_engine::Tally;
use relay_engine::network::NetworkView;
use relay_engine::settings::Defences;
use relay_formats::exit_policy::{ExitPolicy, Options};
use relay_node::exits::{Gate, Rules};
use relay_node::shards::Order;
use relay_wire::relay_cells::{EndReason, RelayCommand as Relay};
use relay_wire::stream::{Answer, read_connected, read_resolved};

use super::dns_server::{self, Record};
use super::exits::{HERE, accept, destination, exit, refusal, visit};
use super::support::{Relay as Place, Shard, rules};

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
