//! Destinations: they accept, refuse, dawdle, talk, break off. The driver's part for streams, with a clock of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay_engine::Input;
use relay_engine::door::{Effect, Host, Refusal, StreamId, Target};
use relay_simnet::net::Net;
use relay_wire::relay_cells::EndReason;
use relay_wire::stream::Answer;

/// Bytes at the start of each upload that name the stream's plan: a directory stream has no other name.
pub(crate) const NAME_BYTES: usize = 4;

/// What a destination does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Serve,
    Refuse(EndReason),
    ExitPolicy,
    /// Breaks off so long after the connection.
    Reset(Duration),
}

/// One stream from the client's wish to its end.
pub(crate) struct Plan {
    pub(crate) upload: Vec<u8>,
    pub(crate) download: Vec<u8>,
    pub(crate) fate: Fate,
    /// A question to the DNS instead.
    pub(crate) question: bool,
    /// What all destinations of this stream together got: there is one, or none.
    pub(crate) arrived: Vec<u8>,
    /// The destination has heard of the end.
    pub(crate) closed: bool,
}

/// One destination: which relay, in which of its lives, which stream.
type Name = (usize, u32, StreamId);

#[derive(Default)]
struct Destination {
    plan: Option<usize>,
    connected: bool,
    available: usize,
    sent: usize,
    readable_said: bool,
    received: Vec<u8>,
    over: bool,
}

#[derive(Clone, Copy)]
enum Act {
    Connect,
    Answer,
    Talk,
    Drain,
    Finish,
    Reset,
}

pub(crate) struct World {
    dice: StdRng,
    destinations: BTreeMap<Name, Destination>,
    acts: BTreeMap<(Duration, u64), (Name, Act)>,
    count: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            destinations: BTreeMap::new(),
            acts: BTreeMap::new(),
            count: 0,
        }
    }

    pub(crate) fn due(&self) -> Option<Duration> {
        self.acts.first_key_value().map(|((due, _), _)| *due)
    }

    fn later(&mut self, now: Duration, micros_max: u64, name: Name, act: Act) {
        let due = now + Duration::from_micros(self.dice.random_range(0..=micros_max));
        self.at(due, name, act);
    }

    fn at(&mut self, due: Duration, name: Name, act: Act) {
        self.count += 1;
        self.acts.insert((due, self.count), (name, act));
    }

    /// Does what is due, and what the relays want, until nobody wants anything now.
    pub(crate) fn turn(&mut self, net: &mut Net, plans: &mut [Plan]) {
        loop {
            let mut quiet = true;
            for relay in 0..net.relays.len() {
                let crashes = net.relays[relay].crashes;
                for effect in std::mem::take(&mut net.relays[relay].streams) {
                    quiet = false;
                    self.perform(net, plans, relay, crashes, effect);
                }
            }
            let now = net.now().steady;
            if let Some(entry) = self.acts.first_entry().filter(|entry| entry.key().0 <= now) {
                quiet = false;
                let (name, act) = entry.remove();
                // A relay that has crashed takes its sockets with it.
                if net.relays[name.0].crashes == name.1 {
                    self.act(net, plans, name, act);
                }
            }
            net.run();
            if quiet {
                break;
            }
        }
    }

    fn perform(&mut self, net: &mut Net, plans: &mut [Plan], relay: usize, crashes: u32, effect: Effect) {
        let now = net.now().steady;
        match effect {
            Effect::OpenStream { stream, target } => {
                let plan = Some(plan_of(&target));
                self.open(now, (relay, crashes, stream), plan);
            }
            Effect::OpenDirectory { stream, .. } => self.open(now, (relay, crashes, stream), None),
            Effect::Resolve { stream, .. } => {
                let name = (relay, crashes, stream);
                self.destinations.insert(name, Destination::default());
                self.later(now, 2_000_000, name, Act::Answer);
            }
            Effect::ReadStream { stream, bytes_max } => self.read(net, plans, (relay, crashes, stream), bytes_max),
            Effect::StreamWantsWrite { stream } => {
                let slow = if self.dice.random_ratio(1, 8) {
                    3_000_000
                } else {
                    20_000
                };
                self.later(now, slow, (relay, crashes, stream), Act::Drain);
            }
            Effect::CloseStream { stream, rest } => {
                let found = self.destinations.get_mut(&(relay, crashes, stream)).expect("a stream");
                assert!(!std::mem::replace(&mut found.over, true), "closed twice");
                found.received.extend(rest.0);
                if let Some(plan) = learn(found) {
                    plans[plan].arrived = std::mem::take(&mut found.received);
                    plans[plan].closed = true;
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, now: Duration, name: Name, plan: Option<usize>) {
        let destination = Destination {
            plan,
            ..Destination::default()
        };
        assert!(
            self.destinations.insert(name, destination).is_none(),
            "a name used twice"
        );
        self.later(now, 400_000, name, Act::Connect);
    }

    fn read(&mut self, net: &mut Net, plans: &[Plan], name: Name, bytes_max: usize) {
        let found = self.destinations.get_mut(&name).expect("a stream");
        let source = found.plan.map_or(&[][..], |plan| &plans[plan].download);
        let end = found.available.min(found.sent + bytes_max);
        let bytes = source[found.sent..end].to_vec();
        found.sent = end;
        let more = end < found.available;
        found.readable_said = more;
        let (all, done) = (source.len(), end);
        net.handle(
            name.0,
            Input::StreamReceived {
                stream: name.2,
                bytes: &bytes,
                more,
            },
        );
        if all == done {
            self.later(net.now().steady, 10_000, name, Act::Finish);
        }
    }

    fn act(&mut self, net: &mut Net, plans: &mut [Plan], name: Name, act: Act) {
        let (relay, _, stream) = name;
        let now = net.now().steady;
        let found = self.destinations.get_mut(&name).expect("a destination");
        if found.over {
            return;
        }
        let fate = found.plan.map_or(Fate::Serve, |plan| plans[plan].fate);
        match act {
            Act::Connect => {
                let refusal = match fate {
                    Fate::Refuse(reason) => Some(Refusal::Reason(reason)),
                    Fate::ExitPolicy => Some(Refusal::ExitPolicy {
                        address: address(),
                        ttl_seconds: 300,
                    }),
                    Fate::Serve | Fate::Reset(_) => None,
                };
                if let Some(refusal) = refusal {
                    found.over = true;
                    net.handle(relay, Input::StreamRefused { stream, refusal });
                    return;
                }
                found.connected = true;
                let address = found.plan.map(|_| (address(), 300));
                net.handle(relay, Input::StreamConnected { stream, address });
                self.later(now, 100_000, name, Act::Talk);
                if let Fate::Reset(after) = fate {
                    self.at(now + after, name, Act::Reset);
                }
            }
            Act::Answer => {
                found.over = true;
                let answers = &[Answer::Address(address())];
                net.handle(relay, Input::StreamResolved { stream, answers });
            }
            Act::Talk => {
                let Some(plan) = found.plan else { return };
                let all = plans[plan].download.len();
                found.available = all.min(found.available + self.dice.random_range(1..=40_000));
                let (more, say) = (
                    found.available < all,
                    !found.readable_said && found.available > found.sent,
                );
                found.readable_said |= say;
                if say {
                    net.handle(relay, Input::StreamReadable { stream });
                }
                if more {
                    self.later(now, 200_000, name, Act::Talk);
                }
            }
            Act::Drain => {
                let room = self.dice.random_range(1..=16 * 1024);
                let bytes = net.drain(relay, stream, room);
                let knew = found.plan.is_some();
                found.received.extend(&bytes);
                learn(found);
                let news = !knew && found.plan.is_some();
                if !bytes.is_empty() {
                    self.later(now, 5_000, name, Act::Drain);
                    self.later(now, 10_000, name, Act::Finish);
                }
                if news {
                    self.later(now, 100_000, name, Act::Talk);
                }
            }
            Act::Finish => {
                let plan = found.plan.map(|plan| &plans[plan]);
                let served = plan
                    .filter(|_| fate == Fate::Serve)
                    .is_some_and(|plan| found.sent == plan.download.len() && found.received.len() == plan.upload.len());
                if served {
                    let reason = EndReason::Done;
                    net.handle(relay, Input::StreamClosed { stream, reason });
                }
            }
            Act::Reset => {
                let reason = EndReason::ConnReset;
                net.handle(relay, Input::StreamClosed { stream, reason });
            }
        }
    }

    /// Destinations whose relay still lives and has not taken leave.
    pub(crate) fn abandoned(&self, net: &Net) -> usize {
        let alive = |name: &Name| net.relays[name.0].crashes == name.1;
        self.destinations
            .iter()
            .filter(|(name, found)| alive(name) && !found.over)
            .count()
    }
}

/// A directory stream says in its first bytes which one it is.
fn learn(found: &mut Destination) -> Option<usize> {
    if found.plan.is_none() {
        let name = found.received.first_chunk::<NAME_BYTES>()?;
        found.plan = Some(u32::from_be_bytes(*name) as usize);
    }
    found.plan
}

fn plan_of(target: &Target) -> usize {
    let Host::Name(name) = &target.host else {
        panic!("all destinations have names")
    };
    name.trim_start_matches('s')
        .trim_end_matches(".example")
        .parse()
        .expect("a number")
}

fn address() -> IpAddr {
    IpAddr::from([192, 0, 2, 80])
}
