//! simnet's client on a real link: circuits, streams, and what was said on them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use relay_simnet::client::{Client, Event, Hop, Wish};
use relay_wire::cell::Command;
use relay_wire::relay_cells::RelayCommand as Relay;
use rustls::{ClientConnection, StreamOwned};

use super::support::{Shard, socket, tls};

/// A client and one circuit.
pub(crate) struct Visitor {
    link: StreamOwned<ClientConnection, TcpStream>,
    client: Client,
    circuit: u32,
    last_hop: usize,
}

impl Visitor {
    /// A circuit over `path`, whose first relay is `guard`.
    pub(crate) fn over(guard: &Shard, path: &[Hop]) -> Self {
        let (first, more) = path.split_first().unwrap();
        let mut visitor = Self {
            link: tls(socket(guard)),
            client: Client::new(1),
            circuit: 0,
            last_hop: path.len() - 1,
        };
        visitor.until(|event| matches!(event, Event::LinkOpen(_)));
        visitor.circuit = visitor.client.create(first, Wish::Ntor);
        visitor.until(|event| matches!(event, Event::Extended { hops: 1, .. }));
        for hop in more {
            visitor.client.extend(visitor.circuit, hop, Wish::Ntor);
            visitor.until(|event| matches!(event, Event::Extended { .. }));
        }
        visitor
    }

    /// Says something on a stream; goes out with the next wait.
    pub(crate) fn say(&mut self, stream: u16, command: Relay, data: &[u8]) {
        self.client
            .send(self.circuit, self.last_hop, Command::RELAY, command, stream, data);
    }

    pub(crate) fn begin(&mut self, stream: u16, target: &str) {
        self.say(stream, Relay::BEGIN, format!("{target}\0").as_bytes());
    }

    /// The next thing that is said on a stream, 0 for the circuit itself.
    pub(crate) fn hears(&mut self) -> (u16, Relay, Vec<u8>) {
        match self.until(|event| matches!(event, Event::Message { .. })) {
            Event::Message {
                stream_id,
                command,
                data,
                ..
            } => (stream_id, command, data),
            _ => unreachable!("that was waited for"),
        }
    }

    /// The first event that is wanted; those before it, unless they mean that all is lost, are forgotten.
    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            self.link.write_all(&std::mem::take(&mut self.client.output)).unwrap();
            self.link.flush().unwrap();
            if let Some(at) = self.client.events.iter().position(&wanted) {
                return self.client.events.drain(..=at).next_back().unwrap();
            }
            let lost = |event: &Event| matches!(event, Event::Destroyed { .. } | Event::Nonsense(_));
            assert!(!self.client.events.iter().any(lost), "{:?}", self.client.events);
            self.client.events.clear();
            let mut bytes = [0; 16 * 1024];
            let length = self.link.read(&mut bytes).unwrap();
            assert!(length > 0, "hung up on");
            self.client.receive(&bytes[..length]);
        }
    }
}
