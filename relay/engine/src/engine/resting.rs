//! What circuits give back while nothing goes over them: most of a relay's circuits are idle at most times.
//!
//! All are looked at in turn, some at a time, so that a look never holds up cells for long. Tables that have become far too
//! large shrink on the same occasion.

use std::time::Duration;

use super::Engine;
use crate::timers::Alarm;

/// Each circuit is looked at this often: it rests when it has been idle for that long, or twice that at most.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// Circuits at a time: a tenth of a millisecond.
const CIRCUITS_AT_A_TIME: usize = 1_024;

impl Engine {
    /// Circuits, or a table that may come to be far too large when what is in it ends.
    fn has_what_may_rest(&self) -> bool {
        let large = [
            self.circuits.is_large(),
            self.guests.is_large(),
            self.channels.is_large(),
            self.sets.is_large(),
        ];
        self.circuits.len() > 0 || large.contains(&true)
    }

    /// Begins to look, where there is something to look at and nobody does yet.
    pub(super) fn look_for_rest(&mut self) {
        if self.look_from.is_none() && self.has_what_may_rest() {
            self.look_from = Some(0);
            self.timers.set(self.pool.now() + LOOK_PERIOD, Alarm::Resting);
        }
    }

    pub(super) fn resting_alarm(&mut self, now: Duration) {
        let Some(from) = self.look_from else { return };
        for circuit in self.circuits.some_mut(from, CIRCUITS_AT_A_TIME) {
            if let Some(layer) = &mut circuit.layer {
                layer.rest_if_idle();
            }
        }
        let (next, places) = (from + CIRCUITS_AT_A_TIME, self.circuits.places());
        let through = next >= places;
        self.look_from = Some(if through { 0 } else { next });
        if through {
            self.circuits.trim();
            self.guests.trim();
            self.channels.trim();
            self.sets.trim();
            if !self.has_what_may_rest() {
                self.look_from = None;
                return;
            }
        }
        let looks = u32::try_from(places.div_ceil(CIRCUITS_AT_A_TIME)).unwrap_or(u32::MAX);
        self.timers.set(now + LOOK_PERIOD / looks.max(1), Alarm::Resting);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::SystemTime;

    use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

    use super::*;
    use crate::door::{ChannelFacts, ChannelId, Input, Now, Outbox, Role};
    use crate::settings::{Defences, Extras, ResponderCredentials, Settings, StreamServices};

    fn now(seconds: u64) -> Now {
        Now {
            steady: Duration::from_secs(seconds),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    fn engine(outbox: &mut Outbox) -> Engine {
        let mut engine = Engine::new([1; 32]);
        let settings = Settings {
            rsa_identity: RsaIdentity([1; 20]),
            ed25519_identity: Ed25519Identity([1; 32]),
            advertised: Vec::new(),
            onion_keys: Vec::new(),
            extend_allow_private_addresses: false,
            services: StreamServices::default(),
            defences: Defences::default(),
            extras: Extras::default(),
        };
        engine.handle(now(0), Input::Settings(Arc::new(settings)), outbox);
        engine
    }

    fn come(engine: &mut Engine, channels: std::ops::Range<u64>, outbox: &mut Outbox) {
        let credentials = Arc::new(ResponderCredentials {
            certs_body: Vec::new(),
            tls_certificate_sha256: [1; 32],
            rsa_identity_sha256: [1; 32],
            ed25519_identity: Ed25519Identity([1; 32]),
        });
        for channel in channels.map(ChannelId) {
            let address = SocketAddr::from(([192, 0, 2, 1], 9));
            let facts = ChannelFacts {
                role: Role::Responder {
                    credentials: Arc::clone(&credentials),
                },
                peer: address,
                local: address,
            };
            engine.handle(now(0), Input::ChannelUp { channel, facts }, outbox);
        }
    }

    /// As the driver does: at each deadline until that time.
    fn pass(engine: &mut Engine, until: Duration, outbox: &mut Outbox) {
        while let Some(at) = engine.deadline().filter(|at| *at <= until) {
            engine.handle(now(at.as_secs() + 1), Input::Timeout, outbox);
        }
    }

    #[test]
    fn what_links_without_circuits_took_is_given_back_within_half_a_minute() {
        let mut outbox = Outbox::default();
        let mut engine = engine(&mut outbox);
        come(&mut engine, 0..5_000, &mut outbox);
        assert_eq!((engine.channels.places(), engine.channel_keys.len()), (5_000, 5_000));
        for channel in (0..5_000).filter(|number| *number != 7).map(ChannelId) {
            engine.handle(now(1), Input::ChannelDown { channel }, &mut outbox);
        }
        assert!(
            engine.channel_keys.capacity() < 2_000,
            "{}",
            engine.channel_keys.capacity()
        );
        pass(&mut engine, Duration::from_secs(30), &mut outbox);
        assert_eq!((engine.channels.len(), engine.channels.places()), (1, 8));
    }

    #[test]
    fn a_relay_of_few_links_is_not_woken_to_look_at_them() {
        let mut outbox = Outbox::default();
        let mut engine = engine(&mut outbox);
        come(&mut engine, 0..100, &mut outbox);
        assert_eq!(engine.look_from, None);
        come(&mut engine, 100..500, &mut outbox);
        assert_eq!(engine.look_from, Some(0));
        for channel in (0..500).map(ChannelId) {
            engine.handle(now(1), Input::ChannelDown { channel }, &mut outbox);
        }
        pass(&mut engine, Duration::from_secs(30), &mut outbox);
        assert_eq!((engine.look_from, engine.channels.places()), (None, 0));
    }
}
