//! All shards by one thread.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry, Token};

use super::shift::Shift;
use super::{Crew, Holder, NO_REST, Post, ROUNDS_IN_TURNS, Sharing, TOO_BUSY, WINDOW_TOGETHER};

impl Crew {
    /// Runs the first shard and all that are lent, on the first's thread, until that is too much for it or the first has ended.
    ///
    /// # Errors
    /// A shard cannot go on.
    pub(super) fn run_together(&self, poll: &mut Poll) -> io::Result<()> {
        let mut members: Vec<Member<'_>> = self.posts.iter().map(Member::new).collect();
        let ended = self.run_all(poll, &mut members);
        for member in members.iter().filter(|member| member.taken && !member.ended) {
            if let Some(room) = member.post.room() {
                let _ = room.leave(poll.registry());
            }
        }
        ended
    }

    fn run_all(&self, poll: &mut Poll, members: &mut [Member<'_>]) -> io::Result<()> {
        let mut events = Events::with_capacity(self.posts.len().max(1));
        let refused = |error: io::Error| {
            tracing::warn!(
                "One thread cannot wait for the sockets of all shards: {error}. Each shard's own serves it from now on."
            );
            self.refused.store(true, Ordering::Relaxed);
        };
        if let Some(Err(error)) = members.first_mut().map(|own| own.take(poll.registry(), Token(0))) {
            refused(error);
            return Ok(());
        }
        let (mut shift, mut seen) = (Shift::begin(WINDOW_TOGETHER), None);
        loop {
            let changes = self.changes.load(Ordering::SeqCst);
            if seen.replace(changes) != Some(changes) {
                for (number, member) in members.iter_mut().enumerate().skip(1) {
                    if let Err(error) = member.look(poll.registry(), Token(number)) {
                        refused(error);
                        return Ok(());
                    }
                }
            }
            for member in members.iter_mut() {
                member.turn(poll.registry())?;
            }
            // What a later one left for an earlier one.
            for member in members.iter_mut().filter(|member| member.post.bell.has_post()) {
                member.turn(poll.registry())?;
            }
            // Nobody could ring for us any more: the others end by themselves.
            if members.first().is_none_or(|own| own.ended) {
                return Ok(());
            }
            let now = Instant::now();
            let running = || members.iter().filter(|member| member.taken && !member.ended);
            let due = running().filter_map(|member| member.due).min();
            let mut wait = due.map(|due| due.saturating_duration_since(now));
            // All are parked, whoever finds post; and a thread that lends us its shard rings for the first.
            let posts = running().filter(|member| !member.post.bell.park()).count();
            if posts > 0 || self.changes.load(Ordering::SeqCst) != changes || running().any(|member| member.news) {
                wait = Some(Duration::ZERO);
            }
            let looked = poll.poll(&mut events, wait);
            running().for_each(|member| member.post.bell.rise());
            match looked {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => {
                    other?;
                    for event in &events {
                        if let Some(member) = members.get_mut(event.token().0) {
                            member.news = true;
                        }
                    }
                }
            }
            let spent = shift.note(now.elapsed());
            let too_much = match self.sharing {
                Sharing::AsLoadWants => spent.is_some_and(|spent| spent.used >= TOO_BUSY || spent.waited <= NO_REST),
                Sharing::InTurns => shift.rounds >= ROUNDS_IN_TURNS,
                Sharing::Apart => true,
            };
            if too_much {
                return Ok(());
            }
        }
    }
}

/// A shard that the first thread runs, or could.
struct Member<'c> {
    post: &'c Post,
    taken: bool,
    ended: bool,
    /// Its sockets have some.
    news: bool,
    due: Option<Instant>,
}

impl<'c> Member<'c> {
    fn new(post: &'c Post) -> Self {
        Self {
            post,
            taken: false,
            ended: false,
            news: false,
            due: None,
        }
    }

    /// Takes it over if it is lent now.
    fn look(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let holder = *self.post.holder();
        match holder {
            Holder::Lead if !self.taken => self.take(registry, token),
            Holder::Nobody => {
                self.ended = true;
                Ok(())
            }
            Holder::Lead | Holder::Own => Ok(()),
        }
    }

    /// Takes it over, whatever may have come meanwhile.
    fn take(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let Some(room) = self.post.room() else {
            return Ok(());
        };
        room.watch(registry, token)?;
        (self.taken, self.news) = (true, true);
        Ok(())
    }

    /// A round, if there is anything to do. After its last the shard is nobody's, and its own thread may end.
    fn turn(&mut self, registry: &Registry) -> io::Result<()> {
        let is_due = || self.due.is_some_and(|due| due <= Instant::now());
        let wanted = self.taken && !self.ended && (self.news || self.post.bell.has_post() || is_due());
        let Some(room) = wanted.then(|| self.post.room()).flatten() else {
            return Ok(());
        };
        let turn = room.turn(self.news)?;
        self.news = turn.more;
        self.due = turn.wait.map(|wait| Instant::now() + wait);
        if turn.done {
            self.ended = true;
            let _ = room.leave(registry);
            *self.post.holder() = Holder::Nobody;
            self.post.changed.notify_all();
        }
        Ok(())
    }
}
