//! A fuzzer's bytes, read as decisions.

/// Reads decisions from the front; behind the end everything is zero, so that any bytes are some story.
pub struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    /// A tape at its beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Up to `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// `N` bytes, with zeros behind the end.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.take(N);
        let mut array = [0; N];
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// One of two.
    pub fn coin(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number below `end`, which is 1 to 65536.
    pub fn below(&mut self, end: usize) -> usize {
        let drawn: usize = if end <= 256 {
            self.u8().into()
        } else {
            self.u16().into()
        };
        drawn % end.max(1)
    }

    /// A run of bytes that says its own length, of two bytes.
    pub fn run(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(length.into())
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether all has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// `bytes` with changes drawn from the tape, and whether there are any: up to eight places get another value, and the end
/// may be cut off.
pub fn edited(bytes: &[u8], tape: &mut Tape<'_>) -> (Vec<u8>, bool) {
    let mut edited = bytes.to_vec();
    for _ in 0..tape.below(8) {
        let (place, value) = (tape.below(bytes.len().clamp(1, 65_536)), tape.u8());
        if let Some(byte) = edited.get_mut(place) {
            *byte ^= value;
        }
    }
    if tape.u8() == 0xff {
        edited.truncate(tape.below(bytes.len().clamp(1, 65_536)));
    }
    let changed = edited != bytes;
    (edited, changed)
}
