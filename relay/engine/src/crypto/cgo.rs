//! Counter Galois Onion: the relay crypto of `Relay=6` (proposal 359; tor-spec, "Relay cells").
//!
//! A cell body is one wide block: whoever changes a bit of it turns all of it, and everything after it, to noise.
//! A relay only ever *encrypts*; clients decrypt. Keys are set up once, not per cell.
//!
//! ```text
//! body 509 = left 16 ‖ right 493
//! ET:   left  ← AES(left ⊕ mask) ⊕ mask, mask = POLYVAL(chain ‖ command ‖ right)
//! PRF:  right ← right ⊕ AES-CTR from POLYVAL(left), low six bits cleared
//! ```

use aes::Aes128Enc;
use aes::cipher::{BlockEncrypt, InnerIvInit, KeyInit, StreamCipher};
use ctr::{Ctr128BE, CtrCore};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

pub mod client;
#[cfg(test)]
pub(in crate::crypto) mod tests;

/// Bytes of a RELAY cell's body.
pub const BODY_BYTES: usize = 509;
/// Bytes of a tag, a nonce, a block.
pub const TAG_BYTES: usize = 16;
/// Key material of one direction: 64 bytes of keys, then the nonce. A circuit takes two of them, forward first.
pub const KEY_BYTES: usize = 80;

const RIGHT_BYTES: usize = BODY_BYTES - TAG_BYTES;
/// What POLYVAL takes at once: four blocks.
const WIDE_BYTES: usize = 4 * TAG_BYTES;
/// Of command ‖ right, what lies between the first and the last four blocks of the tweak.
const MIDDLE_BYTES: usize = (1 + RIGHT_BYTES + TAG_BYTES).next_multiple_of(WIDE_BYTES) - 2 * WIDE_BYTES;
const UIV_KEY_BYTES: usize = 64;

/// What authenticates a cell that travelled: SENDMEs name it.
pub type Tag = [u8; TAG_BYTES];
/// A RELAY cell's body.
pub type Body = [u8; BODY_BYTES];

/// A keyed hash that is begun anew for each cell.
///
/// `Polyval` can only be asked by using it up, so each cell takes a copy of its 160 bytes. With the crate's own wiping each
/// copy cost as much as a fifth of the cell, byte by byte; so that is off, and the key is wiped here. What a copy leaves on
/// the stack, the next cell's overwrites.
struct Hash(Polyval);

impl Hash {
    fn new(key: &Tag) -> Self {
        Self(Polyval::new(key.into()))
    }

    /// Takes another key in place of this one, which leaves nothing of it to be wiped.
    #[inline]
    fn rekey(&mut self, key: &Tag) {
        self.0 = Polyval::new(key.into());
    }

    /// POLYVAL over whole blocks, which may lie in several places.
    #[inline]
    fn of<const N: usize>(&self, pieces: [&[u8]; N]) -> Tag {
        let mut hash = self.0.clone();
        pieces.into_iter().for_each(|blocks| hash.update_padded(blocks));
        hash.finalize().into()
    }
}

impl Drop for Hash {
    fn drop(&mut self) {
        self.0 = Polyval::new(&Tag::default().into());
        // Else nobody would look at it any more, and the wiping could be left out.
        std::hint::black_box(&self.0);
    }
}

/// The keyed wide-block cipher, UIV+ in the proposal. Its parts wipe themselves on drop.
struct Uiv {
    et_block: Aes128Enc,
    et_hash: Hash,
    prf_block: Aes128Enc,
    prf_hash: Hash,
}

impl Uiv {
    fn new(keys: &[u8; UIV_KEY_BYTES]) -> Self {
        let [et_block, et_hash, prf_block, prf_hash] = quarters(keys);
        Self {
            et_block: Aes128Enc::new(&et_block.into()),
            et_hash: Hash::new(&et_hash),
            prf_block: Aes128Enc::new(&prf_block.into()),
            prf_hash: Hash::new(&prf_hash),
        }
    }

    /// New keys in place of these. Made anew and moved here, it would be copied and the old one wiped: for a relay that ends a
    /// circuit that is a fifth of each cell.
    fn rekey(&mut self, keys: &[u8; UIV_KEY_BYTES]) {
        let [et_block, et_hash, prf_block, prf_hash] = quarters(keys);
        self.et_block = Aes128Enc::new(&et_block.into());
        self.et_hash.rekey(&et_hash);
        self.prf_block = Aes128Enc::new(&prf_block.into());
        self.prf_hash.rekey(&prf_hash);
    }

    /// POLYVAL over chain ‖ command ‖ right: 510 bytes, zero-padded to whole blocks. What lies in `body` before `right` is
    /// lost: the command takes its last place, so that the greater part is hashed where it lies.
    #[inline]
    fn mask(&self, chain: &Tag, command: u8, body: &mut Body) -> Tag {
        let (_, tweak) = body.split_at_mut(TAG_BYTES - 1);
        if let Some(first) = tweak.first_mut() {
            *first = command;
        }
        // The chain and what completes four blocks; 24 blocks; the rest, padded to four: all are hashed four at a time.
        let (start, rest) = tweak.split_at(WIDE_BYTES - TAG_BYTES);
        let (middle, end) = rest.split_at(MIDDLE_BYTES);
        let (mut first, mut last) = ([0; WIDE_BYTES], [0; WIDE_BYTES]);
        let (head, behind) = first.split_at_mut(TAG_BYTES);
        head.copy_from_slice(chain);
        behind.copy_from_slice(start);
        last.split_at_mut(end.len()).0.copy_from_slice(end);
        self.et_hash.of([&first, middle, &last])
    }

    /// The PRF's stream, XORed onto `data`. A cell takes 31 blocks of it, so the stream for new keys begins behind them.
    fn prf(&self, seed: &Tag, blocks_skipped: u8, data: &mut [u8]) {
        let mut start = self.prf_hash.of([seed]);
        start[TAG_BYTES - 1] = (start[TAG_BYTES - 1] & 0xc0) + blocks_skipped;
        let core = CtrCore::inner_iv_init(&self.prf_block, &start.into());
        Ctr128BE::from_core(core).apply_keystream(data);
    }

    fn encrypt(&self, chain: &Tag, command: u8, body: &mut Body) {
        let plain = tag_of(body);
        let mask = self.mask(chain, command, body);
        let (left, right) = body.split_at_mut(TAG_BYTES);
        let mut block = xor(&plain, &mask);
        self.et_block.encrypt_block((&mut block).into());
        let block = xor(&block, &mask);
        left.copy_from_slice(&block);
        self.prf(&block, CELL_STREAM, right);
    }

    /// The keys and the nonce that follow on `nonce`.
    fn next_keys(&self, nonce: &Tag) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut fresh = Zeroizing::new([0; KEY_BYTES]);
        self.prf(nonce, KEY_STREAM, fresh.as_mut_slice());
        fresh
    }
}

/// The PRF's stream for cells begins at its start.
const CELL_STREAM: u8 = 0;
/// The PRF's stream for new keys begins behind a cell's 31 blocks.
const KEY_STREAM: u8 = 31;

fn xor(bytes: &[u8], mask: &Tag) -> Tag {
    let mut mixed = *mask;
    mixed.iter_mut().zip(bytes).for_each(|(to, from)| *to ^= from);
    mixed
}

fn quarters(keys: &[u8; UIV_KEY_BYTES]) -> [Tag; 4] {
    let mut parts = [[0; TAG_BYTES]; 4];
    for (part, from) in parts.iter_mut().zip(keys.chunks_exact(TAG_BYTES)) {
        part.copy_from_slice(from);
    }
    parts
}

/// What one direction of a circuit remembers at one hop.
struct Direction {
    uiv: Uiv,
    /// Marks the cells that are meant for this hop.
    nonce: Tag,
    /// The tag of the last cell: each cell's tweak, so that cells cannot be reordered.
    chain: Tag,
}

impl Direction {
    fn new(keys: &[u8; KEY_BYTES]) -> Self {
        let mut direction = Self {
            uiv: Uiv::new(&[0; UIV_KEY_BYTES]),
            nonce: [0; TAG_BYTES],
            chain: [0; TAG_BYTES],
        };
        direction.rekey(keys);
        direction
    }

    fn rekey(&mut self, keys: &[u8; KEY_BYTES]) {
        let (uiv, nonce) = keys.split_at(UIV_KEY_BYTES);
        let mut fixed = Zeroizing::new([0; UIV_KEY_BYTES]);
        fixed.copy_from_slice(uiv);
        self.uiv.rekey(&fixed);
        self.nonce.copy_from_slice(nonce);
    }

    fn update(&mut self) {
        let fresh = self.uiv.next_keys(&self.nonce);
        self.rekey(&fresh);
    }

    fn encrypt(&mut self, command: u8, body: &mut Body) {
        self.uiv.encrypt(&self.chain, command, body);
        self.chain = tag_of(body);
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.nonce.zeroize();
        self.chain.zeroize();
    }
}

fn tag_of(body: &Body) -> Tag {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(body.split_at(TAG_BYTES).0);
    tag
}

/// A relay's state for cells that come from the client.
pub struct RelayForward(Direction);

impl RelayForward {
    /// From 80 bytes of the circuit's key material.
    pub fn new(keys: &[u8; KEY_BYTES]) -> Self {
        Self(Direction::new(keys))
    }

    /// Takes this hop's layer off. `Some` means that the cell is for us: its plain text stands behind the first 16 bytes,
    /// and the tag is what a SENDME for it must carry. `command` is the cell's own, RELAY or RELAY_EARLY.
    pub fn receive(&mut self, command: u8, body: &mut Body) -> Option<Tag> {
        let travelled = tag_of(body);
        self.0.encrypt(command, body);
        if !bool::from(self.0.chain.ct_eq(&self.0.nonce)) {
            return None;
        }
        self.0.update();
        Some(travelled)
    }
}

/// A relay's state for cells that go to the client.
pub struct RelayBackward(Direction);

impl RelayBackward {
    /// From 80 bytes of the circuit's key material.
    pub fn new(keys: &[u8; KEY_BYTES]) -> Self {
        Self(Direction::new(keys))
    }

    /// Puts this hop's layer on a cell that came from further away.
    pub fn pass(&mut self, command: u8, body: &mut Body) {
        self.0.encrypt(command, body);
    }

    /// Makes a cell of our own: the plain text stands behind the first 16 bytes, whatever these hold. Returns the tag that
    /// a SENDME for this cell must carry.
    pub fn originate(&mut self, command: u8, body: &mut Body) -> Tag {
        let (left, _) = body.split_at_mut(TAG_BYTES);
        left.copy_from_slice(&self.0.nonce);
        self.0.encrypt(command, body);
        // The new nonce is the tag, and the update takes it as its seed.
        self.0.nonce = self.0.chain;
        self.0.update();
        self.0.chain
    }
}
