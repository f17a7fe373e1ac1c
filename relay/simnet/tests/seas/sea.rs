//! One sea: who is on it, what befalls them, and what must hold at the end.

use std::num::NonZeroU16;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay_engine::settings::StreamServices;
use relay_simnet::net::Net;
use relay_wire::relay_cells::EndReason;

use super::people::{End, Person};
use super::world::{Fate, NAME_BYTES, Plan, World};
use super::{Log, keys};

/// For so long new misfortunes befall the network.
const STORM: Duration = Duration::from_secs(5);
/// So long after it everything is to be settled: connections are given up after a minute.
const CALM_MAX: Duration = Duration::from_secs(300);

impl World {
    /// A stream: how much goes each way, and what its destination makes of it.
    pub(crate) fn plan(dice: &mut StdRng, plans: &mut Vec<Plan>, exit: bool) -> usize {
        let number = plans.len();
        let size = |dice: &mut StdRng| match dice.random_range(0..20) {
            0 => 0,
            1 => dice.random_range(100_000..=300_000),
            _ => dice.random_range(1..=12_000),
        };
        let (up, down) = (size(dice), size(dice));
        let mut upload = (number as u32).to_be_bytes().to_vec();
        upload.resize(NAME_BYTES + up, 0);
        dice.fill(&mut upload[NAME_BYTES..]);
        let mut download = vec![0; down];
        dice.fill(download.as_mut_slice());
        let fate = match dice.random_range(0..12) {
            0 if exit => Fate::Refuse(EndReason::ConnectRefused),
            1 if exit => Fate::Refuse(EndReason::ResolveFailed),
            2 if exit => Fate::ExitPolicy,
            3 if exit => Fate::Reset(Duration::from_millis(dice.random_range(0..3_000))),
            _ => Fate::Serve,
        };
        plans.push(Plan {
            upload,
            download,
            fate,
            question: exit && dice.random_ratio(1, 10),
            arrived: Vec::new(),
            closed: false,
        });
        number
    }
}

/// What befalls somebody.
enum Misfortune {
    Cut,
    HangUp,
    ClientLink,
    Destroy,
    Crash,
    SocketsStand,
}

pub(crate) fn sail(seed: u64) -> Log {
    let mut dice = StdRng::seed_from_u64(seed);
    // One shard in each relay, or two, or three.
    let shards = NonZeroU16::MIN.saturating_add((seed % 3) as u16);
    let mut net = Net::sharded(dice.random(), keys(), shards);
    let services = StreamServices {
        exits: true,
        directory: true,
        refuse_unknown_exits: Some(false),
        any_printable_name: false,
    };
    for relay in 0..net.relays.len() {
        net.serve(relay, services.clone());
    }
    net.choppy = dice.random_ratio(1, 3);
    net.set_weather(dice.random(), 40);
    let mut world = World::new(dice.random());
    let (mut plans, mut log) = (Vec::new(), Log::default());
    let mut people: Vec<_> = (0..dice.random_range(2..=4))
        .map(|_| Person::new(&mut net, &mut dice, &mut plans))
        .collect();

    let began = net.now().steady;
    let mut befalls: Vec<(Duration, Misfortune)> = (0..dice.random_range(0..=8))
        .map(|_| (began + STORM.mul_f64(dice.random()), misfortune(&mut dice)))
        .collect();
    befalls.sort_by_key(|(when, _)| std::cmp::Reverse(*when));
    let mut standing: Vec<(Duration, usize)> = Vec::new();
    loop {
        for person in &mut people {
            person.turn(&mut net, &mut dice, &plans, &mut log);
        }
        net.run();
        world.turn(&mut net, &mut plans);
        let now = net.now().steady;
        let settled = people.iter().all(Person::is_settled);
        if settled && world.abandoned(&net) == 0 {
            break;
        }
        if now > began + STORM + CALM_MAX {
            let waits: Vec<_> = people.iter().flat_map(Person::waits_for).collect();
            panic!(
                "nothing moves: {waits:#?}, {} destinations abandoned",
                world.abandoned(&net)
            );
        }
        standing.retain(|(until, relay)| {
            let stands = *until > now;
            if !stands {
                net.unblock(*relay);
            }
            stands
        });
        while let Some((_, what)) = befalls.pop_if(|(when, _)| *when <= now) {
            befall(&mut net, &mut dice, &mut people, &mut standing, &mut log, now, what);
        }
        let next = [net.due(), world.due(), befalls.last().map(|(when, _)| *when)]
            .into_iter()
            .chain(standing.iter().map(|(until, _)| Some(*until)))
            .flatten()
            .min()
            .unwrap_or(now + Duration::from_secs(1));
        net.pass_to(next.max(now));
    }
    for person in &people {
        person.check(&plans, &mut log);
    }
    nothing_is_left(&mut net, &people);
    log
}

fn misfortune(dice: &mut StdRng) -> Misfortune {
    match dice.random_range(0..12) {
        0..=2 => Misfortune::Cut,
        3 => Misfortune::HangUp,
        4 => Misfortune::ClientLink,
        5..=6 => Misfortune::Destroy,
        7 => Misfortune::Crash,
        _ => Misfortune::SocketsStand,
    }
}

fn befall(
    net: &mut Net,
    dice: &mut StdRng,
    people: &mut [Person],
    standing: &mut Vec<(Duration, usize)>,
    log: &mut Log,
    now: Duration,
    what: Misfortune,
) {
    let relay = dice.random_range(0..net.relays.len());
    let person = dice.random_range(0..people.len());
    match what {
        Misfortune::Cut => net.cut(relay, dice.random_range(0..net.relays.len())),
        Misfortune::HangUp => people[person].hang_up(net, End::Left),
        Misfortune::ClientLink => people[person].hang_up(net, End::Cut),
        Misfortune::Destroy => people[person].destroy_some(net, dice),
        Misfortune::Crash => {
            assert_eq!(net.relays[relay].engine.tally().protocol_violations, 0);
            net.crash(relay);
            log.crashes += 1;
        }
        Misfortune::SocketsStand => {
            net.relays[relay].sockets_take = false;
            standing.push((now + Duration::from_millis(dice.random_range(1..4_000)), relay));
        }
    }
}

fn nothing_is_left(net: &mut Net, people: &[Person]) {
    for relay in 0..net.relays.len() {
        net.unblock(relay);
    }
    for person in people {
        net.hang_up(person.client);
    }
    net.pass(Duration::from_secs(60));
    for (number, relay) in net.relays.iter().enumerate() {
        let tally = relay.engine.tally();
        let left = (
            tally.circuits_open,
            tally.streams_open,
            tally.channels_client_open,
            relay.engine.cells_waiting(),
            tally.protocol_violations,
            relay.engine.guests(),
        );
        assert_eq!(left, (0, 0, 0, 0, 0, 0), "relay {number}");
    }
    net.pass(Duration::from_secs(3 * 3_600));
    for (number, relay) in net.relays.iter().enumerate() {
        let relays = relay.engine.tally().channels_relay_open;
        assert_eq!((relays, relay.engine.deadline()), (0, None), "relay {number}");
    }
}
