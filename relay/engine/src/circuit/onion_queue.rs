//! Circuit handshakes that wait for the public-key workers (C tor `onion_queue.c`).
//!
//! The queue's limit is time: who would wait longer than its client has patience is refused at once.

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
    waiting: VecDeque<Waiting>,
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
            waiting: VecDeque::new(),
            in_flight: HashMap::new(),
            next_ticket,
            pace: Duration::ZERO,
            busy_since: Duration::ZERO,
        }
    }

    /// Whether one more would be answered in time.
    pub(crate) fn has_room(&self, parameters: &Parameters) -> bool {
        let wait_ms_max = parameters.clamped("MaxOnionQueueDelay", 1_750, 1, 60_000) as u64;
        let estimate = self.pace.saturating_mul(self.waiting.len() as u32);
        self.waiting.len() < ALWAYS_WELCOME || estimate <= Duration::from_millis(wait_ms_max)
    }

    pub(crate) fn push(&mut self, circuit: Key, since: Duration, request: OnionRequest) {
        self.waiting.push_back(Waiting {
            circuit,
            since,
            request,
        });
    }

    /// Nobody needs the answer any more.
    pub(crate) fn withdraw(&mut self, ticket: Ticket) {
        self.in_flight.remove(&ticket);
    }

    /// When the oldest has waited for too long.
    pub(crate) fn deadline(&self, parameters: &Parameters) -> Option<Duration> {
        self.waiting.front().map(|first| first.since + cutoff(parameters))
    }

    pub(crate) fn next(&mut self, now: Duration, parameters: &Parameters) -> Turn {
        let Some(first) = self.waiting.front() else {
            return Turn::Nothing;
        };
        if now >= first.since + cutoff(parameters) {
            return self.waiting.pop_front().map_or(Turn::Nothing, |late| {
                Turn::TooLate(late.circuit, late.request.handshake)
            });
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return Turn::Nothing;
        }
        let Some(first) = self.waiting.pop_front() else {
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
    use super::*;

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
