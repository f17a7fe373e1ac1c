//! Where the CPU time of a relay goes: `perf record` while it carries bytes, folded stacks, and the hottest functions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::measure::fetch;
use super::plan::{Case, Layout, Place, Subject, Way};
use crate::command::{command, output};
use crate::say;
use crate::tornet::Network;

/// Functions that are named at the end.
const HOTTEST: usize = 25;

/// A profile of C tor and of ours at each position: `POSITION-WHO.folded` for flame graphs, `POSITION-WHO.txt` to read.
///
/// # Errors
/// There is no perf, or it may not look at the relay.
pub(super) fn take(network: &Network, layout: &Layout, places: &[Place], bytes: u64, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for place in places {
        for (subject, who) in [(Subject::CTor, "c-tor"), (Subject::Profiled, "ours")] {
            let case = Case {
                place: *place,
                way: Way::Down,
                streams: 32,
                bytes,
            };
            let folded = record(network, layout, case, subject, folder)?;
            let stacks: String = folded
                .iter()
                .map(|(stack, count)| format!("{stack} {count}\n"))
                .collect();
            fs::write(folder.join(format!("{place}-{who}.folded")), stacks)?;
            let hottest = hottest(&folded);
            fs::write(folder.join(format!("{place}-{who}.txt")), &hottest)?;
            say::plain(format!("{subject} as {place}, 32 streams down, self time:\n{hottest}"));
        }
    }
    say::step(format!("profiles and folded stacks: {}", folder.display()));
    Ok(())
}

fn record(
    network: &Network,
    layout: &Layout,
    case: Case,
    subject: Subject,
    folder: &Path,
) -> Result<BTreeMap<String, u64>> {
    let node = layout.node(case.place, subject).context("no such node")?;
    let known = network.process(&node).context("the relay under test ended")?;
    let data = folder.join("perf.data");
    // Virtual machines mostly have no cycle counter, so by the clock; 997 keeps out of step with timers.
    let mut perf = command("perf", ["record", "-q", "-e", "cpu-clock", "-F", "997", "-g", "-o"]);
    perf.arg(&data).args(["-p", &known.pid.to_string()]);
    let mut running = perf
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("no perf on the PATH: apt-get install linux-perf")?;
    let fetched = network.fetch(&fetch(layout, case, subject)?);
    if let Some(pid) = i32::try_from(running.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::INT)?;
    }
    running.wait()?;
    fetched?;
    let mut script = Command::new("perf");
    script.args(["script", "-F", "ip,sym,dso", "-i"]).arg(&data);
    let text = output(script.stdin(Stdio::null()).stderr(Stdio::null()))?;
    fs::remove_file(&data)?;
    let folded = fold(&text);
    ensure!(!folded.is_empty(), "perf saw nothing of {node}");
    Ok(folded)
}

/// perf prints a stack as lines from the innermost function outwards, and an empty line behind it. Folded, it is one
/// line from the outermost inwards.
fn fold(script: &str) -> BTreeMap<String, u64> {
    let mut folded = BTreeMap::new();
    let mut stack: Vec<String> = Vec::new();
    for line in script.lines().chain([""]) {
        if line.trim().is_empty() {
            if !stack.is_empty() {
                stack.reverse();
                *folded.entry(stack.join(";")).or_default() += 1;
                stack.clear();
            }
        } else if let Some(frame) = frame(line) {
            stack.push(frame);
        }
    }
    folded
}

/// `ffffffff816b8cd3 vfs_write+0x253 ([kernel.kallsyms])`: the function, or its file where the function is unknown.
fn frame(line: &str) -> Option<String> {
    let (address, rest) = line.trim().split_once(' ')?;
    u64::from_str_radix(address, 16).ok()?;
    let (symbol, file) = rest.rsplit_once(" (")?;
    let symbol = match symbol.rsplit_once("+0x") {
        Some((name, offset)) if offset.chars().all(|digit| digit.is_ascii_hexdigit()) => name,
        _ => symbol,
    };
    let file = file.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
    let symbol = without_hash(symbol).replace(';', ":");
    Some(match (symbol.as_str(), file) {
        ("[unknown]" | "", file) => format!("[{}]", file.trim_matches(['[', ']'])),
        (_, "[kernel.kallsyms]") => format!("{symbol}_[k]"),
        _ => symbol,
    })
}

/// Rust's old mangling ends names in `::h` and 16 hexadecimal digits.
fn without_hash(symbol: &str) -> &str {
    match symbol.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.chars().all(|digit| digit.is_ascii_hexdigit()) => name,
        _ => symbol,
    }
}

/// Share of the samples, innermost function.
fn hottest(folded: &BTreeMap<String, u64>) -> String {
    let mut own: BTreeMap<&str, u64> = BTreeMap::new();
    for (stack, count) in folded {
        *own.entry(stack.rsplit(';').next().unwrap_or_default()).or_default() += count;
    }
    let total: u64 = own.values().sum();
    let mut sorted: Vec<_> = own.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut text = format!("{total} samples\n");
    for (name, count) in sorted.into_iter().take(HOTTEST) {
        let _ = writeln!(text, "{:>5.1} %  {name}", 100.0 * count as f64 / total.max(1) as f64);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "
\tffffffff816b8cd3 vfs_write+0x253 ([kernel.kallsyms])
\t           f8350 __GI___libc_write+0x10 (/usr/lib/x86_64-linux-gnu/libc.so.6)

\t           5e6f0 relay_node::link::Link::write::h0123456789abcdef+0x1f (/tmp/relay)
\t           1234 [unknown] (/usr/bin/tor)

\tffffffff816b8cd3 vfs_write+0x999 ([kernel.kallsyms])
\t           f8350 __GI___libc_write+0x10 (/usr/lib/x86_64-linux-gnu/libc.so.6)
";

    #[test]
    fn stacks_are_folded_from_the_outside_and_counted() {
        let folded = fold(SCRIPT);
        assert_eq!(folded.get("__GI___libc_write;vfs_write_[k]"), Some(&2));
        assert_eq!(folded.get("[tor];relay_node::link::Link::write"), Some(&1));
        assert_eq!(folded.len(), 2);
    }

    #[test]
    fn the_innermost_function_has_the_self_time() {
        let text = hottest(&fold(SCRIPT));
        assert_eq!(text.lines().next(), Some("3 samples"));
        assert_eq!(text.lines().nth(1), Some(" 66.7 %  vfs_write_[k]"));
    }
}
