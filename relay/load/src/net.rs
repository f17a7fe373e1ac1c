//! All links, on one thread.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use relay_node::link;

use crate::handshake::Part;
use crate::link::{Link, read_buffer};
use crate::target::{Played, Target};

const LISTENER: Token = Token(usize::MAX);

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The links and the listener behind which we are the next relay.
pub(crate) struct Net {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    pub(crate) links: Vec<Link>,
    before: Played,
    behind: Played,
    buffer: Vec<u8>,
}

impl Net {
    pub(crate) fn new(target: &Target) -> Result<Self> {
        let (before, behind) = (target.before()?, target.behind()?);
        let poll = Poll::new()?;
        let address = behind.address;
        let mut listener = link::listen(address).with_context(|| format!("cannot listen on {address}"))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1_024),
            listener,
            links: Vec::new(),
            before,
            behind,
            buffer: read_buffer(),
        })
    }

    /// The relay before the one under test.
    pub(crate) fn before(&self) -> &Played {
        &self.before
    }

    /// The relay behind it.
    pub(crate) fn behind(&self) -> &Played {
        &self.behind
    }

    /// Begins a link; gives its number.
    pub(crate) fn connect(&mut self, target: &Target, part: Part) -> Result<usize> {
        let address = target.hop().address;
        let stream = link::connect(address, &[self.before.address.ip()]).context("cannot connect to the relay")?;
        self.add(Link::new(
            stream,
            part,
            address,
            self.before.address,
            &self.before.keys,
        )?)
    }

    fn add(&mut self, mut link: Link) -> Result<usize> {
        let number = self.links.len();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(link.stream(), Token(number), interest)?;
        self.links.push(link);
        Ok(number)
    }

    /// Waits for something to happen, reads it, and goes on with handshakes.
    pub(crate) fn turn(&mut self, wait: Duration) -> Result<()> {
        let busy = self.links.iter().any(Link::is_readable);
        let wait = if busy { Duration::ZERO } else { wait };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let mut knocked = false;
        for event in &self.events {
            match event.token() {
                LISTENER => knocked = true,
                Token(number) => {
                    if let Some(link) = self.links.get_mut(number) {
                        link.note(event.is_readable() || event.is_read_closed(), event.is_writable());
                    }
                }
            }
        }
        if knocked {
            self.accept()?;
        }
        for link in self.links.iter_mut().filter(|link| link.is_readable()) {
            let keys = match link.part() {
                Part::Responder => &self.behind.keys,
                Part::Client | Part::Relay => &self.before.keys,
            };
            link.read(&mut self.buffer, keys)?;
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    stream.set_nodelay(true)?;
                    self.add(Link::new(
                        stream,
                        Part::Responder,
                        peer,
                        self.behind.address,
                        &self.behind.keys,
                    )?)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            }
        }
    }

    /// Seals and writes.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.links.iter_mut().try_for_each(Link::flush)
    }

    /// Turns until `done`, which looks at the net and does what it wants in each turn.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !done(self)? {
            self.flush()?;
            self.turn(Duration::from_millis(20))?;
            if Instant::now() > end {
                bail!("{what}: not after {} s", PATIENCE.as_secs());
            }
        }
        self.flush()
    }
}
