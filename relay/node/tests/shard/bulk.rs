//! Many streams, many bytes, and bandwidth that holds them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use relay_formats::torrc::LinkBandwidth;
use relay_node::shards::Sharing;
use relay_wire::relay_cells::{EndReason, RelayCommand as Relay, V0_DATA_BYTES_MAX};

use super::exits::{accept, destination, exit, visit, visit_over};
use super::support::Relay as Place;

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
