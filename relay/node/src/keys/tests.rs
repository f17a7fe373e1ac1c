use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use relay_formats::key_file;
use tempfile::TempDir;

use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::family_bundle::FamilyBundle;
use relay_formats::key_file::Ed25519Role;

use super::{FamilyChoice, KeyPlan, Keys, KeysError, Stamps, keygen, load_or_create, open_data_directory, renew};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn plan(data: &Path) -> KeyPlan {
    KeyPlan {
        key_directory: data.join("keys"),
        signing_directory: data.join("keys"),
        data_directory: data.to_path_buf(),
        nickname: "Unnamed".parse().unwrap(),
        offline_master: false,
        signing_lifetime: 30 * DAY,
        families: FamilyChoice::Named(Vec::new()),
        family_key_directory: data.join("keys"),
        family_directory: None,
    }
}

/// A new relay's directory, its plan and its keys.
fn new_relay() -> (TempDir, KeyPlan, Keys) {
    let data = tempfile::tempdir().unwrap();
    let plan = plan(data.path());
    let keys = load_or_create(&plan, SystemTime::now()).unwrap();
    (data, plan, keys)
}

fn identity(keys: &Keys) -> (String, String) {
    (keys.rsa_identity().to_string(), keys.ed25519_identity.to_string())
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

fn take_away(plan: &KeyPlan, name: &str) {
    fs::remove_file(plan.key_directory.join(name)).unwrap();
}

#[test]
fn a_new_relay_has_the_files_that_c_tor_would_have_made() {
    let (data, plan, keys) = new_relay();
    let sizes: Vec<(String, usize)> = contents(&plan.key_directory)
        .into_iter()
        .map(|(name, bytes)| (name, bytes.len()))
        .collect();
    let names: Vec<&str> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "ed25519_master_id_public_key",
        "ed25519_master_id_secret_key",
        "ed25519_signing_cert",
        "ed25519_signing_secret_key",
        "secret_id_key",
        "secret_onion_key",
        "secret_onion_key_ntor",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        sizes.iter().take(4).map(|(_, size)| *size).collect::<Vec<_>>(),
        [64, 96, 172, 96]
    );
    let fingerprint = fs::read_to_string(data.path().join("fingerprint")).unwrap();
    assert_eq!(fingerprint, format!("Unnamed {}\n", keys.rsa_identity()));
    let fingerprint = fs::read_to_string(data.path().join("fingerprint-ed25519")).unwrap();
    assert_eq!(fingerprint, format!("Unnamed {}\n", keys.ed25519_identity));
}

#[test]
fn nobody_else_can_read_the_keys() {
    let (_data, plan, _) = new_relay();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&plan.key_directory), 0o700);
    for name in contents(&plan.key_directory).keys() {
        assert_eq!(mode(&plan.key_directory.join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_restart_changes_no_key() {
    let (_data, plan, keys) = new_relay();
    let before = contents(&plan.key_directory);
    let again = load_or_create(&plan, SystemTime::now()).unwrap();
    assert_eq!(identity(&again), identity(&keys));
    assert_eq!(contents(&plan.key_directory), before);
}

#[test]
fn half_an_identity_is_not_made_whole_with_another_one() {
    for (gone, named) in [
        (vec![key_file::RSA_IDENTITY], "secret_id_key is missing"),
        (
            vec![
                key_file::MASTER_SECRET,
                key_file::MASTER_PUBLIC,
                key_file::SIGNING_CERT,
                key_file::SIGNING_SECRET,
            ],
            "ed25519_master_id_secret_key",
        ),
        (
            vec![key_file::MASTER_SECRET, key_file::SIGNING_SECRET],
            "ed25519_signing_secret_key",
        ),
    ] {
        let (_data, plan, _) = new_relay();
        gone.iter().for_each(|name| take_away(&plan, name));
        let before = contents(&plan.key_directory);
        let error = load_or_create(&plan, SystemTime::now()).err().unwrap();
        assert!(matches!(error, KeysError::HalfAnIdentity { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(contents(&plan.key_directory), before, "nothing may be written");
    }
}

#[test]
fn a_first_start_that_was_killed_is_finished_by_the_next() {
    let data = tempfile::tempdir().unwrap();
    let plan = plan(data.path());
    let (donor, donor_plan, donor_keys) = new_relay();
    // Killed after the master key and before the RSA key.
    fs::create_dir(&plan.key_directory).unwrap();
    fs::write(plan.key_directory.join("identity_being_made"), "").unwrap();
    fs::copy(
        donor_plan.key_directory.join(key_file::MASTER_SECRET),
        plan.key_directory.join(key_file::MASTER_SECRET),
    )
    .unwrap();
    drop(donor);
    let keys = load_or_create(&plan, SystemTime::now()).unwrap();
    assert_eq!(keys.ed25519_identity, donor_keys.ed25519_identity);
    assert!(!plan.key_directory.join("identity_being_made").exists());
    // From now on half of it is half an identity again.
    take_away(&plan, key_file::RSA_IDENTITY);
    assert!(matches!(
        load_or_create(&plan, SystemTime::now()),
        Err(KeysError::HalfAnIdentity { .. })
    ));
}

#[test]
fn an_offline_relay_lives_until_its_signing_key_ends() {
    let (_data, plan, keys) = new_relay();
    take_away(&plan, key_file::MASTER_SECRET);
    let now = SystemTime::now();
    let offline = load_or_create(&plan, now + 29 * DAY + DAY / 2).unwrap();
    assert_eq!(identity(&offline), identity(&keys));
    assert_eq!(offline.signing.public(), keys.signing.public());
    let error = load_or_create(&plan, now + 31 * DAY).err().unwrap();
    assert!(matches!(error, KeysError::NeedsMaster { .. }), "{error}");
}

#[test]
fn a_signing_key_is_renewed_a_day_before_its_end() {
    let (_data, plan, keys) = new_relay();
    let now = SystemTime::now();
    assert!(renew(&plan, &keys, now + 28 * DAY - DAY / 2).unwrap().is_none());
    let renewed = renew(&plan, &keys, now + 29 * DAY + DAY / 2).unwrap().unwrap();
    assert_eq!(identity(&renewed), identity(&keys));
    assert_ne!(renewed.signing.public(), keys.signing.public());
    assert!(renewed.signing_cert.expires() > now + 59 * DAY);
}

/// A relay whose master key is kept elsewhere, as in a pod: the public half on the volume, and the signing key in a
/// directory whose contents are swapped by a link.
struct Kept {
    data: TempDir,
    plan: KeyPlan,
    master: Ed25519Secret,
    generation: u32,
}

impl Kept {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let plan = KeyPlan {
            offline_master: true,
            signing_directory: data.path().join("signing/..data"),
            family_directory: Some(data.path().join("family")),
            ..plan(data.path())
        };
        let (_donor, donor_plan, _) = new_relay();
        fs::create_dir(&plan.key_directory).unwrap();
        fs::create_dir(data.path().join("signing")).unwrap();
        for name in [key_file::RSA_IDENTITY, key_file::MASTER_PUBLIC] {
            fs::copy(donor_plan.key_directory.join(name), plan.key_directory.join(name)).unwrap();
        }
        let master = fs::read(donor_plan.key_directory.join(key_file::MASTER_SECRET)).unwrap();
        let master = key_file::decode_ed25519_secret(Ed25519Role::Master, &master).unwrap();
        let generation = 0;
        Self {
            data,
            plan,
            master,
            generation,
        }
    }

    fn put_signing_key(&mut self, by: &Ed25519Secret, ends: SystemTime) {
        self.generation += 1;
        let name = format!("generation-{}", self.generation);
        let folder = self.data.path().join("signing").join(&name);
        fs::create_dir(&folder).unwrap();
        let key = Ed25519Secret::generate(&mut rand::rng());
        let (kind, certified) = (CertType::IDENTITY_SIGNING, Certified::Key(key.public()));
        let cert = Ed25519Cert::issue(kind, certified, ends, by, NameSigner::Yes);
        let secret = key_file::encode_ed25519_secret(Ed25519Role::Signing, &key);
        fs::write(folder.join(key_file::SIGNING_SECRET), secret.as_slice()).unwrap();
        fs::write(
            folder.join(key_file::SIGNING_CERT),
            key_file::encode_signing_cert(&cert),
        )
        .unwrap();
        let aside = self.data.path().join("signing/..tmp");
        std::os::unix::fs::symlink(name, &aside).unwrap();
        fs::rename(aside, &self.plan.signing_directory).unwrap();
    }

    fn master(&self) -> Ed25519Secret {
        Ed25519Secret::from_expanded(self.master.expanded())
    }
}

#[test]
fn a_signing_key_put_in_place_by_its_keeper_is_taken_up() {
    let (mut kept, now) = (Kept::new(), SystemTime::now());
    kept.put_signing_key(&kept.master(), now + 7 * DAY);
    let keys = load_or_create(&kept.plan, now).unwrap();
    assert_eq!(keys.ed25519_identity, kept.master.public());
    let before = Stamps::take(&kept.plan);
    assert!(renew(&kept.plan, &keys, now).unwrap().is_none());

    kept.put_signing_key(&kept.master(), now + 11 * DAY);
    assert_ne!(Stamps::take(&kept.plan), before);
    let renewed = renew(&kept.plan, &keys, now).unwrap().unwrap();
    assert_ne!(renewed.signing.public(), keys.signing.public());
    assert_eq!(identity(&renewed), identity(&keys));
    assert!(renewed.signing_cert.expires() >= now + 11 * DAY);
    assert!(!kept.plan.key_directory.join(key_file::SIGNING_SECRET).exists());
}

#[test]
fn a_signing_key_that_is_no_better_is_left() {
    let (mut kept, now) = (Kept::new(), SystemTime::now());
    kept.put_signing_key(&kept.master(), now + 7 * DAY);
    let keys = load_or_create(&kept.plan, now).unwrap();

    kept.put_signing_key(&kept.master(), now + 3 * DAY);
    assert!(renew(&kept.plan, &keys, now).unwrap().is_none(), "an older one");
    let stranger = Ed25519Secret::generate(&mut rand::rng());
    kept.put_signing_key(&stranger, now + 9 * DAY);
    let error = renew(&kept.plan, &keys, now).err().unwrap();
    assert!(matches!(error, KeysError::NotYet(_)), "another master's: {error}");
    fs::remove_file(&kept.plan.signing_directory).unwrap();
    assert!(
        matches!(renew(&kept.plan, &keys, now), Err(KeysError::NotYet(_))),
        "none"
    );
    let error = renew(&kept.plan, &keys, now + 8 * DAY).err().unwrap();
    assert!(matches!(error, KeysError::NeedsMaster { .. }), "after its end: {error}");
}

#[test]
fn a_familys_keeper_is_heard_and_its_damaged_words_are_not() {
    let (mut kept, now) = (Kept::new(), SystemTime::now());
    kept.put_signing_key(&kept.master(), now + 7 * DAY);
    let keys = load_or_create(&kept.plan, now).unwrap();
    assert!(keys.family_word.certs.is_empty());

    let family = Ed25519Secret::generate(&mut rand::rng());
    let (kind, us) = (CertType::FAMILY_IDENTITY, kept.master.public());
    let cert = Ed25519Cert::issue(kind, Certified::Key(us), now + 30 * DAY, &family, NameSigner::Yes);
    let bundle = FamilyBundle {
        members: vec![keys.rsa_identity()],
        certs: vec![(us, cert.clone())],
    };
    let directory = kept.plan.family_directory.clone().unwrap();
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("0.family"), bundle.to_text()).unwrap();
    fs::write(directory.join("1.family"), "no bundle").unwrap();
    let heard = renew(&kept.plan, &keys, now).unwrap().unwrap();
    assert_eq!(heard.family_word.certs, [cert]);
    assert_eq!(heard.family_word.members, [keys.rsa_identity()]);
    let later = renew(&kept.plan, &heard, now + 6 * DAY).unwrap();
    assert!(later.is_none());
}

#[test]
fn offline_master_key_keeps_us_from_the_masters_secret() {
    let (_data, mut plan, keys) = new_relay();
    plan.offline_master = true;
    // Were it read, this would be an error.
    fs::write(plan.key_directory.join(key_file::MASTER_SECRET), "no key").unwrap();
    assert_eq!(
        identity(&load_or_create(&plan, SystemTime::now()).unwrap()),
        identity(&keys)
    );
}

#[test]
fn a_new_relay_with_an_offline_master_waits_for_its_keys() {
    let data = tempfile::tempdir().unwrap();
    let plan = KeyPlan {
        offline_master: true,
        ..plan(data.path())
    };
    assert!(matches!(
        load_or_create(&plan, SystemTime::now()),
        Err(KeysError::NeedsMaster { .. })
    ));
    assert!(contents(&plan.key_directory).is_empty());
}

#[test]
fn an_old_onion_key_serves_through_its_grace() {
    let (_data, plan, keys) = new_relay();
    let now = SystemTime::now();
    let rotated = renew(&plan, &keys, now + 28 * DAY).unwrap().unwrap();
    assert_ne!(rotated.onion.public(), keys.onion.public());
    assert_eq!(rotated.onion_old.as_ref().unwrap().public(), keys.onion.public());
    let later = load_or_create(&plan, now + 36 * DAY).unwrap();
    assert_eq!(later.onion.public(), rotated.onion.public());
    assert!(later.onion_old.is_none());
}

#[test]
fn a_public_key_of_another_relay_is_noticed() {
    let (_data, plan, _) = new_relay();
    let (_other_data, other_plan, _) = new_relay();
    let name = key_file::MASTER_PUBLIC;
    fs::copy(other_plan.key_directory.join(name), plan.key_directory.join(name)).unwrap();
    assert!(matches!(
        load_or_create(&plan, SystemTime::now()),
        Err(KeysError::Mismatch { .. })
    ));
}

#[test]
fn a_damaged_key_file_is_named_and_kept() {
    let (_data, plan, _) = new_relay();
    let path = plan.key_directory.join(key_file::SIGNING_CERT);
    fs::write(&path, "== ed25519v1-cert: type4 ==").unwrap();
    let error = load_or_create(&plan, SystemTime::now()).err().unwrap().to_string();
    assert!(error.contains("ed25519_signing_cert"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"== ed25519v1-cert: type4 ==");
}

#[test]
fn two_relays_never_share_a_data_directory() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let held = open_data_directory(&path).unwrap();
    assert!(held.is_some());
    assert!(open_data_directory(&path).unwrap().is_none());
    drop(held);
    assert!(open_data_directory(&path).unwrap().is_some());
}

#[test]
fn keygen_makes_an_identity_whose_relay_can_leave_the_master_elsewhere() {
    let (vault, relay) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (offline, online) = (plan(vault.path()), plan(relay.path()));
    let now = SystemTime::now();
    let (made, ends) = keygen(&offline, now).unwrap();
    assert!(ends >= now + 30 * DAY);

    fs::create_dir(&online.key_directory).unwrap();
    fs::set_permissions(&online.key_directory, fs::Permissions::from_mode(0o700)).unwrap();
    for name in [
        key_file::RSA_IDENTITY,
        key_file::MASTER_PUBLIC,
        key_file::SIGNING_SECRET,
        key_file::SIGNING_CERT,
    ] {
        fs::copy(offline.key_directory.join(name), online.key_directory.join(name)).unwrap();
    }
    assert_eq!(load_or_create(&online, now).unwrap().ed25519_identity, made);

    let before = fs::read(offline.key_directory.join(key_file::SIGNING_CERT)).unwrap();
    let (again, _) = keygen(&offline, now + DAY).unwrap();
    assert_eq!(again, made, "the identity stays");
    assert_ne!(
        fs::read(offline.key_directory.join(key_file::SIGNING_CERT)).unwrap(),
        before
    );
    let before = contents(&online.key_directory);
    assert!(
        matches!(keygen(&online, now), Err(KeysError::HalfAnIdentity { .. })),
        "no master, no keygen"
    );
    assert_eq!(contents(&online.key_directory), before);
}

#[test]
fn keygen_takes_a_master_that_c_tor_made_alone_and_makes_no_rsa_key_for_it() {
    let (_data, plan, keys) = new_relay();
    take_away(&plan, key_file::RSA_IDENTITY);
    let (identity, _) = keygen(&plan, SystemTime::now()).unwrap();
    assert_eq!(identity, keys.ed25519_identity);
    assert!(!plan.key_directory.join(key_file::RSA_IDENTITY).exists());
    fs::rename(
        plan.key_directory.join(key_file::MASTER_SECRET),
        plan.key_directory.join(key_file::MASTER_SECRET_ENCRYPTED),
    )
    .unwrap();
    assert!(matches!(
        keygen(&plan, SystemTime::now()),
        Err(KeysError::Encrypted { .. })
    ));
}
