//! The operator's program, as the chart would run it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::{HOME_OF_ONE, KEYS, Server, await_yes};

/// One process; killed if the test forgets it.
pub(crate) struct Operator {
    process: Child,
    log: std::path::PathBuf,
}

impl Operator {
    /// For the Relays of one namespace, with a Lease of that name.
    pub(crate) fn start(server: &Server, namespace: &str) -> Self {
        Self::start_as(server, namespace, "first")
    }

    /// For the Relays of all namespaces: only on a server of its own, or it meddles with other tests' Relays.
    pub(crate) fn start_for_all(server: &Server, namespace: &str) -> Self {
        Self::start_for_all_with(server, namespace, &[])
    }

    pub(crate) fn start_for_all_with(server: &Server, namespace: &str, more: &[&str]) -> Self {
        Self::run(server, namespace, "all", &[&["--relay-image=relay:1"], more].concat())
    }

    pub(crate) fn start_as(server: &Server, namespace: &str, instance: &str) -> Self {
        Self::start_with(server, namespace, instance, &["--relay-image=relay:1"])
    }

    pub(crate) fn start_with(server: &Server, namespace: &str, instance: &str, more: &[&str]) -> Self {
        let watched = format!("--watch-namespace={namespace}");
        Self::run(server, namespace, instance, &[&[watched.as_str()], more].concat())
    }

    /// As the chart installs it with `watchNamespace`, under that chart's roles.
    pub(crate) fn start_of_one_namespace(server: &Server, namespace: &str) -> Self {
        let more = [&*format!("--watch-namespace={namespace}"), "--relay-image=relay:1"];
        let homes = ["operator-of-one", HOME_OF_ONE, HOME_OF_ONE];
        Self::run_as(server, homes, namespace, "one", &more)
    }

    fn run(server: &Server, namespace: &str, instance: &str, more: &[&str]) -> Self {
        Self::run_as(server, ["operator", KEYS, namespace], namespace, instance, more)
    }

    /// `user`, where keys are kept, and where its Lease is.
    fn run_as(server: &Server, [user, keys, lease]: [&str; 3], namespace: &str, instance: &str, more: &[&str]) -> Self {
        let log = server.path(&format!("operator-{namespace}-{instance}-{:?}.log", Instant::now()));
        let process = Command::new(env!("CARGO_BIN_EXE_operator"))
            .arg("--kubeconfig")
            .arg(server.path(&format!("{user}.kubeconfig")))
            .arg("--listen=127.0.0.1:0")
            .args(more)
            .arg(format!("--instance={namespace}-{instance}"))
            .arg(format!("--custody-namespace={keys}"))
            .args([
                "--lease-name=relayfleet".to_owned(),
                format!("--lease-namespace={lease}"),
            ])
            // A machine that is busy with other tests may not answer for long.
            .env("RELAYFLEET_LEASE_SECONDS", "30")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn await_log(&self, text: &str) {
        await_yes(&format!("{text:?} in the operator's log"), || self.log().contains(text));
    }

    /// Whether it ends by itself; if not, it is stopped as soon as `done` says yes.
    pub(crate) fn runs_until(mut self, mut done: impl FnMut() -> bool) -> bool {
        loop {
            for _ in 0..20 {
                if self.process.try_wait().unwrap().is_some() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            if done() {
                // It may still have something to write: then it dies of it.
                let _ = Command::new("kill")
                    .args(["-TERM", &self.process.id().to_string()])
                    .status();
                return !self.process.wait().unwrap().success();
            }
        }
    }

    /// SIGTERM; how long it took to end.
    pub(crate) fn stop(mut self) -> Duration {
        let start = Instant::now();
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.process.wait().unwrap();
        assert!(status.success(), "the operator ended with {status}: {}", self.log());
        start.elapsed()
    }

    /// SIGSTOP: no thread of it does anything until SIGCONT.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// By itself, with a failure; its log.
    pub(crate) fn await_failure(mut self) -> String {
        await_yes("the operator to end by itself", || {
            self.process.try_wait().unwrap().is_some()
        });
        assert!(!self.process.wait().unwrap().success());
        self.log()
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The answer to a GET of its own server.
    pub(crate) fn http(&self, path: &str) -> String {
        self.await_log("address=");
        let log = self.log();
        let address = log.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the operator's log:\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
