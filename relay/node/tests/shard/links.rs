//! Links met by a stranger who speaks TLS but is not ours.

use std::io::{Read, Write};
use std::net::TcpStream;

use relay_engine::door::ShardId;
use relay_node::shards::{Order, ShardNews, Sharing};

use super::support::{PATIENCE, Relay, Shard, socket, tls};

fn shard(links_max: usize) -> Shard {
    Relay {
        links_max,
        ..Relay::default()
    }
    .start()
}

/// VERSIONS of a client that speaks 3, 4 and 5.
const VERSIONS: [u8; 11] = [0, 0, 7, 0, 6, 0, 3, 0, 4, 0, 5];

/// Command and body of the next cell, link version 5.
fn next_cell(link: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    link.read_exact(&mut head).unwrap();
    let mut length = 509;
    if head[4] >= 128 {
        let mut bytes = [0; 2];
        link.read_exact(&mut bytes).unwrap();
        length = usize::from(u16::from_be_bytes(bytes));
    }
    let mut body = vec![0; length];
    link.read_exact(&mut body).unwrap();
    (head[4], body)
}

#[test]
fn a_stranger_gets_versions_certs_auth_challenge_and_netinfo() {
    let shard = shard(10);
    let mut link = tls(socket(&shard));
    link.write_all(&VERSIONS).unwrap();
    let mut versions = [0; 5];
    link.read_exact(&mut versions).unwrap();
    assert_eq!(versions[..3], [0, 0, 7]);
    let mut offered = vec![0; usize::from(versions[4])];
    link.read_exact(&mut offered).unwrap();
    let commands: Vec<u8> = (0..3).map(|_| next_cell(&mut link).0).collect();
    assert_eq!(commands, [129, 130, 8], "CERTS, AUTH_CHALLENGE, NETINFO");
}

#[test]
fn who_speaks_no_tls_is_hung_up_on_and_the_next_is_served() {
    let shard = shard(10);
    let mut noise = socket(&shard);
    noise.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = noise.read_to_end(&mut answer);
    assert!(answer.len() < 16, "an alert at most");

    let mut link = tls(socket(&shard));
    link.write_all(&VERSIONS).unwrap();
    link.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn no_more_links_than_there_is_room_for() {
    let shard = shard(1);
    let mut first = tls(socket(&shard));
    first.write_all(&VERSIONS).unwrap();
    first.read_exact(&mut [0; 5]).unwrap();
    let mut second = socket(&shard);
    assert_eq!(second.read(&mut [0; 1]).unwrap_or(0), 0, "hung up on");
    // The first is as well as before.
    first.read_exact(&mut [0; 100]).unwrap();
}

#[test]
fn those_who_stand_in_the_door_make_room_for_the_next() {
    let shard = Relay {
        links_max: 100,
        half_open_max: 4,
        ..Relay::default()
    }
    .start();
    // A byte each, or nothing, or TLS and then nothing.
    let mut waiting: Vec<TcpStream> = (0..6).map(|_| socket(&shard)).collect();
    let mut silent = tls(socket(&shard));
    silent.write_all(&VERSIONS[..3]).unwrap();
    // Who comes last is served all the same, and nobody who is through has to go.
    let mut last = tls(socket(&shard));
    last.write_all(&VERSIONS).unwrap();
    last.read_exact(&mut [0; 5]).unwrap();
    for first in &mut waiting[..4] {
        assert_eq!(first.read(&mut [0; 1]).unwrap_or(0), 0, "the first had to go");
    }
}

#[test]
fn a_retired_shard_takes_nobody_new_and_says_when_it_is_quiet() {
    let shard = shard(10);
    let mut link = tls(socket(&shard));
    link.write_all(&VERSIONS).unwrap();
    link.read_exact(&mut [0; 5]).unwrap();
    shard.mailbox.post(Order::Retire);
    assert_eq!(shard.news.recv_timeout(PATIENCE), Ok(ShardNews::Quiet));
    assert!(TcpStream::connect(shard.address).is_err());
    shard.mailbox.post(Order::Stop);
    assert_eq!(shard.news.recv_timeout(PATIENCE), Ok(ShardNews::Stopped));
}

#[test]
fn who_speaks_and_leaves_in_one_breath_leaves_no_link_behind() {
    let shard = shard(10);
    for _ in 0..20 {
        let mut link = tls(socket(&shard));
        link.write_all(&VERSIONS).unwrap();
        link.read_exact(&mut [0; 11]).unwrap();
        (0..3).for_each(|_| _ = next_cell(&mut link));
        // A part of a cell and the end of the connection, most often in one event.
        link.write_all(&[0; 5]).unwrap();
        link.sock.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(link.sock.read(&mut [0; 512]).unwrap(), 0, "hung up on in turn");
    }
}

/// The client's NETINFO, as short as may be, and CREATE_FAST for circuit 0x80000001; link version 5.
fn netinfo_and_create_fast() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 8, 0, 0, 0, 0, 4, 4, 127, 0, 0, 1, 0];
    bytes.resize(514, 0);
    bytes.extend([0x80, 0, 0, 1, 5]);
    bytes.resize(2 * 514, 7);
    bytes
}

#[test]
fn links_are_shared_out_and_their_circuits_are_destroyed_when_the_relay_stops() {
    for sharing in [Sharing::AsLoadWants, Sharing::Apart, Sharing::InTurns] {
        links_are_shared_out_and_destroyed(sharing);
    }
}

fn links_are_shared_out_and_destroyed(sharing: Sharing) {
    let relay = Relay {
        shards: 2,
        sharing,
        ..Relay::default()
    };
    let relay = relay.start();
    let mut links: Vec<_> = (0..3).map(|_| tls(socket(&relay))).collect();
    for link in &mut links {
        link.write_all(&VERSIONS).unwrap();
        let mut versions = [0; 5];
        link.read_exact(&mut versions).unwrap();
        link.read_exact(&mut vec![0; usize::from(versions[4])]).unwrap();
        link.write_all(&netinfo_and_create_fast()).unwrap();
        let commands: Vec<u8> = (0..4).map(|_| next_cell(link).0).collect();
        assert_eq!(commands, [129, 130, 8, 6], "ends with CREATED_FAST");
    }
    assert_eq!(
        relay.siblings.lightest(),
        ShardId(1),
        "two links on the first, one on the second"
    );
    for mailbox in relay.siblings.mailboxes() {
        mailbox.post(Order::Stop);
    }
    for link in &mut links {
        let (command, body) = next_cell(link);
        assert_eq!((command, body[0]), (4, 4), "DESTROY, HIBERNATING");
        // Nothing more, and an orderly end.
        assert_eq!(link.read(&mut [0; 1]).unwrap(), 0);
        link.conn.send_close_notify();
        let _ = link.flush();
        let _ = link.sock.shutdown(std::net::Shutdown::Write);
    }
    for _ in 0..2 {
        assert_eq!(relay.news.recv_timeout(PATIENCE), Ok(ShardNews::Stopped));
    }
}
