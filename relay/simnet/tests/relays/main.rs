//! Stories of relays: links, circuits, and what strangers try with them.

#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that looks in vain is to fail"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "the same stories are told of one shard and of several"
)]

/// All stories are told twice: of relays with one shard, and of relays with several.
macro_rules! stories {
    ($shards:literal) => {
        mod chaos;
        mod circuits;
        mod conflux;
        mod floods;
        mod hostile;
        mod links;
        mod onion_services;
        mod padding;
        mod streams;
        mod troves;

        use super::*;

        const SHARDS: u16 = $shards;

        /// Four relays.
        fn relays(seed: u64) -> Net {
            Net::sharded(seed, keys(), SHARDS.try_into().expect("not 0"))
        }

        /// Four relays and a client whose link to the first is open.
        fn net(seed: u64) -> Net {
            let mut net = relays(seed);
            net.connect(Client::new(seed), 0);
            net.run();
            let opened = events(&mut net);
            assert!(matches!(opened.as_slice(), [Event::LinkOpen(_)]), "{opened:?}");
            net
        }
    };
}

#[path = "."]
mod one_shard {
    stories!(1);
}

#[path = "."]
mod three_shards {
    mod shards;

    stories!(3);
}

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use relay_simnet::client::{Client, Event, Hop, Wish};
use relay_simnet::keys::Keys;
use relay_simnet::net::Net;

/// Making keys takes a second, so all tests share four relays.
fn keys() -> Vec<Arc<Keys>> {
    static KEYS: OnceLock<Vec<Arc<Keys>>> = OnceLock::new();
    let made = KEYS.get_or_init(|| {
        let relay = |number: u8| {
            let address = SocketAddr::from(([192, 0, 2, number], 9001));
            Arc::new(Keys::new(number.into(), address).expect("keys"))
        };
        std::thread::scope(|scope| {
            let makers: Vec<_> = (1..=4).map(|number| scope.spawn(move || relay(number))).collect();
            makers.into_iter().map(|maker| maker.join().expect("keys")).collect()
        })
    });
    made.clone()
}

fn hop(relay: usize) -> Hop {
    keys()[relay].hop
}

/// What the first client learnt since it was asked last.
fn events(net: &mut Net) -> Vec<Event> {
    std::mem::take(&mut net.clients[0].events)
}

/// A circuit of the first client through the relays 0, 1, 2.
fn three_hops(net: &mut Net, wishes: [Wish; 3]) -> u32 {
    let circuit = net.clients[0].create(&hop(0), wishes[0]);
    net.run();
    for relay in [1, 2] {
        net.clients[0].extend(circuit, &hop(relay), wishes[relay]);
        net.run();
    }
    let made = events(net);
    let expected: Vec<_> = (1..=3).map(|hops| Event::Extended { circuit, hops }).collect();
    assert_eq!(made, expected);
    circuit
}
