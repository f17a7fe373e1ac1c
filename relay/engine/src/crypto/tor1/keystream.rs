//! AES-128 in counter mode for cells: where 509 bytes begin and end within a block, the least is done with single bytes.
//!
//! A cell takes 32 blocks, of which the processor makes eight at once. Bytes of the last one that it does not need begin the
//! next cell. Each cell leaves three more than it found, so after five cells one has a whole block to spare; that one is
//! made again.
//!
//! ```text
//! body 509 = from the block before (0 to 15) ‖ 24 blocks ‖ 6 blocks ‖ 14 to 29 bytes of two blocks
//! ```

use aes::Aes128Enc;
use aes::cipher::consts::U16;
use aes::cipher::{BlockBackend, BlockClosure, BlockEncrypt, BlockSizeUser, KeyInit, ParBlocks, Unsigned};
use zeroize::Zeroize;

use super::Body;

const BLOCK_BYTES: usize = 16;
type Block = [u8; BLOCK_BYTES];

/// Blocks at a cell's end that are made together.
const LAST: usize = 8;
/// A cell's blocks before those.
const WHOLE: usize = 24;
/// Of the last blocks, those that any cell takes whole.
const SURE: usize = 6;
/// Of a cell, where the last two of its blocks can lie.
const END_BYTES: usize = 29;
/// What a cell leaves of its blocks, if it has found nothing.
const MORE_UNUSED: usize = 3;

pub(super) struct Keystream {
    block: Aes128Enc,
    /// The number of the next block that nothing has been taken of.
    next: u64,
    /// Bytes of the one before that are not used up.
    unused: u8,
    /// That one, and zeros behind it: from `16 - unused` on stand its bytes and then what changes nothing.
    before: [u8; 2 * BLOCK_BYTES],
}

impl Keystream {
    /// From a place in the keystream on, in bytes.
    pub(super) fn at(key: &Block, position: u64) -> Self {
        let block = Aes128Enc::new(key.into());
        let unused = position.wrapping_neg() & 15;
        let mut before = [0; 2 * BLOCK_BYTES];
        if let (Some(last), true) = (before.first_chunk_mut::<BLOCK_BYTES>(), unused > 0) {
            *last = u128::from(position / 16).to_be_bytes();
            block.encrypt_block(last.into());
        }
        Self {
            block,
            next: position.div_ceil(16),
            unused: unused as u8,
            before,
        }
    }

    /// Bytes that are used up; `None` where that is no number of 64 bits.
    pub(super) fn position(&self) -> Option<u64> {
        self.next.checked_mul(16)?.checked_sub(u64::from(self.unused))
    }

    /// Over what stands in `from`, into `to`, whatever that held: the cell is on its way to another place anyhow.
    #[inline]
    pub(super) fn apply(&mut self, from: &Body, to: &mut Body) {
        let Self {
            block,
            next,
            unused,
            before,
        } = self;
        block.encrypt_with_backend(Cell {
            next,
            unused,
            before,
            from,
            to,
        });
    }
}

impl Drop for Keystream {
    fn drop(&mut self) {
        self.before.zeroize();
    }
}

/// What is done where the processor's AES instructions may be used.
struct Cell<'a> {
    next: &'a mut u64,
    unused: &'a mut u8,
    before: &'a mut [u8; 2 * BLOCK_BYTES],
    from: &'a Body,
    to: &'a mut Body,
}

impl BlockSizeUser for Cell<'_> {
    type BlockSize = U16;
}

impl BlockClosure for Cell<'_> {
    #[inline(always)]
    fn call<B: BlockBackend<BlockSize = U16>>(self, backend: &mut B) {
        const { assert!(LAST.is_multiple_of(B::ParBlocksSize::USIZE)) }
        let at_once = B::ParBlocksSize::USIZE;
        let found = usize::from(*self.unused) % BLOCK_BYTES;
        let next = *self.next;
        let mut blocks = |first: usize| {
            let mut blocks = ParBlocks::<B>::default();
            for (number, block) in (first as u64..).zip(&mut blocks) {
                *block = u128::from(next.wrapping_add(number)).to_be_bytes().into();
            }
            backend.proc_par_blocks((&mut blocks).into());
            blocks
        };
        let mut last = [Block::default(); LAST];
        for (group, first) in last.chunks_exact_mut(at_once).zip((WHOLE..).step_by(at_once)) {
            for (to, block) in group.iter_mut().zip(&blocks(first)) {
                *to = (*block).into();
            }
        }

        // The two edges first, in pieces of one length, whatever was found: where zeros stand, whole blocks come to lie.
        let [.., last_but_one, very_last] = last;
        let edge = [Block::default(), last_but_one, very_last];
        let (_, found_bytes) = self.before.split_at(BLOCK_BYTES - found);
        let (_, end_bytes) = edge.as_flattened().split_at(BLOCK_BYTES - found);
        if let (Some(to), Some(from), Some(with)) = (
            self.to.first_chunk_mut::<BLOCK_BYTES>(),
            self.from.first_chunk::<BLOCK_BYTES>(),
            found_bytes.first_chunk::<BLOCK_BYTES>(),
        ) {
            *to = xored(from, with);
        }
        if let (Some(to), Some(from), Some(with)) = (
            self.to.last_chunk_mut::<END_BYTES>(),
            self.from.last_chunk::<END_BYTES>(),
            end_bytes.first_chunk::<END_BYTES>(),
        ) {
            *to = xored(from, with);
        }

        let (_, from) = self.from.split_at(found);
        let (_, to) = self.to.split_at_mut(found);
        let (from, to) = (from.as_chunks::<BLOCK_BYTES>().0, to.as_chunks_mut::<BLOCK_BYTES>().0);
        let (from, from_sure) = from.split_at(WHOLE);
        let (to, to_sure) = to.split_at_mut(WHOLE);
        let groups = to.chunks_exact_mut(at_once).zip(from.chunks_exact(at_once));
        for ((to, from), first) in groups.zip((0..).step_by(at_once)) {
            for ((to, from), with) in to.iter_mut().zip(from).zip(&blocks(first)) {
                *to = xored(from, with.as_ref());
            }
        }
        for ((to, from), with) in to_sure.iter_mut().zip(from_sure).zip(&last).take(SURE) {
            *to = xored(from, with);
        }

        let left = found + MORE_UNUSED;
        let spare = left / BLOCK_BYTES;
        let (kept, _) = self.before.split_at_mut(BLOCK_BYTES);
        kept.copy_from_slice(if spare == 0 { &very_last } else { &last_but_one });
        *self.unused = (left % BLOCK_BYTES) as u8;
        *self.next = self.next.wrapping_add(32 - spare as u64);
    }
}

/// Of pieces whose length the compiler knows; else it would take them byte by byte.
#[inline(always)]
fn xored<const N: usize>(one: &[u8; N], other: &[u8; N]) -> [u8; N] {
    let mut sum = *one;
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum ^= other;
    }
    sum
}
