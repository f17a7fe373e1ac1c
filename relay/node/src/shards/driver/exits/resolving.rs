//! Names and questions: the cache first, the resolver if it must be.

use std::sync::Arc;

use relay_engine::door::{Host, Input, Question, Refusal, StreamId, Target};
use relay_wire::relay_cells::EndReason;
use relay_wire::stream::Answer as Told;

use super::super::Driver;
use crate::dns::resolver::{self, Answer};
use crate::dns::{Asked, Found, Key, Outcome};
use crate::shards::Order;

/// Answers that go into one RESOLVED at most; the cell has room for 48 addresses.
const TOLD_MAX: usize = 48;

/// A stream that waits for the DNS.
pub(super) struct Lookup {
    pub(super) key: Key,
    wish: Wish,
}

/// What the answer is for.
pub(super) enum Wish {
    /// To connect there.
    Open(Target),
    /// To tell the client.
    Tell,
}

impl Driver {
    pub(in super::super) fn resolve(&mut self, stream: StreamId, question: Question) {
        match question {
            Question::Forward(Host::Address(address)) => {
                let answers = [Told::Address(address)];
                self.hand_over(Input::StreamResolved {
                    stream,
                    answers: &answers,
                });
            }
            Question::Forward(Host::Name(name)) => self.look_up(stream, Key::name(&name), Wish::Tell),
            Question::Reverse(address) => self.look_up(stream, Key::Address(address), Wish::Tell),
        }
    }

    pub(super) fn look_up(&mut self, stream: StreamId, key: Key, wish: Wish) {
        let now = self.now();
        match self.exits.cache.ask(now, &key, stream) {
            Asked::Known(found, ttl_seconds) => return self.grant(stream, &wish, Some((&found, ttl_seconds))),
            Asked::Refused => return self.grant(stream, &wish, None),
            Asked::Wait => {}
            Asked::Ask => self.ask_resolver(key.clone()),
        }
        self.exits.lookups.insert(stream, Lookup { key, wish });
    }

    fn ask_resolver(&self, key: Key) {
        let Some(mailbox) = self.siblings.mailbox(self.own).cloned() else {
            return;
        };
        let asked = key.clone();
        let answer = Answer::new(move |outcome| mailbox.post(Order::NameAnswered { key: asked, outcome }));
        let ipv6 = self.exits.rules.ipv6;
        self.exits.resolver.ask(resolver::Question { key, ipv6, answer });
    }

    /// The resolver has done with a question.
    pub(in super::super) fn on_name(&mut self, key: &Key, outcome: &Outcome) {
        let now = self.now();
        for stream in self.exits.cache.answered(now, key, outcome) {
            let Some(lookup) = self.exits.lookups.remove(&stream) else {
                continue;
            };
            let found = match outcome {
                Outcome::Found(found, ttl_seconds) => Some((found, *ttl_seconds)),
                Outcome::Silence => None,
            };
            self.grant(stream, &lookup.wish, found);
            self.do_all();
        }
    }

    /// What is known now, or that nobody says, goes to who waits for it.
    fn grant(&mut self, stream: StreamId, wish: &Wish, found: Option<(&Found, u32)>) {
        match (wish, found) {
            (Wish::Open(target), Some((Found::Addresses(addresses), ttl_seconds))) => {
                let addresses = Arc::clone(addresses);
                self.head_for(stream, &addresses, ttl_seconds, target);
            }
            (Wish::Open(_), _) => self.refuse_exit(stream, Refusal::Reason(EndReason::ResolveFailed)),
            (Wish::Tell, found) => {
                let answers: Vec<Told<'_>> = match &found {
                    Some((Found::Addresses(addresses), _)) => {
                        addresses.iter().copied().map(Told::Address).take(TOLD_MAX).collect()
                    }
                    Some((Found::Name(name), _)) => vec![Told::Name(name)],
                    Some((Found::Nothing, _)) => vec![Told::PermanentError],
                    None => vec![Told::TransientError],
                };
                self.hand_over(Input::StreamResolved {
                    stream,
                    answers: &answers,
                });
            }
        }
    }
}
