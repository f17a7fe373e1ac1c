use std::time::Duration;

use proptest::prelude::*;
use relay_wire::conflux::{DesiredUx, Link, NONCE_BYTES};
use relay_wire::relay_cells::{Format, RelayCommand, RelayMessage};

use super::*;
use crate::slab::Slab;
use crate::stream::{Desk, Room};

const OPEN: Room = Room { queue: 9, flow: 9 };
const SPENT: Room = Room { queue: 9, flow: 0 };
const CHOKED: Room = Room { queue: 0, flow: 9 };

fn rules() -> Rules {
    Rules::read(&Parameters::default())
}

fn places(count: usize) -> Vec<Place> {
    let mut slab = Slab::new();
    let shard = ShardId(0);
    let place = |circuit| Place { shard, circuit };
    (0..count).map(|_| place(slab.insert(()))).collect()
}

/// A set whose legs take so many milliseconds; 0 is one that has not been measured.
fn set(wish: DesiredUx, times: &[u64]) -> (Set, Vec<Place>) {
    let places = places(times.len());
    let mut set = Set::new(Nonce([7; NONCE_BYTES]), rules(), Desk::new(None));
    for (at, time) in places.iter().zip(times) {
        set.join(Leg::new(*at, Format::V1, None, None), wish);
        set.leg_mut(*at).unwrap().rtt = (*time > 0).then(|| Duration::from_millis(*time));
    }
    (set, places)
}

fn link(sent: u64, received: u64) -> Link {
    Link {
        nonce: [7; NONCE_BYTES],
        last_seqno_sent: sent,
        last_seqno_received: received,
        desired_ux: DesiredUx::HighThroughput,
    }
}

/// Sends one message; tells over which leg it went and what SWITCH said.
fn send(set: &mut Set, places: &[Place], rooms: &[Room]) -> (usize, Option<u32>) {
    let number = |place: Place| places.iter().position(|at| *at == place).unwrap();
    let (leg, switch) = set.next_leg(|place| rooms.get(number(place)).copied()).unwrap();
    leg.counts_sent();
    (number(leg.at), switch)
}

fn message(data: &[u8]) -> RelayMessage<'_> {
    RelayMessage {
        command: RelayCommand::DATA,
        stream_id: 1,
        data,
    }
}

#[test]
fn who_wants_latency_is_served_by_the_fastest_leg_alone() {
    for wish in [
        DesiredUx::MinLatency,
        DesiredUx::LowMemLatency,
        DesiredUx::LowMemThroughput,
    ] {
        let (mut set, places) = set(wish, &[30, 10, 20]);
        assert_eq!(send(&mut set, &places, &[OPEN; 3]), (1, None));
        assert_eq!(set.room(|at| Some(if at == places[1] { SPENT } else { OPEN })).flow, 0);
        // What must go all the same stays there.
        assert_eq!(send(&mut set, &places, &[OPEN, SPENT, OPEN]), (1, None));
    }
}

#[test]
fn who_wants_throughput_is_served_by_the_fastest_leg_with_room() {
    for wish in [DesiredUx::NoOpinion, DesiredUx::HighThroughput] {
        let (mut set, places) = set(wish, &[30, 10, 20]);
        assert_eq!(send(&mut set, &places, &[OPEN; 3]), (1, None));
        assert_eq!(send(&mut set, &places, &[OPEN; 3]), (1, None));
        assert_eq!(send(&mut set, &places, &[OPEN, SPENT, OPEN]), (2, Some(2)));
        assert_eq!(send(&mut set, &places, &[OPEN, SPENT, CHOKED]), (0, Some(3)));
        assert_eq!(
            send(&mut set, &places, &[SPENT; 3]),
            (0, None),
            "what must go stays where it was"
        );
        assert_eq!(send(&mut set, &places, &[OPEN; 3]), (1, Some(3)));
        assert_eq!(set.last_sent(), 6);
    }
}

#[test]
fn a_leg_that_has_not_been_measured_waits_unless_none_has() {
    let (mut set, places) = set(DesiredUx::HighThroughput, &[0, 0]);
    assert_eq!(send(&mut set, &places, &[OPEN; 2]), (0, None));
    set.leg_mut(places[1]).unwrap().rtt = Some(Duration::from_millis(5));
    assert_eq!(send(&mut set, &places, &[OPEN; 2]), (1, Some(1)));
    assert_eq!(send(&mut set, &places, &[OPEN, SPENT]), (1, None));
}

#[test]
fn the_room_of_a_set_is_that_of_the_legs_that_are_used() {
    let (mut set, places) = set(DesiredUx::HighThroughput, &[1, 2, 0]);
    let room = |flow, queue| Room { queue, flow };
    let rooms = [room(100, 50), room(10, 256), room(1_000, 1_000)];
    let look = |at: Place| rooms.get(places.iter().position(|place| *place == at)?).copied();
    assert_eq!(set.room(look), room(60, 60), "a queue binds");
    assert_eq!(set.held_up(look), vec![places[0]]);
    let flowing = |_| Some(room(10, 256));
    assert_eq!(set.room(flowing), room(20, u64::MAX));
}

#[test]
fn a_leg_of_another_shard_has_the_room_that_it_told_less_what_is_under_way() {
    let mut away = Away::new(&Parameters::default(), 124);
    let mut leg = Leg::new(places(1)[0], Format::V0, None, None);
    for _ in 0..31 {
        away.sends(true);
    }
    away.sends(false);
    leg.away = Some(away);
    let nobody = |_| None;
    assert_eq!(leg.room(nobody).unwrap(), Room { queue: 254, flow: 93 });
    let away = leg.away.as_mut().unwrap();
    away.told(200, 20);
    away.written(31);
    assert_eq!(leg.room(nobody).unwrap(), Room { queue: 256, flow: 189 });
}

/// tor#41328: numbers that cannot be, and tor#41155.
#[test]
fn trove_41328_a_link_with_numbers_that_cannot_be_is_refused() {
    let (mut set, places) = set(DesiredUx::HighThroughput, &[1, 2]);
    assert_eq!(set.admits(&link(0, 0), rules()), Ok(()));
    assert_eq!(set.admits(&link(1, 0), rules()), Err(Refused::DataLost));
    assert_eq!(set.admits(&link(0, 1), rules()), Err(Refused::Forged));
    assert_eq!(set.admits(&link(u64::MAX, u64::MAX), rules()), Err(Refused::DataLost));
    send(&mut set, &places, &[OPEN; 2]);
    assert_eq!(set.admits(&link(0, 1), rules()), Ok(()));
    for _ in 2..8 {
        set.join(Leg::new(places[0], Format::V0, None, None), DesiredUx::MinLatency);
    }
    assert_eq!(set.admits(&link(0, 0), rules()), Err(Refused::TooManyLegs));
}

#[test]
fn a_late_leg_begins_where_the_set_is() {
    let (mut set, places) = set(DesiredUx::HighThroughput, &[10]);
    for _ in 0..5 {
        send(&mut set, &places, &[OPEN]);
    }
    let mut slab = Slab::new();
    slab.insert(());
    let circuit = slab.insert(());
    let late = Place {
        shard: ShardId(3),
        circuit,
    };
    set.join(Leg::new(late, Format::V0, None, None), DesiredUx::HighThroughput);
    set.leg_mut(late).unwrap().rtt = Some(Duration::from_millis(1));
    let all = [places[0], late];
    assert_eq!(
        send(&mut set, &all, &[OPEN; 2]),
        (1, None),
        "nothing to skip: LINKED has told it"
    );
    assert_eq!(send(&mut set, &all, &[OPEN, SPENT]), (0, Some(1)));
}

#[test]
fn a_set_survives_a_leg_that_carried_nothing_of_its_own() {
    let make = || {
        let (mut set, places) = set(DesiredUx::HighThroughput, &[10, 20, 30]);
        send(&mut set, &places, &[SPENT, OPEN, SPENT]);
        send(&mut set, &places, &[OPEN; 3]);
        (set, places)
    };
    let loss = |leg: usize, unacknowledged| {
        let (mut set, places) = make();
        set.leave(places[leg], unacknowledged, 0)
    };
    assert_eq!(loss(0, false), Loss::Set, "in use");
    assert_eq!(
        loss(1, false),
        Loss::Leg,
        "its data has arrived, others have gone further"
    );
    assert_eq!(loss(1, true), Loss::Set, "its data may not have arrived");
    assert_eq!(loss(2, true), Loss::Leg, "never used");
    let (mut set, places) = make();
    set.arrived(Duration::ZERO, places[2], &message(b"a")).unwrap();
    assert_eq!(set.leave(places[2], false, 0), Loss::Set, "the client used it");
    assert_eq!(set.leave(places[2], false, 0), Loss::Nothing);
    let (mut set, places) = self::set(DesiredUx::NoOpinion, &[0]);
    assert_eq!(set.leave(places[0], false, 0), Loss::Set, "the last one");
}

#[test]
fn a_number_never_comes_twice() {
    let (mut set, places) = set(DesiredUx::HighThroughput, &[1, 2]);
    let mut arrive = |leg: usize| set.arrived(Duration::ZERO, places[leg], &message(b"a"));
    assert_eq!(arrive(0), Ok(Some(Taken::Now)));
    assert_eq!(arrive(1), Err(Disorder::Twice), "delivered");
    set.switched(places[1], 4).unwrap();
    set.switched(places[0], 4).unwrap();
    let mut arrive = |leg: usize| set.arrived(Duration::ZERO, places[leg], &message(b"a"));
    assert_eq!(arrive(1), Ok(Some(Taken::Later)));
    assert_eq!(arrive(0), Err(Disorder::Twice), "waiting");
}

/// tor#41155: sums of sequence numbers ran over.
#[test]
fn trove_41155_numbers_do_not_run_over() {
    let (mut set, places) = set(DesiredUx::HighThroughput, &[1]);
    set.leg_mut(places[0]).unwrap();
    for _ in 0..1_000 {
        set.switched(places[0], u32::MAX).unwrap();
    }
    assert_eq!(
        set.arrived(Duration::ZERO, places[0], &message(b"a")),
        Ok(Some(Taken::Later))
    );
}

/// TROVE-2026-010: the count of what waits did not come back to nothing.
#[test]
fn trove_2026_010_what_waits_is_counted_and_given_back() {
    let mut order = Order::new(10 * 596);
    for number in (2..=11).rev() {
        assert_eq!(
            order.take(Duration::ZERO, number, &message(&[1; 500])),
            Ok(Taken::Later)
        );
    }
    assert_eq!(order.bytes(), 10 * 596);
    assert_eq!(order.take(Duration::ZERO, 20, &message(b"")), Err(Disorder::TooMuch));
    assert!(order.next().is_none());
    assert_eq!(order.take(Duration::ZERO, 1, &message(b"")), Ok(Taken::Now));
    assert_eq!(std::iter::from_fn(|| order.next()).count(), 10);
    assert_eq!((order.bytes(), order.delivered()), (0, 11));
}

/// TROVE-2026-004 compared as many bytes as a pointer has.
#[test]
fn trove_2026_004_a_nonce_is_compared_whole() {
    for at in 0..NONCE_BYTES {
        let mut other = [7; NONCE_BYTES];
        other[at] ^= 1;
        assert!(Nonce([7; NONCE_BYTES]) != Nonce(other), "{at}");
    }
    assert!(Nonce([7; NONCE_BYTES]) == Nonce([7; NONCE_BYTES]));
}

#[test]
fn what_the_consensus_says_is_clamped() {
    let read = |pairs: &[(&str, i32)]| {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), *value));
        Rules::read(&Parameters(pairs.collect()))
    };
    let usual = rules();
    assert_eq!(
        (usual.allows(None), usual.legs_max, usual.held_bytes_max),
        (true, 8, 16 << 20)
    );
    let low = read(&[("cfx_max_legs_set", 0), ("cfx_max_oooq_bytes", 0), ("cfx_enabled", -3)]);
    assert_eq!(
        (low.allows(None), low.legs_max, low.held_bytes_max),
        (false, 3, 64 << 10)
    );
    let high = read(&[
        ("cfx_max_legs_set", i32::MAX),
        ("cfx_max_oooq_bytes", i32::MAX),
        ("cfx_enabled", 9),
    ]);
    assert_eq!(
        (high.allows(None), high.legs_max, high.held_bytes_max),
        (true, 255, 16 << 20)
    );
    assert!(
        low.allows(Some(true)) && !usual.allows(Some(false)),
        "torrc stands above it"
    );
    assert!(
        !read(&[("cc_alg", 0)]).allows(Some(true)),
        "not without congestion control"
    );
}

proptest! {
    /// A client sends over legs as it likes; whatever overtakes what, all is delivered once and in order.
    #[test]
    fn what_goes_over_several_legs_comes_out_in_order(
        legs in proptest::collection::vec(0_usize..3, 1..200), order in proptest::collection::vec(0_usize..3, 0..2_000),
    ) {
        let (mut set, places) = set(DesiredUx::HighThroughput, &[1, 2, 3]);
        // What each leg carries: a jump, or a number.
        let mut ways: [std::collections::VecDeque<Result<u32, u64>>; 3] = Default::default();
        let mut reached = [0_u64; 3];
        for (number, leg) in (1_u64..).zip(&legs) {
            if reached[*leg] < number - 1 {
                ways[*leg].push_back(Ok((number - 1 - reached[*leg]) as u32));
            }
            ways[*leg].push_back(Err(number));
            reached[*leg] = number;
        }
        let mut delivered = Vec::new();
        for leg in order.into_iter().chain((0..3).cycle().take(3 * 500)) {
            match ways[leg].pop_front() {
                Some(Ok(by)) => set.switched(places[leg], by).unwrap(),
                Some(Err(number)) => {
                    let data = number.to_be_bytes();
                    if set.arrived(Duration::ZERO, places[leg], &message(&data)) == Ok(Some(Taken::Now)) {
                        delivered.push(number);
                        while let Some(held) = set.order.next() {
                            delivered.push(u64::from_be_bytes(held.message().data.try_into().unwrap()));
                        }
                    }
                }
                None => {}
            }
        }
        prop_assert_eq!(delivered, (1..=legs.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!(set.order.bytes(), 0);
    }
}
