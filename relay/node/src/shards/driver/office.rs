//! A shard's driver with its sockets' news, for whichever thread runs it.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use super::Driver;
use crate::shards::crew::{Room, Turn};
use crate::shards::mailbox::Bell;

/// News taken at once.
const EVENTS_MAX: usize = 1_024;

/// One thread at a time has it; the lock is for the compiler's sake, and so that a panic in one thread is seen by others.
pub(super) struct Office {
    desk: Mutex<Desk>,
    bell: Arc<Bell>,
    /// The descriptor of `Desk::poll`, for as long as that lives.
    epoll: i32,
}

struct Desk {
    driver: Driver,
    poll: Poll,
    events: Events,
}

impl Office {
    /// # Errors
    /// A listener cannot be watched.
    pub(super) fn new(mut driver: Driver, poll: Poll, bell: Arc<Bell>) -> io::Result<Self> {
        driver.take_up()?;
        Ok(Self {
            epoll: poll.as_raw_fd(),
            desk: Mutex::new(Desk {
                driver,
                poll,
                events: Events::with_capacity(EVENTS_MAX),
            }),
            bell,
        })
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, Desk>> {
        // A round broke off in another thread, which ends the relay as well.
        let broken = |_: PoisonError<_>| io::Error::other("its round panicked in another shard's thread");
        self.desk.lock().map_err(broken)
    }
}

impl Desk {
    /// Waits for news; being interrupted is none.
    fn look(&mut self, wait: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn round(&mut self) -> Turn {
        self.driver.round(&self.events);
        // What is due is told from now on, not from when the round began.
        self.driver.look_at_clock();
        let more = self.events.iter().nth(EVENTS_MAX - 1).is_some();
        self.events.clear();
        Turn {
            done: self.driver.is_done(),
            wait: self.driver.time_to_wait(),
            more,
        }
    }
}

impl Room for Office {
    fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.epoll), token, Interest::READABLE)
    }

    fn leave(&self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut SourceFd(&self.epoll))
    }

    fn turn(&self, news: bool) -> io::Result<Turn> {
        let mut desk = self.lock()?;
        if news {
            desk.look(Some(Duration::ZERO))?;
        }
        Ok(desk.round())
    }

    fn stay(&self, go_on: &mut dyn FnMut(Duration) -> bool) -> io::Result<bool> {
        let mut desk = self.lock()?;
        let mut wait = Some(Duration::ZERO);
        loop {
            // Whoever wants us elsewhere says so first and rings then.
            let quiet = self.bell.park();
            if !go_on(Duration::ZERO) {
                self.bell.rise();
                return Ok(false);
            }
            let began = Instant::now();
            let looked = desk.look(if quiet { wait } else { Some(Duration::ZERO) });
            self.bell.rise();
            looked?;
            let waited = began.elapsed();
            let turn = desk.round();
            if turn.done {
                return Ok(true);
            }
            wait = turn.wait;
            go_on(waited);
        }
    }
}
