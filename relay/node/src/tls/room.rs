//! Memory that is kept from batch to batch.

/// Bytes whose front part counts. The rest has been written before and is written over: kept from batch to batch, nothing is
/// cleared that is about to be written anyway.
#[derive(Default)]
pub struct Room {
    bytes: Vec<u8>,
    filled: usize,
}

impl Room {
    /// What counts.
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// What counts, to be changed where it lies.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.filled).unwrap_or_default()
    }

    /// Nothing counts any more; the memory stays.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Lets `write` append to what `bytes` holds.
    pub(super) fn append<T>(bytes: &mut Vec<u8>, write: impl FnOnce(&mut Self) -> T) -> T {
        let filled = bytes.len();
        let mut room = Self {
            bytes: std::mem::take(bytes),
            filled,
        };
        let result = write(&mut room);
        room.bytes.truncate(room.filled);
        *bytes = room.bytes;
        result
    }

    /// The next `length` bytes behind what counts, with anything in them. They count once they are [`Room::keep`]t.
    pub(super) fn ahead(&mut self, length: usize) -> &mut [u8] {
        let until = self.filled + length;
        if self.bytes.len() < until {
            self.bytes.resize(until, 0);
        }
        self.bytes.get_mut(self.filled..until).unwrap_or_default()
    }

    /// The next `length` bytes count.
    pub(super) fn keep(&mut self, length: usize) {
        self.filled = (self.filled + length).min(self.bytes.len());
    }

    /// Appends `bytes`.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.ahead(bytes.len()).copy_from_slice(bytes);
        self.keep(bytes.len());
    }

    /// Appends what `write` writes; `write` says how much room it needs where it has too little, or that it cannot.
    pub(super) fn write(&mut self, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> Option<()> {
        for _ in 0..2 {
            match write(self.bytes.get_mut(self.filled..).unwrap_or_default()) {
                Ok(length) => {
                    self.keep(length);
                    return Some(());
                }
                Err(Some(required)) => {
                    self.ahead(required);
                }
                Err(None) => break,
            }
        }
        None
    }
}
