//! The destination of streams: gives bytes to whoever connects, or takes them, and compares them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};

/// The bytes repeat after so many: no multiple of a cell's or a record's size.
const PERIOD: usize = 65_521;

/// Bytes written or read at once.
const BLOCK: usize = 1 << 16;

/// What the stream's bytes are, twice in a row.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new() -> Self {
        let once: Vec<u8> = (0..PERIOD as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        Self(once.iter().chain(&once).copied().collect())
    }

    /// `length` bytes from here on; at most a period.
    pub(crate) fn at(&self, offset: u64, length: usize) -> &[u8] {
        let from = (offset % PERIOD as u64) as usize;
        self.0.get(from..from + length.min(PERIOD)).unwrap_or_default()
    }
}

/// What all connections came to.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) taken: AtomicU64,
    pub(crate) wrong: AtomicBool,
}

/// Listens in the background until the process ends; where.
pub(crate) fn listen(address: IpAddr, gives: bool, totals: Arc<Totals>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).context("cannot listen for streams")?;
    let own = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let totals = Arc::clone(&totals);
            std::thread::spawn(move || if gives { give(stream) } else { take(stream, &totals) });
        }
    });
    Ok(own)
}

/// Without end: the other side closes.
fn give(mut stream: TcpStream) {
    let pattern = Pattern::new();
    let mut offset = 0;
    loop {
        let block = pattern.at(offset, BLOCK);
        if stream.write_all(block).is_err() {
            return;
        }
        offset += block.len() as u64;
    }
}

fn take(mut stream: TcpStream, totals: &Totals) {
    let pattern = Pattern::new();
    let mut offset = 0;
    let mut block = vec![0; BLOCK - BLOCK % 16];
    loop {
        match stream.read(&mut block) {
            Ok(0) => return,
            Ok(length) => {
                let length_compared = length.min(PERIOD);
                if block.get(..length_compared) != Some(pattern.at(offset, length_compared)) {
                    totals.wrong.store(true, Ordering::Relaxed);
                }
                offset += length as u64;
                totals.taken.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_goes_on_over_its_end() {
        let pattern = Pattern::new();
        let from = PERIOD as u64 - 3;
        let over = pattern.at(from, 8).to_vec();
        assert_eq!(over[..3], *pattern.at(from, 3));
        assert_eq!(over[3..], *pattern.at(0, 5));
        assert_eq!(pattern.at(5, BLOCK - 16).len(), BLOCK - 16);
    }

    #[test]
    fn a_shifted_stream_is_another() {
        let pattern = Pattern::new();
        for shift in [1, 16, 488, 498] {
            assert_ne!(pattern.at(0, 64), pattern.at(shift, 64), "{shift}");
        }
    }
}
