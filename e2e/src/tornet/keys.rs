//! Keys of C tor's nodes: made once per machine, as 1024-bit RSA takes seconds.
//!
//! Identities are therefore the same in every network on this machine, which is harmless here: nothing leaves it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::state::{Node, Role, State, node_folder};
use super::{DIR_PORT, OR_PORT};
use crate::state::Places;

/// C tor's medium-term signing keys live 30 days; younger ones need no renewal in the middle of a run.
const AGE_MAX: Duration = Duration::from_secs(20 * 24 * 60 * 60);

/// Copies what the cache has into the nodes' folders; makes and returns nothing else.
pub(crate) fn restore(places: &Places, state: &State) -> anyhow::Result<()> {
    for (node, cached) in cacheable(state) {
        if is_fresh(&cached) {
            copy(&cached, &keys_of(places, &node.name))?;
        }
    }
    Ok(())
}

/// Fills the cache with what it lacks. Another network may do so at the same time: the first one wins.
pub(crate) fn store(places: &Places, state: &State) -> anyhow::Result<()> {
    for (node, cached) in cacheable(state) {
        let keys = keys_of(places, &node.name);
        if is_fresh(&cached) || !keys.join("secret_id_key").exists() {
            continue;
        }
        let parent = cached.parent().context("the key cache has no parent folder")?;
        let fresh = parent.join(format!("{}.{}", node.name, std::process::id()));
        copy(&keys, &fresh)?;
        let _ = fs::remove_dir_all(&cached);
        if fs::rename(&fresh, &cached).is_err() {
            let _ = fs::remove_dir_all(&fresh);
        }
    }
    Ok(())
}

/// C tor's nodes that have keys worth keeping, and where the cache keeps them.
fn cacheable(state: &State) -> Vec<(&Node, PathBuf)> {
    let Some(cache) = &state.spec.key_cache else {
        return Vec::new();
    };
    let relays = state
        .nodes
        .iter()
        .filter(|node| node.role != Role::Client && node.slot.is_none());
    relays.map(|node| (node, cache.join(&node.name))).collect()
}

fn is_fresh(folder: &Path) -> bool {
    let age = |folder: &Path| {
        fs::metadata(folder.join("secret_id_key"))
            .ok()?
            .modified()
            .ok()?
            .elapsed()
            .ok()
    };
    age(folder).is_some_and(|age| age < AGE_MAX)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        if file.file_type()?.is_file() {
            fs::copy(file.path(), &target).with_context(|| format!("cannot copy {}", target.display()))?;
        }
    }
    Ok(())
}

fn keys_of(places: &Places, node: &str) -> PathBuf {
    node_folder(places, node).join("data/keys")
}

/// Makes the authorities' keys where they lack, all at once; gives the values of their DirAuthority lines.
pub(crate) fn authorities(places: &Places, state: &State, gencert: &Path) -> anyhow::Result<Vec<String>> {
    let names = state.names(&[Role::Authority]);
    let mut jobs = Vec::new();
    for name in &names {
        let keys = keys_of(places, name);
        if !keys.join("authority_certificate").exists() {
            jobs.push((name, make_certificate(gencert, &keys)?));
        }
        // Ours beside the keys, for the cache: tor itself writes it one folder up.
        if !keys.join("fingerprint").exists() {
            jobs.push((name, make_identity(places, state, name)?));
        }
    }
    for (name, job) in jobs {
        let output = job.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "making keys for the authority {name} failed ({}):\n{said}",
            output.status
        );
    }
    names.iter().map(|name| line(places, state, name)).collect()
}

fn make_certificate(gencert: &Path, keys: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(gencert);
    command.args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"]);
    for (option, file) in [
        ("-i", "authority_identity_key"),
        ("-s", "authority_signing_key"),
        ("-c", "authority_certificate"),
    ] {
        command.arg(option).arg(keys.join(file));
    }
    let mut job = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", gencert.display()))?;
    let Some(mut stdin) = job.stdin.take() else {
        bail!("tor-gencert takes no passphrase")
    };
    // The keys guard nothing; the passphrase is only one that the program insists on.
    stdin.write_all(b"private network\n")?;
    Ok(job)
}

fn make_identity(places: &Places, state: &State, name: &str) -> anyhow::Result<Child> {
    let empty = places.state.join("empty");
    Command::new(&state.tor)
        .arg("--defaults-torrc")
        .arg(&empty)
        .arg("-f")
        .arg(&empty)
        .args([
            "--quiet",
            "--list-fingerprint",
            "--orport",
            "1",
            "--nickname",
            name,
            "--datadirectory",
        ])
        .arg(node_folder(places, name).join("data"))
        // Any will do: without one, tor would take the public ones for its own.
        .args(["--dirauthority", &format!("x 127.0.0.1:1 {}", "f".repeat(40))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", state.tor.display()))
}

fn line(places: &Places, state: &State, name: &str) -> anyhow::Result<String> {
    let keys = keys_of(places, name);
    let written = keys
        .parent()
        .map(|data| data.join("fingerprint"))
        .filter(|written| written.exists());
    if let Some(written) = written
        && !keys.join("fingerprint").exists()
    {
        fs::copy(written, keys.join("fingerprint"))?;
    }
    let read =
        |file: &str| fs::read_to_string(keys.join(file)).with_context(|| format!("no {file} in {}", keys.display()));
    let certificate = read("authority_certificate")?;
    let v3ident = certificate.lines().find_map(|line| line.strip_prefix("fingerprint "));
    let v3ident = v3ident.with_context(|| format!("no fingerprint in the certificate of {name}"))?;
    let fingerprint = read("fingerprint")?;
    let fingerprint = fingerprint
        .split_whitespace()
        .nth(1)
        .context("an odd fingerprint file")?;
    let address = state.node(name)?.address;
    Ok(format!(
        "{name} orport={OR_PORT} v3ident={v3ident} {address}:{DIR_PORT} {fingerprint}"
    ))
}
