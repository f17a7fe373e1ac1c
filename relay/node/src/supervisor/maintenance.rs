//! What changes while the relay runs: keys that grow old, and torrc when it is read again.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::quota;
use super::start::{Relay, limits_of, settings};
use crate::cli::CommandLine;
use crate::config::Config;
use crate::keys::{self, Keys, KeysError, Stamps};
use crate::link_keys::{self, LinkKeys};
use crate::shards::Order;
use crate::startup::{self, StartError};

/// The signing key has run out for good.
pub(super) struct Expired;

/// As [`look_after_keys`], where a file has changed or the last look is a minute ago.
pub(super) fn look_if_due(relay: &mut Relay) -> Result<(), Expired> {
    let stamps = Stamps::take(&relay.config.borrow().key_plan());
    if stamps == relay.key_stamps && relay.keys_looked_at.elapsed() < super::MAINTENANCE {
        return Ok(());
    }
    (relay.key_stamps, relay.keys_looked_at) = (stamps, Instant::now());
    look_after_keys(relay)
}

/// Renews what is due. A disk that fails for a moment is no reason to end; a signing key that has expired is.
pub(super) fn look_after_keys(relay: &mut Relay) -> Result<(), Expired> {
    let held = Arc::clone(&relay.keys.borrow());
    let plan = relay.config.borrow().key_plan();
    match keys::renew(&plan, &held, SystemTime::now()) {
        Ok(None) => {}
        Ok(Some(fresh)) => {
            tracing::info!("Our keys have changed on disk or were renewed; using the new ones.");
            use_keys(relay, fresh);
            return Ok(());
        }
        Err(error @ KeysError::NeedsMaster { .. }) => {
            tracing::error!("{error}");
            return Err(Expired);
        }
        Err(error) => tracing::warn!("Couldn't look after our keys: {error}"),
    }
    if relay.link_keys_made.elapsed() >= link_keys::LIFETIME {
        renew_link_keys(relay);
    }
    Ok(())
}

fn use_keys(relay: &mut Relay, fresh: Keys) {
    relay.keys.send_replace(Arc::new(fresh));
    tell_settings(relay);
    renew_link_keys(relay);
}

fn tell_settings(relay: &Relay) {
    let settings = Arc::new(settings(&relay.config.borrow(), &relay.keys.borrow()));
    relay
        .shards
        .iter()
        .for_each(|shard| shard.post(Order::Settings(Arc::clone(&settings))));
}

fn renew_link_keys(relay: &mut Relay) {
    let lifetime = relay.config.borrow().tls_certificate_lifetime;
    match LinkKeys::make(&relay.keys.borrow(), lifetime, SystemTime::now()) {
        Ok(fresh) => {
            let fresh = Arc::new(fresh);
            relay
                .shards
                .iter()
                .for_each(|shard| shard.post(Order::LinkKeys(Arc::clone(&fresh))));
            relay.link_keys_made = Instant::now();
        }
        Err(error) => tracing::warn!("Couldn't make new link keys, going on with the old ones: {error}"),
    }
}

/// Stops being an exit until torrc is read again, as C tor does.
pub(super) fn give_up_exit(relay: &Relay) {
    tracing::warn!(
        "Your DNS provider tried to redirect well-known names to a junk address. I'm going to stop being an exit node for \
         now, since our DNS seems so broken."
    );
    let closed = relay.config.borrow().without_exit();
    relay.config.send_replace(Arc::new(closed));
    tell_settings(relay);
}

/// Reads torrc again. What a running relay can change changes; one mistake, and nothing does.
pub(super) fn reload(line: &CommandLine, relay: &mut Relay) {
    let read = startup::read_torrc(line)
        .and_then(|torrc| Ok((Config::new(&torrc, &relay.ports).map_err(StartError::from)?, torrc)));
    let (next, torrc) = match read {
        Ok(both) => both,
        Err(error) => {
            error.to_string().lines().for_each(|line| tracing::warn!("{line}"));
            tracing::warn!("Reading config failed--see warnings above. Going on with the old configuration.");
            return;
        }
    };
    torrc
        .warnings
        .iter()
        .for_each(|warning| tracing::warn!("torrc: {warning}"));
    let held = Arc::clone(&relay.config.borrow());
    let fixed = held.fixed_changes(&next);
    if !fixed.is_empty() {
        tracing::warn!(
            "While Tor is running, changing {} is not allowed. Keeping the old value.",
            fixed.join(", ")
        );
    }
    if let Err(error) = relay.log.set(&startup::log_lines(line, &next)) {
        tracing::warn!("{error}. Going on with the old log.");
    }
    relay.config.send_replace(Arc::new(held.with_changes_of(next)));
    relay.rates.change(Instant::now(), limits_of(&relay.config.borrow()));
    quota::reload(relay);
    relay.resolver.change(relay.config.borrow().server_dns());
    tell_settings(relay);
    if look_after_keys(relay).is_err() {
        tracing::warn!("The relay will stop for want of a signing key.");
    }
}
