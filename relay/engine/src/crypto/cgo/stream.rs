//! The PRF's stream: AES in counter mode, in whole groups of as many blocks as the processor takes at once.

use aes::Aes128Enc;
use aes::cipher::consts::U16;
use aes::cipher::{BlockBackend, BlockClosure, BlockEncrypt, BlockSizeUser, ParBlocks, Unsigned};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;

use super::{RIGHT_BYTES, TAG_BYTES, Tag, xor_into};

/// The stream of one cell from one of its blocks on.
pub(in crate::crypto) struct Stream<'a> {
    block: &'a Aes128Enc,
    /// The first counter. Its low six bits are clear, and no cell takes 64 blocks: a block's number stands in them, and
    /// nothing is ever carried.
    start: Tag,
    blocks_skipped: u8,
}

impl<'a> Stream<'a> {
    /// From a hash that has seen nothing, which is as new afterwards.
    #[inline]
    pub(super) fn new(block: &'a Aes128Enc, hash: &mut Polyval, seed: &Tag, blocks_skipped: u8) -> Self {
        hash.update(&[(*seed).into()]);
        let start = hash.finalize_reset().into();
        Self {
            block,
            start,
            blocks_skipped,
        }
    }

    /// Over what is no longer than the stream, 64 blocks with those that are skipped.
    #[inline]
    pub(in crate::crypto) fn apply_keystream(self, data: &mut [u8]) {
        self.apply(data);
    }

    /// Over a cell's right side, whose length the compiler is to know.
    #[inline]
    pub(super) fn apply_to_right(self, right: &mut [u8; RIGHT_BYTES]) {
        self.apply(right);
    }

    /// Over two pieces, one behind the other in the stream.
    #[inline]
    pub(super) fn apply_to<const N: usize, const M: usize>(self, first: &mut [u8; N], second: &mut [u8; M]) {
        const { assert!(N.is_multiple_of(TAG_BYTES) && N / TAG_BYTES < 64) }
        let second_blocks = Stream {
            blocks_skipped: self.blocks_skipped.wrapping_add((N / TAG_BYTES) as u8),
            ..self
        };
        self.apply(first);
        second_blocks.apply(second);
    }

    #[inline]
    fn apply<D: AsMut<[u8]> + ?Sized>(&self, data: &mut D) {
        let first = u128::from_le_bytes(self.start) & !(0x3f << 120);
        self.block.encrypt_with_backend(Counted {
            counter: first | (u128::from(self.blocks_skipped) << 120),
            data,
        });
    }
}

/// What is done where the processor's AES instructions may be used.
struct Counted<'a, D: ?Sized> {
    counter: u128,
    data: &'a mut D,
}

impl<D: ?Sized> BlockSizeUser for Counted<'_, D> {
    type BlockSize = U16;
}

impl<D: AsMut<[u8]> + ?Sized> BlockClosure for Counted<'_, D> {
    #[inline(always)]
    fn call<B: BlockBackend<BlockSize = U16>>(self, backend: &mut B) {
        let mut counter = self.counter;
        let mut next = || {
            let mut blocks = ParBlocks::<B>::default();
            for block in &mut blocks {
                *block = counter.to_le_bytes().into();
                counter = counter.wrapping_add(1 << 120);
            }
            backend.proc_par_blocks((&mut blocks).into());
            blocks
        };
        let mut groups = self.data.as_mut().chunks_exact_mut(B::ParBlocksSize::USIZE * TAG_BYTES);
        for group in &mut groups {
            for (part, block) in group.chunks_exact_mut(TAG_BYTES).zip(&next()) {
                xor_into(part, block);
            }
        }
        // A whole group for what is left: one block alone takes as long, each has to wait for itself.
        let rest = groups.into_remainder();
        if !rest.is_empty() {
            for (part, block) in rest.chunks_mut(TAG_BYTES).zip(&next()) {
                xor_into(part, block);
            }
        }
    }
}
