//! Packed answers of a moment ago. Clients that bootstrap on the same consensus ask for the same batches of
//! microdescriptors, as C tor sorts them by digest before it cuts the list: so each batch is packed once, not for each.

use std::collections::{HashMap, VecDeque};

use super::compress::Encoding;
use super::store::Text;

/// Memory for them: 400 batches of C tor's clients.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which documents, by SHA-256 over their names in order, and how packed.
pub type Key = ([u8; 32], Encoding);

/// The oldest goes first.
#[derive(Debug, Default)]
pub struct Recent {
    packed: HashMap<Key, Text>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Recent {
    /// The same answer as before, if it is still here.
    pub fn get(&self, key: &Key) -> Option<Text> {
        self.packed.get(key).cloned()
    }

    /// Keeps an answer for the next asker.
    pub fn keep(&mut self, key: Key, text: &Text) {
        if text.len() > BYTES_MAX / 16 || self.packed.contains_key(&key) {
            return;
        }
        self.bytes += text.len();
        self.packed.insert(key, text.clone());
        self.order.push_back(key);
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.packed.remove(&oldest).map_or(0, |text| text.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_giants_are_not_kept() {
        let mut recent = Recent::default();
        let slice: Text = vec![0; BYTES_MAX / 16].into();
        for number in 0..17 {
            recent.keep(([number; 32], Encoding::Zstd), &slice);
        }
        assert!(recent.get(&([0; 32], Encoding::Zstd)).is_none());
        assert!(recent.get(&([16; 32], Encoding::Zstd)).is_some());
        assert!(recent.get(&([16; 32], Encoding::Gzip)).is_none());
        let giant: Text = vec![0; BYTES_MAX / 2].into();
        recent.keep(([99; 32], Encoding::Zstd), &giant);
        assert!(recent.get(&([99; 32], Encoding::Zstd)).is_none());
        assert!(recent.bytes <= BYTES_MAX && recent.order.len() == recent.packed.len());
    }
}
