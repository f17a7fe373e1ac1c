//! docs/attacks.md says what is proved and by what: every name in it must be there, and nothing may be left out.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that looks in vain is to fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use relay_hostile::catalog;

/// Rows of the attack table.
const ROWS: u8 = 34;

/// Faults of C tor, of those that touch relays, that must be told of by name.
const FAULTS_MIN: usize = 32;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(repository().join("docs/attacks.md")).expect("docs/attacks.md")
}

/// Names of all functions in the sources of these rooms.
fn functions() -> BTreeSet<String> {
    fn look(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    look(&path, found);
                }
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                for rest in text.split("fn ").skip(1) {
                    let shape = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                    found.insert(rest.chars().take_while(|letter| shape(*letter)).collect());
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for room in ["relay", "e2e"] {
        look(&repository().join(room), &mut found);
    }
    found
}

/// Lines of a table in the part of the page under this heading, as cells.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let part = page
        .split("\n## ")
        .find(|part| part.starts_with(heading))
        .expect("the heading");
    let rows = part
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| row") && !line.starts_with("| id"));
    rows.map(|line| {
        line.trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_row_has_a_proof_and_every_proof_exists() {
    let functions = functions();
    let probes: BTreeMap<&str, u8> = catalog::catalog().map(|probe| (probe.name, probe.row.0)).collect();
    let page = page();
    let rows = table(&page, "The attacks");
    let numbers: Vec<u8> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<u8>>());
    for row in &rows {
        let [number, _, _, proofs] = row.as_slice() else {
            panic!("{row:?}")
        };
        let proofs: Vec<&str> = quoted(proofs).collect();
        let played = probes.values().filter(|row| row.to_string() == *number).count();
        assert!(played + proofs.len() > 0, "row {number} has no proof");
        for proof in proofs {
            assert!(
                functions.contains(proof) || probes.contains_key(proof),
                "row {number}: there is no {proof}"
            );
        }
    }
}

#[test]
fn every_probe_stands_on_the_page_with_its_answers() {
    let written: Vec<String> = table(&page(), "The probes").iter().map(|row| row.join(" | ")).collect();
    let known: Vec<String> = catalog::lines().collect();
    for line in &known {
        assert!(
            written.contains(line),
            "`e2e story hostile --list` prints what is missing:\n| {line} |"
        );
    }
    assert_eq!(written.len(), known.len(), "probes that are no more");
}

#[test]
fn the_faults_of_c_tor_have_their_stories() {
    let functions = functions();
    let told: BTreeSet<&str> = functions
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("trove_"))
        .collect();
    let page = page();
    let mut ids = BTreeSet::new();
    for row in table(&page, "Faults that C tor had") {
        let [id, _, tests] = row.as_slice() else {
            panic!("{row:?}")
        };
        let number: String = id
            .chars()
            .map(|letter| if letter == '-' { '_' } else { letter })
            .collect();
        let tests: Vec<String> = quoted(tests).map(str::to_owned).collect();
        assert!(!tests.is_empty(), "{id} has no test");
        for test in tests {
            assert!(told.contains(test.as_str()), "{id}: there is no {test}");
            assert!(test.contains(&number), "{test} does not cite {id}");
        }
        assert!(ids.insert(number), "{id} stands twice");
    }
    assert!(ids.len() >= FAULTS_MIN, "{} faults", ids.len());
}
