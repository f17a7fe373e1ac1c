//! Who works: the operator that holds the Lease.
//!
//! A Lease that is not renewed for its own duration, by our own monotonic clock, may be taken: clocks of other machines
//! are not asked. Every write names the resourceVersion that was read, so that of two takers one fails. A holder that
//! cannot renew stops in time to be idle before another may begin, and its tenure lets no write out after that.
//!
//! Each taking raises `leaseTransitions`, also by one of the same name: a holder that finds another number in the Lease than
//! the one it came with has lost it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::arguments::Arguments;
use crate::telemetry::Telemetry;
use crate::tenure::Tenure;

/// What the Lease says, for one who wants it.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It is ours, free, or left behind: write our name into it.
    Take,
    /// Somebody else renews it.
    Wait,
}

/// When the Lease last changed before our eyes.
#[derive(Debug, Default)]
struct Sighting {
    last: Option<(String, Option<MicroTime>, Instant)>,
}

impl Sighting {
    fn turn(&mut self, spec: Option<&LeaseSpec>, me: &str, now: Instant) -> Turn {
        let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder.is_empty() || holder == me {
            return Turn::Take;
        }
        let renewed = spec.and_then(|spec| spec.renew_time.clone());
        let duration = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(duration).unwrap_or_default());
        match &self.last {
            Some((who, when, since)) if *who == holder && *when == renewed => {
                if now.duration_since(*since) > duration {
                    Turn::Take
                } else {
                    Turn::Wait
                }
            }
            _ => {
                self.last = Some((holder, renewed, now));
                Turn::Wait
            }
        }
    }
}

/// Holds the Lease for this process.
pub(crate) struct LeaseKeeper {
    leases: Api<Lease>,
    name: String,
    me: String,
    duration: Duration,
    wanted: bool,
    tenure: Arc<Tenure>,
}

impl LeaseKeeper {
    /// The client's writes must not need a tenure.
    pub(crate) fn new(client: Client, arguments: &Arguments, tenure: Arc<Tenure>) -> Self {
        let leases = match &arguments.lease_namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        };
        Self {
            leases,
            name: arguments.lease_name.clone(),
            me: arguments.instance(),
            duration: Duration::from_secs(u64::from(arguments.lease_seconds)),
            wanted: arguments.leader_elect,
            tenure,
        }
    }

    /// Waits until this process holds the Lease; which change of holder that was.
    pub(crate) async fn acquire(&self) -> kube::Result<i32> {
        if !self.wanted {
            self.tenure.unlimited();
            return Ok(0);
        }
        let mut sighting = Sighting::default();
        let mut told = false;
        loop {
            let asked = Instant::now(); // counted from before the request: it may be answered late
            if let Some(generation) = self.try_take(&mut sighting).await? {
                self.tenure.extend(generation, asked, self.usable());
                info!(lease = self.name, instance = self.me, generation, "leading");
                return Ok(generation);
            }
            if !told {
                info!(lease = self.name, instance = self.me, "another operator leads; waiting");
                told = true;
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    /// Renews until that fails for so long that another may soon begin; then says why.
    pub(crate) async fn keep(&self, generation: i32, telemetry: &Telemetry) -> anyhow::Error {
        if !self.wanted {
            return std::future::pending().await;
        }
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.usable() {
            tokio::time::sleep(self.pause()).await;
            let asked = Instant::now();
            match tokio::time::timeout(self.pause(), self.try_renew(generation)).await {
                Ok(Ok(true)) => {
                    renewed = asked;
                    self.tenure.extend(generation, asked, self.usable());
                }
                Ok(Ok(false)) => break,
                Ok(Err(error)) => warn!(%error, "the Lease could not be renewed"),
                Err(_) => warn!("the API server did not answer in time when the Lease was to be renewed"),
            }
        }
        self.tenure.end();
        telemetry.leader.set(0);
        anyhow::anyhow!(
            "lost the Lease {}: another operator may lead now; this one ends and starts anew",
            self.name
        )
    }

    /// Gives the Lease back, so that the next operator need not wait.
    pub(crate) async fn release(&self) {
        if !self.wanted {
            return;
        }
        if !matches!(tokio::time::timeout(self.pause(), self.try_release()).await, Ok(Ok(()))) {
            warn!("the Lease could not be given back; the next operator waits until it runs out");
        }
    }

    async fn try_release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.me) {
            spec.holder_identity = None;
            self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    /// Between two looks: three fit into the Lease's duration before it is given up.
    fn pause(&self) -> Duration {
        self.duration / 5
    }

    /// How long after a renewal this process may still write: the rest is for what is under way.
    fn usable(&self) -> Duration {
        self.duration * 2 / 3
    }

    async fn try_take(&self, sighting: &mut Sighting) -> kube::Result<Option<i32>> {
        let found = self.leases.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        if sighting.turn(spec, &self.me, Instant::now()) == Turn::Wait {
            return Ok(None);
        }
        let generation = generation_of(spec) + 1;
        let done = self.write(found.as_ref(), generation, true).await?;
        Ok(done.then_some(generation))
    }

    /// False if it is another's by now.
    async fn try_renew(&self, generation: i32) -> kube::Result<bool> {
        let found = self.leases.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_ref());
        if holder != Some(&self.me) || generation_of(spec) != generation {
            return Ok(false);
        }
        self.write(found.as_ref(), generation, false).await
    }

    /// False if another was faster.
    async fn write(&self, found: Option<&Lease>, generation: i32, taken: bool) -> kube::Result<bool> {
        let wanted = self.with_our_name(found, generation, taken);
        let written = match found {
            None => self.leases.create(&PostParams::default(), &wanted).await,
            Some(_) => self.leases.replace(&self.name, &PostParams::default(), &wanted).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn with_our_name(&self, found: Option<&Lease>, generation: i32, taken: bool) -> Lease {
        let fresh = ObjectMeta {
            name: Some(self.name.clone()),
            ..Default::default()
        };
        let before = found.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: found.map_or(fresh, |lease| lease.metadata.clone()), // with its resourceVersion
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                acquire_time: if taken {
                    Some(now.clone())
                } else {
                    before.acquire_time.clone()
                },
                renew_time: Some(now),
                lease_transitions: Some(generation),
                ..before
            }),
        }
    }
}

/// How often the holder has changed.
fn generation_of(spec: Option<&LeaseSpec>) -> i32 {
    spec.and_then(|spec| spec.lease_transitions).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..Default::default()
        }
    }

    #[test]
    fn a_lease_that_is_renewed_is_never_taken() {
        let (mut sighting, start) = (Sighting::default(), Instant::now());
        for round in 0..100 {
            let now = start + Duration::from_secs(10) * round;
            assert_eq!(
                sighting.turn(Some(&held_by("other", i64::from(round))), "me", now),
                Turn::Wait
            );
        }
    }

    #[test]
    fn a_lease_that_stands_still_is_taken_after_its_duration_by_our_own_clock() {
        let (mut sighting, start) = (Sighting::default(), Instant::now());
        let left_behind = held_by("other", 0); // long ago by the calendar: that alone proves nothing
        assert_eq!(sighting.turn(Some(&left_behind), "me", start), Turn::Wait);
        assert_eq!(
            sighting.turn(Some(&left_behind), "me", start + Duration::from_secs(15)),
            Turn::Wait
        );
        assert_eq!(
            sighting.turn(Some(&left_behind), "me", start + Duration::from_secs(16)),
            Turn::Take
        );
    }

    #[test]
    fn a_free_lease_and_our_own_are_taken_at_once() {
        let now = Instant::now();
        assert_eq!(Sighting::default().turn(None, "me", now), Turn::Take);
        assert_eq!(Sighting::default().turn(Some(&held_by("", 0)), "me", now), Turn::Take);
        assert_eq!(Sighting::default().turn(Some(&held_by("me", 0)), "me", now), Turn::Take);
    }
}
