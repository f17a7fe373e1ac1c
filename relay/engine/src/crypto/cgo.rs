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

use std::hint::black_box;

use aes::Aes128Enc;
use aes::cipher::{BlockEncrypt, KeyInit};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use self::stream::Stream;

pub mod client;
mod stream;
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
/// Of command ‖ right, what fills up the first four blocks of the tweak, behind the chain.
const START_BYTES: usize = WIDE_BYTES - TAG_BYTES;
/// What lies between the first and the last four.
const MIDDLE_BYTES: usize = (1 + RIGHT_BYTES + TAG_BYTES).next_multiple_of(WIDE_BYTES) - 2 * WIDE_BYTES;
/// What the last four hold; zeros fill them up.
const END_BYTES: usize = 1 + RIGHT_BYTES - START_BYTES - MIDDLE_BYTES;
const UIV_KEY_BYTES: usize = 64;

/// What authenticates a cell that travelled: SENDMEs name it.
pub type Tag = [u8; TAG_BYTES];
/// A RELAY cell's body.
pub type Body = [u8; BODY_BYTES];

/// A keyed hash that is begun anew for each cell, where it lies.
///
/// It gives its result to whoever uses it up, so each result takes a copy of its 144 bytes. With the crate's own wiping each
/// copy cost as much as a fifth of the cell, byte by byte; so that is off, and the key is wiped here. What a copy, or a hash
/// made for one cell, leaves on the stack, the next cell's overwrites.
///
/// The copy is `finalize_reset`'s, block by block: moved as a whole into `finalize`, it would be read in wider pieces than
/// the sum had just been written in, and processors wait for such. Hence too all that is done here with whole blocks.
struct Hash(Polyval);

impl Hash {
    fn new(key: &Tag) -> Self {
        Self(Polyval::new(key.into()))
    }
}

impl Drop for Hash {
    fn drop(&mut self) {
        self.0 = Polyval::new(&Tag::default().into());
        // Else nobody would look at it any more, and the wiping could be left out.
        black_box(&self.0);
    }
}

/// POLYVAL over chain ‖ command ‖ right: 510 bytes, zero-padded to whole blocks. The hash is as new afterwards.
#[inline]
fn mask(hash: &mut Polyval, chain: &Tag, command: u8, body: &Body) -> Tag {
    // In the command's place stands the left's last byte, so that the greater part is hashed where it lies.
    let (_, tweak) = body.split_at(TAG_BYTES - 1);
    // The chain and what completes four blocks; 24 blocks; the rest, padded to four: all are hashed four at a time.
    let (start, rest) = tweak.split_at(START_BYTES);
    let (middle, end) = rest.split_at(MIDDLE_BYTES);
    let (mut first, mut last) = ([[0; TAG_BYTES]; 4], [0; WIDE_BYTES]);
    last.split_at_mut(END_BYTES).0.copy_from_slice(end);
    let (head, behind) = first.as_flattened_mut().split_at_mut(TAG_BYTES);
    head.copy_from_slice(chain);
    behind.copy_from_slice(start);
    let [_, commanded, ..] = &mut first;
    put_command(commanded, command);
    for blocks in [first.as_flattened(), middle, &last] {
        hash.update_padded(blocks);
    }
    hash.finalize_reset().into()
}

static FIRST_BYTE: Tag = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Puts `command` first, as a change to the whole block: written alone, it would have to reach the cache before the
/// block could be read, and the next cell's hash would wait until this one is done. Neither inlined nor given a mask that
/// the compiler knows, else it writes the byte alone.
#[inline(never)]
fn put_command(block: &mut Tag, command: u8) {
    let mut changed = *block;
    for (byte, mask) in changed.iter_mut().zip(black_box(&FIRST_BYTE)) {
        *byte = (*byte & !mask) | (command & mask);
    }
    *block = changed;
}

/// ET: what `plain` at the left of a cell becomes.
#[inline]
fn tweaked(block: &Aes128Enc, plain: &Tag, mask: &Tag) -> Tag {
    let mut left = *plain;
    xor_into(&mut left, mask);
    block.encrypt_block((&mut left).into());
    xor_into(&mut left, mask);
    left
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

    #[cold]
    fn boxed(keys: &Keys) -> Box<Self> {
        Box::new(Self::new(keys))
    }

    /// For who does not have it for himself, with a copy of the hash.
    fn mask(&self, chain: &Tag, command: u8, body: &Body) -> Tag {
        mask(&mut self.et_hash.0.clone(), chain, command, body)
    }

    /// The same.
    fn stream(&self, seed: &Tag, blocks_skipped: u8) -> Stream<'_> {
        Stream::new(&self.prf_block, &mut self.prf_hash.0.clone(), seed, blocks_skipped)
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
/// Of the right side, what lies in whole groups of eight blocks, as processors take them at once.
const GROUPS_BYTES: usize = RIGHT_BYTES - RIGHT_BYTES % (8 * TAG_BYTES);
/// Of the last of the stream's blocks for a cell the cell does not need so much.
const LEFT_OVER_BYTES: usize = KEY_STREAM as usize * TAG_BYTES - RIGHT_BYTES;
/// Of the stream, what lies behind the right side's whole groups: for the rest of it, what is left over, the next keys.
const TAIL_BYTES: usize = RIGHT_BYTES - GROUPS_BYTES + LEFT_OVER_BYTES + KEY_BYTES;

#[inline(always)]
fn xor_into(one: &mut [u8], other: &[u8]) {
    for (one, other) in one.iter_mut().zip(other) {
        *one ^= other;
    }
}

/// Of a block whose length the compiler knows; else it would take it byte by byte.
#[inline(always)]
fn xored(one: &Tag, other: &Tag) -> Tag {
    let mut sum = *one;
    xor_into(&mut sum, other);
    sum
}

#[inline(always)]
fn xor(to: &mut [u8], from: &[u8], with: &[u8]) {
    for ((to, from), with) in to.iter_mut().zip(from).zip(with) {
        *to = from ^ with;
    }
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

/// What one direction of a circuit remembers at one hop. Laid out so that no block of it lies in two lines of the cache:
/// each cell writes the chain and reads it at once.
#[repr(C, align(16))]
struct Direction {
    keys: Zeroizing<Keys>,
    /// Marks the cells that are meant for this hop.
    nonce: Tag,
    /// The tag of the last cell: each cell's tweak, so that cells cannot be reordered.
    chain: Tag,
    /// The keys set up, while cells pass. A cell of our own needs them but once, so they are set up on the stack for it:
    /// 1.7 KB that nobody moves and that an idle circuit does not keep.
    set_up: Option<Box<Uiv>>,
    /// Whether a cell has passed since somebody looked last.
    has_passed: bool,
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

    /// A cell that passes: the keys are set up, and stay.
    #[inline]
    fn encrypt(&mut self, command: u8, from: &Body, to: &mut Body) {
        self.has_passed = true;
        let uiv = self.set_up.get_or_insert_with(|| Uiv::boxed(&self.keys));
        let et = (&uiv.et_block, &mut uiv.et_hash.0);
        encrypt_left(et, &mut self.chain, command, from, to);
        let stream = Stream::new(&uiv.prf_block, &mut uiv.prf_hash.0, &self.chain, CELL_STREAM);
        encrypt_right(stream, from, to);
    }

    /// A cell that passes or is this hop's own, as `is_own` says once its left side is there.
    #[inline(always)]
    fn encrypt_either(
        &mut self,
        command: u8,
        from: &Body,
        to: &mut Body,
        is_own: impl FnOnce(&Tag, &Tag) -> bool,
    ) -> bool {
        let Some(mut set_up) = self.set_up.take() else {
            return self.encrypt_once(command, from, to, is_own);
        };
        let uiv = &mut *set_up;
        let et = (&uiv.et_block, &mut uiv.et_hash.0);
        encrypt_left(et, &mut self.chain, command, from, to);
        let stream = Stream::new(&uiv.prf_block, &mut uiv.prf_hash.0, &self.chain, CELL_STREAM);
        let own = is_own(&self.chain, &self.nonce);
        if own {
            self.encrypt_right_and_update(stream, from, to);
        } else {
            self.has_passed = true;
            encrypt_right(stream, from, to);
            self.set_up = Some(set_up);
        }
        own
    }

    /// The same with keys that are set up on the stack, as a cell of this hop's own needs them but once; the later ones while
    /// the processor still waits for the mask.
    ///
    /// Apart: inlined, cells that pass would pay for the stack that this takes.
    #[inline(never)]
    fn encrypt_once(
        &mut self,
        command: u8,
        from: &Body,
        to: &mut Body,
        is_own: impl FnOnce(&Tag, &Tag) -> bool,
    ) -> bool {
        let [et_block, et_hash, prf_block, prf_hash] = &*self.keys;
        let mut et_hash = Polyval::new(et_hash.into());
        let mask = mask(&mut et_hash, &self.chain, command, from);
        let (et_block, prf_block) = (Aes128Enc::new(et_block.into()), Aes128Enc::new(prf_block.into()));
        let mut prf_hash = Polyval::new(prf_hash.into());
        self.chain = tweaked(&et_block, &tag_of(from), &mask);
        to.split_at_mut(TAG_BYTES).0.copy_from_slice(&self.chain);
        let stream = Stream::new(&prf_block, &mut prf_hash, &self.chain, CELL_STREAM);
        let own = is_own(&self.chain, &self.nonce);
        if own {
            self.encrypt_right_and_update(stream, from, to);
        } else {
            // More will pass.
            self.has_passed = true;
            encrypt_right(stream, from, to);
            self.set_up = Some(Uiv::boxed(&self.keys));
        }
        own
    }

    /// The rest of a cell of this hop's own, and the keys that follow on it. These come out of the same stream, as the
    /// cell's tag is the nonce that is their seed.
    #[inline(always)]
    fn encrypt_right_and_update(&mut self, stream: Stream<'_>, from: &Body, to: &mut Body) {
        let (_, from) = from.split_at(TAG_BYTES);
        let (_, to) = to.split_at_mut(TAG_BYTES);
        let mut tail = Zeroizing::new([0; TAIL_BYTES]);
        let parts = from.split_first_chunk::<GROUPS_BYTES>().zip(to.split_first_chunk_mut());
        if let Some(((from, from_rest), (to, to_rest))) = parts {
            stream.apply_and_go_on(from, to, &mut tail);
            xor(to_rest, from_rest, tail.as_slice());
        }
        if let Some((_, fresh)) = tail.split_last_chunk() {
            self.rekey(fresh);
        }
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

/// A cell of any kind begins: its left side, which is also its tag and the next one's chain.
#[inline(always)]
fn encrypt_left((block, hash): (&Aes128Enc, &mut Polyval), chain: &mut Tag, command: u8, from: &Body, to: &mut Body) {
    let mask = mask(hash, chain, command, from);
    *chain = tweaked(block, &tag_of(from), &mask);
    to.split_at_mut(TAG_BYTES).0.copy_from_slice(chain);
}

/// The rest of a cell that passes.
#[inline(always)]
fn encrypt_right(stream: Stream<'_>, from: &Body, to: &mut Body) {
    if let (Some(from), Some(to)) = (from.last_chunk(), to.last_chunk_mut()) {
        stream.apply_to_right(from, to);
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

    /// Takes this hop's layer off, on the way from one place to another: what `to` held is gone. `Some` means that the cell
    /// is for us: its plain text stands behind the first 16 bytes, and the tag is what a SENDME for it must carry. `command`
    /// is the cell's own, RELAY or RELAY_EARLY.
    pub fn receive(&mut self, command: u8, from: &Body, to: &mut Body) -> Option<Tag> {
        let for_us = |tag: &Tag, nonce: &Tag| {
            let (tag, nonce) = (u128::from_ne_bytes(*tag), u128::from_ne_bytes(*nonce));
            bool::from(tag.ct_eq(&nonce))
        };
        let is_for_us = self.0.encrypt_either(command, from, to, for_us);
        is_for_us.then(|| tag_of(from))
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

    /// Puts this hop's layer on a cell that came from further away, on its way from one place to another: what `to` held is
    /// gone.
    pub fn pass(&mut self, command: u8, from: &Body, to: &mut Body) {
        self.0.encrypt(command, from, to);
    }

    /// Makes a cell of our own in `to`: the plain text stands behind the first 16 bytes of `from`, whatever these hold.
    /// Returns the tag that a SENDME for this cell must carry.
    pub fn originate(&mut self, command: u8, from: &mut Body, to: &mut Body) -> Tag {
        let (left, _) = from.split_at_mut(TAG_BYTES);
        left.copy_from_slice(&self.0.nonce);
        self.0.encrypt_either(command, from, to, |_, _| true);
        self.0.chain
    }

    /// Gives back what only cells that pass need, if none has passed since this was asked last.
    pub(super) fn rest_if_idle(&mut self) {
        self.0.rest_if_idle();
    }
}
