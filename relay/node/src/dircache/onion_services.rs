//! Descriptors of onion services that were left with us (rend-spec, "Publishing"): a name, a text, a time. We cannot read
//! them, and write neither down.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use relay_formats::onion_descriptor::OnionDescriptor;

use super::store::Text;

/// Memory for them where torrc says nothing (`MaxHSDirCacheBytes`). C tor takes a fifth of MaxMemInQueues. On the public
/// network a directory holds some thousand descriptors of 15 KB.
pub const BYTES_MAX_DEFAULT: usize = 128 * 1024 * 1024;

/// What one costs beside its text.
const OVERHEAD_BYTES: usize = 200;

/// How often those whose time is over are cleared away.
const CLEAN_EVERY: Duration = Duration::from_secs(5 * 60);

/// All that we hold.
#[derive(Debug)]
pub struct OnionServices {
    held: HashMap<[u8; 32], Held>,
    bytes: usize,
    bytes_max: usize,
    cleaned: SystemTime,
    evicted_bytes: u64,
}

#[derive(Debug)]
struct Held {
    text: Text,
    revision: u64,
    expires: SystemTime,
    came: SystemTime,
    downloads: u64,
}

impl Held {
    fn bytes(&self) -> usize {
        self.text.len() + OVERHEAD_BYTES
    }
}

impl Default for OnionServices {
    fn default() -> Self {
        Self {
            held: HashMap::new(),
            bytes: 0,
            bytes_max: BYTES_MAX_DEFAULT,
            cleaned: SystemTime::UNIX_EPOCH,
            evicted_bytes: 0,
        }
    }
}

impl OnionServices {
    /// Changes the bound; what is too much goes at once.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.make_room(0);
    }

    /// Keeps a descriptor whose signatures hold. `false`: we have that revision or a later one.
    pub fn keep(&mut self, descriptor: &OnionDescriptor, text: Text, now: SystemTime) -> bool {
        self.clean(now);
        let name = descriptor.blinded.0;
        let older = self.held.get(&name).filter(|older| older.expires > now);
        if older.is_some_and(|older| older.revision >= descriptor.revision) {
            return false;
        }
        let downloads = older.map_or(0, |older| older.downloads);
        self.forget(&name);
        let fresh = Held {
            text,
            revision: descriptor.revision,
            expires: now + descriptor.lifetime,
            came: now,
            downloads,
        };
        self.make_room(fresh.bytes());
        self.bytes += fresh.bytes();
        self.held.insert(name, fresh);
        true
    }

    /// The descriptor of a blinded key.
    pub fn find(&mut self, blinded: &[u8; 32], now: SystemTime) -> Option<Text> {
        let held = self.held.get_mut(blinded).filter(|held| held.expires > now)?;
        held.downloads += 1;
        Some(Text::clone(&held.text))
    }

    /// How many, and their bytes; and the bytes of those that had to make room since the start.
    pub fn totals(&self) -> (usize, usize, u64) {
        (self.held.len(), self.bytes, self.evicted_bytes)
    }

    /// The least asked for go first, of these the oldest: a flood of descriptors that nobody wants pushes out itself.
    fn make_room(&mut self, bytes: usize) {
        let room = self.bytes_max.saturating_sub(bytes);
        if self.bytes <= room {
            return;
        }
        // A tenth more than is needed, so that a flood does not make each upload sort them all.
        let room = room.saturating_sub(self.bytes_max / 10);
        let mut by_use: Vec<(u64, SystemTime, [u8; 32])> = self
            .held
            .iter()
            .map(|(name, held)| (held.downloads, held.came, *name))
            .collect();
        by_use.sort_unstable();
        for (_, _, name) in by_use {
            if self.bytes <= room {
                return;
            }
            self.evicted_bytes += self.forget(&name) as u64;
        }
    }

    fn clean(&mut self, now: SystemTime) {
        // A clock set back cleans too.
        if now.duration_since(self.cleaned).is_ok_and(|since| since < CLEAN_EVERY) {
            return;
        }
        self.cleaned = now;
        self.held.retain(|_, held| held.expires > now);
        self.bytes = self.held.values().map(Held::bytes).sum();
    }

    fn forget(&mut self, name: &[u8; 32]) -> usize {
        let bytes = self.held.remove(name).map_or(0, |held| held.bytes());
        self.bytes -= bytes;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use relay_formats::fingerprint::Ed25519Identity;

    use super::*;

    const NOON: SystemTime = SystemTime::UNIX_EPOCH;
    const HOUR: Duration = Duration::from_secs(3_600);

    fn of(name: u8, revision: u64) -> OnionDescriptor {
        OnionDescriptor {
            blinded: Ed25519Identity([name; 32]),
            lifetime: 3 * HOUR,
            revision,
        }
    }

    fn text(bytes: usize) -> Text {
        vec![b'x'; bytes].into()
    }

    #[test]
    fn only_a_later_revision_takes_the_place() {
        let mut services = OnionServices::default();
        assert!(services.keep(&of(1, 5), text(10), NOON));
        assert!(!services.keep(&of(1, 5), text(20), NOON));
        assert!(!services.keep(&of(1, 4), text(20), NOON));
        assert!(services.keep(&of(1, 6), text(30), NOON));
        assert_eq!(services.find(&[1; 32], NOON).unwrap().len(), 30);
        assert_eq!(services.totals(), (1, 30 + OVERHEAD_BYTES, 0));
    }

    #[test]
    fn after_its_lifetime_nobody_finds_it_and_its_memory_is_free() {
        let mut services = OnionServices::default();
        services.keep(&of(1, 5), text(10), NOON);
        assert!(services.find(&[1; 32], NOON + 3 * HOUR).is_none());
        assert!(
            services.keep(&of(1, 1), text(10), NOON + 3 * HOUR),
            "a service that lost its counter"
        );
        services.keep(&of(2, 1), text(10), NOON + 7 * HOUR);
        assert_eq!(services.totals().0, 1);
    }

    #[test]
    fn trove_40996_a_flood_pushes_out_itself_and_not_what_people_ask_for() {
        let mut services = OnionServices::default();
        services.set_bytes_max(20 * (1_000 + OVERHEAD_BYTES));
        services.keep(&of(255, 1), text(1_000), NOON);
        services.find(&[255; 32], NOON);
        for name in 0..250 {
            assert!(services.keep(&of(name, 1), text(1_000), NOON + Duration::from_secs(name.into())));
            assert!(services.totals().1 <= 20 * (1_000 + OVERHEAD_BYTES));
        }
        assert!(services.find(&[255; 32], NOON).is_some());
        assert!(services.find(&[0; 32], NOON).is_none());
        assert!(services.totals().2 > 200 * 1_000);
    }
}
