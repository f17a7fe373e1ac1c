//! The medium-term signing key and the master key's certificate for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use relay_formats::cert::{CertError, CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::key_file::{self, Ed25519Role};
use relay_formats::time_text;

use super::identity::{Identity, master_secret};
use super::{KeyPlan, Keys, KeysError, files};

/// The signing key is renewed this long before its certificate expires (C tor, `TestingSigningKeySlop`).
pub const RENEW_BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

/// The signing key and its certificate; renewed where the time is near and the master key is here.
pub(super) fn load_or_renew(
    plan: &KeyPlan,
    identity: &Identity,
    now: SystemTime,
) -> Result<(Ed25519Secret, Ed25519Cert), KeysError> {
    let held = load(plan, identity, now)?;
    let lasts = |cert: &Ed25519Cert| cert.expires() > now + RENEW_BEFORE;
    let why = match held {
        Ok((key, cert)) if lasts(&cert) => return Ok((key, cert)),
        Ok((key, cert)) => match master_secret(plan)? {
            Some(master) => return make(plan, &master, now),
            None => {
                warn_of_the_end(&cert, now);
                return Ok((key, cert));
            }
        },
        Err(why) => why,
    };
    match master_secret(plan)? {
        Some(master) => make(plan, &master, now),
        None => Err(KeysError::NeedsMaster {
            directory: plan.signing_directory.clone(),
            why,
        }),
    }
}

/// Once a day is enough (C tor says it daily): the files are looked at every few seconds.
fn warn_of_the_end(cert: &Ed25519Cert, now: SystemTime) {
    static LAST: Mutex<Option<SystemTime>> = Mutex::new(None);
    if !a_day_after(&LAST, now) {
        return;
    }
    let hours = cert.expires().duration_since(now).unwrap_or_default().as_secs() / 3600;
    tracing::warn!(
        "It looks like I should try to generate and sign a new medium-term signing key, because the one I have is going \
         to expire soon. But the master identity key is not here: put a new signing key and certificate into place, or \
         this relay stops in {hours} hours."
    );
}

fn a_day_after(last: &Mutex<Option<SystemTime>>, now: SystemTime) -> bool {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| now.duration_since(last).is_ok_and(|since| since < RENEW_BEFORE)) {
        return false;
    }
    *last = Some(now);
    true
}

/// Of two good signing keys the one that lasts longer: a key that was put in place is not given up for an older one. Ends are
/// told in full hours: of two that end together the one on disk is meant.
pub(super) fn keep_the_better(fresh: &mut Keys, held: &Keys, now: SystemTime) {
    let (new, old) = (fresh.signing_cert.expires(), held.signing_cert.expires());
    if fresh.signing.public() != held.signing.public() && new < old && old > now {
        static LAST: Mutex<Option<SystemTime>> = Mutex::new(None);
        if a_day_after(&LAST, now) {
            tracing::warn!(
                "The signing key on disk ends earlier than the one in use ({} and {}). Going on with the one in use.",
                time_text::format(new),
                time_text::format(old)
            );
        }
        fresh.signing = Arc::clone(&held.signing);
        fresh.signing_cert = held.signing_cert.clone();
    }
}

/// A signing key with its certificate, or why there is none to use.
type Held = Result<(Ed25519Secret, Ed25519Cert), String>;

fn load(plan: &KeyPlan, identity: &Identity, now: SystemTime) -> Result<Held, KeysError> {
    let (secret_path, cert_path) = (
        plan.signing_directory.join(key_file::SIGNING_SECRET),
        plan.signing_directory.join(key_file::SIGNING_CERT),
    );
    let (Some(secret), Some(cert)) = (files::read(&secret_path)?, files::read(&cert_path)?) else {
        return Ok(Err("is missing".to_owned()));
    };
    let secret = key_file::decode_ed25519_secret(Ed25519Role::Signing, &secret);
    let secret = secret.map_err(|error| KeysError::KeyFile {
        path: secret_path,
        error,
    })?;
    let cert = key_file::decode_signing_cert(&cert);
    let cert = cert.map_err(|error| KeysError::KeyFile {
        path: cert_path.clone(),
        error,
    })?;
    match cert.verify_key(CertType::IDENTITY_SIGNING, &identity.ed25519, now) {
        Ok(certified) if certified == secret.public() => Ok(Ok((secret, cert))),
        // The two files are renewed one after the other; a kill between them leaves an old certificate.
        Ok(_) => Ok(Err("is not the one that its certificate names".to_owned())),
        Err(CertError::Expired) => Ok(Err("has expired".to_owned())),
        Err(error) => Err(KeysError::Certificate { path: cert_path, error }),
    }
}

/// A new one, whether or not one is there; when it ends.
pub(super) fn make_anew(plan: &KeyPlan, master: &Ed25519Secret, now: SystemTime) -> Result<SystemTime, KeysError> {
    files::private_directory(&plan.signing_directory)?;
    make(plan, master, now).map(|(_, cert)| cert.expires())
}

fn make(plan: &KeyPlan, master: &Ed25519Secret, now: SystemTime) -> Result<(Ed25519Secret, Ed25519Cert), KeysError> {
    let key = Ed25519Secret::generate(&mut rand::rng());
    let expires = now + plan.signing_lifetime;
    let certified = Certified::Key(key.public());
    let cert = Ed25519Cert::issue(CertType::IDENTITY_SIGNING, certified, expires, master, NameSigner::Yes);
    let file = key_file::encode_ed25519_secret(Ed25519Role::Signing, &key);
    files::replace(&plan.signing_directory.join(key_file::SIGNING_SECRET), &file)?;
    files::replace(
        &plan.signing_directory.join(key_file::SIGNING_CERT),
        &key_file::encode_signing_cert(&cert),
    )?;
    Ok((key, cert))
}
