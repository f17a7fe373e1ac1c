//! The engines of one relay, and the mailboxes between them.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use relay_engine::door::{Load, ShardId};
use relay_engine::dos::Commons;
use relay_engine::{Engine, Input, Now, Outbox, Tally};

/// One relay's engines, by shard.
pub struct Shards {
    engines: Vec<Engine>,
    /// What they share.
    pub commons: Commons,
    /// What is on its way from one to another, in order.
    pub(crate) mail: BTreeMap<(ShardId, ShardId), VecDeque<Load>>,
}

impl Shards {
    pub(crate) fn new(dice: &mut StdRng, shards: NonZeroU16) -> Self {
        let commons = Commons::new(dice.random());
        let engine = |own| {
            let mut engine = Engine::of_several(dice.random(), ShardId(own), shards);
            engine.share(commons.clone());
            engine
        };
        Self {
            engines: (0..shards.get()).map(engine).collect(),
            commons,
            mail: BTreeMap::new(),
        }
    }

    /// As many that know of nothing yet.
    pub(crate) fn anew(&self, dice: &mut StdRng) -> Self {
        let shards = u16::try_from(self.count()).ok().and_then(NonZeroU16::new);
        Self::new(dice, shards.unwrap_or(NonZeroU16::MIN))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.engines.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.engines.len() as u16).map(ShardId)
    }

    /// Tells the first of them something: for who knows that there is no other.
    pub fn handle(&mut self, now: Now, input: Input<'_>, outbox: &mut Outbox) {
        if let Some(first) = self.engines.first_mut() {
            first.handle(now, input, outbox);
        }
    }

    pub(crate) fn get_mut(&mut self, shard: ShardId) -> Option<&mut Engine> {
        self.engines.get_mut(usize::from(shard.0))
    }

    /// Their sums. A circuit is counted where it lives.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.engines.iter().for_each(|engine| sum += &engine.tally());
        sum
    }

    /// Cells in all their queues, and on their way between them.
    pub fn cells_waiting(&self) -> usize {
        let bytes: usize = self.mail.values().flatten().map(Load::cell_bytes).sum();
        self.engines.iter().map(Engine::cells_waiting).sum::<usize>() + bytes / 509
    }

    /// Conflux sets that end here.
    pub fn conflux_sets(&self) -> usize {
        self.engines.iter().map(Engine::conflux_sets).sum()
    }

    /// What waits in all their queues counts so many bytes.
    pub fn queued_bytes(&self) -> u64 {
        self.commons.queued_bytes()
    }

    /// Circuits of one shard that have a leg on another.
    pub fn guests(&self) -> usize {
        self.engines.iter().map(Engine::guests).sum()
    }

    /// The earliest of their deadlines.
    pub fn deadline(&self) -> Option<Duration> {
        self.engines.iter().filter_map(Engine::deadline).min()
    }
}
