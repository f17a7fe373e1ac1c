//! The PRF's stream: AES in counter mode, in whole groups of as many blocks as the processor takes at once.

use aes::Aes128Enc;
use aes::cipher::consts::U16;
use aes::cipher::{BlockBackend, BlockClosure, BlockEncrypt, BlockSizeUser, ParBlocks, Unsigned};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;

use super::{RIGHT_BYTES, TAG_BYTES, Tag, xor, xor_into, xored};

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

    /// Over what is no longer than the stream, 64 blocks with those that are skipped, where it lies.
    pub(in crate::crypto) fn apply_keystream(self, data: &mut [u8]) {
        for (part, start) in data.chunks_mut(PIECE_BYTES).zip((0..).step_by(PIECE_BLOCKS.into())) {
            let mut piece = [0; PIECE_BYTES];
            self.behind(start).apply(&ZEROS, &mut piece);
            xor_into(part, &piece);
        }
    }

    /// From a cell's right side, whose length the compiler is to know, to where it goes.
    #[inline]
    pub(super) fn apply_to_right(self, from: &[u8; RIGHT_BYTES], to: &mut [u8; RIGHT_BYTES]) {
        self.apply(from, to);
    }

    /// The same with the stream's beginning, and what follows in it.
    #[inline]
    pub(super) fn apply_and_go_on<const N: usize, const M: usize>(
        self,
        from: &[u8; N],
        to: &mut [u8; N],
        behind: &mut [u8; M],
    ) {
        const { assert!(N.is_multiple_of(TAG_BYTES) && N / TAG_BYTES < 64) }
        self.apply(from, to);
        self.behind((N / TAG_BYTES) as u8).apply(&[0; M], behind);
    }

    /// What begins so many blocks later.
    #[inline]
    fn behind(&self, blocks: u8) -> Self {
        Stream {
            blocks_skipped: self.blocks_skipped.wrapping_add(blocks),
            ..*self
        }
    }

    #[inline]
    fn apply<const N: usize>(&self, from: &[u8; N], to: &mut [u8; N]) {
        let first = u128::from_le_bytes(self.start) & !(0x3f << 120);
        self.block.encrypt_with_backend(Counted {
            counter: first | (u128::from(self.blocks_skipped) << 120),
            from,
            to,
        });
    }
}

/// For who does not say how much he wants when this is compiled: so much at once.
const PIECE_BLOCKS: u8 = 8;
const PIECE_BYTES: usize = PIECE_BLOCKS as usize * TAG_BYTES;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// What is done where the processor's AES instructions may be used.
struct Counted<'a, const N: usize> {
    counter: u128,
    from: &'a [u8; N],
    to: &'a mut [u8; N],
}

impl<const N: usize> BlockSizeUser for Counted<'_, N> {
    type BlockSize = U16;
}

impl<const N: usize> BlockClosure for Counted<'_, N> {
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
        let at_once = B::ParBlocksSize::USIZE;
        let (from, from_end) = self.from.as_chunks::<TAG_BYTES>();
        let (to, to_end) = self.to.as_chunks_mut::<TAG_BYTES>();
        let (mut to, from) = (to.chunks_exact_mut(at_once), from.chunks_exact(at_once));
        let from_rest = from.remainder();
        for (to, from) in (&mut to).zip(from) {
            for ((to, from), block) in to.iter_mut().zip(from).zip(&next()) {
                *to = xored(from, block.as_ref());
            }
        }
        // A whole group for what is left: one block alone takes as long, each has to wait for itself.
        let to_rest = to.into_remainder();
        if !to_rest.is_empty() || !to_end.is_empty() {
            let last = next();
            let (whole, behind) = last.split_at(to_rest.len());
            for ((to, from), block) in to_rest.iter_mut().zip(from_rest).zip(whole) {
                *to = xored(from, block.as_ref());
            }
            if let Some(block) = behind.first() {
                xor(to_end, from_end, block);
            }
        }
    }
}
