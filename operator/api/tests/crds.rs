//! The definitions in the tree are what the Rust types say.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests are tests too

#[test]
fn the_crds_in_the_tree_are_those_of_the_types() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    for dir in ["crds", "charts/relayfleet/files/crds"] {
        for (name, yaml) in operator_api::crds().unwrap() {
            let in_tree = std::fs::read_to_string(format!("{root}/{dir}/{name}")).unwrap_or_default();
            assert!(
                in_tree == yaml,
                "{dir}/{name} is old: run `cargo run -p operator-api --bin crdgen crds charts/relayfleet/files/crds` and \
                 commit what it writes"
            );
        }
    }
}

/// `kubectl explain` has something to say at every field.
#[test]
fn every_field_is_described() {
    use kube::CustomResourceExt as _;
    let (mut silent, mut fields) = (Vec::new(), 0);
    for crd in [
        operator_api::Relay::crd(),
        operator_api::RelaySet::crd(),
        operator_api::RelayFamily::crd(),
        operator_api::AddressPool::crd(),
    ] {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for top in ["spec", "status"] {
            fields += collect_silent(&schema[top], top, &mut silent);
        }
    }
    assert!(silent.is_empty(), "no description: {silent:?}");
    println!("{fields} fields are described");
    assert!(fields > 150, "{fields}");
}

/// How many were looked at; those of a list's items too.
fn collect_silent(schema: &serde_json::Value, path: &str, silent: &mut Vec<String>) -> usize {
    if !schema["description"].is_string() {
        silent.push(path.to_owned());
    }
    let inner = schema["properties"].as_object().into_iter().flatten();
    let of_items = schema["items"]["properties"].as_object().into_iter().flatten();
    let found = inner
        .chain(of_items)
        .map(|(name, field)| collect_silent(field, &format!("{path}.{name}"), silent));
    1 + found.sum::<usize>()
}
