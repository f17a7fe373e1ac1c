//! Which shard has a channel to a relay, or makes one: every relay has a home, the shard that all others ask.
//!
//! The home follows from the relay's RSA identity, so nobody has to be told where it is. All wishes for a relay meet there,
//! and so no two shards make a channel to it at once. A channel that the relay itself began lies where it was accepted; its
//! home is told, and sends wishes on to it. Two channels to one relay can still come to be, when both ends begin one at the
//! same time; C tor lives with that too.

use std::collections::HashMap;
use std::num::NonZeroU16;

use relay_formats::fingerprint::RsaIdentity;

use crate::circuit::extend::Target;
use crate::door::ChannelId;
use crate::door::carry::{Listing, ShardId};

/// What a shard knows of the others.
pub(super) struct Directory {
    own: ShardId,
    shards: NonZeroU16,
    /// Channels of other shards to relays whose home we are. As many as there are channels.
    listed: HashMap<RsaIdentity, Vec<(ShardId, Listing)>>,
}

impl Directory {
    pub(super) fn new(own: ShardId, shards: NonZeroU16) -> Self {
        Self {
            own,
            shards,
            listed: HashMap::new(),
        }
    }

    pub(super) fn own(&self) -> ShardId {
        self.own
    }

    /// How many there are.
    pub(super) fn shards(&self) -> NonZeroU16 {
        self.shards
    }

    /// The home of a relay, where it is another shard.
    pub(super) fn home_elsewhere(&self, rsa: &RsaIdentity) -> Option<ShardId> {
        let home = self.home(&rsa.0);
        (home != self.own).then_some(home)
    }

    /// The shard that all agree on to ask for a name: a fingerprint, a service's key, a cookie. They are as good as random,
    /// but for those who look for one; they gain nothing by it.
    pub(super) fn home(&self, name: &[u8]) -> ShardId {
        let last = name.last_chunk().copied().unwrap_or_default();
        ShardId(u16::from_be_bytes(last) % self.shards)
    }

    /// Who may have a channel to that relay, where it is not us: its home, or the shard that our own list names.
    pub(super) fn whom_to_ask(&self, target: &Target) -> Option<ShardId> {
        let home = self.home_elsewhere(&target.relay.rsa_identity);
        home.or_else(|| self.host(target, self.own))
    }

    /// The shard other than `owner` whose channel to that relay fits best: a canonical one before others.
    pub(super) fn host(&self, target: &Target, owner: ShardId) -> Option<ShardId> {
        let listed = self.listed.get(&target.relay.rsa_identity)?;
        let expected = target.relay.ed25519_identity;
        let fits = |listing: &Listing| {
            expected.is_none_or(|expected| expected == listing.ed25519)
                && (listing.canonical || listing.address == target.address.ip())
        };
        listed
            .iter()
            .filter(|(shard, listing)| *shard != owner && fits(listing))
            .max_by_key(|(_, listing)| listing.canonical)
            .map(|(shard, _)| *shard)
    }

    pub(super) fn add(&mut self, shard: ShardId, listing: Listing) {
        self.listed.entry(listing.rsa).or_default().push((shard, listing));
    }

    pub(super) fn remove(&mut self, shard: ShardId, rsa: &RsaIdentity, channel: ChannelId) {
        if let Some(list) = self.listed.get_mut(rsa) {
            list.retain(|(of, listing)| (*of, listing.channel) != (shard, channel));
            if list.is_empty() {
                self.listed.remove(rsa);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::handshake::Expected;
    use relay_formats::fingerprint::Ed25519Identity;

    fn listing(channel: u64, canonical: bool) -> Listing {
        Listing {
            rsa: RsaIdentity([4; 20]),
            ed25519: Ed25519Identity([5; 32]),
            channel: ChannelId(channel),
            canonical,
            address: [192, 0, 2, 1].into(),
        }
    }

    fn target(ed25519: u8, address: [u8; 4]) -> Target {
        Target {
            relay: Expected {
                rsa_identity: RsaIdentity([4; 20]),
                ed25519_identity: Some(Ed25519Identity([ed25519; 32])),
            },
            address: (address, 9001).into(),
        }
    }

    #[test]
    fn every_relay_has_one_home_on_which_all_shards_agree() {
        let three = NonZeroU16::new(3).unwrap();
        let shards: Vec<_> = (0..3).map(|own| Directory::new(ShardId(own), three)).collect();
        for last in 0..=255 {
            let mut rsa = RsaIdentity([9; 20]);
            rsa.0[19] = last;
            let homes = shards.iter().filter(|shard| shard.home_elsewhere(&rsa).is_none());
            assert_eq!(homes.count(), 1);
            let elsewhere: Vec<_> = shards.iter().filter_map(|shard| shard.home_elsewhere(&rsa)).collect();
            assert_eq!(elsewhere[0], elsewhere[1]);
        }
    }

    #[test]
    fn a_home_names_the_shard_with_the_best_channel_until_it_is_gone() {
        let mut directory = Directory::new(ShardId(0), NonZeroU16::MIN);
        let (one, two) = (ShardId(1), ShardId(2));
        directory.add(one, listing(7, false));
        assert_eq!(directory.host(&target(5, [192, 0, 2, 1]), ShardId(0)), Some(one));
        assert_eq!(
            directory.host(&target(5, [192, 0, 2, 9]), ShardId(0)),
            None,
            "not known to be the same"
        );
        assert_eq!(
            directory.host(&target(6, [192, 0, 2, 1]), ShardId(0)),
            None,
            "another identity"
        );
        directory.add(two, listing(8, true));
        assert_eq!(directory.host(&target(5, [192, 0, 2, 9]), ShardId(0)), Some(two));
        assert_eq!(
            directory.host(&target(5, [192, 0, 2, 9]), two),
            None,
            "whoever asks has looked at his own"
        );
        directory.remove(two, &RsaIdentity([4; 20]), ChannelId(7));
        directory.remove(two, &RsaIdentity([4; 20]), ChannelId(8));
        directory.remove(one, &RsaIdentity([4; 20]), ChannelId(7));
        assert!(directory.listed.is_empty());
    }
}
