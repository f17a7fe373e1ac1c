//! Answers that are still good, and questions that are under way: who asks what another has asked waits for the same
//! answer.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::lifetime::LIFETIME_MAX;

/// Questions under way at once. Each holds a place in the resolver for some seconds; our own choice.
const PENDING_MAX: usize = 1_024;
/// Streams that may wait for one answer.
const WAITING_MAX: usize = 1_024;
/// Answers remembered, about 4 MB. Full: the one that ends first goes.
const REMEMBERED_MAX: usize = 20_000;

/// Memory of one answer or question beside its texts: its place in tables that are half full, and in the order of ends.
const PLACE_BYTES: usize = 2 * (size_of::<(Key, Answer)>() + size_of::<(Duration, Key)>());

/// What is asked for. No `Debug`: destinations are never logged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The addresses of a name, sound by its syntax, in small letters.
    Name(Arc<str>),
    /// The name of an address.
    Address(IpAddr),
}

impl Key {
    /// The question for a name; letter case does not matter.
    pub fn name(name: &str) -> Self {
        Self::Name(name.to_ascii_lowercase().into())
    }

    /// Memory beside its own: that of the name.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Name(name) => name.len(),
            Self::Address(_) => 0,
        }
    }
}

/// What the DNS said.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// Addresses, never none.
    Addresses(Arc<[IpAddr]>),
    /// The name of an address, sound by its syntax.
    Name(Arc<str>),
    /// There is no answer and will be none for a while.
    Nothing,
}

impl Found {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Addresses(addresses) => size_of_val::<[IpAddr]>(addresses),
            Self::Name(name) => name.len(),
            Self::Nothing => 0,
        }
    }
}

/// How a question ended.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To be remembered, and for how many seconds: after the noise.
    Found(Found, u32),
    /// No word from any server. Not remembered: the next one may ask again.
    Silence,
}

impl Outcome {
    /// Memory beside its own: that of what was found.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Found(found, _) => found.text_bytes(),
            Self::Silence => 0,
        }
    }
}

/// What follows from asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is known; the client may remember it for so many seconds.
    Known(Found, u32),
    /// Ask the resolver; the answer goes to [`Cache::answered`].
    Ask,
    /// Another has asked; wait with it.
    Wait,
    /// Too many wait.
    Refused,
}

struct Answer {
    found: Found,
    ttl_seconds: u32,
    until: Duration,
}

fn answer_bytes(key: &Key, found: &Found) -> usize {
    PLACE_BYTES + key.text_bytes() + found.text_bytes()
}

fn question_bytes<W>(key: &Key, waiting: usize) -> usize {
    PLACE_BYTES + key.text_bytes() + waiting * size_of::<W>()
}

/// All answers and questions of one shard. `W` names who waits.
pub struct Cache<W> {
    known: HashMap<Key, Answer>,
    ends: BTreeSet<(Duration, Key)>,
    pending: HashMap<Key, Vec<W>>,
    bytes: usize,
}

impl<W> Default for Cache<W> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            ends: BTreeSet::new(),
            pending: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<W: PartialEq> Cache<W> {
    /// `who` wants to know `key`.
    pub fn ask(&mut self, now: Duration, key: &Key, who: W) -> Asked {
        self.forget_old(now);
        if let Some(answer) = self.known.get(key) {
            return Asked::Known(answer.found.clone(), answer.ttl_seconds);
        }
        if let Some(waiting) = self.pending.get_mut(key) {
            if waiting.len() >= WAITING_MAX {
                return Asked::Refused;
            }
            waiting.push(who);
            self.bytes += size_of::<W>();
            return Asked::Wait;
        }
        if self.pending.len() >= PENDING_MAX {
            return Asked::Refused;
        }
        self.pending.insert(key.clone(), vec![who]);
        self.bytes += question_bytes::<W>(key, 1);
        Asked::Ask
    }

    /// The resolver has done with `key`: those who wait for it. A question that nobody asked changes nothing.
    pub fn answered(&mut self, now: Duration, key: &Key, outcome: &Outcome) -> Vec<W> {
        self.forget_old(now);
        let Some(waiting) = self.pending.remove(key) else {
            return Vec::new();
        };
        self.gave(question_bytes::<W>(key, waiting.len()));
        if let Outcome::Found(found, ttl_seconds) = outcome {
            self.remember(now, key, found.clone(), *ttl_seconds);
        }
        waiting
    }

    /// `who` waits no longer. The question stays under way: its place in the resolver is taken until it is answered.
    pub fn give_up(&mut self, key: &Key, who: &W) {
        if let Some(waiting) = self.pending.get_mut(key) {
            let before = waiting.len();
            waiting.retain(|one| one != who);
            let gone = before - waiting.len();
            self.gave(gone * size_of::<W>());
        }
    }

    /// Answers remembered, and questions under way.
    pub fn sizes(&self) -> (usize, usize) {
        (self.known.len(), self.pending.len())
    }

    /// About how much memory all of them take; it counts against `MaxMemInQueues`.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets answers, those that end first before others, until all takes so much or none is left; how many bytes that
    /// gave.
    pub fn shrink_to(&mut self, bytes_max: usize) -> usize {
        let before = self.bytes;
        while self.bytes > bytes_max && self.forget_soonest() {}
        before - self.bytes
    }

    fn remember(&mut self, now: Duration, key: &Key, found: Found, ttl_seconds: u32) {
        if self.known.len() >= REMEMBERED_MAX {
            self.forget_soonest();
        }
        let until = now + Duration::from_secs(ttl_seconds.into()).min(LIFETIME_MAX);
        let answer = Answer {
            found,
            ttl_seconds,
            until,
        };
        self.bytes += answer_bytes(key, &answer.found);
        self.ends.insert((until, key.clone()));
        if let Some(before) = self.known.insert(key.clone(), answer) {
            self.gave(answer_bytes(key, &before.found));
            if before.until != until {
                self.ends.remove(&(before.until, key.clone()));
            }
        }
    }

    fn forget_old(&mut self, now: Duration) {
        while self.ends.first().is_some_and(|(until, _)| *until <= now) {
            self.forget_soonest();
        }
    }

    fn gave(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether there was one.
    fn forget_soonest(&mut self) -> bool {
        let Some((_, key)) = self.ends.pop_first() else {
            return false;
        };
        if let Some(answer) = self.known.remove(&key) {
            self.gave(answer_bytes(&key, &answer.found));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(50);

    fn found() -> Found {
        Found::Addresses([IpAddr::from([192, 0, 2, 1])].into())
    }

    fn after(seconds: u64) -> Duration {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn many_who_ask_at_once_ask_once() {
        let mut cache = Cache::default();
        assert!(cache.ask(START, &Key::name("example.com"), 1) == Asked::Ask);
        assert!(cache.ask(START, &Key::name("EXAMPLE.com"), 2) == Asked::Wait);
        assert!(cache.ask(START, &Key::name("example.com"), 3) == Asked::Wait);
        cache.give_up(&Key::name("example.com"), &2);
        let waiting = cache.answered(START, &Key::name("example.com"), &Outcome::Found(found(), 300));
        assert_eq!(waiting, [1, 3]);
        assert!(cache.ask(START, &Key::name("example.com"), 4) == Asked::Known(found(), 300));
    }

    #[test]
    fn an_answer_is_good_until_its_time_and_never_for_more_than_three_hours() {
        let mut cache = Cache::default();
        for (name, ttl) in [("short", 300), ("long", u32::MAX)] {
            cache.ask(START, &Key::name(name), 0);
            cache.answered(START, &Key::name(name), &Outcome::Found(found(), ttl));
        }
        assert!(cache.ask(after(299), &Key::name("short"), 0) == Asked::Known(found(), 300));
        assert!(cache.ask(after(300), &Key::name("short"), 0) == Asked::Ask);
        assert!(matches!(
            cache.ask(after(10_799), &Key::name("long"), 0),
            Asked::Known(..)
        ));
        assert!(cache.ask(after(10_800), &Key::name("long"), 0) == Asked::Ask);
        assert_eq!(cache.sizes(), (0, 2));
    }

    #[test]
    fn silence_is_not_remembered_but_nothing_is() {
        let (mut cache, key) = (Cache::default(), Key::Address(IpAddr::from([192, 0, 2, 1])));
        cache.ask(START, &key, 0);
        assert_eq!(cache.answered(START, &key, &Outcome::Silence), [0]);
        assert!(cache.ask(START, &key, 1) == Asked::Ask);
        cache.answered(START, &key, &Outcome::Found(Found::Nothing, 60));
        assert!(cache.ask(START, &key, 2) == Asked::Known(Found::Nothing, 60));
    }

    #[test]
    fn nobody_can_fill_it_beyond_its_limits() {
        let mut cache = Cache::default();
        for number in 0..PENDING_MAX {
            assert!(cache.ask(START, &Key::name(&format!("n{number}")), 0) == Asked::Ask);
        }
        assert!(cache.ask(START, &Key::name("one-more"), 0) == Asked::Refused);
        for _ in 1..WAITING_MAX {
            assert!(cache.ask(START, &Key::name("n0"), 0) == Asked::Wait);
        }
        assert!(cache.ask(START, &Key::name("n0"), 0) == Asked::Refused);

        let mut cache = Cache::default();
        for number in 0..REMEMBERED_MAX + 10 {
            let key = Key::name(&format!("n{number}"));
            cache.ask(START, &key, 0);
            let outcome = Outcome::Found(found(), if number == 5 { 60 } else { 3_600 });
            cache.answered(START, &key, &outcome);
        }
        assert_eq!((cache.sizes(), cache.ends.len()), ((REMEMBERED_MAX, 0), REMEMBERED_MAX));
        assert!(
            cache.ask(START, &Key::name("n5"), 0) == Asked::Ask,
            "what ends first goes first"
        );
    }

    #[test]
    fn memory_is_counted_and_given_back_and_what_ends_first_makes_room() {
        let mut cache = Cache::default();
        for number in 0..100_u32 {
            let key = Key::name(&format!("{number:03}.{}", "x".repeat(100)));
            cache.ask(START, &key, number);
            cache.ask(START, &key, number + 1);
            let asked = cache.bytes();
            cache.give_up(&key, &number);
            assert_eq!(asked - cache.bytes(), 4);
            cache.answered(START, &key, &Outcome::Found(found(), 300 + number));
        }
        let full = cache.bytes();
        assert!((100 * (104 + 17)..100 * 1_000).contains(&full), "{full}");
        assert_eq!(cache.shrink_to(full / 2), full - cache.bytes());
        assert_eq!(cache.sizes(), (50, 0));
        let last = Key::name(&format!("099.{}", "x".repeat(100)));
        assert!(matches!(cache.ask(START, &last, 0), Asked::Known(..)));
        // Asked anew after its end, answered by silence.
        assert!(cache.ask(after(10_000), &last, 0) == Asked::Ask);
        cache.answered(after(10_000), &last, &Outcome::Silence);
        assert_eq!((cache.bytes(), cache.shrink_to(0)), (0, 0));
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_not_believed() {
        let mut cache: Cache<u8> = Cache::default();
        cache.answered(START, &Key::name("example.com"), &Outcome::Found(found(), 300));
        assert_eq!(cache.sizes(), (0, 0));
    }
}
