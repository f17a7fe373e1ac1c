//! Who gets which address and port of an AddressPool: facts in, the pool's next status out.
//!
//! The status is the ledger. It is written with the resourceVersion that was read, so of two writers one looks again; a
//! Relay takes up only what stands in it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use operator_api::pool::status::{AddressPoolStatus, Allocation};
use operator_api::{AddressPool, Exposure, LoadBalancer, PoolAddress, condition};

use crate::hurdles::Hurdle;
use crate::status::{Answer, judged};

/// The directory authorities list at most so many relays on one IPv4 address (`AuthDirMaxServersPerAddr`).
const RELAYS_PER_ADDRESS_MAX: usize = 8;

/// A Relay that names the pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub relay: String,
}

/// All facts of one round.
#[derive(Debug, Clone)]
pub struct PoolObserved {
    /// The pool itself.
    pub pool: AddressPool,
    /// Every other pool of the cluster.
    pub others: Vec<AddressPool>,
    /// Who wants an address of it, in any order.
    pub claims: Vec<Claim>,
    /// Who has one and is gone, while its keys are kept.
    pub kept: Vec<Claim>,
}

/// What a Relay has of a pool, and how traffic for it gets to the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How.
    pub exposure: Exposure,
    /// The pool's address.
    pub address: PoolAddress,
    /// The port, published and listened on.
    pub port: u16,
    /// For the Service.
    pub load_balancer: LoadBalancer,
}

/// The pool's next status.
#[must_use]
pub fn decide_pool(seen: &PoolObserved, now: &Time) -> AddressPoolStatus {
    let spec = &seen.pool.spec;
    let before = seen.pool.status.clone().unwrap_or_default();
    let (mine, taken) = usable(seen);
    let per_address = usize::try_from(spec.max_relays_per_address)
        .unwrap_or(1)
        .clamp(1, RELAYS_PER_ADDRESS_MAX);
    let ports = spec.ports.first..=spec.ports.last;
    let (allowed, strangers): (Vec<&Claim>, Vec<&Claim>) = seen
        .claims
        .iter()
        .partition(|claim| allows(&seen.pool, &claim.namespace));

    let mut ledger: BTreeMap<&Claim, (String, u16)> = BTreeMap::new();
    let mut used: BTreeMap<&str, BTreeSet<u16>> = mine.iter().map(|address| (*address, BTreeSet::new())).collect();
    // Who has a place keeps it, as long as the pool has it; an address is a part of a relay's reputation.
    for held in &before.allocations {
        let claim = allowed
            .iter()
            .copied()
            .chain(&seen.kept)
            .find(|one| one.namespace == held.namespace && one.relay == held.relay);
        let (Some(claim), Some(on)) = (claim, used.get_mut(held.ipv4.as_str())) else {
            continue;
        };
        if ports.contains(&held.port) && on.len() < per_address && on.insert(held.port) {
            ledger.insert(claim, (held.ipv4.clone(), held.port));
        }
    }
    let mut waiting: Vec<&Claim> = allowed
        .into_iter()
        .filter(|claim| !ledger.contains_key(claim))
        .collect();
    waiting.sort();
    let mut without = 0;
    for claim in waiting {
        // The address with the fewest relays: a lost address takes as few as can be.
        let emptiest = mine
            .iter()
            .min_by_key(|address| used.get(*address).map_or(0, BTreeSet::len));
        let place = emptiest.and_then(|address| {
            let taken: BTreeSet<u16> = sharing(&seen.pool, address)
                .filter_map(|neighbour| used.get(neighbour))
                .flatten()
                .copied()
                .collect();
            let on = used.get_mut(address).filter(|on| on.len() < per_address)?;
            let port = ports.clone().find(|port| !taken.contains(port))?;
            on.insert(port);
            Some(((*address).to_owned(), port))
        });
        match place {
            Some(place) => _ = ledger.insert(claim, place),
            None => without += 1,
        }
    }
    let mut room = mine.len() * per_address.min(ports.len());
    if spec.exposure == Exposure::NodePort {
        room = room.min(ports.len());
    }
    let hurdle = hurdle(without, seen.kept.len(), &taken, &strangers);
    let answer = hurdle.map_or_else(
        || Answer::yes("Allocated", "every Relay that names the pool has an address and a port"),
        Answer::no,
    );
    let generation = seen.pool.metadata.generation;
    AddressPoolStatus {
        observed_generation: generation,
        conditions: vec![judged(&before.conditions, condition::READY, answer, generation, now)],
        allocated: count(ledger.len()),
        free: count(room.saturating_sub(ledger.len())),
        allocations: ledger
            .into_iter()
            .map(|(claim, (ipv4, port))| Allocation {
                namespace: claim.namespace.clone(),
                relay: claim.relay.clone(),
                ipv4,
                port,
                kept: seen.kept.contains(claim),
            })
            .collect(),
    }
}

/// Addresses whose ports are one: a NodePort is the whole cluster's, and a node's ports are the node's.
fn sharing<'a>(pool: &'a AddressPool, address: &'a str) -> impl Iterator<Item = &'a str> {
    let all = &pool.spec.addresses;
    let node = all
        .iter()
        .find(|one| one.ipv4 == address)
        .and_then(|one| one.node.as_ref());
    let together = move |one: &PoolAddress| match pool.spec.exposure {
        Exposure::LoadBalancer => false,
        Exposure::NodePort => true,
        Exposure::HostPort | Exposure::HostNetwork => node.is_some() && one.node.as_ref() == node,
    };
    let others = all.iter().filter(move |one| together(one)).map(|one| one.ipv4.as_str());
    others.chain(std::iter::once(address))
}

fn hurdle(without: usize, kept: usize, taken: &[(String, String)], strangers: &[&Claim]) -> Option<Hurdle> {
    if let Some((address, pool)) = taken.first() {
        return Some(Hurdle::standing(
            "AddressConflict",
            format!(
                "{address} stands in AddressPool {pool} too, which is older: nothing of it is given away here. An address \
                 belongs into one pool; remove it from one of the two"
            ),
        ));
    }
    if without > 0 {
        return Some(Hurdle::standing(
            "Exhausted",
            format!(
                "{without} relays find no place. Add addresses or ports, or raise maxRelaysPerAddress (8 at most: the \
                 directory authorities list no more){}",
                match kept {
                    0 => String::new(),
                    kept => format!("; or let go of the keys of relays that are gone: {kept} places are kept for such"),
                }
            ),
        ));
    }
    strangers.first().map(|claim| {
        Hurdle::standing(
            "NamespaceNotAllowed",
            format!(
                "Relay {} of namespace {} names the pool, which allowedNamespaces does not let in. Add the namespace, or \
                 change the Relay",
                claim.relay, claim.namespace
            ),
        )
    })
}

/// Whether Relays of a namespace may use the pool.
#[must_use]
pub fn allows(pool: &AddressPool, namespace: &str) -> bool {
    let allowed = &pool.spec.allowed_namespaces;
    allowed.is_empty() || allowed.iter().any(|one| one == namespace)
}

/// Addresses that are this pool's, in order; and those that an older pool has, with its name.
fn usable(seen: &PoolObserved) -> (Vec<&str>, Vec<(String, String)>) {
    let age = |pool: &AddressPool| {
        (
            pool.metadata.creation_timestamp.as_ref().map(|time| time.0),
            pool.name_any(),
        )
    };
    let own = age(&seen.pool);
    let older: Vec<&AddressPool> = seen.others.iter().filter(|other| age(other) < own).collect();
    let has = |pool: &AddressPool, address: &str| pool.spec.addresses.iter().any(|one| one.ipv4 == address);
    let (mut mine, mut taken) = (Vec::new(), Vec::new());
    for address in &seen.pool.spec.addresses {
        match older.iter().find(|other| has(other, &address.ipv4)) {
            Some(other) => taken.push((address.ipv4.clone(), other.name_any())),
            None if !mine.contains(&address.ipv4.as_str()) => mine.push(address.ipv4.as_str()),
            None => {}
        }
    }
    (mine, taken)
}

/// What stands in the pool's ledger for a Relay.
#[must_use]
pub fn place_of(pool: &AddressPool, namespace: &str, relay: &str) -> Option<Place> {
    let allocations = pool.status.iter().flat_map(|status| &status.allocations);
    let mut own = allocations.filter(|one| one.namespace == namespace && one.relay == relay);
    let held = own.next()?;
    let address = pool.spec.addresses.iter().find(|address| address.ipv4 == held.ipv4)?;
    Some(Place {
        exposure: pool.spec.exposure,
        address: address.clone(),
        port: held.port,
        load_balancer: pool.spec.load_balancer.clone().unwrap_or_default(),
    })
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
