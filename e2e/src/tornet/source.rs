//! The internet behind the exits: one listener per stream, that gives bytes or takes them, and knows their digest.
//!
//! The bytes are pseudo-random, each 64 KiB block from a seed of its own, so that no block may stand for another.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// Bytes made, sent, received and hashed at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// What the other end says to have its bytes.
pub(super) const ASK: &[u8] = b"?";

/// Between two looks for a connection.
const LOOK: Duration = Duration::from_millis(5);

/// What all threads of one transfer share: when one fails, the others end too.
#[derive(Default)]
pub(super) struct Brake {
    pulled: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Brake {
    /// Ends every transfer.
    pub(super) fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
        if let Ok(open) = self.open.lock() {
            for stream in open.iter() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    pub(super) fn is_pulled(&self) -> bool {
        self.pulled.load(Ordering::SeqCst)
    }

    /// Remembers a connection, to be able to cut it.
    pub(super) fn watch(&self, stream: &TcpStream) -> anyhow::Result<()> {
        if let Ok(mut open) = self.open.lock() {
            open.push(stream.try_clone()?);
        }
        ensure!(!self.is_pulled(), "given up");
        Ok(())
    }
}

/// A listener for the one stream with this number.
pub(super) struct Source {
    listener: TcpListener,
    stream_number: u64,
}

impl Source {
    /// At the first of these ports that is free; at any if there are none.
    pub(super) fn listen(address: Ipv4Addr, ports: &[u16], stream_number: u64) -> anyhow::Result<Self> {
        let any = if ports.is_empty() { &[0] } else { ports };
        let places: Vec<SocketAddr> = any.iter().map(|port| SocketAddr::from((address, *port))).collect();
        let listener = TcpListener::bind(places.as_slice())
            .with_context(|| format!("cannot listen on {address}, where the bytes should come from"))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            stream_number,
        })
    }

    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Gives the bytes to whoever connects and asks first; their digest. Unasked it says nothing: what reaches C tor's exit
    /// before that has noticed its own connect, one read of 15,936 bytes, is lost where the circuit's window is full.
    pub(super) fn give(&self, bytes: u64, brake: &Brake) -> anyhow::Result<String> {
        let mut stream = self.accept(brake)?;
        stream
            .read_exact(&mut [0; ASK.len()])
            .context("nobody asked for the bytes")?;
        let digest = send(&mut stream, self.stream_number, bytes)?;
        stream.shutdown(Shutdown::Write)?;
        // Until the other side closes: an early close of ours could cut what is under way.
        let _ = stream.read(&mut [0]);
        Ok(digest)
    }

    /// Takes bytes from whoever connects first, and confirms with their digest in hexadecimal.
    pub(super) fn take(&self, bytes: u64, brake: &Brake) -> anyhow::Result<String> {
        let mut stream = self.accept(brake)?;
        let digest = receive(&mut stream, bytes)?;
        stream.write_all(digest.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        Ok(digest)
    }

    fn accept(&self, brake: &Brake) -> anyhow::Result<TcpStream> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    brake.watch(&stream)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if brake.is_pulled() {
                        bail!("given up");
                    }
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(error).context("the source cannot accept"),
            }
        }
    }
}

/// Sends that many bytes of the stream with this number; their digest.
pub(super) fn send(out: &mut impl Write, stream_number: u64, bytes: u64) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    for number in 0.. {
        if left == 0 {
            break;
        }
        fill(&mut block, stream_number, number);
        let length = left.min(BLOCK_BYTES as u64);
        let part = block.get(..usize::try_from(length)?).unwrap_or_default();
        out.write_all(part)
            .with_context(|| format!("cut off {left} bytes before the end"))?;
        digest.update(part);
        left -= length;
    }
    Ok(hex::encode(digest.finalize()))
}

/// Receives exactly that many bytes; their digest.
pub(super) fn receive(from: &mut impl Read, bytes: u64) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let room = usize::try_from(left.min(BLOCK_BYTES as u64))?;
        let length = from.read(block.get_mut(..room).unwrap_or_default())?;
        ensure!(length > 0, "the stream ended {left} bytes too early");
        digest.update(block.get(..length).unwrap_or_default());
        left -= length as u64;
    }
    Ok(hex::encode(digest.finalize()))
}

fn fill(block: &mut [u8], stream_number: u64, number: u64) {
    SmallRng::seed_from_u64(stream_number << 40 | number).fill(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_received_has_the_digest_of_what_was_sent() {
        for bytes in [0, 1, BLOCK_BYTES as u64, 1_000_000] {
            let mut wire = Vec::new();
            let sent = send(&mut wire, 3, bytes).unwrap();
            assert_eq!(wire.len() as u64, bytes);
            assert_eq!(receive(&mut wire.as_slice(), bytes).unwrap(), sent);
        }
    }

    #[test]
    fn a_flipped_bit_or_swapped_blocks_change_the_digest() {
        let mut wire = Vec::new();
        let sent = send(&mut wire, 3, 300_000).unwrap();
        let mut flipped = wire.clone();
        flipped[299_999] ^= 1;
        assert_ne!(receive(&mut flipped.as_slice(), 300_000).unwrap(), sent);

        let (first, second) = wire.split_at_mut(BLOCK_BYTES);
        first.swap_with_slice(&mut second[..BLOCK_BYTES]);
        assert_ne!(receive(&mut wire.as_slice(), 300_000).unwrap(), sent);
    }

    #[test]
    fn no_two_streams_carry_the_same_bytes() {
        let digest = |number| send(&mut std::io::sink(), number, 100_000).unwrap();
        assert_ne!(digest(0), digest(1));
    }

    #[test]
    fn a_cut_stream_says_how_much_was_missing() {
        let error = receive(&mut [1, 2, 3].as_slice(), 10).unwrap_err().to_string();
        assert!(error.contains("7 bytes too early"), "{error}");
    }
}
