//! The relay under test as clients know it, and who we are towards it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::nickname::Nickname;
use relay_node::keys::{FamilyChoice, KeyPlan, load_or_create};
use relay_node::link_keys::LinkKeys;
use relay_simnet::client::Hop;
use x25519_dalek::PublicKey;

/// What a descriptor says of the relay, and our own part.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// Its ORPort
    #[arg(long)]
    relay: SocketAddr,
    /// Its fingerprint, 40 hexadecimal digits
    #[arg(long, value_parser = rsa)]
    fingerprint: RsaIdentity,
    /// `master-key-ed25519` of its descriptor
    #[arg(long, value_parser = key)]
    ed25519: [u8; 32],
    /// `ntor-onion-key` of its descriptor
    #[arg(long, value_parser = key)]
    onion_key: [u8; 32],
    /// Data directory of a relay that the network lists and that does not run: we are that relay towards it
    #[arg(long)]
    before_directory: PathBuf,
    /// That relay's ORPort
    #[arg(long)]
    before: SocketAddr,
    /// The same for the relay to which circuits go on: no relay extends a circuit back to where it came from
    #[arg(long)]
    behind_directory: PathBuf,
    /// That relay's ORPort: the relay under test comes to us there
    #[arg(long)]
    behind: SocketAddr,
}

/// One of the relays that we play.
pub(crate) struct Played {
    pub(crate) address: SocketAddr,
    pub(crate) rsa: RsaIdentity,
    pub(crate) ed25519: Ed25519Identity,
    pub(crate) keys: LinkKeys,
}

impl Target {
    pub(crate) fn hop(&self) -> Hop {
        Hop {
            rsa_identity: self.fingerprint,
            ed25519_identity: Ed25519Identity(self.ed25519),
            onion_key: PublicKey::from(self.onion_key),
            address: self.relay,
        }
    }

    /// The relay before it.
    pub(crate) fn before(&self) -> Result<Played> {
        played(&self.before_directory, self.before)
    }

    /// The relay behind it.
    pub(crate) fn behind(&self) -> Result<Played> {
        played(&self.behind_directory, self.behind)
    }
}

fn played(data_directory: &Path, address: SocketAddr) -> Result<Played> {
    let key_directory = data_directory.join("keys");
    let plan = KeyPlan {
        signing_directory: key_directory.clone(),
        family_key_directory: key_directory.clone(),
        key_directory,
        data_directory: data_directory.to_owned(),
        nickname: Nickname::unnamed(),
        offline_master: false,
        signing_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
        families: FamilyChoice::Named(Vec::new()),
        family_directory: None,
    };
    let now = SystemTime::now();
    let keys = load_or_create(&plan, now).context("our keys")?;
    Ok(Played {
        address,
        rsa: keys.rsa_identity(),
        ed25519: keys.ed25519_identity,
        keys: LinkKeys::make(&keys, None, now).context("our link keys")?,
    })
}

fn rsa(text: &str) -> Result<RsaIdentity, String> {
    let bytes = hex::decode(text).map_err(|error| error.to_string())?;
    Ok(RsaIdentity(bytes.try_into().map_err(|_| "not 20 bytes")?))
}

fn key(text: &str) -> Result<[u8; 32], String> {
    let bytes = STANDARD_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|error| error.to_string())?;
    bytes.try_into().map_err(|_| "not 32 bytes".to_owned())
}
