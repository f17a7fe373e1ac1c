//! Limits of the system.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept back from links: listeners, logs, files, directory connections.
const RESERVED: u64 = 64;

/// Further ones for questions to the DNS, where there are many.
const FOR_DNS: u64 = 512;

/// `MaxMemInQueues` where torrc leaves it open: two fifths of the memory, three quarters of a small one, within these bounds
/// (C tor `compute_real_max_mem_in_queues`).
const QUEUED_BYTES_RANGE: (u64, u64) = (256 << 20, 8 << 30);
/// From here on it is two fifths.
const MUCH_MEMORY_BYTES: u64 = 8 << 30;

/// Bytes that may wait in the engine's queues. In a container its limit is what counts, not the machine's memory.
pub fn queued_bytes_max(wanted: Option<u64>) -> u64 {
    wanted.unwrap_or_else(|| share_of(memory_bytes()))
}

fn share_of(memory: Option<u64>) -> u64 {
    let (least, most) = QUEUED_BYTES_RANGE;
    let share = match memory {
        Some(bytes) if bytes >= MUCH_MEMORY_BYTES => bytes / 5 * 2,
        Some(bytes) => bytes / 4 * 3,
        None => most,
    };
    share.clamp(least, most)
}

/// The machine's memory or the cgroup's limit, whichever is less; `None` where neither can be read.
fn memory_bytes() -> Option<u64> {
    let number = |path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(mem_total);
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    limits.into_iter().filter_map(number).chain(machine).min()
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1_024)
}

/// Raises the soft limit on descriptors to the hard one and returns how many links there is room for.
pub fn room_for_links() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if let Some(most) = limit.maximum
        && limit.current.is_some_and(|now| now < most)
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )
    {
        tracing::warn!("Couldn't set maximum number of file descriptors: {error}");
    }
    let all = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = all.saturating_sub(RESERVED + FOR_DNS.min(all / 8));
    usize::try_from(room).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_get_a_share_of_the_memory_as_in_c_tor() {
        assert_eq!(share_of(Some(24 << 30)), 8 << 30);
        assert_eq!(share_of(Some(10 << 30)), (10 << 30) / 5 * 2);
        assert_eq!(share_of(Some(1 << 30)), 768 << 20);
        assert_eq!(share_of(Some(100 << 20)), 256 << 20);
        assert_eq!(share_of(None), 8 << 30);
        assert_eq!(queued_bytes_max(Some(5)), 5);
        assert_eq!(
            mem_total("MemTotal:       24670000 kB\nMemFree: 1 kB\n"),
            Some(24_670_000 * 1_024)
        );
        assert_eq!(mem_total("MemTotal: much"), None);
    }
}
