//! What a process takes: from /proc.

use std::fs;

/// Resident memory of a process, in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// Now.
    pub(super) at_rest_mib: f64,
    /// The most that it ever was.
    pub(super) peak_mib: f64,
}

/// Of one process; zero if there is none.
pub(super) fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    };
    Memory {
        at_rest_mib: field("VmRSS:"),
        peak_mib: field("VmHWM:"),
    }
}

/// User and system time so far, all threads.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may itself hold parentheses and spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or_default()
    };
    (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
}
