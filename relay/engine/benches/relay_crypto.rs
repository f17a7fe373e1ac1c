//! What one cell costs: relay crypto at a middle and at an end, and flow control on top.
//!
//! `cargo bench -p relay-engine` prints time per cell. Each round takes 256 cells that lie one behind the other, as they do
//! in a channel's buffer, to as many places, as they lie in queues.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run must say so")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relay_engine::crypto::{cgo, tor1};
use relay_engine::flow::{Backlog, CircuitFlow, Path, SendmeRules, Tag, VegasParameters};
use relay_engine::network::Parameters;
use relay_wire::flow_control::SendmeBody;

const CELLS: usize = 256;
const BODY_BYTES: usize = 509;
const RELAY: u8 = 3;

/// Bodies with nothing regular in them, so that no cell is ever for us.
fn cells() -> Vec<[u8; BODY_BYTES]> {
    let byte = |place: usize| (place.wrapping_mul(2_654_435_761) >> 13) as u8;
    (0..CELLS)
        .map(|cell| std::array::from_fn(|place| byte(cell * BODY_BYTES + place)))
        .collect()
}

fn relay_crypto(c: &mut Criterion) {
    let mut group = c.benchmark_group("relay crypto");
    group.throughput(Throughput::Elements(CELLS as u64));
    group.bench_function("tor1 forward at a middle", |b| {
        let (mut forward, _) = tor1::Direction::pair(&[7; 72]);
        let (cells, mut queue) = (cells(), cells());
        b.iter(|| {
            for (from, to) in cells.iter().zip(&mut queue) {
                forward.crypt_into(from, to);
                black_box(forward.recognise(to));
            }
        });
    });
    group.bench_function("tor1 backward at a middle", |b| {
        let (_, mut backward) = tor1::Direction::pair(&[7; 72]);
        let (cells, mut queue) = (cells(), cells());
        b.iter(|| {
            for (from, to) in cells.iter().zip(&mut queue) {
                backward.crypt_into(from, to);
            }
            black_box(&queue);
        });
    });
    group.bench_function("tor1 originate at an end", |b| {
        let (_, mut backward) = tor1::Direction::pair(&[7; 72]);
        let (mut cells, mut queue) = (cells(), cells());
        b.iter(|| {
            for (from, to) in cells.iter_mut().zip(&mut queue) {
                black_box(backward.sign(from));
                backward.crypt_into(from, to);
            }
        });
    });
    group.bench_function("CGO forward at a middle", |b| {
        let mut forward = cgo::RelayForward::new(&[7; cgo::KEY_BYTES]);
        let (cells, mut queue) = (cells(), cells());
        b.iter(|| {
            for (from, to) in cells.iter().zip(&mut queue) {
                black_box(forward.receive(RELAY, from, to));
            }
        });
    });
    group.bench_function("CGO backward at a middle", |b| {
        let mut backward = cgo::RelayBackward::new(&[7; cgo::KEY_BYTES]);
        let (cells, mut queue) = (cells(), cells());
        b.iter(|| {
            for (from, to) in cells.iter().zip(&mut queue) {
                backward.pass(RELAY, from, to);
            }
            black_box(&queue);
        });
    });
    group.bench_function("CGO originate at an end", |b| {
        let mut backward = cgo::RelayBackward::new(&[7; cgo::KEY_BYTES]);
        let (mut cells, mut queue) = (cells(), cells());
        b.iter(|| {
            for (from, to) in cells.iter_mut().zip(&mut queue) {
                black_box(backward.originate(RELAY, from, to));
            }
        });
    });
    group.finish();
}

/// 31 cells out and the SENDME for them back: the whole bookkeeping of a download.
fn flow_control(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow control");
    group.throughput(Throughput::Elements(31));
    let parameters = Parameters::default();
    let vegas = VegasParameters::read(&parameters, Path::Exit, 31);
    let mut flow = CircuitFlow::vegas(SendmeRules::read(&parameters, false), vegas);
    let tag = Tag::Tor1([7; 20]);
    let body = SendmeBody::v1(tag.as_bytes()).unwrap();
    let mut now = Duration::from_secs(1);
    group.bench_function("Vegas, sent and acknowledged", |b| {
        b.iter(|| {
            for _ in 0..31 {
                flow.on_data_sent(now, tag).unwrap();
            }
            now += Duration::from_millis(80);
            flow.on_sendme(now, body.as_bytes(), Backlog::default()).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, relay_crypto, flow_control);
criterion_main!(benches);
