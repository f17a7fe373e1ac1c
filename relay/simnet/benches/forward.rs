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
use std::time::Duration;

use relay_engine::{Effect, Input, Outbox};
use relay_simnet::client::{Client, Wish};
use relay_simnet::keys::Keys;
use relay_simnet::net::Net;
use relay_wire::cell::Command;
use relay_wire::relay_cells::RelayCommand;

const CELLS: usize = 10_000;
/// The same cells again and again: once crypted anew they are foreign cells like any other.
const REPEATS: usize = 20;
/// What the driver reads at once.
const READ_BYTES: usize = 64 * 1024;
/// What it writes at once: 31 cells.
const WRITE_BYTES: usize = 31 * 514;

fn main() {
    let keys: Vec<_> = (1..=2)
        .map(|number| Arc::new(Keys::new(number.into(), SocketAddr::from(([192, 0, 2, number], 9001))).expect("keys")))
        .collect();
    for circuits in [1, 32, 256] {
        for (name, wish) in [("tor1", Wish::NtorV3), ("cgo", Wish::Cgo)] {
            let best = (0..5)
                .map(|seed| forward(&keys, wish, circuits, seed))
                .min()
                .expect("rounds");
            println!(
                "forward {name:5} {circuits:4} circuits: {:6.1} ns a cell",
                best.as_nanos() as f64 / (CELLS * REPEATS) as f64
            );
        }
    }
}

/// The time that the first relay takes for cells from a client to the second.
fn forward(keys: &[Arc<Keys>], wish: Wish, circuits: usize, seed: u64) -> Duration {
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
    let mut took = Duration::ZERO;
    for _ in 0..REPEATS {
        let mut bytes = made.clone();
        let began = time_on_cpu();
        for read in bytes.chunks_mut(READ_BYTES) {
            engine.handle(
                now,
                Input::Received {
                    channel: client,
                    bytes: read,
                },
                &mut outbox,
            );
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
        }
        took += time_on_cpu() - began;
    }
    assert_eq!(engine.cells_waiting(), 0);
    assert!(engine.tally().cells_relayed as usize >= CELLS * REPEATS);
    took
}

/// Nanoseconds that this thread has run: a machine that is busy with other things does not spoil it.
fn time_on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text
        .split(' ')
        .next()
        .and_then(|field| field.parse().ok())
        .expect("a number");
    Duration::from_nanos(nanoseconds)
}
