//! The fewest inputs that reach as much: what the tree keeps of a corpus.
//!
//! libFuzzer runs each input of a merge once and notes in a control file which features it has: edges, each with how often
//! it was gone, in eight steps. The choice is ours, because its own keeps some hundreds.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{Places, Target, fuzzer};
use crate::command::logged;
use crate::say;

/// As the test `replay` has them, with some places left for inputs that people put there.
const FILES_MAX: usize = 36;
const FILE_BYTES_MAX: u64 = 4096;

/// One input and what it reaches.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reach {
    file: PathBuf,
    edges: HashSet<u32>,
    features: HashSet<u32>,
}

/// Chooses among what was learnt and what is in the tree, and writes it there.
pub(super) fn into_tree(program: &std::path::Path, target: &Target, places: &Places) -> Result<()> {
    let home = places.log.with_extension("merge");
    // The merge's own choice is not wanted, but it needs a folder for it.
    let chosen = home.join("libfuzzer");
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&chosen)?;
    let control = home.join("control");
    let mut merge = fuzzer(program, target);
    // With the plain merge each input would name only what no input before it has reached.
    merge
        .arg("-set_cover_merge=1")
        .arg(format!("-merge_control_file={}", control.display()));
    merge.args([&chosen, &places.corpus, &places.tree]);
    logged(&mut merge, &home.join("log"))?;
    let text = fs::read_to_string(&control).with_context(|| format!("cannot read {}", control.display()))?;
    let mut reaches = read(&text);
    reaches.retain(|one| fs::metadata(&one.file).is_ok_and(|file| file.len() <= FILE_BYTES_MAX));
    let kept = choose(reaches, FILES_MAX);
    let inputs: Vec<Vec<u8>> = kept.iter().map(fs::read).collect::<Result<_, _>>()?;
    for file in fs::read_dir(&places.tree)? {
        fs::remove_file(file?.path())?;
    }
    for input in &inputs {
        let name = hex::encode(Sha256::digest(input));
        fs::write(places.tree.join(name.get(..12).unwrap_or(&name)), input)?;
    }
    say::step(format!("{}: {} inputs in the tree", target.name, inputs.len()));
    fs::remove_dir_all(&home)?;
    Ok(())
}

/// A control file: two numbers, the files' names, then `FT number features…` among other lines.
fn read(text: &str) -> Vec<Reach> {
    let mut lines = text.lines();
    let count: usize = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let mut reaches: Vec<Reach> = lines
        .by_ref()
        .skip(1)
        .take(count)
        .map(|file| Reach {
            file: file.into(),
            ..Reach::default()
        })
        .collect();
    for line in lines {
        let mut words = line.split(' ');
        let (Some("FT"), Some(number)) = (
            words.next(),
            words.next().and_then(|number| number.parse::<usize>().ok()),
        ) else {
            continue;
        };
        if let Some(reach) = reaches.get_mut(number) {
            reach.features = words.filter_map(|word| word.parse().ok()).collect();
            reach.edges = reach.features.iter().map(|feature| feature / 8).collect();
        }
    }
    reaches
}

/// Takes again and again the input that adds most: edges first, then features; until nothing is added or there are so many.
fn choose(mut from: Vec<Reach>, files_max: usize) -> Vec<PathBuf> {
    let (mut chosen, mut edges, mut features) = (Vec::new(), HashSet::new(), HashSet::new());
    while chosen.len() < files_max {
        let adds = |one: &Reach| {
            (
                one.edges.difference(&edges).count(),
                one.features.difference(&features).count(),
            )
        };
        let best = from.iter().enumerate().max_by_key(|(_, one)| adds(one));
        let Some((at, _)) = best.filter(|(_, one)| adds(one) != (0, 0)) else {
            break;
        };
        let best = from.swap_remove(at);
        edges.extend(best.edges);
        features.extend(best.features);
        chosen.push(best.file);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_inputs_are_kept_and_those_that_reach_most() {
        let control = "3\n0\n/a\n/b\n/c\nSTARTED 0 5\nFT 0 8 9\nCOV 0 7\nSTARTED 1 9\nFT 1 8 9 17\nCOV 1 8\nSTARTED 2 9\nFT 2 33\n";
        let names =
            |files: Vec<PathBuf>| -> Vec<String> { files.iter().map(|file| file.display().to_string()).collect() };
        assert_eq!(names(choose(read(control), 9)), ["/b", "/c"]);
        assert_eq!(names(choose(read(control), 1)), ["/b"]);
        assert!(choose(read("garbage"), 9).is_empty());
    }
}
