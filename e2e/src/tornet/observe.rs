//! What a network costs and what it complains about.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::process::Known;

/// Longest metrics page that is read.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// How finely /proc/PID/stat counts (proc(5): `sysconf(_SC_CLK_TCK)`, 100 on Linux).
const TICK_SECONDS: f64 = 0.01;

/// What a process used since it began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usage {
    /// Its number.
    pub pid: i32,
    /// CPU seconds in its own code, all threads.
    pub user_seconds: f64,
    /// CPU seconds in the kernel's.
    pub system_seconds: f64,
    /// What the scheduler says of the threads that there are now, finer than the clock ticks of the two above.
    pub run_seconds: f64,
    /// Memory now, KiB.
    pub rss_kib: u64,
    /// Memory at most, KiB.
    pub rss_peak_kib: u64,
    /// Threads now.
    pub threads: u64,
    /// Open file descriptors now.
    pub descriptors: usize,
}

impl Usage {
    /// CPU seconds, all together.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }

    /// CPU seconds since an earlier look. Ticks of 10 ms are coarse for short transfers, and the scheduler's account
    /// forgets threads that ended: it is taken where the ticks bear it out.
    #[must_use]
    pub fn since(&self, earlier: Option<&Self>) -> f64 {
        let earlier_or = |of: fn(&Self) -> f64| earlier.map_or(0.0, of);
        let ticks = self.cpu_seconds() - earlier_or(Self::cpu_seconds);
        let fine = self.run_seconds - earlier_or(|earlier| earlier.run_seconds);
        if (fine - ticks).abs() <= 2.5 * TICK_SECONDS {
            fine
        } else {
            ticks
        }
    }
}

/// What a process used, or `None` if there is none with this number.
#[must_use]
pub fn usage(pid: i32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let (user, system) = ticks(&stat)?;
    let second = rustix::param::clock_ticks_per_second() as f64;
    Some(Usage {
        pid,
        user_seconds: user as f64 / second,
        system_seconds: system as f64 / second,
        run_seconds: run_seconds(pid),
        rss_kib: field(&status, "VmRSS:")?,
        rss_peak_kib: field(&status, "VmHWM:")?,
        threads: field(&status, "Threads:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
    })
}

/// How long a process has been running.
pub(crate) fn age(process: Known) -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let began = process.started as f64 / rustix::param::clock_ticks_per_second() as f64;
    Duration::try_from_secs_f64(uptime - began).ok()
}

/// CPU seconds of the threads whose names begin so, in the order of their names.
pub(crate) fn threads(pid: i32, name: &str) -> Vec<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<(String, f64)> = threads
        .filter_map(|thread| {
            let comm = fs::read_to_string(thread.path().join("comm")).ok()?;
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanoseconds: u64 = text.split(' ').next()?.parse().ok()?;
            comm.starts_with(name).then_some((comm, nanoseconds as f64 / 1e9))
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found.into_iter().map(|(_, seconds)| seconds).collect()
}

/// The first field of each thread's schedstat, nanoseconds on a CPU.
fn run_seconds(pid: i32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

/// Fields 14 and 15 of /proc/PID/stat; the name in parentheses may hold spaces and parentheses (proc(5)).
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field(status: &str, name: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// A relay's metrics page.
pub(crate) fn scrape(address: SocketAddr) -> anyhow::Result<String> {
    page(address, "/metrics")
}

/// A page by HTTP. C tor leaves the connection open, so the length it names decides.
pub(crate) fn page(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    page_for(address, path, "")
}

/// The same with further headers, each with its line's end.
pub(crate) fn page_for(address: SocketAddr, path: &str, headers: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .with_context(|| format!("nothing answers at {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: tornet\r\n{headers}\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1 << 14];
    loop {
        if let Some(body) = whole_body(&answer) {
            return Ok(body);
        }
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            let text = String::from_utf8_lossy(&answer);
            let (_, body) = text.split_once("\r\n\r\n").context("half an answer")?;
            return Ok(body.to_owned());
        }
        answer.extend(buffer.iter().take(length));
        ensure!(answer.len() < PAGE_BYTES_MAX, "a page without end");
    }
}

fn whole_body(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length:")?
            .trim()
            .parse::<usize>()
            .ok()
    })?;
    (body.len() >= length).then(|| body.to_owned())
}

/// The sum of all samples of a metric, over all labels; `None` if the page lacks it.
#[must_use]
pub fn sum_of(page: &str, metric: &str) -> Option<f64> {
    let samples: Vec<f64> = page
        .lines()
        .filter_map(|line| line.strip_prefix(metric))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.split_whitespace().last()?.parse().ok())
        .collect();
    (!samples.is_empty()).then(|| samples.iter().sum())
}

/// Whether a line of C tor's log is a warning or an error.
#[must_use]
pub fn is_complaint(line: &str) -> bool {
    line.contains(" [warn] ") || line.contains(" [err] ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_used_memory() {
        let used = usage(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(used.rss_kib > 0 && used.threads > 0 && used.rss_peak_kib >= used.rss_kib);
    }

    #[test]
    fn the_schedulers_account_is_taken_only_where_ticks_bear_it_out() {
        let used = |ticks, run_seconds| Usage {
            pid: 1,
            user_seconds: ticks,
            system_seconds: 0.0,
            run_seconds,
            rss_kib: 1,
            rss_peak_kib: 1,
            threads: 1,
            descriptors: 1,
        };
        let before = used(1.00, 1.004);
        assert!((used(1.12, 1.131).since(Some(&before)) - 0.127).abs() < 1e-9);
        // A thread ended and took its account along.
        assert!((used(1.12, 0.2).since(Some(&before)) - 0.12).abs() < 1e-9);
    }

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 12 34 0 0 20 0 1 0 99";
        assert_eq!(ticks(stat), Some((12, 34)));
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_mixed_with_longer_names() {
        let page = "# TYPE tor_a counter\ntor_a{x=\"1\"} 2\ntor_a{x=\"2\"} 3\ntor_a_more 100\ntor_b 7\n";
        assert_eq!(sum_of(page, "tor_a"), Some(5.0));
        assert_eq!(sum_of(page, "tor_b"), Some(7.0));
        assert_eq!(sum_of(page, "tor_c"), None);
    }

    #[test]
    fn a_page_is_whole_when_its_length_is_there() {
        assert_eq!(whole_body(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfou"), None);
        assert_eq!(
            whole_body(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfour").unwrap(),
            "four"
        );
    }

    #[test]
    fn warnings_and_errors_are_complaints_and_notices_are_not() {
        assert!(is_complaint("Nov 22 12:00:00.000 [warn] Something"));
        assert!(is_complaint("Nov 22 12:00:00.000 [err] Something"));
        assert!(!is_complaint("Nov 22 12:00:00.000 [notice] Heartbeat: no [warnings]"));
    }
}
