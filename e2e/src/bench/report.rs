//! What is printed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::measure::Sample;
use super::plan::{Case, Subject};
use crate::say;

/// What the figures hold for.
pub(super) fn machine() {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("an unknown CPU", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    say::step(format!(
        "{cores} × {model}, Linux {}, load before {}",
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    ));
}

/// One measurement.
pub(super) fn line(sample: &Sample) -> String {
    let Sample { case, .. } = sample;
    format!(
        "{:<6} {:<4} {:>3} streams, round {}: {:<7} {:>6.1} MiB/s, {:>5.2} CPU-s/GiB, {:>4.0} k cells/CPU-s, RSS {:>3.0} MiB; CPU-s {:.2} of {:.2} s, all others {:.2}",
        case.place,
        case.way,
        case.streams,
        sample.round + 1,
        sample.subject,
        sample.mib_per_second,
        sample.cpu_seconds_per_gib,
        sample.cells_per_cpu_second / 1_000.0,
        sample.rss_mib,
        sample.cpu_seconds_per_gib * sample.case.bytes as f64 / f64::from(1 << 30),
        sample.seconds,
        sample.other_cpu_seconds,
    )
}

/// A JSON object a line.
pub(super) fn write_json(path: &Path, samples: &[Sample]) -> Result<()> {
    let lines: Vec<String> = samples.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    fs::write(path, lines.join("\n") + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// Minimum, median and maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self {
            least: *values.first()?,
            median: f64::midpoint(lower, upper),
            most: *values.last()?,
        })
    }
}

/// A Markdown table: a row for each case, medians, and ratios to C tor of the same round.
pub(super) fn table(samples: &[Sample]) -> String {
    let mut cases: Vec<Case> = Vec::new();
    for sample in samples {
        if !cases.contains(&sample.case) {
            cases.push(sample.case);
        }
    }
    let mut text = String::from(
        "| position, way, streams | C tor: MiB/s, CPU-s/GiB, k cells/CPU-s, RSS MiB | ours: the same | CPU ours/C tor: \
         median [min-max] | speed ours/C tor | CPU C tor/C tor: what is resolved |\n|---|---|---|---|---|---|\n",
    );
    for case in cases {
        let of = |subject| {
            samples
                .iter()
                .filter(move |one| one.case == case && one.subject == subject)
        };
        let _ = writeln!(
            text,
            "| {} {} {} | {} | {} | {} | {} | {} |",
            case.place,
            case.way,
            case.streams,
            medians(of(Subject::CTor)),
            medians(of(Subject::Ours)),
            ratio(of(Subject::Ours), of(Subject::CTor), |one| one.cpu_seconds_per_gib),
            ratio(of(Subject::Ours), of(Subject::CTor), |one| one.mib_per_second),
            ratio(of(Subject::Control), of(Subject::CTor), |one| one.cpu_seconds_per_gib),
        );
    }
    text
}

fn medians<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> String {
    let median = |of: fn(&Sample) -> f64| Spread::of(samples.clone().map(of)).map_or(f64::NAN, |spread| spread.median);
    format!(
        "{:.1}, {:.2}, {:.0}, {:.0}",
        median(|one| one.mib_per_second),
        median(|one| one.cpu_seconds_per_gib),
        median(|one| one.cells_per_cpu_second / 1_000.0),
        median(|one| one.rss_mib)
    )
}

fn ratio<'a>(
    one: impl Iterator<Item = &'a Sample>,
    other: impl Iterator<Item = &'a Sample> + Clone,
    of: fn(&Sample) -> f64,
) -> String {
    let pairs = one.filter_map(|sample| {
        let beside = other.clone().find(|other| other.round == sample.round)?;
        Some(of(sample) / of(beside).max(f64::EPSILON))
    });
    Spread::of(pairs).map_or_else(
        || "–".to_owned(),
        |Spread { least, median, most }| format!("{median:.2} [{least:.2}-{most:.2}]"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Place, Way};
    use super::*;

    fn sample(subject: Subject, round: usize, cpu: f64) -> Sample {
        Sample {
            subject,
            case: Case {
                place: Place::Middle,
                way: Way::Down,
                streams: 32,
                bytes: 1,
            },
            round,
            mib_per_second: 10.0,
            cpu_seconds_per_gib: cpu,
            cells_per_cpu_second: 1.0,
            rss_mib: 1.0,
            other_cpu_seconds: 1.0,
            seconds: 1.0,
        }
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        // The second round was twice as dear for everybody: that changes no ratio.
        let samples = [
            sample(Subject::CTor, 0, 8.0),
            sample(Subject::Ours, 0, 2.0),
            sample(Subject::Ours, 1, 4.0),
            sample(Subject::CTor, 1, 16.0),
        ];
        let table = table(&samples);
        assert!(table.contains("| 0.25 [0.25-0.25] |"), "{table}");
        assert!(table.lines().count() == 3 && table.contains("| – |"), "{table}");
    }

    #[test]
    fn the_median_of_two_lies_between_them() {
        let spread = Spread::of([3.0, 1.0].into_iter()).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([].into_iter()), None);
    }
}
