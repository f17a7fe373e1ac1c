//! The cache between streams and the resolver, beside a model of it; and what the answers become in RESOLVED.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use relay_node::dns::{Asked, Cache, Found, Key, LIFETIME_MAX, Outcome};
use relay_wire::destination::{Destination, NameRule};
use relay_wire::stream::{Answer, Resolve, read_resolved, resolved};

use crate::tape::Tape;

/// Who waits for which question; and which answers are good until when.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<Key, Vec<u32>>,
    known: BTreeMap<Key, (Found, u32, Duration)>,
}

/// The story of one cache.
pub(super) fn dns(data: &[u8]) {
    let mut tape = Tape::new(data);
    let (mut cache, mut model) = (Cache::default(), Model::default());
    let (mut now, mut next) = (Duration::from_secs(1), 0_u32);
    while !tape.is_empty() {
        match tape.below(6) {
            0 | 1 => {
                let Some(key) = question(&mut tape) else { continue };
                next += 1;
                model.forget(now);
                let asked = cache.ask(now, &key, next);
                match (model.known.get(&key), model.waiting.get_mut(&key)) {
                    (Some((found, ttl, _)), _) => assert!(asked == Asked::Known(found.clone(), *ttl)),
                    (None, Some(waiting)) => {
                        assert!(asked == Asked::Wait, "asked twice at once");
                        waiting.push(next);
                    }
                    (None, None) => {
                        assert!(asked == Asked::Ask);
                        model.waiting.insert(key, vec![next]);
                    }
                }
            }
            2 => {
                let Some(key) = question(&mut tape) else { continue };
                let outcome = outcome(&mut tape);
                let told = cache.answered(now, &key, &outcome);
                let waiting = model.waiting.remove(&key);
                assert_eq!(told, waiting.clone().unwrap_or_default(), "not everyone is told, once");
                if let (Some(_), Outcome::Found(found, ttl)) = (waiting, outcome) {
                    let until = now + Duration::from_secs(ttl.into()).min(LIFETIME_MAX);
                    model.known.insert(key, (found, ttl, until));
                }
            }
            3 => {
                let Some(key) = question(&mut tape) else { continue };
                let who = u32::from(tape.u8());
                cache.give_up(&key, &who);
                if let Some(waiting) = model.waiting.get_mut(&key) {
                    waiting.retain(|one| *one != who);
                }
            }
            4 => now += Duration::from_secs(tape.u16().into()),
            _ => now += Duration::from_millis(tape.u16().into()),
        }
        let (known, pending) = cache.sizes();
        assert_eq!(pending, model.waiting.len());
        assert!(
            known >= model.known.values().filter(|(_, _, until)| *until > now).count(),
            "forgotten too soon"
        );
    }
}

impl Model {
    fn forget(&mut self, now: Duration) {
        self.known.retain(|_, (_, _, until)| *until > now);
    }
}

/// As a client's RESOLVE asks it.
fn question(tape: &mut Tape<'_>) -> Option<Key> {
    let length = usize::from(tape.u8() & 63);
    match Resolve::read(tape.take(length), NameRule::Rfc953).ok()? {
        Resolve::Forward(Destination::Name(name)) => Some(Key::name(name)),
        Resolve::Forward(Destination::Address(_)) => None,
        Resolve::Reverse(address) => Some(Key::Address(address)),
    }
}

fn outcome(tape: &mut Tape<'_>) -> Outcome {
    let found = match tape.below(4) {
        0 => return Outcome::Silence,
        1 => Found::Nothing,
        2 => Found::Name("host.example.com".into()),
        _ => {
            let addresses: Vec<IpAddr> = (0..1 + tape.below(40)).map(|_| address(tape)).collect();
            told(&addresses);
            Found::Addresses(addresses.into())
        }
    };
    Outcome::Found(found, tape.u16().into())
}

fn address(tape: &mut Tape<'_>) -> IpAddr {
    if tape.coin() {
        tape.array::<4>().into()
    } else {
        tape.array::<16>().into()
    }
}

/// A RESOLVED holds the first addresses, as many as fit.
fn told(addresses: &[IpAddr]) {
    let body = resolved(addresses.iter().map(|address| Answer::Address(*address)));
    let read = read_resolved(body.as_bytes()).expect("we wrote it");
    assert!((1..=addresses.len()).contains(&read.len()));
    assert!(
        read.iter()
            .zip(addresses)
            .all(|((answer, _), address)| *answer == Answer::Address(*address))
    );
}
