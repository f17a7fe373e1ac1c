//! Streams without end: BEGIN as a relay brings them, documents that are read, documents that never are.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use relay_simnet::client::{Client, Event, Wish};
use relay_wire::cell::Command;
use relay_wire::relay_cells::RelayCommand;
use serde::Serialize;

use super::crowd::Crowd;
use super::{Done, Flood, Kind, Pace};
use crate::handshake::Part;
use crate::link::Hold;
use crate::target::Target;

/// What is asked for, in turn: every packing costs the relay something of its own.
const REQUESTS: [&str; 4] = [
    "GET /tor/status-vote/current/consensus-microdesc.z HTTP/1.0\r\n\r\n",
    "GET /tor/server/all HTTP/1.0\r\nAccept-Encoding: identity\r\n\r\n",
    "GET /tor/status-vote/current/consensus HTTP/1.0\r\nAccept-Encoding: identity\r\n\r\n",
    "GET /tor/server/all HTTP/1.0\r\nAccept-Encoding: x-zstd\r\n\r\n",
];

/// What a sniper asks for: as long as possible.
const LONG: [usize; 2] = [1, 2];

#[derive(Serialize)]
struct Ready {
    links: usize,
}

/// The client's side of one link.
struct Talk {
    client: Client,
    circuits: Vec<u32>,
    created: usize,
    next_stream: u16,
    requests: usize,
}

struct Streams<'a> {
    flood: &'a Flood,
    target: &'a Target,
    talks: HashMap<usize, Talk>,
    /// Where BEGIN goes.
    begin: Vec<u8>,
}

pub(super) fn run(crowd: &mut Crowd, target: &Target, flood: &Flood) -> Result<()> {
    let mut begin = destination(crowd)?.to_string().into_bytes();
    begin.extend([0; 5]);
    let mut streams = Streams {
        flood,
        target,
        talks: HashMap::new(),
        begin,
    };
    let mut waiting: Vec<_> = flood.places().collect();
    match flood.kind {
        // They come little by little.
        Kind::Sniper => {}
        Kind::Streams => {
            let from = crowd.before().address.ip();
            let links = crowd.connect_all(target, waiting.drain(..).map(|_| from), Part::Relay)?;
            streams.greet(&links)?;
        }
        _ => {
            let links = crowd.connect_all(target, waiting.drain(..), Part::Client)?;
            streams.greet(&links)?;
        }
    }
    let all = waiting.len();
    crate::serve(
        &Ready {
            links: streams.talks.len(),
        },
        || {
            let pace = flood.pace();
            while !pace.over() {
                // All are there at three quarters of the time.
                while all > 0
                    && ((all - waiting.len()) as f64) < pace.share() * all as f64 / 0.75
                    && let Some(from) = waiting.pop()
                {
                    let link = crowd.connect(target, from, Part::Client, Hold::Nowhere)?;
                    streams.greet(link.as_slice())?;
                }
                crowd.turn(Duration::from_millis(5))?;
                streams.turn(crowd, &pace)?;
            }
            Ok::<Done, anyhow::Error>(crowd.sum(&pace))
        },
    )
}

/// Takes every connection and ends it at once.
fn destination(crowd: &Crowd) -> Result<SocketAddr> {
    let listener = TcpListener::bind((crowd.before().address.ip(), 0)).context("cannot listen for streams")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || for _ended in listener.incoming().flatten() {});
    Ok(address)
}

impl Streams<'_> {
    fn greet(&mut self, links: &[usize]) -> Result<()> {
        for link in links {
            let mut client = crate::onion::client()?;
            let count = self.flood.circuits;
            let circuits = (0..count).map(|_| match self.flood.kind {
                Kind::Streams => client.create(&self.target.hop(), Wish::Ntor),
                _ => client.create_fast(),
            });
            let circuits = circuits.collect();
            self.talks.insert(
                *link,
                Talk {
                    client,
                    circuits,
                    created: 0,
                    next_stream: 0,
                    requests: 0,
                },
            );
        }
        Ok(())
    }

    fn turn(&mut self, crowd: &mut Crowd, pace: &Pace) -> Result<()> {
        for link in self.talks.keys().copied().collect::<Vec<_>>() {
            let Some(talk) = self.talks.get_mut(&link) else {
                continue;
            };
            let Some(member) = crowd.get(link) else {
                self.talks.remove(&link);
                continue;
            };
            if member.deaf || !member.link.is_open() {
                continue;
            }
            let bytes = member.link.take_plain();
            if !bytes.is_empty() {
                talk.client.receive(&bytes);
            }
            for event in std::mem::take(&mut talk.client.events) {
                on_event(self.flood, &self.begin, talk, crowd, pace, event);
            }
            let Some(member) = crowd.get(link) else { continue };
            member.link.out.append(&mut talk.client.output);
            // Everything is asked for: from now on it is deaf.
            let silent = self.flood.kind == Kind::Sniper && talk.created == talk.circuits.len();
            if silent {
                let _ = member.link.flush();
                member.deaf = true;
            }
        }
        Ok(())
    }
}

fn on_event(flood: &Flood, begin: &[u8], talk: &mut Talk, crowd: &mut Crowd, pace: &Pace, event: Event) {
    match event {
        Event::Extended { circuit, .. } => {
            talk.created += 1;
            if flood.kind == Kind::Directory {
                talk.client.acknowledge(circuit, 100, false);
            }
            for _ in 0..flood.streams {
                one_more(flood, begin, talk, crowd, circuit);
            }
        }
        Event::Message {
            circuit,
            command,
            stream_id,
            data,
            ..
        } => match command {
            RelayCommand::CONNECTED => {
                crowd.done.granted += 1;
                if flood.kind == Kind::Directory {
                    let request = REQUESTS
                        .get(talk.requests % REQUESTS.len())
                        .copied()
                        .unwrap_or_default();
                    talk.requests += 1;
                    let data = RelayCommand::DATA;
                    talk.client
                        .send(circuit, 0, Command::RELAY, data, stream_id, request.as_bytes());
                }
            }
            RelayCommand::DATA => crowd.done.cells += 1,
            RelayCommand::END => {
                crowd.refused(data.first().copied().unwrap_or_default());
                if !pace.over() {
                    one_more(flood, begin, talk, crowd, circuit);
                }
            }
            _ => {}
        },
        Event::Destroyed { circuit, reason } => {
            crowd.refused(reason);
            talk.circuits.retain(|one| *one != circuit);
        }
        Event::LinkOpen(_) | Event::Padding | Event::Nonsense(_) => {}
    }
}

/// Begins a stream, and a sniper's request with it.
fn one_more(flood: &Flood, begin: &[u8], talk: &mut Talk, crowd: &mut Crowd, circuit: u32) {
    crowd.done.attempts += 1;
    talk.next_stream = talk.next_stream.checked_add(1).unwrap_or(1);
    let id = talk.next_stream;
    let mut say = |command, data: &[u8]| talk.client.send(circuit, 0, Command::RELAY, command, id, data);
    match flood.kind {
        Kind::Streams => say(RelayCommand::BEGIN, begin),
        Kind::Sniper => {
            say(RelayCommand::BEGIN_DIR, &[]);
            let which = LONG.get(usize::from(id) % LONG.len()).copied().unwrap_or_default();
            say(
                RelayCommand::DATA,
                REQUESTS.get(which).copied().unwrap_or_default().as_bytes(),
            );
        }
        _ => say(RelayCommand::BEGIN_DIR, &[]),
    }
}
