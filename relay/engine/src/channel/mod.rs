//! A channel: one TLS session with a peer, its handshake, its circuits, what waits to be sent on it.

pub(crate) mod handshake;
pub(crate) mod padding;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use relay_formats::link_certs::ProvenPeer;
use relay_wire::cell::{CircIdWidth, Command, write_fixed};
use relay_wire::relay_cells::DestroyReason;

use self::handshake::Handshake;
use self::padding::Padding;
use crate::circuit::{Seat, Seated};
use crate::door::{AttemptId, ChannelId, Effect, Outbox};
use crate::keyed::{self, KeyedMap};
use crate::mux::{Pool, Round, Worth};
use crate::slab::Key;

/// A handshake takes no longer (our own number).
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(60);
/// A peer hears from us at least so often (torrc `KeepalivePeriod`).
pub(crate) const KEEPALIVE_PERIOD: Duration = Duration::from_secs(5 * 60);
/// Older channels get no new circuits (C tor `TIME_BEFORE_OR_CONN_IS_TOO_OLD`).
pub(crate) const AGE_FOR_NEW_CIRCUITS_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Bytes that may be held back while the driver exports keying material. A client's first cells after its
/// NETINFO fit many times (our own number); more closes the channel.
pub(crate) const HELD_BYTES_MAX: usize = 128 * 1024;
/// DESTROY cells that may wait on one channel. Who lets more pile up reads nothing and closes the channel (our own
/// number: twice the circuits that a channel may have would be needed by no honest peer at once).
pub(crate) const DESTROYS_WAITING_MAX: usize = 20_000;
/// Circuits on one channel (our own number: with link version 3 there are no more ids, busy relays see a tenth of it).
pub(crate) const CIRCUITS_MAX: usize = 65_536;

/// A session with a peer.
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) peer_address: SocketAddr,
    /// The wish of ours that it answers, where we began it.
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) began: Duration,
    /// `None` once the link is open.
    pub(crate) handshake: Option<Box<Handshake>>,
    /// `None` while it is not.
    pub(crate) link: Option<Box<Link>>,
    pub(crate) width: CircIdWidth,
    /// The beginning of a cell, or what is held back while the handshake waits for the driver.
    pub(crate) unread: Vec<u8>,
    /// How many of these bytes are in the shard's sum.
    pub(crate) unread_counted: usize,
    /// When no whole cell was left of them for the last time.
    pub(crate) unread_since: Duration,
    circuits: KeyedMap<u32, Seat>,
    /// Cells come in runs: the circuit of the last one.
    recent: Option<(u32, Seat)>,
    pub(crate) control: Vec<u8>,
    destroys: VecDeque<(u32, DestroyReason)>,
    pub(crate) round: Round<Seat>,
    /// Circuits that end here and whose queues on this channel are too long to read more into; each once.
    pub(crate) awaiting_queue: Vec<Key>,
    wants_write_said: bool,
    pub(crate) last_sent: Duration,
    /// When it last had a circuit.
    pub(crate) last_needed: Duration,
    /// The alarm that is set.
    pub(crate) alarm_at: Option<Duration>,
}

/// What an open link knows.
pub(crate) struct Link {
    pub(crate) version: u16,
    /// `None` for clients and bridges.
    pub(crate) peer: Option<ProvenPeer>,
    /// The peer's own words or the consensus say that it lives where we see it.
    pub(crate) canonical: bool,
    /// Where the peer sees us.
    pub(crate) sees_us_at: Option<IpAddr>,
    /// Without a circuit it closes after so long.
    pub(crate) idle_time_max: Duration,
    pub(crate) padding: Padding,
    /// Whether it has been reported that we are reachable by it.
    pub(crate) reachability_reported: bool,
}

impl Channel {
    pub(crate) fn new(id: ChannelId, peer_address: SocketAddr, attempt: Option<AttemptId>, now: Duration) -> Self {
        Self {
            id,
            peer_address,
            attempt,
            began: now,
            handshake: None,
            link: None,
            width: CircIdWidth::Two,
            unread: Vec::new(),
            unread_counted: 0,
            unread_since: now,
            circuits: KeyedMap::default(),
            recent: None,
            control: Vec::new(),
            destroys: VecDeque::new(),
            round: Round::new(),
            awaiting_queue: Vec::new(),
            wants_write_said: false,
            last_sent: now,
            last_needed: now,
            alarm_at: None,
        }
    }

    pub(crate) fn we_began(&self) -> bool {
        self.attempt.is_some()
    }

    pub(crate) fn peer(&self) -> Option<&ProvenPeer> {
        self.link.as_ref()?.peer.as_ref()
    }

    /// Whether the handshake waits for the driver.
    pub(crate) fn is_parked(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.is_parked())
    }

    /// Whether the peer may create a circuit with this id: from link version 4 on the side that began TLS has the upper
    /// half (tor-spec, "Choosing circuit IDs in create cells"). In version 3 it hangs on keys; we take what comes.
    pub(crate) fn peer_may_choose(&self, circ_id: u32) -> bool {
        let high = circ_id & 0x8000_0000 != 0;
        self.width == CircIdWidth::Two || high != self.we_began()
    }

    /// A free circuit id of our half, near a random one.
    pub(crate) fn choose_circ_id(&self, mut random: impl FnMut() -> u32) -> Option<u32> {
        // C tor gives up after 64 too (`MAX_CIRCID_ATTEMPTS`).
        (0..64).find_map(|_| {
            let half = random() & 0x7fff_ffff;
            let circ_id = if self.we_began() { half | 0x8000_0000 } else { half };
            let waits = self.destroys.iter().any(|(destroyed, _)| *destroyed == circ_id);
            (half != 0 && !self.circuits.contains_key(&circ_id) && !waits).then_some(circ_id)
        })
    }

    #[inline]
    pub(crate) fn seat(&mut self, circ_id: u32) -> Option<Seat> {
        match self.recent {
            Some((recent, seat)) if recent == circ_id => Some(seat),
            _ => {
                let seat = *self.circuits.get(&circ_id)?;
                self.recent = Some((circ_id, seat));
                Some(seat)
            }
        }
    }

    pub(crate) fn has_circuit(&self, circ_id: u32) -> bool {
        self.circuits.contains_key(&circ_id)
    }

    pub(crate) fn circuit_count(&self) -> usize {
        self.circuits.len()
    }

    pub(crate) fn seats(&self) -> impl Iterator<Item = Seat> {
        self.circuits.values().copied()
    }

    pub(crate) fn seat_circuit(&mut self, circ_id: u32, seat: Seat) {
        self.circuits.insert(circ_id, seat);
    }

    pub(crate) fn unseat_circuit(&mut self, circ_id: u32) {
        self.circuits.remove(&circ_id);
        self.recent = None;
        keyed::shrink(&mut self.circuits);
    }

    /// Whether too many DESTROY cells wait already.
    pub(crate) fn is_choked(&self) -> bool {
        self.destroys.len() >= DESTROYS_WAITING_MAX
    }

    pub(crate) fn destroy(&mut self, circ_id: u32, reason: DestroyReason, outbox: &mut Outbox) {
        self.destroys.push_back((circ_id, reason));
        self.wake(outbox);
    }

    pub(crate) fn pad(&mut self, outbox: &mut Outbox) {
        write_fixed(&mut self.control, self.width, 0, Command::PADDING, &[]);
        self.wake(outbox);
    }

    /// Asks for a turn to write, unless that is said already.
    #[inline]
    pub(crate) fn wake(&mut self, outbox: &mut Outbox) {
        if !self.wants_write_said {
            self.wants_write_said = true;
            outbox.effects.push(Effect::WantsWrite { channel: self.id });
        }
    }

    /// Fills the driver's buffer: the handshake's bytes, then DESTROY cells, then circuits in turn. The handshake's
    /// bytes may be cut anywhere; cells are whole.
    pub(crate) fn write(
        &mut self,
        (now, worth): (Duration, Worth),
        bytes_max: usize,
        pool: &mut Pool,
        seated: &mut Seated<'_>,
        outbox: &mut Outbox,
    ) {
        let out = &mut outbox.written;
        let now_possible = self.control.len().min(bytes_max);
        out.extend(self.control.drain(..now_possible));
        if self.control.is_empty() {
            self.control = Vec::new();
        }
        while out.len() + self.width.cell_bytes() <= bytes_max {
            let Some((circ_id, reason)) = self.destroys.pop_front() else {
                break;
            };
            write_fixed(out, self.width, circ_id, Command::DESTROY, &[reason as u8]);
        }
        if self.destroys.is_empty() {
            self.round.serve(pool, seated, out, bytes_max, (self.width, worth));
        }
        if !out.is_empty() {
            self.last_sent = now;
        }
        let empty = self.control.is_empty() && self.destroys.is_empty() && self.round.is_empty();
        // With something left the driver comes again by itself, unless the room was too small to show it that.
        self.wants_write_said = !empty && !outbox.written.is_empty();
        outbox.more = self.wants_write_said;
        if !empty {
            self.wake(outbox);
        }
    }

    /// When this channel must be looked at next.
    pub(crate) fn next_alarm(&self) -> Duration {
        let Some(link) = &self.link else {
            return self.began + HANDSHAKE_TIME_MAX;
        };
        let keepalive = self.last_sent + KEEPALIVE_PERIOD;
        let padding = link.padding.due(self.last_sent).unwrap_or(keepalive);
        let idle = if self.circuits.is_empty() {
            self.last_needed + link.idle_time_max
        } else {
            keepalive
        };
        keepalive.min(padding).min(idle)
    }

    /// Whether it has been without a circuit for too long.
    pub(crate) fn is_idle(&self, now: Duration) -> bool {
        let Some(link) = &self.link else { return false };
        self.circuits.is_empty() && now >= self.last_needed + link.idle_time_max
    }
}

/// Relays by identity: the channels that may serve them.
#[derive(Default)]
pub(crate) struct RelayLinks(HashMap<relay_formats::fingerprint::RsaIdentity, Vec<Key>>);

impl RelayLinks {
    pub(crate) fn add(&mut self, peer: &ProvenPeer, channel: Key) {
        self.0.entry(peer.rsa()).or_default().push(channel);
    }

    pub(crate) fn remove(&mut self, peer: &ProvenPeer, channel: Key) {
        if let Some(list) = self.0.get_mut(&peer.rsa()) {
            list.retain(|one| *one != channel);
            if list.is_empty() {
                self.0.remove(&peer.rsa());
            }
        }
    }

    pub(crate) fn channels(&self, rsa: &relay_formats::fingerprint::RsaIdentity) -> impl Iterator<Item = Key> {
        self.0.get(rsa).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::hash::BuildHasher;

    use super::*;
    use crate::stream::Desk;

    fn channel() -> Channel {
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        Channel::new(ChannelId(1), peer, None, Duration::ZERO)
    }

    /// How many of these ids share the fullest of as many places, as a table takes them from the hash's lower and upper bits.
    fn fullest(hasher: &impl BuildHasher, ids: impl Iterator<Item = u32>) -> usize {
        let hashes: Vec<u64> = ids.map(|id| hasher.hash_one(id)).collect();
        let places = hashes.len().next_power_of_two() as u64;
        let worst = |place: &dyn Fn(u64) -> u64| {
            let mut load: BTreeMap<u64, usize> = BTreeMap::new();
            hashes
                .iter()
                .for_each(|hash| *load.entry(place(*hash)).or_default() += 1);
            load.into_values().max().unwrap_or(0)
        };
        worst(&|hash| hash % places).max(worst(&|hash| hash >> (64 - places.ilog2())))
    }

    /// A peer chooses its circuits' ids and a client its streams'; who knew the hash would fill one place of the table.
    #[test]
    fn ids_chosen_to_collide_meet_a_hash_whose_key_nobody_knows() {
        let (one, other) = (channel(), channel());
        let of_circuits = [one.circuits.hasher(), other.circuits.hasher()];
        let (first, second) = (Desk::new(None), Desk::new(None));
        let of_streams = [first.by_number.hasher(), second.by_number.hasher()];
        for [hasher, another] in [of_circuits, of_streams] {
            let differ = (0..64_u32)
                .filter(|id| hasher.hash_one(id) != another.hash_one(id))
                .count();
            assert_eq!(differ, 64, "each table has a key of its own");
            // Alike below, alike above, multiples of what a multiplying hash folds away, and all in a row.
            let patterns: [fn(u32) -> u32; 4] = [
                |number| 0x8000_0000 | (number << 16) | 0x5a5a,
                |number| 0x8000_0000 | number,
                |number| 0x8000_0000 | number.wrapping_mul(0x9e37_79b9).rotate_left(5),
                |number| number << 4,
            ];
            for pattern in patterns {
                let load = fullest(hasher, (0..4_096).map(pattern));
                // Thrown by dice, 4,096 into as many places, the fullest has 6 to 9.
                assert!(load <= 16, "{load} ids in one place");
            }
        }
    }
}
