//! What a middle costs a cell: bytes as they leave TLS go in, bytes as they enter TLS come out, cells for another hop.
//! No socket, no TLS. `cargo bench -p relay-simnet`.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a bench reports, and may fail"
)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_engine::crypto::cgo::{KEY_BYTES, RelayForward};
use relay_engine::crypto::tor1;
use relay_engine::{Effect, Input, Outbox};
use relay_simnet::client::{Client, Wish};
use relay_simnet::keys::Keys;
use relay_simnet::net::Net;
use relay_wire::cell::Command;
use relay_wire::relay_cells::RelayCommand;

const CELLS: usize = 10_000;
/// The same cells again and again: once crypted anew they are foreign cells like any other.
const REPEATS: usize = 20;
/// The best of these counts: what else the machine does only adds.
const ROUNDS: u64 = 9;
/// What the driver reads at once.
const READ_BYTES: usize = 64 * 1024;
/// A cell with its circuit's id and its command.
const CELL_BYTES: usize = 514;
/// What it writes at once: 31 cells.
const WRITE_BYTES: usize = 31 * 514;

fn main() {
    let keys: Vec<_> = (1..=2)
        .map(|number| Arc::new(Keys::new(number.into(), SocketAddr::from(([192, 0, 2, number], 9001))).expect("keys")))
        .collect();
    for circuits in [1, 32, 256] {
        for (name, wish) in [("tor1", Wish::NtorV3), ("cgo", Wish::Cgo)] {
            let best = (0..ROUNDS)
                .map(|seed| forward(&keys, wish, circuits, seed))
                .min_by_key(Took::all)
                .expect("rounds");
            let a_cell = |time: Duration| time.as_nanos() as f64 / (CELLS * REPEATS) as f64;
            println!(
                "forward {name:5} {circuits:4} circuits: {:6.1} ns a cell: {:5.1} in, {:5.1} for the crypto, {:5.1} out",
                a_cell(best.all()),
                a_cell(best.taking_in.saturating_sub(best.crypto)),
                a_cell(best.crypto),
                a_cell(best.giving_out)
            );
        }
    }
}

/// What the first relay takes for cells from a client to the second.
struct Took {
    /// From what TLS gave to cells, crypted, in the next channel's queues.
    taking_in: Duration,
    /// The same cells only crypted, from where they lie into a place of their own.
    crypto: Duration,
    /// From there to what TLS takes.
    giving_out: Duration,
}

impl Took {
    fn all(&self) -> Duration {
        self.taking_in + self.giving_out
    }
}

fn forward(keys: &[Arc<Keys>], wish: Wish, circuits: usize, seed: u64) -> Took {
    let mut net = Net::new(seed, keys.to_vec());
    net.connect(Client::new(seed), 0);
    net.run();
    let circuits: Vec<_> = (0..circuits)
        .map(|_| net.clients[0].create(&keys[0].hop, wish))
        .collect();
    net.run();
    for circuit in &circuits {
        net.clients[0].extend(*circuit, &keys[1].hop, wish);
    }
    net.run();
    for number in 0..CELLS {
        // Runs of eight cells, as a client's scheduler makes them.
        let circuit = circuits[number / 8 % circuits.len()];
        net.clients[0].send(circuit, 1, Command::RELAY, RelayCommand::DROP, 0, &[0; 400]);
    }
    let made = std::mem::take(&mut net.clients[0].output);
    let client = net.channel_of(0).expect("the client is connected");
    let now = net.now();
    let engine = &mut net.relays[0].engine;
    let mut outbox = Outbox::default();
    let mut layers = Layers::new(wish, circuits.len());
    let (mut taking_in, mut crypto, mut giving_out) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    // As TLS does it, everything lies where what came before it lay.
    let mut buffer = vec![0; READ_BYTES];
    for _ in 0..REPEATS {
        for came in made.chunks(READ_BYTES) {
            let read = &mut buffer[..came.len()];
            read.copy_from_slice(came);
            crypto += layers.crypt(read);
            let began = Instant::now();
            engine.handle(
                now,
                Input::Received {
                    channel: client,
                    bytes: read,
                },
                &mut outbox,
            );
            let half_way = Instant::now();
            let wanting: Vec<_> = outbox.effects.drain(..).collect();
            for effect in wanting {
                let Effect::WantsWrite { channel } = effect else {
                    continue;
                };
                loop {
                    engine.handle(
                        now,
                        Input::Writable {
                            channel,
                            room_bytes_max: WRITE_BYTES,
                        },
                        &mut outbox,
                    );
                    if outbox.written.is_empty() {
                        break;
                    }
                    black_box(&outbox.written);
                }
            }
            taking_in += half_way - began;
            giving_out += half_way.elapsed();
        }
    }
    assert_eq!(engine.cells_waiting(), 0);
    assert!(engine.tally().cells_relayed as usize >= CELLS * REPEATS);
    Took {
        taking_in,
        crypto,
        giving_out,
    }
}

/// The relay's side of as many circuits, without a relay.
struct Layers {
    tor1: Vec<tor1::Direction>,
    cgo: Vec<RelayForward>,
    cells: usize,
    rooms: Vec<[u8; 509]>,
}

impl Layers {
    fn new(wish: Wish, circuits: usize) -> Self {
        let (tor1, cgo) = match wish {
            Wish::Cgo => (0, circuits),
            _ => (circuits, 0),
        };
        Self {
            tor1: (0..tor1)
                .map(|number| tor1::Direction::pair(&[number as u8; 72]).0)
                .collect(),
            cgo: (0..cgo)
                .map(|number| RelayForward::new(&[number as u8; KEY_BYTES]))
                .collect(),
            cells: 0,
            rooms: vec![[0; 509]; READ_BYTES / CELL_BYTES],
        }
    }

    /// The time for a read's whole cells, in runs of eight.
    fn crypt(&mut self, read: &[u8]) -> Duration {
        let began = Instant::now();
        for (cell, room) in read.chunks_exact(CELL_BYTES).zip(&mut self.rooms) {
            let run = self.cells / 8;
            self.cells += 1;
            let body = cell.last_chunk().expect("a body");
            if self.cgo.is_empty() {
                let circuits = self.tor1.len();
                let layer = &mut self.tor1[run % circuits];
                layer.crypt_into(body, room);
                black_box(layer.recognise(room));
            } else {
                let circuits = self.cgo.len();
                black_box(self.cgo[run % circuits].receive(Command::RELAY.0, body, room));
            }
        }
        began.elapsed()
    }
}
