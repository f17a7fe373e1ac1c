//! Counter Galois Onion: the relay crypto of `Relay=6` (proposal 359; tor-spec, "Relay cells").
//!
//! A cell body is one wide block: whoever changes a bit of it turns all of it, and everything after it, to noise.
//! A relay only ever *encrypts*; clients decrypt. Keys are set up once for all cells that pass, but anew for each cell of
//! this hop's own, as that changes them.
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
/// `Polyval` can only be asked by using it up, so each cell takes a copy of its 144 bytes. With the crate's own wiping each
/// copy cost as much as a fifth of the cell, byte by byte; so that is off, and the key is wiped here. What a copy, or a hash
/// made for one cell, leaves on the stack, the next cell's overwrites.
struct Hash(Polyval);

impl Hash {
    fn new(key: &Tag) -> Self {
        Self(Polyval::new(key.into()))
    }

    #[inline]
    fn begin(&self) -> Polyval {
        self.0.clone()
    }
}

impl Drop for Hash {
    fn drop(&mut self) {
        self.0 = Polyval::new(&Tag::default().into());
        // Else nobody would look at it any more, and the wiping could be left out.
        std::hint::black_box(&self.0);
    }
}

/// POLYVAL over chain ‖ command ‖ right: 510 bytes, zero-padded to whole blocks. What lies in `body` before `right` is
/// lost: the command takes its last place, so that the greater part is hashed where it lies.
#[inline]
fn mask(mut hash: Polyval, chain: &Tag, command: u8, body: &mut Body) -> Tag {
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
    for blocks in [&first, middle, &last] {
        hash.update_padded(blocks);
    }
    hash.finalize().into()
}

/// ET: what `plain` at the left of a cell becomes.
#[inline]
fn tweaked(block: &Aes128Enc, plain: &Tag, mask: &Tag) -> Tag {
    let mut left = xor(plain, mask);
    block.encrypt_block((&mut left).into());
    xor(&left, mask)
}

/// The PRF's stream from one of its blocks on. A cell takes 31 of them, so the stream for new keys begins behind these.
#[inline]
fn stream<'a>(block: &'a Aes128Enc, mut hash: Polyval, seed: &Tag, blocks_skipped: u8) -> Ctr128BE<&'a Aes128Enc> {
    hash.update(&[(*seed).into()]);
    let mut start: Tag = hash.finalize().into();
    start[TAG_BYTES - 1] = (start[TAG_BYTES - 1] & 0xc0) + blocks_skipped;
    Ctr128BE::from_core(CtrCore::inner_iv_init(block, &start.into()))
}

/// The keyed wide-block cipher, UIV+ in the proposal, set up. Its parts wipe themselves on drop.
struct Uiv {
    et_block: Aes128Enc,
    et_hash: Hash,
    prf_block: Aes128Enc,
    prf_hash: Hash,
}

impl Uiv {
    fn new([et_block, et_hash, prf_block, prf_hash]: &Keys) -> Self {
        Self {
            et_block: Aes128Enc::new(et_block.into()),
            et_hash: Hash::new(et_hash),
            prf_block: Aes128Enc::new(prf_block.into()),
            prf_hash: Hash::new(prf_hash),
        }
    }

    #[inline]
    fn mask(&self, chain: &Tag, command: u8, body: &mut Body) -> Tag {
        mask(self.et_hash.begin(), chain, command, body)
    }

    #[inline]
    fn stream(&self, seed: &Tag, blocks_skipped: u8) -> Ctr128BE<&Aes128Enc> {
        stream(&self.prf_block, self.prf_hash.begin(), seed, blocks_skipped)
    }

    /// The keys and the nonce that follow on `nonce`.
    fn next_keys(&self, nonce: &Tag) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut fresh = Zeroizing::new([0; KEY_BYTES]);
        self.stream(nonce, KEY_STREAM).apply_keystream(fresh.as_mut_slice());
        fresh
    }
}

/// The PRF's stream for cells begins at its start.
const CELL_STREAM: u8 = 0;
/// The PRF's stream for new keys begins behind a cell's 31 blocks.
const KEY_STREAM: u8 = 31;
/// Of the last of these a cell does not need so much.
const LEFT_OVER_BYTES: usize = KEY_STREAM as usize * TAG_BYTES - RIGHT_BYTES;

fn xor(one: &Tag, other: &Tag) -> Tag {
    (u128::from_ne_bytes(*one) ^ u128::from_ne_bytes(*other)).to_ne_bytes()
}

/// The keys of a wide block, as they are agreed and derived: ET's block cipher and hash, the PRF's block cipher and hash.
type Keys = [Tag; 4];

fn quarters(keys: &[u8; UIV_KEY_BYTES]) -> Zeroizing<Keys> {
    let mut parts = Zeroizing::new(Keys::default());
    for (part, from) in parts.iter_mut().zip(keys.chunks_exact(TAG_BYTES)) {
        part.copy_from_slice(from);
    }
    parts
}

/// What one direction of a circuit remembers at one hop.
struct Direction {
    keys: Zeroizing<Keys>,
    /// The same set up, while cells pass. A cell of our own needs them but once, so they are set up on the stack for it:
    /// 1.7 KB that nobody moves and that an idle circuit does not keep.
    set_up: Option<Box<Uiv>>,
    /// Whether a cell has passed since somebody looked last.
    has_passed: bool,
    /// Marks the cells that are meant for this hop.
    nonce: Tag,
    /// The tag of the last cell: each cell's tweak, so that cells cannot be reordered.
    chain: Tag,
}

impl Direction {
    fn new(keys: &[u8; KEY_BYTES]) -> Self {
        let mut direction = Self {
            keys: Zeroizing::default(),
            set_up: None,
            has_passed: false,
            nonce: [0; TAG_BYTES],
            chain: [0; TAG_BYTES],
        };
        direction.rekey(keys);
        direction
    }

    /// New keys over the old ones, which leaves nothing of these to be wiped.
    #[inline]
    fn rekey(&mut self, keys: &[u8; KEY_BYTES]) {
        let parts = self.keys.iter_mut().chain([&mut self.nonce]);
        for (part, from) in parts.zip(keys.chunks_exact(TAG_BYTES)) {
            part.copy_from_slice(from);
        }
    }

    /// A cell of any kind begins: its left side, which is also its tag.
    #[inline]
    fn encrypt_left(&mut self, command: u8, body: &mut Body) {
        let plain = tag_of(body);
        let tag = match &self.set_up {
            Some(uiv) => tweaked(&uiv.et_block, &plain, &uiv.mask(&self.chain, command, body)),
            None => {
                let [et_block, et_hash, ..] = &*self.keys;
                let mask = mask(Polyval::new(et_hash.into()), &self.chain, command, body);
                tweaked(&Aes128Enc::new(et_block.into()), &plain, &mask)
            }
        };
        body.split_at_mut(TAG_BYTES).0.copy_from_slice(&tag);
        self.chain = tag;
    }

    /// The rest of a cell that passes: the keys stay.
    #[inline]
    fn encrypt_right(&mut self, body: &mut Body) {
        self.has_passed = true;
        let uiv = self.set_up.get_or_insert_with(|| Box::new(Uiv::new(&self.keys)));
        let (_, right) = body.split_at_mut(TAG_BYTES);
        uiv.stream(&self.chain, CELL_STREAM).apply_keystream(right);
    }

    /// The rest of a cell of our own, and the keys that follow on it. These come out of the same stream, as the cell's tag
    /// is the nonce that is their seed.
    #[inline]
    fn encrypt_right_and_update(&mut self, body: &mut Body) {
        let (_, right) = body.split_at_mut(TAG_BYTES);
        let mut behind = Zeroizing::new([0; LEFT_OVER_BYTES + KEY_BYTES]);
        let mut crypt = |mut stream: Ctr128BE<&Aes128Enc>| {
            stream.apply_keystream(right);
            stream.apply_keystream(behind.as_mut_slice());
        };
        match self.set_up.take() {
            Some(uiv) => crypt(uiv.stream(&self.chain, CELL_STREAM)),
            None => {
                let [.., prf_block, prf_hash] = &*self.keys;
                let block = Aes128Enc::new(prf_block.into());
                crypt(stream(&block, Polyval::new(prf_hash.into()), &self.chain, CELL_STREAM));
            }
        }
        if let Some((_, fresh)) = behind.split_last_chunk() {
            self.rekey(fresh);
        }
    }

    fn encrypt(&mut self, command: u8, body: &mut Body) {
        self.encrypt_left(command, body);
        self.encrypt_right(body);
    }

    /// Gives back what is set up, if no cell has passed since this was asked last.
    fn rest_if_idle(&mut self) {
        if !std::mem::take(&mut self.has_passed) {
            self.set_up = None;
        }
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
        self.0.encrypt_left(command, body);
        if !bool::from(self.0.chain.ct_eq(&self.0.nonce)) {
            self.0.encrypt_right(body);
            return None;
        }
        self.0.encrypt_right_and_update(body);
        Some(travelled)
    }

    /// Gives back what only cells that pass need, if none has passed since this was asked last.
    pub(super) fn rest_if_idle(&mut self) {
        self.0.rest_if_idle();
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
        self.0.encrypt_left(command, body);
        self.0.encrypt_right_and_update(body);
        self.0.chain
    }

    /// Gives back what only cells that pass need, if none has passed since this was asked last.
    pub(super) fn rest_if_idle(&mut self) {
        self.0.rest_if_idle();
    }
}
