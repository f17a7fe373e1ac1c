//! Which thread runs which shard.
//!
//! While one thread suffices, the first shard's runs them all: what shards carry for each other then wakes nobody, and to wake a
//! thread costs more than a batch of cells does. When it has little rest left, each shard's own thread takes it over; when all of
//! them together have little to do, they give them back. Shards, and what belongs to which, stay as they are.
//!
//! ```text
//!            together: thread 0 ─▶ shard 0, 1, 2 …         others sleep
//!  busy ──▶  apart:    thread n ─▶ shard n                 ◀── all calm
//! ```
//!
//! Which of the two is wanted stands in one flag; only the first thread changes it. Each shard besides says who has it ([`Holder`]):
//! its own thread lends it and gets it back, nobody takes it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use mio::{Poll, Registry, Token};
use relay_engine::door::ShardId;

use super::mailbox::Bell;

mod shift;
mod together;

use shift::Shift;

/// How the shards' work is shared out among their threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// By one thread while that suffices.
    AsLoadWants,
    /// Each by its own, always.
    Apart,
    /// Now so, now so, every few rounds: for tests.
    InTurns,
}

/// A thread is judged after so long, while one runs all.
const WINDOW_TOGETHER: Duration = Duration::from_millis(100);
/// The same, while each runs its own: to come together has time.
const WINDOW_APART: Duration = Duration::from_secs(1);
/// Of a processor, in thousandths: more than this is too much for one thread.
const TOO_BUSY: u32 = 600;
/// Of its time, in thousandths: a thread that waits less than this has no rest, whoever takes the processor from it.
const NO_REST: u32 = 100;
/// Of a processor, in thousandths: what all threads use together when one suffices for sure.
const CALM: u32 = 250;
/// Rounds between two changes that tests want.
const ROUNDS_IN_TURNS: u32 = 16;

/// Where a shard's rounds are run, by one thread at a time.
pub(super) trait Room: Send + Sync {
    /// Has `registry` tell of it when its sockets have news.
    ///
    /// # Errors
    /// The system refuses.
    fn watch(&self, registry: &Registry, token: Token) -> io::Result<()>;

    /// The end of that.
    ///
    /// # Errors
    /// The system refuses.
    fn leave(&self, registry: &Registry) -> io::Result<()>;

    /// One round without waiting, with the `news` of its sockets if there are any.
    ///
    /// # Errors
    /// The shard cannot go on.
    fn turn(&self, news: bool) -> io::Result<Turn>;

    /// Rounds with waiting between, until the shard is done (`true`) or `go_on`, which is told of each wait and asked before
    /// the next, says `false`. The first round is at once, as whoever ran the shard before may have left something.
    ///
    /// # Errors
    /// The shard cannot go on.
    fn stay(&self, go_on: &mut dyn FnMut(Duration) -> bool) -> io::Result<bool>;
}

/// What comes after a round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// The shard has ended.
    pub(super) done: bool,
    /// When the next is due if nothing comes; none is never.
    pub(super) wait: Option<Duration>,
    /// There is more news than it could take.
    pub(super) more: bool,
}

/// Whose a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Its thread's, whether or not that has begun.
    Own,
    /// The first thread's, at once or as soon as it looks.
    Lead,
    /// Nobody's: it has ended.
    Nobody,
}

/// A shard, as the crew sees it.
struct Post {
    bell: Arc<Bell>,
    /// Its thread's, for as long as that lives.
    room: OnceLock<Weak<dyn Room>>,
    holder: Mutex<Holder>,
    changed: Condvar,
    /// When its thread was judged last while apart, and the thousandths of a processor that it used.
    used: Mutex<Option<(Instant, u32)>>,
}

impl Post {
    fn new(bell: Arc<Bell>) -> Self {
        Self {
            bell,
            room: OnceLock::new(),
            holder: Mutex::new(Holder::Own),
            changed: Condvar::new(),
            used: Mutex::new(None),
        }
    }

    fn room(&self) -> Option<Arc<dyn Room>> {
        self.room.get()?.upgrade()
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_used(&self, used: u32) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), used));
    }

    /// Thousandths of a processor. Who has not been judged for two windows had no round to be judged in.
    fn used(&self) -> u32 {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.filter(|(when, _)| when.elapsed() < 2 * WINDOW_APART)
            .map_or(0, |(_, used)| used)
    }
}

/// The threads of all shards of a relay.
pub(super) struct Crew {
    posts: Vec<Post>,
    sharing: Sharing,
    apart: AtomicBool,
    /// The system would not have it that one thread waits for all.
    refused: AtomicBool,
    /// Grows whenever a shard changes hands by another thread's doing than the first's.
    changes: AtomicU32,
}

impl Crew {
    pub(super) fn new(bells: Vec<Arc<Bell>>, sharing: Sharing) -> Self {
        let alone = bells.len() < 2;
        Self {
            posts: bells.into_iter().map(Post::new).collect(),
            sharing,
            apart: AtomicBool::new(alone || sharing == Sharing::Apart),
            refused: AtomicBool::new(false),
            changes: AtomicU32::new(0),
        }
    }

    /// A shard's thread, from its first round until the shard has ended.
    ///
    /// # Errors
    /// The shard cannot go on.
    pub(super) fn work(&self, shard: ShardId, room: Arc<dyn Room>) -> io::Result<()> {
        let Some(post) = self.posts.get(usize::from(shard.0)) else {
            return Err(io::Error::other("a shard that nobody counts"));
        };
        let _ = post.room.set(Arc::downgrade(&room));
        match shard {
            ShardId(0) => self.lead(post, &*room),
            _ => self.follow(post, &*room),
        }
    }

    fn is_apart(&self) -> bool {
        self.apart.load(Ordering::SeqCst)
    }

    fn follow(&self, post: &Post, room: &dyn Room) -> io::Result<()> {
        // However this thread ends, the first waits for it no more.
        let _ends = Ends(self, post);
        loop {
            if self.lend(post) {
                self.tell_lead();
            }
            let mut holder = post.holder();
            while *holder == Holder::Lead {
                holder = post.changed.wait(holder).unwrap_or_else(PoisonError::into_inner);
            }
            if *holder == Holder::Nobody {
                return Ok(());
            }
            drop(holder);
            let mut shift = Shift::begin(WINDOW_APART);
            let ended = room.stay(&mut |waited| {
                if let Some(spent) = shift.note(waited) {
                    post.note_used(spent.used);
                }
                self.is_apart()
            })?;
            if ended {
                return Ok(());
            }
        }
    }

    /// Whether that is wanted.
    fn lend(&self, post: &Post) -> bool {
        // The flag is looked at under the lock: who gives all back sets it first, and then either we see it or it sees us.
        let mut holder = post.holder();
        let lent = !self.is_apart();
        if lent {
            *holder = Holder::Lead;
        }
        lent
    }

    /// The first thread looks at who has what before it waits again.
    fn tell_lead(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if let Some(lead) = self.posts.first() {
            lead.bell.ring();
        }
    }

    fn lead(&self, own: &Post, room: &dyn Room) -> io::Result<()> {
        // However this thread ends, nobody else waits for it.
        let _gives = GivesBack(self);
        // Made once: when the relay grows calm after a flood there may be no descriptor left.
        let mut poll = Poll::new()?;
        loop {
            if !self.is_apart() {
                self.run_together(&mut poll)?;
                self.give_back();
            }
            if *own.holder() == Holder::Nobody {
                return Ok(());
            }
            let mut shift = Shift::begin(WINDOW_APART);
            let ended = room.stay(&mut |waited| {
                if let Some(spent) = shift.note(waited) {
                    own.note_used(spent.used);
                    if self.may_come_together() {
                        self.apart.store(false, Ordering::SeqCst);
                    }
                }
                if self.sharing == Sharing::InTurns && shift.rounds >= ROUNDS_IN_TURNS && self.posts.len() > 1 {
                    self.apart.store(false, Ordering::SeqCst);
                }
                self.is_apart()
            })?;
            if ended {
                return Ok(());
            }
            // Those who wait see that they shall come.
            self.posts.iter().for_each(|post| post.bell.ring());
        }
    }

    fn may_come_together(&self) -> bool {
        let all: u32 = self.posts.iter().map(Post::used).sum();
        self.posts.len() > 1
            && !self.refused.load(Ordering::Relaxed)
            && self.sharing == Sharing::AsLoadWants
            && all <= CALM
    }

    /// Each shard to its own thread.
    fn give_back(&self) {
        self.apart.store(true, Ordering::SeqCst);
        for post in &self.posts {
            let mut holder = post.holder();
            if *holder == Holder::Lead {
                *holder = Holder::Own;
                post.changed.notify_all();
            }
        }
    }
}

/// Says of a shard that it has ended when it is dropped.
struct Ends<'c>(&'c Crew, &'c Post);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        *self.1.holder() = Holder::Nobody;
        self.0.tell_lead();
    }
}

/// Gives all back when it is dropped.
struct GivesBack<'c>(&'c Crew);

impl Drop for GivesBack<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}
