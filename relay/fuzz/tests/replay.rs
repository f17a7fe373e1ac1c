//! What fuzzing has learnt stays known: each input in `corpus/`, and changes of it drawn from fixed dice, hold on every
//! machine that runs the tests. `RELAYFLEET_SEED` takes other dice, `RELAYFLEET_TIMES` so many times the changes. A search of
//! its own is `e2e/fuzz`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that looks in vain is to fail"
)]

use std::fs;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use relay_fuzz::{TARGETS, Target, target};

/// Files a target, so that a replay stays a matter of seconds.
const FILES_MAX: usize = 40;
const FILE_BYTES_MAX: usize = 4096;
const ALL_BYTES_MAX: usize = 1024 * 1024;

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(target(stringify!($name)).expect("a target of that name"));
        })*

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

replayed! {
    cells create_extend relay_v0 relay_v1 certs link circuits torrc state_file family key_files exit_policy onion_descriptor dir_request
    dir_response compression documents consensus_diff descriptor dns
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(of: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(corpus().join(of))
        .expect("a corpus")
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect()
}

fn replay(target: &Target) {
    let inputs = inputs(target.name);
    for (file, input) in &inputs {
        held(target, input, || format!("the input {}", file.display()));
    }
    let asked = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let mut dice = ChaCha8Rng::seed_from_u64(asked("RELAYFLEET_SEED").unwrap_or(5));
    let times = asked("RELAYFLEET_TIMES").unwrap_or(1);
    for number in 0..target.changes_replayed as u64 * times {
        let (_, one) = &inputs[dice.next_u32() as usize % inputs.len()];
        let (_, other) = &inputs[dice.next_u32() as usize % inputs.len()];
        let mut input = changed(one, other, &mut dice);
        input.truncate(target.input_bytes_max);
        held(target, &input, || format!("change {number}, which is {}", hex(&input)));
    }
}

/// Runs the target, and says on which input where it does not hold.
fn held(target: &Target, input: &[u8], which: impl FnOnce() -> String) {
    let run = std::panic::AssertUnwindSafe(|| (target.run)(input));
    if let Err(cause) = std::panic::catch_unwind(run) {
        eprintln!("{} does not hold for {}", target.name, which());
        std::panic::resume_unwind(cause);
    }
}

/// A few of the changes that fuzzers make: other values, pieces taken out, repeated or from elsewhere.
fn changed(one: &[u8], other: &[u8], dice: &mut ChaCha8Rng) -> Vec<u8> {
    let mut input = one.to_vec();
    for _ in 0..=dice.next_u32() % 4 {
        let mut place = |length: usize| dice.next_u32() as usize % (length + 1);
        let (at, to, from) = (place(input.len()), place(input.len()), place(other.len()));
        let (at, to) = (at.min(to), at.max(to));
        match dice.next_u32() % 6 {
            0 => drop(input.splice(at..to, other[from..].iter().copied())),
            1 => drop(input.drain(at..to)),
            2 => drop(input.splice(at..at, input[at..to].to_vec())),
            3 => input.truncate(to),
            _ => {
                let value = dice.next_u32() as u8;
                if let Some(byte) = input.get_mut(at) {
                    *byte = value;
                }
            }
        }
    }
    input
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_corpora_stay_small_and_belong_to_targets() {
    let mut all = 0;
    for folder in fs::read_dir(corpus()).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(target(&name).is_some(), "{name} is no target");
        let inputs = inputs(&name);
        assert!(
            (1..=FILES_MAX).contains(&inputs.len()),
            "{name}: {} files",
            inputs.len()
        );
        for (file, input) in inputs {
            assert!(
                input.len() <= FILE_BYTES_MAX,
                "{}: {} bytes",
                file.display(),
                input.len()
            );
            all += input.len();
        }
    }
    assert!(all <= ALL_BYTES_MAX, "{all} bytes");
}
