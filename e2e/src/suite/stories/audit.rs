//! The API server's audit log as a witness of what the operator asked for.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::demo::{Demo, operator};

/// What is written in the log from some moment on.
pub(super) struct Audit {
    log: PathBuf,
    from: u64,
}

/// One request of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// `get`, `patch` and so on.
    pub(super) verb: String,
    /// Path and query.
    pub(super) uri: String,
    /// `pods`, `relays/status`, with the group before it: `relayfleet.io/relays`.
    pub(super) resource: String,
    /// Of the answer.
    pub(super) code: u64,
}

impl Audit {
    /// From now on.
    pub(super) fn now(demo: &Demo) -> Result<Self> {
        let log = path(demo);
        let from = std::fs::metadata(&log)
            .with_context(|| log.display().to_string())?
            .len();
        Ok(Self { log, from })
    }

    /// Since the cluster began.
    pub(super) fn whole(demo: &Demo) -> Self {
        Self {
            log: path(demo),
            from: 0,
        }
    }

    /// What the operator asked for.
    pub(super) fn of_the_operator(&self) -> Result<Vec<Request>> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(requests(&String::from_utf8_lossy(&text)))
    }

    /// What the operator wrote, for people. Its Lease is renewed all the time, and events are no state.
    pub(super) fn writes(&self) -> Result<Vec<String>> {
        let writes = self.of_the_operator()?.into_iter().filter(Request::is_write);
        Ok(writes
            .map(|one| format!("{} {} ({})", one.verb, one.uri, one.code))
            .collect())
    }
}

impl Request {
    pub(super) fn is_write(&self) -> bool {
        let reads = ["get", "list", "watch"];
        let apart = ["coordination.k8s.io/leases", "events.k8s.io/events", "events"];
        !reads.contains(&self.verb.as_str()) && !apart.contains(&self.resource.as_str())
    }
}

fn path(demo: &Demo) -> PathBuf {
    demo.cluster.places.state.join("log/audit.log")
}

fn requests(log: &str) -> Vec<Request> {
    let user = format!("system:serviceaccount:{}:{}", operator::NAMESPACE, operator::RELEASE);
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |entry: &Value, path: &str| {
        entry
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mine = entries.filter(|entry| text(entry, "/user/username") == user);
    mine.map(|entry| {
        let part = |path: &str, join: fn(String) -> String| match text(&entry, path) {
            none if none.is_empty() => none,
            some => join(some),
        };
        let group = part("/objectRef/apiGroup", |group| format!("{group}/"));
        let sub = part("/objectRef/subresource", |sub| format!("/{sub}"));
        Request {
            verb: text(&entry, "/verb"),
            uri: text(&entry, "/requestURI"),
            resource: format!("{group}{}{sub}", text(&entry, "/objectRef/resource")),
            code: entry
                .pointer("/responseStatus/code")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_operator_wrote_is_a_write_of_it() {
        let line = |user: &str, verb: &str, group: &str, resource: &str| {
            format!(
                r#"{{"verb":"{verb}","requestURI":"/x","user":{{"username":"system:serviceaccount:{user}"}},"objectRef":{{"resource":"{resource}","apiGroup":"{group}","subresource":"status"}},"responseStatus":{{"code":403}}}}"#
            )
        };
        let ours = "relayfleet-system:relayfleet";
        let log = [
            line(ours, "patch", "relayfleet.io", "relays"),
            line(ours, "list", "relayfleet.io", "relays"),
            line("kube-system:other", "patch", "relayfleet.io", "relays"),
            "not json".to_owned(),
        ]
        .join("\n");
        let found = requests(&log);
        assert_eq!(found.len(), 2);
        let writes: Vec<&Request> = found.iter().filter(|one| one.is_write()).collect();
        assert_eq!(
            (&*writes[0].resource, writes[0].code, writes.len()),
            ("relayfleet.io/relays/status", 403, 1)
        );
    }

    #[test]
    fn a_renewed_lease_and_an_event_are_no_writes() {
        let of = |resource: &str| Request {
            verb: "update".into(),
            uri: String::new(),
            resource: resource.into(),
            code: 200,
        };
        assert!(!of("coordination.k8s.io/leases").is_write() && !of("events.k8s.io/events").is_write());
        assert!(of("pods").is_write());
    }
}
