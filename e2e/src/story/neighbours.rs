//! What the stories of relays of ours among C tor's share: where they stand, and what the neighbours say of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::say;
use crate::tornet::{Listed, Network, observe};

/// Cells that broke the protocol of a circuit, as C tor counts them.
const VIOLATIONS: &str = "tor_relay_circ_proto_violation_total";

/// Looks whether any C tor has counted a violation of the circuit protocol, or warned of one of these relays.
///
/// # Errors
/// One has.
pub(super) fn listen(network: &Network, ours: &[&str]) -> Result<()> {
    for name in network.c_tor_relays() {
        let page = network.metrics(&name)?;
        let violations = observe::sum_of(&page, VIOLATIONS).with_context(|| format!("{name} shows no {VIOLATIONS}"))?;
        ensure!(
            violations == 0.0,
            "{name} counted {violations} violations of the circuit protocol"
        );
    }
    let complaints = network.complaints();
    let consensus = network.consensus()?;
    for name in ours {
        let entry = found(&consensus, name)?;
        let about: Vec<String> = complaints
            .iter()
            .filter(|(_, line)| is_about(line, entry))
            .map(|(node, line)| format!("{node}: {line}"))
            .collect();
        ensure!(about.is_empty(), "C tor warns of {name}:\n{}", about.join("\n"));
        say::step(format!(
            "no violation counted, no warning about {name} ({} {})",
            entry.fingerprint,
            entry.flags.join(" ")
        ));
    }
    Ok(())
}

/// The entry of this name.
///
/// # Errors
/// There is none.
pub(super) fn found<'a>(consensus: &'a [Listed], name: &str) -> Result<&'a Listed> {
    consensus
        .iter()
        .find(|entry| entry.is_called(name))
        .with_context(|| format!("{name} is not in the consensus"))
}

/// Whether a line names this relay.
pub(super) fn is_about(line: &str, relay: &Listed) -> bool {
    [&relay.nickname, &relay.fingerprint, &relay.address]
        .iter()
        .any(|name| mentions(line, name))
}

/// Whether a line names something as a word of its own: `r2`, and not `r20`.
fn mentions(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// A copy of the relay's program for as long as a story lasts: others may build it anew meanwhile. C tor by its bare
/// name stays where it is.
pub(crate) struct Program {
    path: String,
    copied: Option<PathBuf>,
}

impl Program {
    /// # Errors
    /// There is no such file.
    pub(crate) fn take(relay: &str) -> Result<Self> {
        if !relay.contains('/') {
            return Ok(Self {
                path: relay.to_owned(),
                copied: None,
            });
        }
        let from = Path::new(relay);
        let name = format!(
            "relayfleet-program-{}-{:016x}",
            std::process::id(),
            rand::random::<u64>()
        );
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        let to = folder.join(from.file_name().context("the relay's path names no file")?);
        fs::copy(from, &to).with_context(|| format!("no relay at {relay}: build it first"))?;
        Ok(Self {
            path: to.to_str().context("the relay's path is not text")?.to_owned(),
            copied: Some(folder),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is a relay of ours and not C tor.
    pub(crate) fn is_ours(&self) -> bool {
        self.copied.is_some()
    }

    /// What a slot starts. C tor reads no defaults of the machine then.
    pub(crate) fn command(&self) -> Vec<String> {
        let mut command = vec![self.path.clone()];
        if self.copied.is_none() {
            command.extend([
                "--defaults-torrc".to_owned(),
                "{empty}".to_owned(),
                "--quiet".to_owned(),
            ]);
        }
        command.extend(["-f".to_owned(), "{torrc}".to_owned()]);
        command
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(folder) = &self.copied {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Holds off others that would tell the same story in the same folder, until the file is dropped or the process ends.
pub(crate) fn alone(folder: &Path) -> Result<fs::File> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let shared = Path::new("/run/lock");
    let path = if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    };
    let file = fs::File::create(path.join(format!("{name}-story.lock")))?;
    if file.try_lock().is_err() {
        say::step(format!(
            "another run is at work in {}; waiting for it to end",
            folder.display()
        ));
        file.lock().context("cannot lock")?;
    }
    Ok(file)
}

/// Where a network of a story stands. The process number keeps two stories apart that are told at the same time.
pub(crate) fn prefix() -> String {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}", 100 + high % 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_about_us_only_if_it_names_us_whole() {
        assert!(mentions("[warn] Bad cell from 127.100.3.5:9001 ($AB~r2).", "r2"));
        assert!(mentions("[warn] Bad cell from 127.100.3.5:9001.", "127.100.3.5"));
        assert!(!mentions(
            "[warn] Bad cell from 127.100.3.50:9001 ($AB~r20).",
            "127.100.3.5"
        ));
        assert!(!mentions("[warn] Bad cell from 127.100.3.50:9001 ($AB~r20).", "r2"));
        assert!(!mentions("[warn] err2 happened", "r2"));
    }

    #[test]
    fn a_program_is_copied_and_the_copy_goes_with_the_story() {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("relay");
        fs::write(&built, "#!/bin/sh\n").unwrap();
        let program = Program::take(built.to_str().unwrap()).unwrap();
        let copy = PathBuf::from(program.command().first().unwrap());
        fs::remove_file(&built).unwrap();
        assert!(copy.is_file());
        drop(program);
        assert!(!copy.exists());
    }

    #[test]
    fn c_tor_may_stand_in_the_slot() {
        let command = Program::take("tor").unwrap().command();
        assert_eq!(command.first().map(String::as_str), Some("tor"));
        assert!(command.iter().any(|word| word == "--defaults-torrc"));
    }
}
