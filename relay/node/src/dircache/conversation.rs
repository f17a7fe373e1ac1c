//! One directory stream: bytes of a request in, bytes of the answer out.
//!
//! ```text
//! Listening --whole request--> Answering --all read--> over
//! ```
//!
//! Knows no engine and no clock; `crate::shards` gives it both.

use std::time::{Duration, SystemTime};

use super::answer::{Answer, Asker, answer};
use super::budget::Lease;
use super::request::{BODY_BYTES_MAX, BadRequest, HEAD_BYTES_MAX, parse};
use super::service::Service;

/// A request must be whole, and an answer be read on, within this time (C tor, `TestingDirConnectionMaxStall`).
pub const STALL_MAX: Duration = Duration::from_secs(5 * 60);

/// The end of a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The server's side of one stream.
#[derive(Debug)]
pub struct Conversation {
    asker: Asker,
    state: State,
    /// When the state last moved on.
    moved: Duration,
}

#[derive(Debug)]
enum State {
    /// The request so far. Its memory is leased, byte by byte, from what all streams share.
    Listening {
        heard: Vec<u8>,
        lease: Option<Lease>,
    },
    Answering(Answer),
}

impl Conversation {
    /// Begins at `now`, a steady clock's time.
    pub fn new(asker: Asker, now: Duration) -> Self {
        Self {
            asker,
            state: State::Listening {
                heard: Vec::new(),
                lease: None,
            },
            moved: now,
        }
    }

    /// Takes what the asker says. `true`, once: the answer can be read from now on. What it says later is not listened to.
    pub fn hear(&mut self, bytes: &[u8], service: &Service, now: Duration, date: SystemTime) -> bool {
        let State::Listening { heard, lease } = &mut self.state else {
            return false;
        };
        let granted = match lease {
            Some(lease) => lease.grow(bytes.len()),
            None => {
                *lease = service.budget().take(bytes.len());
                lease.is_some()
            }
        };
        let request = if granted {
            let before = heard.len();
            heard.extend_from_slice(bytes);
            read(heard, before)
        } else {
            // As if it were too long; the memory of what was heard is given back at once.
            Some(Err(BadRequest::TooLong))
        };
        let Some(request) = request else { return false };
        self.moved = now;
        self.state = State::Answering(answer(service, &request, self.asker, date));
        true
    }

    /// Appends to `out` what the asker is to get next, at most so many bytes. Whether there is more.
    pub fn say(&mut self, bytes_max: usize, now: Duration, out: &mut Vec<u8>) -> bool {
        let State::Answering(answer) = &mut self.state else {
            return false;
        };
        let before = out.len();
        answer.read(bytes_max, out);
        if out.len() > before {
            self.moved = now;
        }
        !answer.is_over()
    }

    /// Whether everything has been said.
    pub fn is_over(&self) -> bool {
        matches!(&self.state, State::Answering(answer) if answer.is_over())
    }

    /// Whether nothing has moved for too long.
    pub fn is_stalled(&self, now: Duration) -> bool {
        now.saturating_sub(self.moved) > STALL_MAX
    }
}

/// Reads the request if it may be whole: a head that has not ended is not read again with each cell. `before`: so much was
/// there the last time.
fn read(heard: &[u8], before: usize) -> Option<Result<super::request::Request, BadRequest>> {
    if heard.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX {
        return Some(Err(BadRequest::TooLong));
    }
    let from = before.saturating_sub(HEAD_END.len() - 1);
    let fresh = heard.get(from..).unwrap_or_default();
    let ended_now = fresh.windows(HEAD_END.len()).any(|four| four == HEAD_END);
    let ended = ended_now || is_upload(heard);
    if !ended && heard.len() < HEAD_BYTES_MAX {
        return None;
    }
    parse(heard).transpose()
}

/// An upload's head ends before its last byte.
fn is_upload(heard: &[u8]) -> bool {
    heard.starts_with(b"POST ")
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[asker]")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: SystemTime = SystemTime::UNIX_EPOCH;
    const START: Duration = Duration::ZERO;

    fn stranger() -> Conversation {
        Conversation::new(Asker { address: None }, START)
    }

    /// Says all of `bytes` in pieces; the whole answer, read in pieces too, if one came.
    fn talk(service: &Service, bytes: &[u8], step: usize) -> Option<Vec<u8>> {
        let mut stream = stranger();
        let ready = bytes.chunks(step).any(|part| stream.hear(part, service, START, NOON));
        let mut said = Vec::new();
        while ready && stream.say(step, START, &mut said) {}
        ready.then_some(said)
    }

    #[test]
    fn a_request_may_come_byte_by_byte_and_the_answer_is_the_same() {
        let service = Service::default();
        let request = b"GET /tor/robots.txt HTTP/1.0\r\nHost: x\r\n\r\n";
        let whole = talk(&service, request, 4_096).unwrap();
        assert!(whole.starts_with(b"HTTP/1.0 200 OK\r\n") && whole.ends_with(b"Disallow: /\r\n"));
        assert_eq!(talk(&service, request, 1).unwrap(), whole);
        assert_eq!(talk(&service, &request[..request.len() - 1], 1), None);
        assert_eq!(service.answered().served, 2);
    }

    #[test]
    fn an_endless_head_is_answered_with_400_and_forgotten() {
        let service = Service::default();
        let mut stream = stranger();
        let answered =
            std::iter::repeat_n([b'x'; 498], 1_000).position(|part| stream.hear(&part, &service, START, NOON));
        assert_eq!(answered, Some(HEAD_BYTES_MAX / 498));
        assert_eq!(service.budget().spent(), 0);
        let mut said = Vec::new();
        assert!(!stream.say(1_000, START, &mut said) && stream.is_over());
        assert!(said.starts_with(b"HTTP/1.0 400 Bad request\r\n"));
        assert!(
            !stream.hear(b"GET / HTTP/1.0\r\n\r\n", &service, START, NOON),
            "nobody listens any more"
        );
    }

    #[test]
    fn a_crowd_that_never_ends_its_requests_is_held_to_the_common_budget() {
        let service = Service::default();
        let half = vec![b'x'; HEAD_BYTES_MAX - 1];
        let mut crowd: Vec<_> = (0..2_000).map(|_| stranger()).collect();
        let answered = crowd
            .iter_mut()
            .filter_map(|one| one.hear(&half, &service, START, NOON).then_some(()))
            .count();
        assert!(answered > 600, "{answered} were sent away");
        assert!(service.budget().spent() <= super::super::service::STREAM_BYTES_MAX);
        drop(crowd);
        assert_eq!(service.budget().spent(), 0);
    }

    #[test]
    fn who_says_nothing_or_reads_nothing_for_five_minutes_is_stalled() {
        let service = Service::default();
        let mut stream = stranger();
        stream.hear(b"GET /tor/", &service, STALL_MAX, NOON);
        assert!(!stream.is_stalled(STALL_MAX) && stream.is_stalled(STALL_MAX + Duration::from_secs(1)));
        stream.hear(b"robots.txt HTTP/1.0\r\n\r\n", &service, STALL_MAX, NOON);
        assert!(!stream.is_stalled(STALL_MAX * 2));
        stream.say(1, STALL_MAX * 2, &mut Vec::new());
        assert!(!stream.is_stalled(STALL_MAX * 3) && stream.is_stalled(STALL_MAX * 4));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it_and_all_memory_comes_back(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..40),
            name in "(GET|POST) /tor/[ -~]{0,80} HTTP/1.0\r\n(Content-Length: [0-9]{1,20}\r\n)?\r\n",
            garbage in any::<bool>(),
        ) {
            let service = Service::default();
            let mut stream = stranger();
            let mut said = Vec::new();
            if !garbage {
                stream.hear(name.as_bytes(), &service, START, NOON);
            }
            for part in &parts {
                stream.hear(part, &service, START, NOON);
                stream.say(part.len(), START, &mut said);
                prop_assert!(service.budget().spent() <= 2 * (HEAD_BYTES_MAX + BODY_BYTES_MAX));
            }
            while stream.say(1_000, START, &mut said) {}
            prop_assert!(said.is_empty() || said.starts_with(b"HTTP/1.0 "));
            drop(stream);
            prop_assert_eq!(service.budget().spent(), 0);
        }
    }
}
