//! A signing key is renewed while bytes run through the relay, and the master key is nowhere near it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Value, json};

use super::hot::{look_at_once, patch};
use super::search::Needles;
use super::standing::{Standing, same};
use super::{Form, facts};
use crate::command::await_yes;
use crate::demo::fleet::{NAMESPACE, PATIENCE, Relay};
use crate::demo::{Demo, operator};
use crate::say;

/// What the issue asks for.
const FETCH_BYTES: u64 = 100_000_000;

/// An owner may ask for a renewal at once: by an annotation of the Secret that says that the key has ended.
const EXPIRES: &str = "relayfleet.io/signing-key-expires";

/// C tor's key files begin with a header of 32 bytes.
const HEADER_BYTES: usize = 32;

/// 100 MB run through a relay that is slowed down until the renewal fits into them.
pub(super) fn a_key_is_renewed_under_traffic(demo: &Demo, form: Form) -> Result<()> {
    let relays = demo.fleet.relays()?;
    let (exits, others): (Vec<&Relay>, Vec<&Relay>) = relays.iter().partition(|relay| relay.role == "Exit");
    let (Some(exit), [guard, middle, ..]) = (exits.first(), others.as_slice()) else {
        anyhow::bail!("a path of our own takes two relays and an exit");
    };
    let rate = match form {
        Form::Short => 2 << 20,
        Form::Long => 512 << 10,
    };
    let name = format!("relay/{}", exit.name);
    patch(
        demo,
        &name,
        &json!({"spec": {"bandwidth": {"rate": format!("{}KiB/s", rate >> 10)}}}),
    )?;
    let slowed = || {
        let shown = demo.descriptor(exit);
        shown.is_ok_and(|shown| {
            shown
                .line("bandwidth")
                .is_some_and(|line| line.starts_with(&format!("{rate} {rate} ")))
        })
    };
    await_yes("the slower rate", PATIENCE, slowed)?;

    let before = [Standing::of(demo, exit)?];
    let old = demo.descriptor(exit)?.signing_certificate()?;
    let published_before = published(exit)?;
    let began = say::elapsed();
    std::thread::scope(|scope| -> Result<()> {
        let fetch = scope.spawn(|| demo.fetch_through(&[guard, middle, exit], FETCH_BYTES));
        std::thread::sleep(Duration::from_secs(2));
        ask_for_renewal(demo, exit)?;
        if form == Form::Short {
            look_at_once(demo, exit)?;
        }
        let renewed = || published(exit).is_ok_and(|digest| digest != published_before);
        await_yes("another descriptor of the relay", PATIENCE, renewed)?;
        // C tor's authorities keep the old one for hours if nothing but the key is new (its differences are "cosmetic").
        patch(demo, &name, &json!({"spec": {"bandwidth": null}}))?;
        let shown = || {
            demo.descriptor(exit)
                .and_then(|shown| shown.signing_certificate())
                .is_ok_and(|new| new != old)
        };
        await_yes("a descriptor with a new signing key", PATIENCE, shown)?;
        say::step(format!(
            "{}'s descriptor carries a new signing key {:.1} s after the fetch began",
            exit.nickname,
            (say::elapsed() - began).as_secs_f64()
        ));
        ensure!(
            !fetch.is_finished(),
            "the fetch was over before the key was renewed: it shows nothing"
        );
        fetch.join().map_err(|_| anyhow::anyhow!("the fetch broke"))??;
        Ok(())
    })?;
    same(&before, &[Standing::of(demo, exit)?])?;
    say::step("the process, its container and its pod are the same as before");

    let new = demo.descriptor(exit)?.signing_certificate()?;
    ensure!(new.certified != old.certified, "the certificate is new, the key is not");
    let file = secret_file(
        demo,
        NAMESPACE,
        &format!("{}-signing", exit.name),
        "ed25519_signing_cert",
    )?;
    ensure!(
        file.windows(new.bytes.len()).any(|part| part == new.bytes),
        "the descriptor's certificate is not the one in the Secret"
    );
    the_master_key_is_elsewhere(demo, exit, &before)
}

/// Digest of the newest descriptor that it made.
fn published(relay: &Relay) -> Result<String> {
    let facts = facts::facts(relay)?;
    let digest = facts.pointer("/descriptor/digest").and_then(Value::as_str);
    digest.map(str::to_owned).context("it has published nothing yet")
}

/// As docs/operating/custody.md tells an owner to.
pub(super) fn ask_for_renewal(demo: &Demo, relay: &Relay) -> Result<()> {
    let (secret, ended) = (
        format!("{}-signing", relay.name),
        format!("{EXPIRES}=2000-01-01T00:00:00Z"),
    );
    demo.cluster
        .kubectl(["-n", NAMESPACE, "annotate", "--overwrite", "secret", &secret, &ended])
        .map(drop)
}

/// No file in the pod or on its volume, no Secret or ConfigMap in its namespace has the master key in it, nor has the
/// process's memory.
fn the_master_key_is_elsewhere(demo: &Demo, relay: &Relay, standing: &[Standing]) -> Result<()> {
    let pid = standing.first().context("no process")?.process().pid;
    let keeper = format!("{NAMESPACE}.{}.identity", relay.name);
    let file = secret_file(demo, operator::NAMESPACE, &keeper, "ed25519_master_id_secret_key")?;
    let secret = file.get(HEADER_BYTES..).context("no key in the master key's file")?;
    let (scalar, rest) = secret.split_at_checked(32).context("half a master key")?;
    let master = Needles::of(&[scalar, rest]);

    // First that this search finds what is there.
    let public = STANDARD_NO_PAD.decode(&relay.ed25519)?;
    let (found, _) = Needles::of(&[&public]).in_pod(pid)?;
    ensure!(
        !found.is_empty(),
        "the search is blind: the public key is in no file of the pod"
    );
    let kept = objects(demo, operator::NAMESPACE, "secrets")?;
    let (found, _) = master.in_objects(&kept);
    ensure!(
        found == [keeper.clone()],
        "the master key should be in {keeper} alone, but is in {found:?}"
    );

    let (found, files) = master.in_pod(pid)?;
    ensure!(found.is_empty(), "the master key is in the pod: {found:?}");
    let volumes = demo.cluster.places.state.join("volumes");
    let (found, on_volumes) = master.in_files(&volumes)?;
    ensure!(found.is_empty(), "the master key is on a volume: {found:?}");
    let (found, values) = master.in_objects(&objects(demo, NAMESPACE, "secrets,configmaps")?);
    ensure!(found.is_empty(), "the master key is beside the relay: {found:?}");
    let (is_there, bytes) = master.in_memory(pid)?;
    ensure!(!is_there, "the master key is in the process's memory");
    say::step(format!(
        "the master key is in {keeper} alone: not in {files} files of the pod, {on_volumes} of all volumes, {values} values of \
         Secrets and ConfigMaps beside it, {} MiB of memory",
        bytes >> 20
    ));
    Ok(())
}

fn objects(demo: &Demo, namespace: &str, kinds: &str) -> Result<Vec<Value>> {
    let said = demo.cluster.kubectl(["-n", namespace, "get", kinds, "-o", "json"])?;
    let list: Value = serde_json::from_str(&said)?;
    Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// One file in a Secret.
pub(super) fn secret_file(demo: &Demo, namespace: &str, name: &str, key: &str) -> Result<Vec<u8>> {
    let path = format!("jsonpath={{.data.{}}}", key.replace('.', "\\."));
    let text = demo
        .cluster
        .kubectl(["-n", namespace, "get", "secret", name, "-o", &path])?;
    ensure!(!text.is_empty(), "Secret {name} has no {key}");
    Ok(STANDARD.decode(text)?)
}
