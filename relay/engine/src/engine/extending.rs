//! Extending circuits: finding or making the channel to the next relay.

use std::collections::HashMap;
use std::time::Duration;

use rand::RngExt;
use relay_wire::cell::Command;
use relay_wire::extend::Extend2;
use relay_wire::relay_cells::DestroyReason;

use super::{Engine, Verdict};
use crate::channel::{AGE_FOR_NEW_CIRCUITS_MAX, CIRCUITS_MAX};
use crate::circuit::extend::{Target, target};
use crate::circuit::{Leg, Next, Seat, Side};
use crate::door::{AttemptId, Effect, Now, Outbox};
use crate::slab::Key;
use crate::timers::Alarm;

/// The driver may take so long to connect, and the peer to shake hands; then the wish is given up.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(60);
/// A relay that could not be reached is not tried again for so long (C tor `OR_CONNECT_FAILURE_LIFETIME`).
const FAILURE_REMEMBERED: Duration = Duration::from_secs(60);
/// Failures remembered at once; beyond it the memory starts anew (our own number: more relays than there are).
const FAILURES_MAX: usize = 16_384;
/// Channels being made at once (our own number: a relay knows some 8,000 others); more is refused.
const ATTEMPTS_MAX: usize = 8_192;

/// A channel that is being made, and who waits for it.
struct Attempt {
    target: Target,
    waiting: Vec<Seat>,
}

/// All channels that are being made.
pub(super) struct Attempts {
    running: HashMap<AttemptId, Attempt>,
    of_target: HashMap<Target, AttemptId>,
    failed_until: HashMap<Target, Duration>,
    next: u64,
}

impl Attempts {
    /// None yet; their names begin at `next`.
    pub(super) fn named_from(next: u64) -> Self {
        Self {
            running: HashMap::new(),
            of_target: HashMap::new(),
            failed_until: HashMap::new(),
            next,
        }
    }

    pub(super) fn target(&self, attempt: AttemptId) -> Option<Target> {
        self.running.get(&attempt).map(|running| running.target)
    }

    /// A circuit no longer waits (tor#41393: not even until the attempt ends).
    pub(super) fn withdraw(&mut self, attempt: AttemptId, seat: Seat) {
        if let Some(running) = self.running.get_mut(&attempt) {
            running.waiting.retain(|waiting| *waiting != seat);
        }
    }

    fn remove(&mut self, attempt: AttemptId) -> Option<Attempt> {
        let removed = self.running.remove(&attempt)?;
        self.of_target.remove(&removed.target);
        Some(removed)
    }
}

impl Engine {
    /// EXTEND2.
    pub(super) fn extend(&mut self, now: Now, key: Key, wish: &Extend2<'_>, outbox: &mut Outbox) -> Verdict {
        let broken = Verdict::end(key, DestroyReason::TorProtocol);
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let (Next::Nothing, Some(settings)) = (&circuit.next, &self.settings) else {
            return broken;
        };
        let previous = self
            .channels
            .get(circuit.prev.channel)
            .and_then(|channel| channel.peer());
        let Ok(target) = target(wish, settings, &self.network, previous, self.dice.random()) else {
            return broken;
        };
        let mut create = Vec::new();
        wish.create.write(&mut create);
        let seat = Seat {
            circuit: key,
            side: Side::Next,
        };
        if let Some(channel) = self.channel_to(now, &target) {
            return self.create_next(seat, channel, &create, outbox);
        }
        match self.directory.whom_to_ask(&target) {
            Some(shard) => self.ask(key, shard, target, create.into(), outbox),
            None => self.await_channel(now, seat, target, create.into(), outbox),
        }
    }

    /// Makes a channel, or waits for one that is being made already.
    pub(super) fn await_channel(
        &mut self,
        now: Now,
        seat: Seat,
        target: Target,
        create: Box<[u8]>,
        outbox: &mut Outbox,
    ) -> Verdict {
        let failed = self.attempts.failed_until.get(&target);
        if failed.is_some_and(|until| *until > now.steady) {
            return Verdict::end_seat(seat, DestroyReason::ConnectFailed);
        }
        if self.attempts.running.len() >= ATTEMPTS_MAX {
            return Verdict::end_seat(seat, DestroyReason::ResourceLimit);
        }
        let attempt = self.attempt(now, target, outbox);
        if let Some(running) = self.attempts.running.get_mut(&attempt) {
            running.waiting.push(seat);
        }
        if let Some((next, _)) = self.seated().next_of(seat) {
            *next = Next::Connecting { attempt, create };
        }
        Verdict::Go
    }

    /// The attempt that runs for a target already, or a new one.
    fn attempt(&mut self, now: Now, target: Target, outbox: &mut Outbox) -> AttemptId {
        if let Some(running) = self.attempts.of_target.get(&target) {
            return *running;
        }
        let attempt = AttemptId(self.attempts.next);
        self.attempts.next += 1;
        self.attempts.running.insert(
            attempt,
            Attempt {
                target,
                waiting: Vec::new(),
            },
        );
        self.attempts.of_target.insert(target, attempt);
        self.timers.set(now.steady + ATTEMPT_TIME_MAX, Alarm::Attempt(attempt));
        outbox.effects.push(Effect::Connect {
            attempt,
            address: target.address,
        });
        attempt
    }

    /// The best open channel to a relay: canonical before not, then the one with more circuits (C tor
    /// `channel_get_for_extend`). One that is not canonical serves only the very address that it goes to.
    pub(super) fn channel_to(&self, now: Now, target: &Target) -> Option<Key> {
        let fits = |key: &Key| self.fits(now, *key, target);
        let rank = |key: &Key| {
            let channel = self.channels.get(*key);
            let canonical = channel
                .and_then(|channel| channel.link.as_ref())
                .is_some_and(|link| link.canonical);
            (canonical, channel.map_or(0, |channel| channel.circuit_count()))
        };
        self.relays
            .channels(&target.relay.rsa_identity)
            .filter(fits)
            .max_by_key(rank)
    }

    /// Whether a channel leads to a target. Asked again when an attempt ends (TROVE-2020-005).
    fn fits(&self, now: Now, key: Key, target: &Target) -> bool {
        let Some(channel) = self.channels.get(key) else {
            return false;
        };
        let Some(link) = &channel.link else { return false };
        let young = now.steady.saturating_sub(channel.began) < AGE_FOR_NEW_CIRCUITS_MAX;
        // Link version 3 shares out circuit ids by a rule that we do not follow: nothing is created there.
        link.peer.as_ref().is_some_and(|peer| target.relay.is(peer))
            && link.version >= 4
            && young
            && (link.canonical || channel.peer_address.ip() == target.address.ip())
    }

    /// Asks the next relay for a circuit.
    pub(super) fn create_next(&mut self, seat: Seat, channel_key: Key, create: &[u8], outbox: &mut Outbox) -> Verdict {
        let Some(channel) = self.channels.get_mut(channel_key) else {
            return Verdict::end_seat(seat, DestroyReason::ChannelClosed);
        };
        // Who does not even read our DESTROY cells gets no more circuits.
        if channel.is_choked() || channel.circuit_count() >= CIRCUITS_MAX {
            return Verdict::end_seat(seat, DestroyReason::ResourceLimit);
        }
        let Some(circ_id) = channel.choose_circ_id(|| self.dice.random()) else {
            return Verdict::end_seat(seat, DestroyReason::ResourceLimit);
        };
        channel.seat_circuit(circ_id, seat);
        if let Some((next, _)) = self.seated().next_of(seat) {
            *next = Next::Creating(Leg {
                channel: channel_key,
                circ_id,
            });
        }
        self.send_next(seat, Command::CREATE2, create, outbox)
    }

    /// A channel that answers a wish is open: its circuits go on, if it is what they wanted.
    pub(super) fn attempt_succeeded(&mut self, now: Now, attempt: AttemptId, channel: Key, outbox: &mut Outbox) {
        let Some(ended) = self.attempts.remove(attempt) else {
            return;
        };
        let fits = self.fits(now, channel, &ended.target);
        for seat in ended.waiting {
            let mut seated = self.seated();
            let Some((next, _)) = seated.next_of(seat) else {
                continue;
            };
            let Next::Connecting { create, .. } = std::mem::replace(next, Next::Nothing) else {
                continue;
            };
            let verdict = match fits {
                true => self.create_next(seat, channel, &create, outbox),
                false => Verdict::end_seat(seat, DestroyReason::OrIdentity),
            };
            self.carry_out(now, verdict, outbox);
        }
    }

    /// There will be no channel: its circuits end.
    pub(super) fn attempt_failed(&mut self, now: Now, attempt: AttemptId, reason: DestroyReason, outbox: &mut Outbox) {
        let Some(ended) = self.attempts.remove(attempt) else {
            return;
        };
        if self.attempts.failed_until.len() >= FAILURES_MAX {
            self.attempts.failed_until.retain(|_, until| *until > now.steady);
        }
        if self.attempts.failed_until.len() >= FAILURES_MAX {
            self.attempts.failed_until.clear();
        }
        self.attempts
            .failed_until
            .insert(ended.target, now.steady + FAILURE_REMEMBERED);
        for seat in ended.waiting {
            self.carry_out(now, Verdict::end_seat(seat, reason), outbox);
        }
    }
}
