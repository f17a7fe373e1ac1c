//! Tables by small numbers: circuit ids, stream ids, names of our own.
//!
//! A circuit id is looked up for nearly every cell, and the standard library's SipHash takes longer for it than all the rest
//! of the look-up. This is one multiplication of 64 by 64 bits whose halves are folded, under keys that are secret and
//! differ from table to table: a peer chooses its ids without knowing where they fall.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// A table by numbers.
pub type KeyedMap<K, V> = HashMap<K, V, Keyed>;

/// A table of so many bytes is left as it is.
const KEPT_BYTES: usize = 16 * 1024;

/// Gives back memory of a table from which something has been taken, where less than an eighth of it is in use: after a flood it
/// would stay as large as it was. Each entry is moved for at least three that were taken out before.
pub fn shrink<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    let room = table.capacity();
    if table.len() < room / 8 && room.saturating_mul(size_of::<(K, V)>()) > KEPT_BYTES {
        table.shrink_to(table.len() * 2);
    }
}

/// The keys of one table.
#[derive(Clone)]
pub struct Keyed {
    start: u64,
    factor: u64,
}

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            start: random.hash_one(0_u8),
            // Odd, so that no bit of a number is lost.
            factor: random.hash_one(1_u8) | 1,
        }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    #[inline]
    fn build_hasher(&self) -> Folding {
        Folding {
            state: self.start,
            factor: self.factor,
        }
    }
}

/// Hashes the numbers of one key.
pub struct Folding {
    state: u64,
    factor: u64,
}

impl Hasher for Folding {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.state ^ number) * u128::from(self.factor);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut number = [0; 8];
            number.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(number));
        }
        self.write_usize(bytes.len());
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_a_flood_has_left_shrinks_and_a_small_one_stays() {
        let mut table: KeyedMap<u64, [u8; 400]> = KeyedMap::default();
        let mut most = 0;
        for number in 0..10_000 {
            table.insert(number, [1; 400]);
            most = most.max(table.capacity());
        }
        for number in 3..10_000 {
            table.remove(&number);
            shrink(&mut table);
            assert!(
                table.capacity() <= 8 * table.len() + 8 + KEPT_BYTES / 400,
                "{} entries, room for {}",
                table.len(),
                table.capacity()
            );
        }
        assert!(most >= 10_000 && table.len() == 3);
        assert!((0..3).all(|number| table.get(&number) == Some(&[1; 400])));
        let kept = table.capacity();
        shrink(&mut table);
        assert_eq!(table.capacity(), kept, "nothing is moved for so little");
    }

    #[test]
    fn two_tables_put_the_same_number_into_different_places() {
        let (one, other) = (Keyed::default(), Keyed::default());
        let same = (0..1_000_u32)
            .filter(|id| one.hash_one(id) == other.hash_one(id))
            .count();
        assert_eq!(same, 0);
    }

    /// hashbrown takes the place from the lowest bits and a tag from the highest.
    #[test]
    fn ids_in_any_step_fall_into_all_places_alike() {
        let table = Keyed::default();
        for step in [1_u32, 2, 256, 4_096, 65_536, 1 << 20] {
            for shift in [0, 57] {
                let mut places = [0_u32; 128];
                for number in 0..4_096_u32 {
                    let hash = table.hash_one(number.wrapping_mul(step));
                    places[(hash >> shift) as usize % 128] += 1;
                }
                let fullest = places.iter().max().unwrap();
                assert!(
                    *fullest < 4 * 32,
                    "step {step}, bits from {shift}: {fullest} of 4,096 in one of 128 places"
                );
            }
        }
    }
}
