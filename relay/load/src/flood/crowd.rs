//! Many links that may be closed at any time without anybody minding.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use relay_node::link;

use super::{Done, Pace};
use crate::handshake::Part;
use crate::link::{Hold, Link, read_buffer};
use crate::target::{Played, Target};

const LISTENER: Token = Token(usize::MAX);

/// A link and what is particular about it.
pub(super) struct Member {
    pub(super) link: Link,
    /// Nothing is read from it any more.
    pub(super) deaf: bool,
    pub(super) source: IpAddr,
}

/// All of them, on one thread, and the listener behind which we are the next relay.
pub(super) struct Crowd {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    members: Vec<Option<Member>>,
    /// Places of members that are gone.
    vacant: Vec<usize>,
    /// Places that became vacant since this was taken last.
    pub(super) gone: Vec<(usize, IpAddr)>,
    before: Played,
    behind: Played,
    buffer: Vec<u8>,
    pub(super) done: Done,
    began: Instant,
}

impl Crowd {
    pub(super) fn new(target: &Target) -> Result<Self> {
        let (before, behind) = (target.before()?, target.behind()?);
        let poll = Poll::new()?;
        let address = behind.address;
        let mut listener = link::listen(address).with_context(|| format!("cannot listen on {address}"))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(4_096),
            listener,
            members: Vec::new(),
            vacant: Vec::new(),
            gone: Vec::new(),
            before,
            behind,
            buffer: read_buffer(),
            done: Done::default(),
            began: Instant::now(),
        })
    }

    pub(super) fn before(&self) -> &Played {
        &self.before
    }

    pub(super) fn behind(&self) -> &Played {
        &self.behind
    }

    /// Begins a link from there; gives its number. None: the system did not even try.
    pub(super) fn connect(&mut self, target: &Target, from: IpAddr, part: Part, hold: Hold) -> Result<Option<usize>> {
        let address = target.hop().address;
        let Ok(stream) = link::connect(address, &[from]) else {
            return Ok(None);
        };
        let link = Link::new(stream, part, address, self.before.address, &self.before.keys)?.holding(hold);
        self.add(link, from).map(Some)
    }

    fn add(&mut self, mut link: Link, source: IpAddr) -> Result<usize> {
        let number = self.vacant.pop().unwrap_or(self.members.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(link.stream(), Token(number), interest)?;
        let member = Some(Member {
            link,
            deaf: false,
            source,
        });
        match self.members.get_mut(number) {
            Some(place) => *place = member,
            None => self.members.push(member),
        }
        Ok(number)
    }

    pub(super) fn open(&self) -> usize {
        self.members.iter().flatten().count()
    }

    pub(super) fn get(&mut self, number: usize) -> Option<&mut Member> {
        self.members.get_mut(number)?.as_mut()
    }

    /// Those that are there, by number.
    pub(super) fn members(&mut self) -> impl Iterator<Item = (usize, &mut Member)> {
        let numbered = self.members.iter_mut().enumerate();
        numbered.filter_map(|(number, member)| Some((number, member.as_mut()?)))
    }

    /// Seals and writes, waits for something to happen, reads it.
    pub(super) fn turn(&mut self, wait: Duration) -> Result<()> {
        self.each(|member, _, _, _| member.link.flush());
        let busy = self
            .members()
            .any(|(_, member)| !member.deaf && member.link.is_readable());
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
                    if let Some(Some(member)) = self.members.get_mut(number) {
                        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                        member.link.note(readable, event.is_writable());
                    }
                }
            }
        }
        if knocked {
            self.accept()?;
        }
        self.each(|member, before, behind, buffer| {
            if member.deaf || !member.link.is_readable() {
                return Ok(());
            }
            let keys = match member.link.part() {
                Part::Responder => &behind.keys,
                Part::Client | Part::Relay => &before.keys,
            };
            member.link.read(buffer, keys)
        });
        Ok(())
    }

    /// Who fails is gone.
    fn each(&mut self, mut act: impl FnMut(&mut Member, &Played, &Played, &mut [u8]) -> Result<()>) {
        for (number, place) in self.members.iter_mut().enumerate() {
            let Some(member) = place else { continue };
            if act(member, &self.before, &self.behind, &mut self.buffer).is_err() {
                self.gone.push((number, member.source));
                *place = None;
                self.vacant.push(number);
                let at = self.began.elapsed().as_secs_f64();
                self.done.closed += 1;
                self.done.closed_first.get_or_insert(at);
                self.done.closed_last = Some(at);
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    stream.set_nodelay(true)?;
                    let own = self.behind.address;
                    let link = Link::new(stream, Part::Responder, peer, own, &self.behind.keys)?;
                    self.add(link, peer.ip())?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            }
        }
    }

    /// Links of all these addresses that are open; those that the relay refuses are left out.
    pub(super) fn connect_all(
        &mut self,
        target: &Target,
        from: impl Iterator<Item = IpAddr>,
        part: Part,
    ) -> Result<Vec<usize>> {
        let mut begun = Vec::new();
        for from in from {
            begun.extend(self.connect(target, from, part, Hold::Nowhere)?);
            self.turn(Duration::ZERO)?;
        }
        let end = Instant::now() + Duration::from_secs(30);
        while self.members().any(|(_, member)| !member.link.is_open()) {
            self.turn(Duration::from_millis(20))?;
            if Instant::now() > end {
                bail!("links: not open after 30 s");
            }
        }
        begun.retain(|number| self.get(*number).is_some());
        self.gone.clear();
        Ok(begun)
    }

    pub(super) fn refused(&mut self, reason: u8) {
        *self.done.refused.entry(reason).or_default() += 1;
    }

    /// What came of it all up to now.
    pub(super) fn sum(&mut self, pace: &Pace) -> Done {
        self.done.open = self.open();
        self.done.seconds = pace.began.elapsed().as_secs_f64();
        Done {
            refused: BTreeMap::clone(&self.done.refused),
            ..self.done
        }
    }
}
