//! The Relays of the story, and what became of them.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::server::{FLEET, Server};

/// Connections that create at once.
const HANDS: usize = 6;
const RELAYS_PATH: &str = "/apis/relayfleet.io/v1alpha1/namespaces/fleet/relays";
const FAMILIES_PATH: &str = "/apis/relayfleet.io/v1alpha1/namespaces/fleet/relayfamilies";

/// So many Relays in families of so many; 0 for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    pub(super) relays: usize,
    pub(super) family: usize,
}

impl Fleet {
    pub(super) fn families(self) -> usize {
        if self.family == 0 {
            0
        } else {
            self.relays.div_ceil(self.family)
        }
    }

    /// As somebody's pipeline would, from several workers.
    pub(super) fn create(self, server: &Server) -> Result<()> {
        let mut connection = server.connect()?;
        for number in 0..self.families() {
            let family = json!({
                "apiVersion": "relayfleet.io/v1alpha1", "kind": "RelayFamily",
                "metadata": {"name": format!("family-{number}"), "namespace": FLEET}, "spec": {},
            });
            post(&mut connection, FAMILIES_PATH, &family)?;
        }
        thread::scope(|scope| {
            let hands: Vec<_> = (0..HANDS)
                .map(|hand| scope.spawn(move || self.create_part(server, hand)))
                .collect();
            hands.into_iter().try_for_each(|hand| match hand.join() {
                Ok(done) => done,
                Err(_) => bail!("a thread that creates Relays ended"),
            })
        })
    }

    fn create_part(self, server: &Server, hand: usize) -> Result<()> {
        let mut connection = server.connect()?;
        (hand..self.relays)
            .step_by(HANDS)
            .try_for_each(|number| post(&mut connection, RELAYS_PATH, &self.relay(number)))
    }

    fn relay(self, number: usize) -> Value {
        let mut relay = json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "Relay",
            "metadata": {"name": format!("r{number:05}"), "namespace": FLEET},
            "spec": {"role": "Middle", "nickname": format!("relay{number}"), "contact": "ops@example.org"},
        });
        if let Some(family) = number.checked_div(self.family)
            && let Some(spec) = relay.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.insert("family".into(), json!({"name": format!("family-{family}")}));
        }
        relay
    }

    /// As the first family's status says.
    pub(super) fn members_of_first(self, server: &Server) -> Result<u64> {
        let family = server.connect()?.get(&format!("{FAMILIES_PATH}/family-0"))?;
        let family: Value = serde_json::from_slice(&family)?;
        let members = family.pointer("/status/members").and_then(Value::as_u64);
        members.context("a family that does not say how many it has")
    }

    /// One more, in the first family.
    pub(super) fn add_one(self, server: &Server) -> Result<()> {
        let mut one = self.relay(0);
        if let Some(metadata) = one.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("name".into(), json!(NEWCOMER));
        }
        post(&mut server.connect()?, RELAYS_PATH, &one)
    }

    /// All are ready, and no two have one identity; their fingerprints.
    pub(super) fn fingerprints(self, server: &Server) -> Result<BTreeSet<String>> {
        let mut connection = server.connect()?;
        let (mut prints, mut seen, mut more) = (BTreeSet::new(), 0, String::new());
        loop {
            let page = connection.get(&format!("{RELAYS_PATH}?limit=500&continue={more}"))?;
            let page: Value = serde_json::from_slice(&page)?;
            for relay in page.pointer("/items").and_then(Value::as_array).into_iter().flatten() {
                let print = relay.pointer("/status/identity/rsaFingerprint").and_then(Value::as_str);
                prints.insert(print.context("a Relay without an identity")?.to_owned());
                seen += 1;
            }
            more = page
                .pointer("/metadata/continue")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if more.is_empty() {
                break;
            }
        }
        ensure!(prints.len() == seen, "{seen} Relays have {} identities", prints.len());
        Ok(prints)
    }
}

/// Name of the Relay that comes late.
pub(super) const NEWCOMER: &str = "newcomer";

fn post(connection: &mut super::http::Connection, path: &str, object: &Value) -> Result<()> {
    let answer = connection.ask("POST", path, &object.to_string())?;
    ensure!(
        answer.code == 201,
        "{}: {}",
        answer.code,
        String::from_utf8_lossy(&answer.body)
    );
    Ok(())
}
