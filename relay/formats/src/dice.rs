//! Dice in the shape that `rsa` 0.9 asks for (`rand_core` 0.6): ours (`rand_core` 0.10), and its own for blinding.

use rand_core::CryptoRng;
use rsa::rand_core as older;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub(crate) struct OlderDice<'a, R>(pub(crate) &'a mut R);

impl<R: CryptoRng> older::RngCore for OlderDice<'_, R> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), older::Error> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl<R: CryptoRng> older::CryptoRng for OlderDice<'_, R> {}

/// Dice for blinding an RSA signature, drawn from the key and the message: nobody outside can foresee
/// them, and signing needs no dice from its caller. The signature is the same with any blinding.
pub(crate) struct BlindingDice {
    seed: Zeroizing<[u8; 32]>,
    drawn: u64,
}

impl BlindingDice {
    pub(crate) fn new(secret: &[u8], message: &[u8]) -> Self {
        let seed = Sha256::new()
            .chain_update(b"relay-formats rsa blinding")
            .chain_update(Sha256::digest(secret))
            .chain_update(message)
            .finalize();
        Self {
            seed: Zeroizing::new(seed.into()),
            drawn: 0,
        }
    }
}

impl older::RngCore for BlindingDice {
    fn next_u32(&mut self) -> u32 {
        older::impls::next_u32_via_fill(self)
    }
    fn next_u64(&mut self) -> u64 {
        older::impls::next_u64_via_fill(self)
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update(self.seed.as_slice())
                .chain_update(self.drawn.to_be_bytes())
                .finalize();
            self.drawn += 1;
            for (to, from) in chunk.iter_mut().zip(block) {
                *to = from;
            }
        }
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), older::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl older::CryptoRng for BlindingDice {}
