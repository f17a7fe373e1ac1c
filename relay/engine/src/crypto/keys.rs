//! What a circuit handshake leaves behind.

use zeroize::{Zeroize, Zeroizing};

use super::cgo;

/// Digest seeds forward and backward, 20 bytes each, then AES keys forward and backward, 16 bytes each.
pub const TOR1_KEY_BYTES: usize = 72;
/// Both directions of CGO.
pub const CGO_KEY_BYTES: usize = 2 * cgo::KEY_BYTES;
/// The circuit's nonce, "KH": what onion services bind their introduction points to.
pub const NONCE_BYTES: usize = 20;

/// Key material for the relay crypto that was agreed. Wiped on drop; no `Debug`, no `Clone`.
pub enum RelayKeys {
    /// The old crypto.
    Tor1(Zeroizing<[u8; TOR1_KEY_BYTES]>),
    /// Counter Galois Onion.
    Cgo(Zeroizing<[u8; CGO_KEY_BYTES]>),
}

/// Everything that a circuit handshake leaves behind. Wiped on drop; no `Debug`, no `Clone`.
pub struct CircuitKeys {
    /// For cells.
    pub relay: RelayKeys,
    /// The circuit's nonce.
    pub nonce: [u8; NONCE_BYTES],
    /// Cells per SENDME where congestion control was agreed (proposal 324).
    pub sendme_increment: Option<u8>,
}

impl CircuitKeys {
    /// Keys for the old crypto.
    pub fn tor1(keys: Zeroizing<[u8; TOR1_KEY_BYTES]>, nonce: [u8; NONCE_BYTES], sendme_increment: Option<u8>) -> Self {
        Self {
            relay: RelayKeys::Tor1(keys),
            nonce,
            sendme_increment,
        }
    }

    /// Takes the keys off a handshake's stream: relay keys first, then the nonce.
    pub fn take(wide_block: bool, sendme_increment: Option<u8>, mut stream: impl FnMut(&mut [u8])) -> Self {
        let relay = if wide_block {
            let mut keys = Zeroizing::new([0; CGO_KEY_BYTES]);
            stream(keys.as_mut_slice());
            RelayKeys::Cgo(keys)
        } else {
            let mut keys = Zeroizing::new([0; TOR1_KEY_BYTES]);
            stream(keys.as_mut_slice());
            RelayKeys::Tor1(keys)
        };
        let mut nonce = [0; NONCE_BYTES];
        stream(&mut nonce);
        Self {
            relay,
            nonce,
            sendme_increment,
        }
    }
}

impl Drop for CircuitKeys {
    fn drop(&mut self) {
        self.nonce.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    fn wiped<T: ZeroizeOnDrop>(_: &T) {}

    /// tor#41269: a wipe that reached a part of the keys only. That every part wipes itself, the compiler checks; no `..`
    /// below, so that a new part does not compile until somebody thought of it.
    #[test]
    fn trove_41269_every_part_of_a_circuits_keys_is_wiped() {
        for wide_block in [false, true] {
            let keys = CircuitKeys::take(wide_block, None, |part| part.fill(7));
            let CircuitKeys {
                relay,
                nonce,
                sendme_increment: _,
            } = &keys;
            match relay {
                RelayKeys::Tor1(keys) => wiped(keys),
                RelayKeys::Cgo(keys) => wiped(keys),
            }
            assert_eq!(nonce, &[7; NONCE_BYTES]);
        }
        // The nonce is wiped by the drop of the whole.
        assert!(std::mem::needs_drop::<CircuitKeys>());
    }
}
