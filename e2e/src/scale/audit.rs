//! What the API server says that the operator wrote: the witness, beside the operator's own count.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;

/// Reads the audit log from where it was left.
pub(super) struct Audit {
    log: PathBuf,
    offset: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    object_ref: Option<Object>,
    response_status: Option<Answer>,
}

#[derive(Deserialize, Default)]
struct Object {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Answer {
    code: Option<u16>,
}

/// Done, by resource and verb; those that were refused apart. Renewals of the Lease are in neither.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// `create pods` and how often.
    pub(super) done: BTreeMap<String, usize>,
    /// `create pods 409` and how often.
    pub(super) refused: BTreeMap<String, usize>,
    /// The same as `done`, with the object's name.
    pub(super) named: Vec<(String, String)>,
}

impl Writes {
    pub(super) fn total(&self) -> usize {
        self.done.values().sum()
    }

    /// `3 create pods, 4 patch relays/status`.
    pub(super) fn said(counts: &BTreeMap<String, usize>) -> String {
        let each: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        if each.is_empty() {
            "none".into()
        } else {
            each.join(", ")
        }
    }
}

impl Audit {
    pub(super) fn of(log: PathBuf) -> Self {
        Self { log, offset: 0 }
    }

    /// All since the last call.
    pub(super) fn read(&mut self) -> Result<Writes> {
        let mut writes = Writes::default();
        let Ok(mut log) = File::open(&self.log) else {
            return Ok(writes); // nothing was written yet
        };
        log.seek(SeekFrom::Start(self.offset))?;
        let mut lines = BufReader::new(log);
        let mut line = String::new();
        loop {
            line.clear();
            let read = lines.read_line(&mut line)?;
            if read == 0 || !line.ends_with('\n') {
                return Ok(writes);
            }
            self.offset += u64::try_from(read)?;
            writes.take(serde_json::from_str(&line)?);
        }
    }
}

impl Writes {
    fn take(&mut self, entry: Entry) {
        let object = entry.object_ref.unwrap_or_default();
        if object.resource == "leases" {
            return;
        }
        let sub = if object.subresource.is_empty() { "" } else { "/" };
        let what = format!("{} {}{sub}{}", entry.verb, object.resource, object.subresource);
        let code = entry.response_status.and_then(|answer| answer.code).unwrap_or_default();
        if code < 400 {
            *self.done.entry(what.clone()).or_default() += 1;
            self.named.push((what, object.name));
        } else {
            *self.refused.entry(format!("{what} {code}")).or_default() += 1;
        }
    }
}
