//! What people write and read: the custom resources of `relayfleet.io/v1alpha1`.
//!
//! A doc comment on a type or field here is what `kubectl explain` prints, so it speaks to the person who runs relays.
//! What a manifest can get wrong is refused by rules that stand beside the field (CEL, evaluated by the API server) and
//! that name the remedy; what only the cluster can know becomes a condition ([`condition`]).

use kube::CustomResourceExt as _;
use serde_json::Value;

pub mod byte_rate;
pub mod byte_size;
pub mod condition;
pub mod days;
pub mod family;
pub mod names;
pub mod pool;
pub mod relay;
pub mod set;

pub use byte_rate::{BadByteRate, ByteRate};
pub use byte_size::{BadByteSize, ByteSize};
pub use days::{BadDays, Days};
pub use family::status::{FamilyId, FamilyIdState, RelayFamilyStatus};
pub use family::{ExternalMember, FamilyContact, FamilyRef, RelayFamily, RelayFamilySpec, Rotation};
pub use pool::status::{AddressPoolStatus, Allocation};
pub use pool::{AddressPool, AddressPoolSpec, Exposure, LoadBalancer, PoolAddress, PoolRef, PortRange};
pub use relay::accounting::{Accounting, AccountingInterval, AccountingRule, AccountingStart};
pub use relay::exit::Exit;
pub use relay::identity::{Custody, Identity};
pub use relay::lifecycle::{DeletionPolicy, RunState};
pub use relay::pod::{PodOverrides, Resources, Toleration};
pub use relay::status::{DirectoryStatus, IdentityStatus, RelayStatus};
pub use relay::{
    Address, AddressSource, Bandwidth, ConfigMapKey, Engine, Image, Network, PullPolicy, Relay, RelaySpec, Role,
    Storage,
};
pub use set::status::RelaySetStatus;
pub use set::{Gate, RelaySet, RelaySetSpec, RelayTemplate, SetUpdate};

/// Group of every resource of ours.
pub const GROUP: &str = "relayfleet.io";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";

/// Every CustomResourceDefinition of ours: file name and YAML, the same text every time.
///
/// # Errors
/// A definition that cannot be written as YAML; a test writes them all, so that this is found there.
pub fn crds() -> Result<Vec<(&'static str, String)>, Box<dyn std::error::Error>> {
    Ok(vec![
        ("addresspools.yaml", yaml(&AddressPool::crd())?),
        ("relayfamilies.yaml", yaml(&RelayFamily::crd())?),
        ("relays.yaml", yaml(&Relay::crd())?),
        ("relaysets.yaml", yaml(&RelaySet::crd())?),
    ])
}

fn yaml(crd: &impl serde::Serialize) -> Result<String, Box<dyn std::error::Error>> {
    // By way of JSON: its maps are sorted.
    let mut crd = serde_json::to_value(crd)?;
    unwrap_descriptions(&mut crd);
    let head = "# Written from the Rust types. Do not edit: `cargo run -p operator-api --bin crdgen crds charts/relayfleet/files/crds`.";
    Ok(format!("{head}\n{}", serde_saphyr::to_string(&crd)?))
}

/// A doc comment is broken at the width of our files; `kubectl explain` breaks lines at its own.
fn unwrap_descriptions(node: &mut Value) {
    match node {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| match field {
            Value::String(text) if name == "description" => *text = unwrap_lines(text),
            other => unwrap_descriptions(other),
        }),
        Value::Array(items) => items.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}

fn unwrap_lines(text: &str) -> String {
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    paragraphs.join("\n\n")
}
