//! The definitions in the tree are what the Rust types say.

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
