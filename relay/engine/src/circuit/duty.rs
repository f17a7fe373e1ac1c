//! What a circuit that ends here is for, besides streams: introduction and rendezvous of onion services (rend-spec).
//!
//! ```text
//! Plain --ESTABLISH_INTRO------> Introduction
//! Plain --ESTABLISH_RENDEZVOUS-> Waiting -------.
//! Plain --RENDEZVOUS1----------> Joining --------> Joined, both
//! Plain --CONFLUX_LINK---------> Linking --------> Leg          (see `conflux`)
//! ```
//! Nothing leads back, and a circuit that has a next hop never gets a duty.
//!
//! Client and service come over different channels, so their circuits may live on different shards. Whoever looks for
//! another asks the home of the name: the shard that follows from the key or the cookie. [`Errand`] is what they say.

use std::time::Duration;

use relay_wire::onion_service::{AuthKey, Cookie, DosParameters, EstablishIntro, IntroduceStatus};
use relay_wire::relay_cells::DestroyReason;

use crate::conflux::{LegDuty, Nonce};
use crate::door::carry::ShardId;
use crate::flow::TokenBucket;
use crate::network::Parameters;
use crate::slab::Key;

/// What a circuit is for.
#[derive(Default)]
pub(crate) enum Duty {
    /// Streams, or going on to another relay.
    #[default]
    Plain,
    /// A service is introduced over it.
    Introduction(Box<Introduction>),
    /// A client waits for a service.
    Waiting(Cookie),
    /// A service has come; its client is being looked for.
    Joining,
    /// Client and service have met: what is not for us goes over to the other circuit.
    Joined(Joined),
    /// It wants to be a leg of the set of that name.
    Linking(Nonce),
    /// It is a leg of a conflux set.
    Leg(LegDuty),
}

/// Where a circuit lives, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: ShardId,
    pub(crate) circuit: Key,
}

/// The other side of a rendezvous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) other: Place,
    /// Cells that its shard, where it is another, has not written yet, those in the mailbox included.
    pub(crate) away_cells: u32,
}

/// What others ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// A service that is introduced.
    Service(AuthKey),
    /// A client that waits.
    Client(Cookie),
}

impl Name {
    /// The bytes that its home follows from.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Service(key) => key,
            Self::Client(cookie) => cookie,
        }
    }
}

/// What shards tell each other about onion services; a shard also tells itself.
#[derive(Debug)]
pub(crate) enum Errand {
    /// To the home of a name: it is to be found there.
    Found { name: Name, at: Place },
    /// To the home of a name: not any more.
    Lost { name: Name, at: Place },
    /// To the shard of a client that waits: whether its cookie is its own.
    CookieTaken { circuit: Key, granted: bool },
    /// To the home of a service, and from there, with its circuit, to its shard.
    Introduce {
        auth_key: AuthKey,
        service: Option<Key>,
        client: Place,
        data: Box<[u8]>,
    },
    /// To the shard of the client that asked.
    Introduced { circuit: Key, status: IntroduceStatus },
    /// To the home of a cookie, and from there, with the client's circuit, to its shard.
    Rendezvous {
        cookie: Cookie,
        client: Option<Key>,
        service: Place,
        data: Box<[u8]>,
    },
    /// To the shard of the service: where the client is, if there is one.
    Met { circuit: Key, client: Option<Place> },
    /// To the shard of one side: the other has gone.
    Parted {
        circuit: Key,
        other: Place,
        reason: DestroyReason,
    },
}

impl Duty {
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }
}

/// A service that is introduced here.
pub(crate) struct Introduction {
    pub(crate) auth_key: AuthKey,
    /// `None`: no limit.
    allowance: Option<TokenBucket>,
}

impl Introduction {
    /// With the limits that the service names, or else the consensus.
    pub(crate) fn new(now: Duration, wish: &EstablishIntro<'_>, parameters: &Parameters) -> Self {
        Self {
            auth_key: wish.auth_key,
            allowance: limits(wish.dos, parameters).map(|(rate, burst)| TokenBucket::new(now, rate, burst)),
        }
    }

    /// Whether one more client may be introduced now.
    pub(crate) fn admits(&mut self, now: Duration) -> bool {
        let Some(allowance) = &mut self.allowance else {
            return true;
        };
        let admits = allowance.available(now) > 0;
        if admits {
            allowance.take(1);
        }
        admits
    }
}

/// INTRODUCE2 a second and at once; none where there is no limit (rend-spec, "DoS defense extension"). A service's own
/// words count if they make sense; a zero among them switches the limit off.
fn limits(dos: Option<DosParameters>, parameters: &Parameters) -> Option<(u64, u64)> {
    let of_network = || {
        let on = parameters.clamped("HiddenServiceEnableIntroDoSDefense", 0, 0, 1) == 1;
        let rate = parameters.clamped("HiddenServiceEnableIntroDoSRatePerSec", 25, 0, i32::MAX);
        let burst = parameters.clamped("HiddenServiceEnableIntroDoSBurstPerSec", 200, 0, i32::MAX);
        (on && rate > 0 && burst > 0).then_some((rate as u64, burst as u64))
    };
    let most = i32::MAX as u64;
    match dos {
        Some(DosParameters {
            rate: Some(0),
            burst: Some(burst),
        }) if burst <= most => None,
        Some(DosParameters {
            rate: Some(rate),
            burst: Some(0),
        }) if rate <= most => None,
        Some(DosParameters {
            rate: Some(rate),
            burst: Some(burst),
        }) if rate <= burst && burst <= most => Some((rate, burst)),
        _ => of_network(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dos(rate: u64, burst: u64) -> Option<DosParameters> {
        Some(DosParameters {
            rate: Some(rate),
            burst: Some(burst),
        })
    }

    #[test]
    fn a_service_sets_its_own_limits_where_they_make_sense() {
        let silent = Parameters::default();
        let strict = [
            ("HiddenServiceEnableIntroDoSDefense", 1),
            ("HiddenServiceEnableIntroDoSRatePerSec", 5),
            ("HiddenServiceEnableIntroDoSBurstPerSec", 9),
        ];
        let strict = Parameters(strict.map(|(name, value)| (name.to_owned(), value)).into());
        assert_eq!(limits(dos(10, 20), &strict), Some((10, 20)));
        for off in [dos(0, 5), dos(5, 0), dos(0, 0)] {
            assert_eq!(limits(off, &strict), None);
        }
        for nonsense in [None, dos(20, 10), dos(1, 1 << 40), Some(DosParameters::default())] {
            assert_eq!(limits(nonsense, &strict), Some((5, 9)));
            assert_eq!(limits(nonsense, &silent), None);
        }
    }
}
