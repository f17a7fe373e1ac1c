//! The medium-term signing key and the master key's certificate for it.

use std::time::{Duration, SystemTime};

use relay_formats::cert::{CertError, CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::key_file::{self, Ed25519Role};

use super::identity::{Identity, master_secret};
use super::{KeyPlan, KeysError, files};

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
                tracing::warn!(
                    "It looks like I should try to generate and sign a new medium-term signing key, because the one I \
                     have is going to expire soon. But the master key is not here: copy a fresh signing key in."
                );
                return Ok((key, cert));
            }
        },
        Err(why) => why,
    };
    match master_secret(plan)? {
        Some(master) => make(plan, &master, now),
        None => Err(KeysError::NeedsMaster {
            directory: plan.key_directory.clone(),
            why,
        }),
    }
}

/// A signing key with its certificate, or why there is none to use.
type Held = Result<(Ed25519Secret, Ed25519Cert), String>;

fn load(plan: &KeyPlan, identity: &Identity, now: SystemTime) -> Result<Held, KeysError> {
    let (secret_path, cert_path) = (
        plan.key_directory.join(key_file::SIGNING_SECRET),
        plan.key_directory.join(key_file::SIGNING_CERT),
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

fn make(plan: &KeyPlan, master: &Ed25519Secret, now: SystemTime) -> Result<(Ed25519Secret, Ed25519Cert), KeysError> {
    let key = Ed25519Secret::generate(&mut rand::rng());
    let expires = now + plan.signing_lifetime;
    let certified = Certified::Key(key.public());
    let cert = Ed25519Cert::issue(CertType::IDENTITY_SIGNING, certified, expires, master, NameSigner::Yes);
    let file = key_file::encode_ed25519_secret(Ed25519Role::Signing, &key);
    files::replace(&plan.key_directory.join(key_file::SIGNING_SECRET), &file)?;
    files::replace(
        &plan.key_directory.join(key_file::SIGNING_CERT),
        &key_file::encode_signing_cert(&cert),
    )?;
    Ok((key, cert))
}
