//! The operator under test: one process, as the chart would run it, and what it says of itself.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::cost::{Memory, cpu_seconds, memory};
use super::http::Connection;
use super::server::{SYSTEM, Server};
use crate::command::{command, last_words_of};

/// Killed if it is forgotten.
pub(super) struct Operator {
    process: Child,
    log: PathBuf,
    address: Option<SocketAddr>,
}

impl Operator {
    pub(super) fn start(program: &Path, server: &Server, name: &str) -> Result<Self> {
        let log = server.folder.join(format!("operator-{name}.log"));
        let mut operator = command("setpriv", ["--pdeathsig", "KILL"]);
        operator
            .arg(program)
            .arg("--kubeconfig")
            .arg(server.folder.join("operator.kubeconfig"))
            .args([
                "--listen=127.0.0.1:0",
                "--relay-image=relay:1",
                "--lease-name=relayfleet",
            ])
            .args([
                format!("--instance={name}"),
                format!("--lease-namespace={SYSTEM}"),
                format!("--custody-namespace={SYSTEM}"),
            ])
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "warn,operator=info".into()),
            );
        let process = operator
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let process = process
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self {
            process,
            log,
            address: None,
        })
    }

    /// Its metrics, in Prometheus' text.
    pub(super) fn metrics(&mut self) -> Result<Metrics> {
        let address = self.address()?;
        let body = Connection::open(address)?.get("/metrics")?;
        Metrics::of(body)
    }

    fn address(&mut self) -> Result<SocketAddr> {
        let start = Instant::now();
        while self.address.is_none() {
            if self.process.try_wait()?.is_some() {
                bail!("the operator ended\n{}", last_words_of(&self.log));
            }
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "the operator says no address: {}",
                self.log.display()
            );
            std::thread::sleep(Duration::from_millis(50));
            let log = std::fs::read_to_string(&self.log)?;
            let said = log
                .split("address=")
                .nth(1)
                .and_then(|rest| rest.split_whitespace().next());
            self.address = said.and_then(|address| address.parse().ok());
        }
        self.address.context("no address")
    }

    pub(super) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.process.id())
    }

    pub(super) fn memory(&self) -> Memory {
        memory(self.process.id())
    }

    /// SIGTERM, and its end.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.process.id())?;
        kill_process(Pid::from_raw(pid).context("no process")?, Signal::TERM)?;
        let status = self.process.wait()?;
        ensure!(
            status.success(),
            "the operator ended with {status}\n{}",
            last_words_of(&self.log)
        );
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lines `name{labels} value`.
pub(super) struct Metrics(String);

impl Metrics {
    pub(super) fn of(text: Vec<u8>) -> Result<Self> {
        Ok(Self(String::from_utf8(text)?))
    }

    /// Sum over all lines of this name that have all of these labels (`kind="Relay"`).
    pub(super) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.lines(name)
            .filter(|(found, _)| labels.iter().all(|label| found.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Labels and value of each line of this name.
    pub(super) fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_name_and_labels() {
        let text = "# HELP a x\na_total{kind=\"Pod\",verb=\"create\"} 3\na_total{kind=\"Pod\",verb=\"patch\"} 4\na_total_more 9\nb 2\n";
        let metrics = Metrics(text.into());
        assert_eq!(metrics.sum("a_total", &["kind=\"Pod\""]), 7.0);
        assert_eq!(metrics.sum("a_total", &["verb=\"patch\""]), 4.0);
        assert_eq!(metrics.sum("b", &[]), 2.0);
    }
}
