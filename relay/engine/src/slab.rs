//! A table whose keys cannot go stale: a place may be used again, a key never fits twice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Names one entry for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

struct Place<T> {
    generation: u32,
    entry: Option<T>,
}

/// A table of so few places is left as it is.
const TRIM_ABOVE: usize = 256;

/// Entries in an array; finding one is an index and a comparison.
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    /// The one in front is used first, so that those at the end come free.
    free: BinaryHeap<Reverse<u32>>,
    /// Of new places: beyond all that places which were given back have had.
    first_generation: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: BinaryHeap::new(),
            first_generation: 0,
        }
    }

    pub(crate) fn insert(&mut self, entry: T) -> Key {
        if let Some(Reverse(index)) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.entry = Some(entry);
            return Key {
                index,
                generation: place.generation,
            };
        }
        let index = self.places.len() as u32;
        let generation = self.first_generation;
        self.places.push(Place {
            generation,
            entry: Some(entry),
        });
        Key { index, generation }
    }

    /// Entries and free places together.
    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    /// The entries of so many places.
    pub(crate) fn some_mut(&mut self, from: usize, count: usize) -> impl Iterator<Item = &mut T> {
        let places = self.places.iter_mut().skip(from).take(count);
        places.filter_map(|place| place.entry.as_mut())
    }

    /// Whether it has so many places that giving some back is worth a look.
    pub(crate) fn is_large(&self) -> bool {
        self.places.len() > TRIM_ABOVE
    }

    /// Gives back memory where three quarters of the places and more stand free at the end.
    pub(crate) fn trim(&mut self) {
        let used = self.places.iter().rposition(|place| place.entry.is_some());
        let length = used.map_or(0, |last| last + 1);
        if !self.is_large() || length > self.places.len() / 4 {
            return;
        }
        let newest = self.places.iter().skip(length).map(|place| place.generation).max();
        // Where generations are used up, the places stay: no key may ever fit twice.
        let Some(next) = newest.unwrap_or_default().checked_add(1) else {
            return;
        };
        self.first_generation = self.first_generation.max(next);
        self.places.truncate(length);
        self.places.shrink_to(length * 2);
        self.free.retain(|Reverse(index)| (*index as usize) < length);
        self.free.shrink_to(length * 2);
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.generation == key.generation {
            place.entry.as_ref()
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation {
            place.entry.as_mut()
        } else {
            None
        }
    }

    /// All entries and their names, in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let key = Key {
                index: index as u32,
                generation: place.generation,
            };
            Some((key, place.entry.as_ref()?))
        })
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let entry = place.entry.take()?;
        // A place whose generations are used up is never used again.
        if let Some(next) = place.generation.checked_add(1) {
            place.generation = next;
            self.free.push(Reverse(key.index));
        }
        Some(entry)
    }

    /// The names of all entries.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let numbered = (0_u32..).zip(&self.places);
        let full = numbered.filter(|(_, place)| place.entry.is_some());
        full.map(|(index, place)| Key {
            index,
            generation: place.generation,
        })
        .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_entry_finds_nothing_in_its_old_place() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!((first.index, slab.len()), (second.index, 1));
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
    }

    /// Were a place at the end used again and again, nothing in front of it could be given back.
    #[test]
    fn new_entries_take_the_places_in_front_so_that_the_end_comes_free() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..10_000).map(|number| slab.insert(number)).collect();
        assert!(keys.iter().all(|key| slab.remove(*key).is_some()));
        let late: Vec<Key> = (0..100).map(|number| slab.insert(number)).collect();
        assert!(late.iter().all(|key| key.index < 100));
        slab.trim();
        assert_eq!((slab.places(), slab.len()), (100, 100));
    }

    #[test]
    fn a_table_that_shrank_knows_its_old_keys_for_strangers() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..10_000).map(|number| slab.insert(number)).collect();
        slab.trim();
        assert_eq!(slab.places(), 10_000, "all are in use");
        for key in &keys[1..] {
            slab.remove(*key).unwrap();
        }
        slab.trim();
        assert_eq!((slab.places(), slab.len()), (1, 1));
        assert!(slab.places.capacity() < 10);
        assert_eq!(slab.get(keys[0]), Some(&0));
        let fresh: Vec<Key> = (0..10_000).map(|number| slab.insert(number)).collect();
        assert!(keys[1..].iter().all(|old| slab.get(*old).is_none()));
        assert!(
            fresh
                .iter()
                .zip(0..)
                .all(|(key, number)| slab.get(*key) == Some(&number))
        );
    }
}
