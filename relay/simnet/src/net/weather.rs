//! Weather: what lies between the ends. Every link, pool and connection takes its time, drawn from a seed; each direction
//! of a link keeps its order, as TLS does, and nothing else keeps any.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{End, Event};

/// A network in which things take their time.
pub(super) struct Weather {
    dice: StdRng,
    /// What is on its way, by the time of its arrival; the number keeps two of the same moment apart.
    on_the_way: BTreeMap<(Duration, u64), Event>,
    count: u64,
    /// When the last thing on a direction of a link arrives: the next one comes later.
    last_arrival: HashMap<End, Duration>,
    /// Each direction's usual time, drawn when it is first used.
    latency: HashMap<End, Duration>,
    /// One connection in so many is refused, and one in so many is never answered.
    pub(super) refused_one_in: u32,
}

impl Weather {
    pub(super) fn new(seed: u64, refused_one_in: u32) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            on_the_way: BTreeMap::new(),
            count: 0,
            last_arrival: HashMap::new(),
            latency: HashMap::new(),
            refused_one_in,
        }
    }

    /// Takes what has been said now; it arrives later, or never.
    pub(super) fn take(&mut self, now: Duration, event: Event) {
        let due = match &event {
            Event::Bytes { to, .. } => self.on_link(now, *to),
            Event::Down { end } => self.on_link(now, *end),
            // A socket takes bytes at once, or is full for a moment.
            Event::Write { .. } => now + self.rarely(10, 0..=40_000),
            Event::Exported { .. } => now + self.rarely(10, 0..=5_000),
            // The other thread is busy with something else.
            Event::Mail { .. } => now + self.rarely(4, 0..=3_000),
            // Workers finish in any order.
            Event::Answered { .. } => now + self.micros(50..=30_000),
            Event::Connect { .. } => {
                if self.dice.random_ratio(1, self.refused_one_in * 4) {
                    return;
                }
                now + self.micros(1_000..=300_000)
            }
        };
        self.count += 1;
        self.on_the_way.insert((due, self.count), event);
    }

    fn on_link(&mut self, now: Duration, to: End) -> Duration {
        let dice = &mut self.dice;
        let usual = *self
            .latency
            .entry(to)
            .or_insert_with(|| Duration::from_micros(dice.random_range(200..=80_000)));
        let stall = self.rarely(200, 0..=4_000_000);
        let due = now + usual + stall + self.micros(0..=3_000);
        let last = self.last_arrival.entry(to).or_default();
        *last = due.max(*last + Duration::from_micros(1));
        *last
    }

    fn micros(&mut self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_micros(self.dice.random_range(range))
    }

    fn rarely(&mut self, one_in: u32, range: std::ops::RangeInclusive<u64>) -> Duration {
        if self.dice.random_ratio(1, one_in) {
            self.micros(range)
        } else {
            Duration::ZERO
        }
    }

    /// Whether a connection that has got through is refused at its end.
    pub(super) fn refuses(&mut self) -> bool {
        self.dice.random_ratio(1, self.refused_one_in)
    }

    /// Room that a socket has, in bytes.
    pub(super) fn room(&mut self, bytes_max: usize) -> usize {
        match self.dice.random_ratio(1, 3) {
            true => self.dice.random_range(514..=bytes_max),
            false => bytes_max,
        }
    }

    /// When the next thing arrives.
    pub(super) fn next(&self) -> Option<Duration> {
        self.on_the_way.first_key_value().map(|((due, _), _)| *due)
    }

    /// What arrives until now.
    pub(super) fn arrived(&mut self, now: Duration) -> Option<Event> {
        let entry = self.on_the_way.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Whatever a relay's process had under way ends with it.
    pub(super) fn forget_work_of(&mut self, crashed: usize) {
        self.on_the_way.retain(|_, event| match event {
            Event::Write { relay, .. }
            | Event::Exported { relay, .. }
            | Event::Connect { relay, .. }
            | Event::Mail { relay, .. }
            | Event::Answered { relay, .. } => *relay != crashed,
            Event::Bytes { .. } | Event::Down { .. } => true,
        });
    }
}
