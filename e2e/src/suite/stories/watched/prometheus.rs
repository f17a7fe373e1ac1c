//! Debian's Prometheus, for as long as the story takes.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{array, text};
use crate::command::{await_yes, command, last_words_of};
use crate::tornet::observe;

/// A process with a folder of its own; both end with the story.
pub(super) struct Prometheus {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Prometheus {
    /// On a free port of the loopback address.
    pub(super) fn start(jobs: &[Value], rules: &Value) -> Result<Self> {
        let folder = TempDir::with_prefix("relayfleet-prometheus-")?;
        let file = |name: &str| folder.path().join(name);
        // JSON is YAML.
        fs::write(file("rules.yml"), rules.to_string())?;
        let config = json!({
            "global": {"evaluation_interval": "1s"},
            "rule_files": [file("rules.yml")],
            "scrape_configs": jobs,
        });
        fs::write(file("prometheus.yml"), config.to_string())?;
        let log = File::create(file("log"))?;
        let process = command(
            "prometheus",
            [
                format!("--config.file={}", file("prometheus.yml").display()),
                format!("--storage.tsdb.path={}", file("data").display()),
                "--web.listen-address=127.0.0.1:0".to_owned(),
            ],
        )
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start prometheus, Debian's package")?;
        let mut started = Self {
            process,
            address: ([127, 0, 0, 1], 0).into(),
            folder,
        };
        let log = started.folder.path().join("log");
        let mut address = None;
        await_yes("Prometheus to listen", Duration::from_secs(30), || {
            address = fs::read_to_string(&log).ok().and_then(|log| listening(&log));
            address.is_some()
        })
        .with_context(|| last_words_of(&log))?;
        started.address = address.context("no address")?;
        let ready = || observe::page(started.address, "/-/ready").is_ok_and(|page| page.contains("is Ready"));
        await_yes("Prometheus to be ready", Duration::from_secs(30), ready).with_context(|| last_words_of(&log))?;
        Ok(started)
    }

    /// The series that answer a question, now.
    pub(super) fn ask(&self, question: &str) -> Result<Vec<Value>> {
        let answer = self.page(&format!("/api/v1/query?query={}", escaped(question)))?;
        ensure!(text(&answer, "/status") == "success", "{}", text(&answer, "/error"));
        Ok(array(&answer, "/data/result").to_vec())
    }

    /// Names of the alerts that fire.
    pub(super) fn firing(&self) -> Result<Vec<String>> {
        let answer = self.page("/api/v1/rules?type=alert")?;
        let groups = array(&answer, "/data/groups").iter();
        let rules: Vec<&Value> = groups.flat_map(|group| array(group, "/rules")).collect();
        ensure!(!rules.is_empty(), "Prometheus has no rules");
        for rule in &rules {
            let health = text(rule, "/health");
            ensure!(health != "err", "{}: {}", text(rule, "/name"), text(rule, "/lastError"));
        }
        let firing = rules.iter().filter(|rule| text(rule, "/state") == "firing");
        Ok(firing.map(|rule| text(rule, "/name").to_owned()).collect())
    }

    /// What it found and how that answers, for an error message.
    pub(super) fn targets(&self) -> String {
        let Ok(page) = self.page("/api/v1/targets?state=active") else {
            return last_words_of(&self.folder.path().join("log"));
        };
        let lines = array(&page, "/data/activeTargets").iter().map(|target| {
            let [url, health, error] = ["/scrapeUrl", "/health", "/lastError"].map(|part| text(target, part));
            format!("  {url} {health} {error}\n")
        });
        lines.collect()
    }

    fn page(&self, path: &str) -> Result<Value> {
        let page = observe::page(self.address, path)?;
        serde_json::from_str(&page).with_context(|| format!("Prometheus answers {page:?}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// It says so in its log: `msg="Listening on" address=127.0.0.1:33445`.
fn listening(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("msg=\"Listening on\" address=")?;
    rest.lines().next()?.split_whitespace().next()?.parse().ok()
}

/// For a URL's query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
