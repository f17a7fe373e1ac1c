//! What the authorities say of ours: flags, subprotocols, and nothing bad in their logs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::position::TWINS;
use crate::programs::repository;
use crate::say;
use crate::story::neighbours::{found, is_about};
use crate::tornet::{Listed, Network, Role};

/// Names the subprotocols that are built, a row each: `` | `Link=3-5` | … | ``.
const BUILT: &str = "docs/subprotocols.md";

/// What any relay must have here, whatever its twin has.
const DUE_TO_ALL: [&str; 6] = ["Running", "Valid", "Fast", "Stable", "V2Dir", "Guard"];

/// The file beside an authority's log that tells what it makes of descriptors.
const JUDGEMENTS: &str = "judgements.log";

/// Words by which an authority says that it did not like a descriptor (C tor, `process_descs.c` and `dirauth`).
const DISLIKES: [&str; 7] = [
    "eject",
    "Did not",
    "did not",
    "refus",
    "invalid",
    "not accept",
    "malformed",
];

/// Authorities tell what they make of descriptors only at level info.
pub(super) fn torrc(folder: &Path) -> Vec<(String, String)> {
    let line = |name: &str| {
        let file = folder.join("node").join(name).join(JUDGEMENTS);
        (name.to_owned(), format!("Log [dirserv]info file {}", file.display()))
    };
    ["a1", "a2", "a3"].map(line).to_vec()
}

/// What C tor says that it speaks is its own affair, should it stand in the slots.
///
/// # Errors
/// A relay of ours is listed otherwise than the C tor beside it, says that it speaks what is not built, or an
/// authority disliked its descriptor.
pub(super) fn check(network: &Network, names: &[&str], is_ours: bool) -> Result<()> {
    let consensus = network.consensus_document()?;
    for (ours, twin) in TWINS.into_iter().filter(|(ours, _)| names.contains(ours)) {
        let (ours, twin) = (found(&consensus, ours)?, found(&consensus, twin)?);
        compare_flags(ours, twin)?;
        if is_ours {
            check_protocols(ours)?;
        }
    }
    let mut read = 0;
    for authority in network.names(Role::Authority) {
        let log = network.node_folder(&authority).join(JUDGEMENTS);
        let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        read += text.lines().count();
        for name in names {
            let entry = found(&consensus, name)?;
            if let Some(line) = dislike(&text, entry) {
                bail!("{authority} disliked {name}: {line}");
            }
        }
    }
    ensure!(read > 0, "the authorities' logs tell nothing of descriptors at all");
    say::step(format!(
        "no word against ours in {read} lines of the authorities on descriptors"
    ));
    Ok(())
}

fn compare_flags(ours: &Listed, twin: &Listed) -> Result<()> {
    let set = |entry: &Listed| entry.flags.iter().cloned().collect::<BTreeSet<_>>();
    let (have, due) = (set(ours), set(twin));
    let lacking: Vec<&str> = DUE_TO_ALL.into_iter().filter(|flag| !ours.has(flag)).collect();
    ensure!(
        lacking.is_empty(),
        "{} lacks the flags {}; it has {}",
        ours.nickname,
        lacking.join(" "),
        ours.flags.join(" ")
    );
    let only =
        |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect::<Vec<_>>().join(" ");
    ensure!(
        have == due,
        "{} and C tor's {} differ: ours alone has [{}], C tor alone [{}]",
        ours.nickname,
        twin.nickname,
        only(&have, &due),
        only(&due, &have)
    );
    say::step(format!(
        "{} has the flags of C tor's {}: {}",
        ours.nickname,
        twin.nickname,
        ours.flags.join(" ")
    ));
    Ok(())
}

fn check_protocols(ours: &Listed) -> Result<()> {
    let line = ours.lines.iter().find_map(|line| line.strip_prefix("pr "));
    let said = versions(line.with_context(|| format!("{} has no line `pr`", ours.nickname))?);
    let path = repository().join(BUILT);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let built = versions(&rows(&page));
    let only = |one: &BTreeSet<(String, u32)>, other: &BTreeSet<(String, u32)>| {
        let names = one.difference(other).map(|(name, version)| format!("{name}={version}"));
        names.collect::<Vec<_>>().join(" ")
    };
    ensure!(
        said == built,
        "{} says in its line `pr` what {BUILT} does not know [{}], or keeps silent of [{}]",
        ours.nickname,
        only(&said, &built),
        only(&built, &said)
    );
    say::step(format!(
        "{} says what is built: {}",
        ours.nickname,
        line.unwrap_or_default()
    ));
    Ok(())
}

/// The first cells of a table's rows, where they are code.
fn rows(page: &str) -> String {
    let cells = page.lines().filter_map(|line| {
        let cell = line.strip_prefix('|')?.split('|').next()?.trim();
        cell.strip_prefix('`')?.strip_suffix('`')
    });
    cells.collect::<Vec<_>>().join(" ")
}

/// `Link=1-2,5` is Link 1, 2 and 5 (tor-spec, "Subprotocol versioning").
fn versions(line: &str) -> BTreeSet<(String, u32)> {
    let mut set = BTreeSet::new();
    for (name, ranges) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
        for range in ranges.split(',') {
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(low), Ok(high)) = (low.parse::<u32>(), high.parse::<u32>()) {
                // 63 is the highest that there can be.
                set.extend((low..=high.min(63)).map(|version| (name.to_owned(), version)));
            }
        }
    }
    set
}

fn dislike<'a>(log: &'a str, ours: &Listed) -> Option<&'a str> {
    log.lines()
        .filter(|line| is_about(line, ours))
        .find(|line| DISLIKES.iter().any(|word| line.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(nickname: &str, flags: &str) -> Listed {
        Listed {
            nickname: nickname.into(),
            fingerprint: "AB".repeat(20),
            address: "127.1.2.3".into(),
            or_port: 9001,
            flags: flags.split(' ').map(str::to_owned).collect(),
            lines: Vec::new(),
        }
    }

    #[test]
    fn a_missing_or_a_further_flag_is_told() {
        let all = "Fast Guard HSDir Running Stable V2Dir Valid";
        compare_flags(&entry("r3", all), &entry("r1", all)).unwrap();
        let lacking = compare_flags(&entry("r3", "Fast Running Valid"), &entry("r1", all)).unwrap_err();
        assert!(
            lacking.to_string().contains("lacks the flags Stable V2Dir Guard"),
            "{lacking}"
        );
        let further = compare_flags(&entry("r3", &format!("Exit {all}")), &entry("r1", all)).unwrap_err();
        assert!(further.to_string().contains("ours alone has [Exit]"), "{further}");
        let fewer =
            compare_flags(&entry("r3", "Fast Guard Running Stable V2Dir Valid"), &entry("r1", all)).unwrap_err();
        assert!(fewer.to_string().contains("C tor alone [HSDir]"), "{fewer}");
    }

    #[test]
    fn versions_are_what_ranges_mean() {
        assert_eq!(versions("Link=3-5"), versions("Link=3,4-5"));
        assert_ne!(versions("Link=3-5"), versions("Link=3-4"));
        assert_eq!(versions("Link=1-4000000000 odd =").len(), 63);
    }

    #[test]
    fn a_table_names_what_is_built_in_its_first_cells() {
        let page =
            "# Title\n\n| version | what |\n|---|---|\n| `Link=3-5` | links, not `Link=6` |\n| `Cons=1-2` | x |\n";
        assert_eq!(rows(page), "Link=3-5 Cons=1-2");
    }

    #[test]
    fn only_a_dislike_of_ours_counts() {
        let ours = entry("r3", "Valid");
        let line = "Nov 22 [info] dirserv_add_descriptor: Did not add descriptor from 'r3' (source: 127.1.2.3): old";
        assert_eq!(dislike(line, &ours), Some(line));
        assert_eq!(
            dislike(&line.replace("r3", "r9").replace("127.1.2.3", "127.9.9.9"), &ours),
            None
        );
        assert_eq!(dislike("Nov 22 [info] added r3", &ours), None);
    }
}
