//! The relay as its owner meets it: a program with files, signals and exit codes.

// A test may end where something is not as it should be, in its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const AUTHORITY: &str = "DirAuthority a orport=1 v3ident=ABABABABABABABABABABABABABABABABABABABAB 127.0.0.1:1 \
                         CDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCDCD";

/// A directory with a torrc whose ORPort the system chooses.
fn relay_directory(more: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let torrc = format!(
        "Nickname anna\nORPort 127.0.0.1:auto\nAddress 127.0.0.1\nDataDirectory {}\nTestingTorNetwork 1\n\
         OutboundBindAddress 127.0.0.1\n{AUTHORITY}\n{more}\n",
        data.display()
    );
    std::fs::write(directory.path().join("torrc"), torrc).unwrap();
    directory
}

fn relay(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.arg("-f").arg(directory.join("torrc"));
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Starts the relay and reads its log until a line contains `until`.
fn start(directory: &Path, until: &str) -> (Child, impl Iterator<Item = String>) {
    let mut child = relay(directory).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(
        lines.any(|line| line.contains(until)),
        "the log ended without `{until}`"
    );
    (child, lines)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

#[test]
fn a_good_torrc_is_called_good_and_makes_no_keys() {
    let directory = relay_directory("");
    let output = relay(directory.path()).arg("--verify-config").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("Configuration was valid"));
    assert!(!directory.path().join("data").exists());
}

#[test]
fn a_bad_torrc_is_told_by_line_and_column() {
    let directory = relay_directory("ORPort many\nHiddenServiceDir /x");
    let output = relay(directory.path()).arg("--verify-config").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output);
    assert!(told.contains("line 8, column 8") && told.contains("line 9"), "{told}");
}

#[test]
fn a_missing_torrc_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = relay(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("torrc"), "{}", text(&output));
}

#[test]
fn the_fingerprint_is_the_same_on_paper_and_on_disk() {
    let directory = relay_directory("");
    let asked = relay(directory.path()).arg("--list-fingerprint").output().unwrap();
    let on_disk = std::fs::read_to_string(directory.path().join("data/fingerprint")).unwrap();
    let (nickname, digits) = on_disk.trim().split_once(' ').unwrap();
    assert_eq!(nickname, "anna");
    let printed = text(&asked);
    assert_eq!(printed.trim().strip_prefix("anna ").unwrap().replace(' ', ""), digits);

    let asked = relay(directory.path())
        .args(["--list-fingerprint", "ed25519"])
        .output()
        .unwrap();
    let on_disk = std::fs::read_to_string(directory.path().join("data/fingerprint-ed25519")).unwrap();
    assert_eq!(text(&asked), on_disk);
}

#[test]
fn sigterm_ends_an_idle_relay_cleanly_and_a_restart_is_the_same_relay() {
    let directory = relay_directory("");
    let mut fingerprints = Vec::new();
    for _ in 0..2 {
        let (mut child, rest) = start(
            directory.path(),
            "Your Tor server's identity key ed25519 fingerprint is 'anna ",
        );
        signal(&child, rustix::process::Signal::TERM);
        let rest: Vec<String> = rest.collect();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
        assert!(
            rest.iter()
                .any(|line| line.contains("[notice] Catching signal TERM, exiting cleanly.")),
            "{rest:#?}"
        );
        fingerprints.push(std::fs::read_to_string(directory.path().join("data/fingerprint")).unwrap());
    }
    assert_eq!(fingerprints[0], fingerprints[1]);
}

#[test]
fn sighup_takes_what_can_change_and_says_what_cannot() {
    let directory = relay_directory("");
    let (mut child, mut rest) = start(directory.path(), "identity key ed25519 fingerprint");
    let torrc = std::fs::read_to_string(directory.path().join("torrc")).unwrap();
    let changed = torrc.replace("127.0.0.1:auto", "127.0.0.1:1") + "ContactInfo someone\n";
    std::fs::write(directory.path().join("torrc"), changed).unwrap();
    signal(&child, rustix::process::Signal::HUP);
    assert!(rest.any(|line| line.contains("changing ORPort is not allowed")));
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reload_with_a_mistake_leaves_the_relay_as_it_was() {
    let directory = relay_directory("");
    let (mut child, mut rest) = start(directory.path(), "identity key ed25519 fingerprint");
    std::fs::write(directory.path().join("torrc"), "Nickname not/a/nickname\n").unwrap();
    signal(&child, rustix::process::Signal::HUP);
    assert!(rest.any(|line| line.contains("Going on with the old configuration")));
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn half_an_identity_starts_no_relay() {
    let directory = relay_directory("");
    assert!(
        relay(directory.path())
            .arg("--list-fingerprint")
            .output()
            .unwrap()
            .status
            .success()
    );
    std::fs::remove_file(directory.path().join("data/keys/secret_id_key")).unwrap();
    let output = relay(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("secret_id_key is missing"), "{}", text(&output));
    assert!(!directory.path().join("data/keys/secret_id_key").exists());
}

#[test]
fn what_is_not_built_says_so_and_fails() {
    let output = Command::new(env!("CARGO_BIN_EXE_relay"))
        .arg("--dump-config")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("--dump-config is not built yet"));
}

#[test]
fn a_torrc_that_changes_on_disk_is_heeded_without_a_signal_and_a_bad_one_is_not() {
    let directory = relay_directory("");
    let torrc = directory.path().join("torrc");
    let good = std::fs::read_to_string(&torrc).unwrap();
    let mut child = relay(directory.path())
        .arg("--watch-torrc")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("identity key ed25519 fingerprint")));

    std::fs::write(&torrc, "Nickname not/a/nickname\n").unwrap();
    assert!(lines.any(|line| line.contains("torrc has changed on disk")));
    assert!(lines.any(|line| line.contains("Going on with the old configuration")));
    std::fs::write(&torrc, good.replace("127.0.0.1:auto", "127.0.0.1:1")).unwrap();
    assert!(lines.any(|line| line.contains("changing ORPort is not allowed")));

    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_new_signing_key_reaches_the_running_relay_and_its_end_stops_it() {
    use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
    use relay_formats::ed25519_key::Ed25519Secret;
    use relay_formats::key_file::{self, Ed25519Role};
    use relay_formats::rsa_key::RsaSecret;
    use std::time::{Duration, SystemTime};

    let directory = relay_directory("OfflineMasterKey 1");
    let (keys, signing) = (directory.path().join("data/keys"), directory.path().join("signing"));
    let torrc = directory.path().join("torrc");
    let with_signing = format!(
        "{}SigningKeyDirectory {}\n",
        std::fs::read_to_string(&torrc).unwrap(),
        signing.display()
    );
    std::fs::write(&torrc, with_signing).unwrap();
    let master = Ed25519Secret::generate(&mut rand::rng());
    std::fs::create_dir_all(&keys).unwrap();
    std::fs::create_dir(&signing).unwrap();
    let rsa = RsaSecret::generate(&mut rand::rng()).unwrap().to_pem().unwrap();
    std::fs::write(keys.join(key_file::RSA_IDENTITY), rsa.as_bytes()).unwrap();
    std::fs::write(
        keys.join(key_file::MASTER_PUBLIC),
        key_file::encode_master_public(&master.public()),
    )
    .unwrap();
    let put = |ends: SystemTime| {
        let key = Ed25519Secret::generate(&mut rand::rng());
        let (kind, certified) = (CertType::IDENTITY_SIGNING, Certified::Key(key.public()));
        let cert = Ed25519Cert::issue(kind, certified, ends, &master, NameSigner::Yes);
        let secret = key_file::encode_ed25519_secret(Ed25519Role::Signing, &key);
        std::fs::write(signing.join(key_file::SIGNING_SECRET), secret.as_slice()).unwrap();
        std::fs::write(
            signing.join(key_file::SIGNING_CERT),
            key_file::encode_signing_cert(&cert),
        )
        .unwrap();
    };
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    put(now + 7 * day);

    let (mut child, mut lines) = start(directory.path(), "identity key ed25519 fingerprint");
    put(now + 14 * day);
    assert!(lines.any(|line| line.contains("using the new ones")));
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for kept in [key_file::SIGNING_SECRET, key_file::MASTER_SECRET] {
        assert!(!keys.join(kept).exists(), "{kept} must not lie on the volume");
    }

    put(now - day);
    let output = relay(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("has expired"), "{}", text(&output));
}
