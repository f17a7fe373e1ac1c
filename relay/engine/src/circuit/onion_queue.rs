//! Circuit handshakes that wait for the public-key workers (C tor `onion_queue.c`).
//!
//! The queue's limit is time: who would wait longer than its client has patience is refused at once. Channels take turns,
//! so that one that floods waits for itself and not the others for it. C tor has one line for all, in which a flood takes
//! nearly every place.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::crypto::onion::Handshake;
use crate::door::{OnionRequest, Ticket};
use crate::network::Parameters;
use crate::slab::Key;

/// So many may wait whatever the estimate says (C tor `have_room_for_onionskin`).
const ALWAYS_WELCOME: usize = 50;
/// Handshakes with the workers at once: 64 for each of two (C tor `cpuworker.c`, which has two workers at least).
const IN_FLIGHT_MAX: usize = 128;

struct Waiting {
    circuit: Key,
    since: Duration,
    request: OnionRequest,
}

/// All handshakes of a shard that are not answered yet.
pub(crate) struct OnionQueue {
    /// By channel; none is empty.
    lines: HashMap<Key, VecDeque<Waiting>>,
    /// Channels with a line, the one whose turn it is first.
    round: VecDeque<Key>,
    /// In all lines together.
    waiting: usize,
    in_flight: HashMap<Ticket, Key>,
    next_ticket: u64,
    /// Smoothed time between answers while the workers are busy: workers count in by themselves.
    pace: Duration,
    /// When the workers last gave an answer or were given the first piece of work.
    busy_since: Duration,
}

/// What may be done next.
pub(crate) enum Turn {
    /// Give this to the workers, for this circuit.
    Work(Ticket, Key, OnionRequest),
    /// It has waited for too long; its circuit must go.
    TooLate(Key, Handshake),
    Nothing,
}

impl OnionQueue {
    /// An empty queue; its tickets are counted from `next_ticket`.
    pub(crate) fn named_from(next_ticket: u64) -> Self {
        Self {
            lines: HashMap::new(),
            round: VecDeque::new(),
            waiting: 0,
            in_flight: HashMap::new(),
            next_ticket,
            pace: Duration::ZERO,
            busy_since: Duration::ZERO,
        }
    }

    /// Whether one more of this channel would be answered in time.
    pub(crate) fn has_room(&self, channel: Key, parameters: &Parameters) -> bool {
        let wait_ms_max = parameters.clamped("MaxOnionQueueDelay", 1_750, 1, 60_000) as u64;
        // As many rounds as it would stand in its own line, each of one for every channel.
        let rounds = self.lines.get(&channel).map_or(0, VecDeque::len) + 1;
        let ahead = rounds.saturating_mul(self.round.len()).min(self.waiting);
        let estimate = self.pace.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
        self.waiting < ALWAYS_WELCOME || estimate <= Duration::from_millis(wait_ms_max)
    }

    pub(crate) fn push(&mut self, channel: Key, circuit: Key, since: Duration, request: OnionRequest) {
        let line = self.lines.entry(channel).or_default();
        if line.is_empty() {
            self.round.push_back(channel);
        }
        line.push_back(Waiting {
            circuit,
            since,
            request,
        });
        self.waiting += 1;
    }

    fn first(&self) -> Option<&Waiting> {
        self.lines.get(self.round.front()?)?.front()
    }

    /// Takes the first one out; its channel goes to the end of the round.
    fn take_first(&mut self) -> Option<Waiting> {
        let channel = self.round.pop_front()?;
        let line = self.lines.get_mut(&channel)?;
        let first = line.pop_front();
        self.waiting -= usize::from(first.is_some());
        if line.is_empty() {
            self.lines.remove(&channel);
        } else {
            self.round.push_back(channel);
        }
        first
    }

    /// Nobody needs the answer any more.
    pub(crate) fn withdraw(&mut self, ticket: Ticket) {
        self.in_flight.remove(&ticket);
    }

    /// When the one whose turn is next has waited for too long.
    pub(crate) fn deadline(&self, parameters: &Parameters) -> Option<Duration> {
        self.first().map(|first| first.since + cutoff(parameters))
    }

    pub(crate) fn next(&mut self, now: Duration, parameters: &Parameters) -> Turn {
        let Some(first) = self.first() else {
            return Turn::Nothing;
        };
        if now >= first.since + cutoff(parameters) {
            return self.take_first().map_or(Turn::Nothing, |late| {
                Turn::TooLate(late.circuit, late.request.handshake)
            });
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return Turn::Nothing;
        }
        let Some(first) = self.take_first() else {
            return Turn::Nothing;
        };
        if self.in_flight.is_empty() {
            self.busy_since = now;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.in_flight.insert(ticket, first.circuit);
        Turn::Work(ticket, first.circuit, first.request)
    }

    /// The workers answered: whose handshake it was.
    pub(crate) fn answered(&mut self, ticket: Ticket, now: Duration) -> Option<Key> {
        let circuit = self.in_flight.remove(&ticket)?;
        let took = now.saturating_sub(self.busy_since);
        self.busy_since = now;
        self.pace = (self.pace * 15 + took) / 16;
        Some(circuit)
    }
}

/// param-spec `onion_queue_wait_cutoff`, seconds; never zero (tor#41266).
fn cutoff(parameters: &Parameters) -> Duration {
    Duration::from_secs(parameters.clamped("onion_queue_wait_cutoff", 5, 1, 60) as u64)
}

#[cfg(test)]
mod tests {
    use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

    use super::*;
    use crate::settings::{Defences, Settings, StreamServices};

    fn key(number: u32) -> Key {
        let mut slab = crate::slab::Slab::new();
        (0..=number).map(|_| slab.insert(())).last().unwrap()
    }

    fn request() -> OnionRequest {
        OnionRequest {
            handshake: Handshake::Ntor,
            client: Vec::new(),
            settings: std::sync::Arc::new(Settings {
                rsa_identity: RsaIdentity([1; 20]),
                ed25519_identity: Ed25519Identity([2; 32]),
                advertised: Vec::new(),
                onion_keys: Vec::new(),
                extend_allow_private_addresses: false,
                services: StreamServices::default(),
                defences: Defences::default(),
                extras: crate::settings::Extras::default(),
            }),
            network: std::sync::Arc::default(),
            seed: [0; 32],
        }
    }

    #[test]
    fn a_channel_that_floods_waits_for_itself_and_a_newcomer_is_next() {
        let parameters = Parameters::default();
        let mut queue = OnionQueue::named_from(0);
        let (flood, newcomer) = (key(0), key(1));
        // Slow workers: 10 ms each.
        queue.pace = Duration::from_millis(10);
        while queue.has_room(flood, &parameters) {
            queue.push(flood, key(2), Duration::ZERO, request());
        }
        assert!(queue.waiting >= 175 && queue.waiting < 180, "1.75 s: {}", queue.waiting);
        assert!(queue.has_room(newcomer, &parameters));
        queue.push(newcomer, key(3), Duration::ZERO, request());
        let turns = (0..2).filter_map(|_| match queue.next(Duration::ZERO, &parameters) {
            Turn::Work(_, circuit, _) => Some(circuit),
            _ => None,
        });
        assert!(turns.collect::<Vec<_>>().contains(&key(3)));
    }

    /// tor#41266: with a cutoff of 0 every handshake was too late.
    #[test]
    fn trove_41266_no_parameter_makes_every_handshake_too_late() {
        for value in [i32::MIN, -1, 0, 1, 61, i32::MAX] {
            let parameters = Parameters([("onion_queue_wait_cutoff".to_owned(), value)].into());
            let cutoff = cutoff(&parameters).as_secs();
            assert!((1..=60).contains(&cutoff), "{value}: {cutoff}");
        }
        assert_eq!(cutoff(&Parameters::default()).as_secs(), 5);
    }
}
