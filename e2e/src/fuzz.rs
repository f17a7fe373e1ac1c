//! `e2e fuzz`: libFuzzer against the targets of `relay/fuzz`, one after the other, and what they have learnt.
//!
//! ```text
//! build (once) ─▶ for each target: search N minutes of CPU time ─▶ table ─▶ --merge: the fewest inputs that reach as much go into the tree
//! ```
//!
//! What a search has learnt stays in `~/.cache/relayfleet/fuzz/corpus`, so that the next one goes on from there. A finding is
//! kept beside it, and the run fails.

mod merge;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{command, logged, output};
use crate::programs::{cache, repository};
use crate::say;

/// What sanitizers' coverage needs; a stable compiler has it too. LLVM's own words.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The options of `e2e fuzz`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Targets, searched in this order; all where none is named.
    targets: Vec<String>,
    /// Minutes of the search's own CPU time for each: on a busy machine it takes longer and finds as much.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Afterwards, put the fewest inputs that reach as much into the tree, in the place of those that are there.
    #[arg(long)]
    merge: bool,
}

/// A target as the program lists it.
#[derive(Clone)]
struct Target {
    name: String,
    input_bytes_max: String,
}

/// Where everything of one target lies.
struct Places {
    corpus: PathBuf,
    findings: PathBuf,
    tree: PathBuf,
    log: PathBuf,
}

impl Places {
    fn of(target: &Target) -> Result<Self> {
        let home = cache().join("fuzz");
        let places = Self {
            corpus: home.join("corpus").join(&target.name),
            findings: home.join("findings").join(&target.name),
            tree: repository().join("relay/fuzz/corpus").join(&target.name),
            log: home.join("log").join(format!("{}.log", target.name)),
        };
        for folder in [&places.corpus, &places.findings, &places.tree] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(places)
    }
}

/// Builds, searches, tells.
///
/// # Errors
/// The program cannot be built, a target is unknown, or something was found.
pub fn run(arguments: &Arguments) -> Result<()> {
    let program = build()?;
    let targets = chosen(&program, &arguments.targets)?;
    let minutes = arguments.minutes;
    say::step(format!("{} targets, {minutes} minutes of CPU time each", targets.len()));
    let mut found = Vec::new();
    say::plain("| target | executions | a CPU second | CPU s | wall s | edges | features | inputs | findings |");
    say::plain("|---|---|---|---|---|---|---|---|---|");
    for target in &targets {
        let places = Places::of(target)?;
        let seconds = minutes * 60;
        if seconds > 0 {
            let row = search(&program, target, &places, seconds)?;
            say::plain(row.line(&target.name));
            if row.findings > 0 {
                found.push(places.findings.display().to_string());
            }
        }
        if arguments.merge {
            merge::into_tree(&program, target, &places)?;
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => bail!("findings: {}", found.join(", ")),
    }
}

/// Builds the program into a folder of its own: the flags would spoil everybody else's.
fn build() -> Result<PathBuf> {
    let version = output(&mut command("rustc", ["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not tell its host")?;
    let folder = cache().join("fuzz/target");
    say::step(format!("building the fuzz targets in {}", folder.display()));
    let line = "build --locked -p relay-fuzz --features libfuzzer --bin relay-fuzz --profile fuzz --target";
    let mut cargo = command("cargo", line.split(' ').chain([host]));
    cargo
        .current_dir(repository())
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", COVERAGE);
    logged(&mut cargo, &cache().join("fuzz/log/build.log"))?;
    Ok(folder.join(host).join("fuzz/relay-fuzz"))
}

fn chosen(program: &Path, names: &[String]) -> Result<Vec<Target>> {
    let listed = output(command(program, ["-help=0"]).env_remove("RELAY_FUZZ_TARGET"))?;
    let all: Vec<Target> = listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, bytes)| Target {
            name: name.to_owned(),
            input_bytes_max: bytes.to_owned(),
        })
        .collect();
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|target| target.name != **name)) {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        bail!("no target `{unknown}`; there are: {}", known.join(" "));
    }
    if names.is_empty() {
        return Ok(all);
    }
    let of = |name: &String| all.iter().find(|target| target.name == *name).cloned();
    Ok(names.iter().filter_map(of).collect())
}

/// The program for one target, with what all its uses have in common.
fn fuzzer(program: &Path, target: &Target) -> Command {
    let mut fuzzer = command(program, [format!("-max_len={}", target.input_bytes_max)]);
    // The program itself and `watch` say what is too slow, by CPU time; libFuzzer's clock is the wall's, where one who may be
    // paused or starved of CPU has no say. 1 GiB is far more than any needs.
    fuzzer.args([
        "-timeout=36000",
        "-report_slow_units=36000",
        "-rss_limit_mb=1024",
        "-malloc_limit_mb=512",
    ]);
    fuzzer.env("RELAY_FUZZ_TARGET", &target.name);
    fuzzer
}

/// What a search tells at its end.
struct Row {
    executions: u64,
    wall_seconds: f64,
    cpu_seconds: f64,
    edges: u64,
    features: u64,
    inputs: u64,
    findings: usize,
}

impl Row {
    fn line(&self, name: &str) -> String {
        let Self {
            executions,
            wall_seconds,
            cpu_seconds,
            edges,
            features,
            inputs,
            findings,
        } = self;
        let rate = *executions as f64 / cpu_seconds.max(1.0);
        format!(
            "| {name} | {executions} | {rate:.0} | {cpu_seconds:.0} | {wall_seconds:.0} | {edges} | {features} | {inputs} | {findings} |"
        )
    }
}

fn search(program: &Path, target: &Target, places: &Places, seconds: u64) -> Result<Row> {
    let mut prefix = places.findings.clone().into_os_string();
    prefix.push("/");
    let mut artifacts = std::ffi::OsString::from("-artifact_prefix=");
    artifacts.push(prefix);
    let mut fuzzer = fuzzer(program, target);
    fuzzer.arg("-print_final_stats=1").arg(artifacts);
    let words = repository().join("relay/fuzz/words").join(&target.name);
    if words.exists() {
        fuzzer.arg(format!("-dict={}", words.display()));
    }
    fuzzer.args([&places.corpus, &places.tree]);
    let began = std::time::Instant::now();
    let ended = watch::until_spent(&mut fuzzer, &places.log, seconds as f64)?;
    let said = String::from_utf8_lossy(&fs::read(&places.log)?).into_owned();
    let findings = fs::read_dir(&places.findings)?.count();
    if findings == 0 {
        ended.well?;
    }
    let last = said
        .lines()
        .rev()
        .find(|line| line.contains(" cov: "))
        .unwrap_or_default();
    Ok(Row {
        executions: number_after(&said, "stat::number_of_executed_units:"),
        wall_seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: ended.cpu_seconds,
        edges: number_after(last, " cov: "),
        features: number_after(last, " ft: "),
        inputs: number_after(last, " corp: "),
        findings,
    })
}

/// The number that follows the last `word`; 0 where there is none.
fn number_after(text: &str, word: &str) -> u64 {
    let rest = text.rsplit_once(word).map_or("", |(_, rest)| rest.trim_start());
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_last_counts() {
        let said = "#9\tINITED cov: 3 ft: 4 corp: 5/1b exec/s: 0\n#99\tDONE   cov: 325 ft: 1290 corp: 176/120Kb lim: 2048\n\
                    stat::number_of_executed_units: 9820408\n";
        let last = said.lines().rev().find(|line| line.contains(" cov: ")).unwrap();
        assert_eq!(number_after(last, " cov: "), 325);
        assert_eq!(number_after(last, " ft: "), 1290);
        assert_eq!(number_after(last, " corp: "), 176);
        assert_eq!(number_after(said, "stat::number_of_executed_units:"), 9_820_408);
        assert_eq!(number_after(said, "nothing"), 0);
    }
}
