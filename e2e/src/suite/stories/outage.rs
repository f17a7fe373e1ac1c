//! The operator is away for longer than half of a signing key's time: nothing breaks until the key ends.
//!
//! Nobody waits for days: while no operator runs, the relay is given a key that ends with the hour, which C tor's
//! `--keygen` certifies with the master key, and is started again with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::facts::{facts, metric};
use super::hot::{look_at_once, patch};
use super::identities::{Watch, running};
use super::renewal::secret_file;
use super::{Form, fleet};
use crate::command::{await_yes, command, output};
use crate::demo::fleet::{NAMESPACE, PATIENCE, Relay};
use crate::demo::{Demo, operator};
use crate::process::Known;
use crate::say;

const FETCH_BYTES: u64 = 5_000_000;
/// As C tor calls it.
const EXPIRY: &str = "tor_relay_signing_cert_expiry_timestamp";
const SIGNING: [&str; 2] = ["ed25519_signing_secret_key", "ed25519_signing_cert"];
const MASTER: [&str; 2] = ["ed25519_master_id_secret_key", "ed25519_master_id_public_key"];
/// C tor's ends are in full hours: less than this before one there is no time to tell the short form.
const ENDS_TOO_SOON: Duration = Duration::from_secs(180);

/// The long form waits for the end of the key, up to an hour.
pub(super) fn relays_outlive_their_operator(demo: &Demo, form: Form) -> Result<()> {
    let relays = demo.fleet.relays()?;
    let (exits, others): (Vec<&Relay>, Vec<&Relay>) = relays.iter().partition(|relay| relay.role == "Exit");
    let (Some(exit), [relay, middle, ..]) = (exits.first(), others.as_slice()) else {
        anyhow::bail!("a path of our own takes two relays and an exit");
    };
    if form == Form::Short && until_the_hour() < ENDS_TOO_SOON {
        say::step("the hour, and with it the key, would end too soon: waiting for the next");
        std::thread::sleep(until_the_hour() + Duration::from_secs(1));
    }
    let watch = Watch::begin();
    scale_operator(demo, 0)?;
    say::step("no operator runs");
    let told = tell(demo, relay, &[relay, middle, exit], form);
    scale_operator(demo, 1)?;
    let (short, ends, cert) = told?;
    fleet::await_leader(demo, "")?;
    let cert_now = || secret_file(demo, NAMESPACE, &format!("{}-signing", relay.name), SIGNING[1]);
    await_yes("the operator to renew the key in its Secret", PATIENCE, || {
        cert_now().is_ok_and(|now| now != cert)
    })?;
    if form == Form::Short {
        look_at_once(demo, relay)?;
    }
    let renewed = || signing_key_ends(relay).is_ok_and(|now| now != ends);
    await_yes("the operator to renew the key", PATIENCE, renewed)?;
    let now = process(relay)?;
    ensure!(form == Form::Long || now == short, "the renewal restarted the relay");
    say::step(format!(
        "an operator is back: the key was renewed and ends at {}",
        signing_key_ends(relay)?
    ));
    say::step(watch.never_two()?.to_string());
    demo.fleet.await_ready()
}

/// Gives the process that has the short key, when that ends, and its certificate.
fn tell(demo: &Demo, relay: &Relay, path: &[&Relay], form: Form) -> Result<(Known, String, Vec<u8>)> {
    let before = (process(relay)?, signing_key_ends(relay)?);
    let metric_before = metric(relay, EXPIRY)?;
    let cert = give_short_key(demo, relay, before.0)?;
    before.0.signal(Signal::KILL);
    await_yes("the kubelet to start it again", PATIENCE, || {
        running(&relay.ed25519).is_ok_and(|now| now.is_some_and(|now| now != before.0)) && facts(relay).is_ok()
    })?;
    let (short, ends) = (process(relay)?, signing_key_ends(relay)?);
    ensure!(
        ends < before.1,
        "the relay does not tell that its key ends sooner: {ends}, before {}",
        before.1
    );
    let metric_now = metric(relay, EXPIRY)?;
    ensure!(
        metric_now < metric_before,
        "{EXPIRY} was {metric_before} and is {metric_now}"
    );
    say::step(format!(
        "{}'s key ends at {ends} now, {} s from here, not at {}; {EXPIRY} went from {metric_before} to {metric_now}",
        relay.nickname,
        until_the_hour().as_secs(),
        before.1
    ));
    demo.network
        .await_relay(&relay.fingerprint, Some(&relay.address), PATIENCE)?;
    demo.fetch_through(path, FETCH_BYTES)?;
    if form == Form::Long {
        outlive_the_key(demo, relay, path, short)?;
    }
    ensure!(form == Form::Long || short.alive(), "the relay ended before its key");
    Ok((short, ends, cert))
}

fn outlive_the_key(demo: &Demo, relay: &Relay, path: &[&Relay], short: Known) -> Result<()> {
    while until_the_hour() > Duration::from_secs(20) && until_the_hour() < Duration::from_secs(3590) {
        ensure!(
            short.alive(),
            "the relay ended {} s before its key",
            until_the_hour().as_secs()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    demo.fetch_through(path, FETCH_BYTES)?;
    say::step("20 s before the end of its key bytes still go through it");
    await_yes("the relay to stop with its key", Duration::from_secs(180), || {
        !short.alive()
    })?;
    let log = demo.cluster.kubectl([
        "-n",
        NAMESPACE,
        "logs",
        &relay.pod,
        "-c",
        "relay",
        "--previous",
        "--tail=3",
    ]);
    say::step("its key has ended, and it stopped rather than make another. Its last words:");
    say::plain(log.unwrap_or_else(|error| format!("{error:#}")));
    Ok(())
}

/// Puts a signing key into its Secret that ends with the hour, waits until the pod has it, and gives its certificate.
fn give_short_key(demo: &Demo, relay: &Relay, process: Known) -> Result<Vec<u8>> {
    let folder = demo.cluster.places.state.join("short-key");
    let _ = fs::remove_dir_all(&folder);
    let made = make_short_key(demo, relay, &folder);
    // The master key lay there.
    fs::remove_dir_all(&folder)?;
    let [secret, cert] = made?;
    let ends = SystemTime::now() + until_the_hour();
    let ends = ends.duration_since(SystemTime::UNIX_EPOCH)?.as_secs().div_ceil(3600) * 3600;
    let ends = output(&mut command("date", ["-u", "-d", &format!("@{ends}"), "+%FT%TZ"]))?;
    patch(
        demo,
        &format!("secret/{}-signing", relay.name),
        &json!({
            "metadata": {"annotations": {"relayfleet.io/signing-key-expires": ends.trim()}},
            "data": {SIGNING[0]: STANDARD.encode(&secret), SIGNING[1]: STANDARD.encode(&cert)},
        }),
    )?;
    look_at_once(demo, relay)?;
    let file = format!("/proc/{}/root/etc/relayfleet/signing/{}", process.pid, SIGNING[1]);
    await_yes("the pod to have the short key", PATIENCE, || {
        fs::read(&file).is_ok_and(|found| found == cert)
    })?;
    say::step("a running relay does not give up its key for one that ends sooner; one that starts has no other");
    ensure!(process.alive(), "the relay ended at the sight of a worse key");
    Ok(cert)
}

fn make_short_key(demo: &Demo, relay: &Relay, folder: &Path) -> Result<[Vec<u8>; 2]> {
    let keys = folder.join("data/keys");
    fs::create_dir_all(&keys)?;
    for private in [folder, &folder.join("data"), &keys] {
        fs::set_permissions(private, Permissions::from_mode(0o700))?;
    }
    let keeper = format!("{NAMESPACE}.{}.identity", relay.name);
    for name in MASTER {
        let path = keys.join(name);
        fs::write(&path, secret_file(demo, operator::NAMESPACE, &keeper, name)?)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    }
    let torrc = folder.join("torrc");
    let text = format!(
        "{}DataDirectory {}\nORPort 9001\nSocksPort 0\nExitRelay 0\nTestingSigningKeySlop 5 seconds\nTestingAuthKeySlop 5 seconds\n\
         TestingLinkKeySlop 5 seconds\nSigningKeyLifetime 30 seconds\n",
        demo.network.torrc_for_strangers(),
        folder.join("data").display()
    );
    fs::write(&torrc, text)?;
    let mut keygen = command("tor", ["--keygen", "--no-passphrase", "-f"]);
    output(keygen.arg(&torrc)).context("C tor makes no signing key")?;
    Ok([fs::read(keys.join(SIGNING[0]))?, fs::read(keys.join(SIGNING[1]))?])
}

/// To none, and waits until it is gone; or to more.
fn scale_operator(demo: &Demo, replicas: u8) -> Result<()> {
    let (name, asked) = (
        format!("deployment/{}", operator::RELEASE),
        format!("--replicas={replicas}"),
    );
    demo.cluster
        .kubectl(["-n", operator::NAMESPACE, "scale", &name, &asked])?;
    if replicas == 0 {
        await_yes("the operator to be gone", PATIENCE, || {
            fleet::operator_pod(demo).is_err()
        })?;
    }
    Ok(())
}

fn process(relay: &Relay) -> Result<Known> {
    running(&relay.ed25519)?.with_context(|| format!("no process of {} runs", relay.name))
}

fn signing_key_ends(relay: &Relay) -> Result<String> {
    let facts = facts(relay)?;
    let ends = facts.pointer("/signingKey/expiresAt").and_then(Value::as_str);
    ends.map(str::to_owned)
        .context("the relay does not tell when its signing key ends")
}

/// Zero at a full hour.
fn until_the_hour() -> Duration {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Duration::from_secs((3600 - now % 3600) % 3600)
}
