//! A cluster in memory that does with a step what the API server would.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use operator_api::Relay;
use operator_plan::{FamilySeen, NetworkText, Observed, Plan, PoolSeen, Seen, Settings, Step, decide, desired};
use rand::SeedableRng as _;
use rand::rngs::ChaCha12Rng;
use serde_json::json;

/// The lines of a private network.
pub(crate) const NETWORK: &str = "# shared\nTestingTorNetwork 1\n\
    DirAuthority a orport=5000 v3ident=0123456789ABCDEF0123456789ABCDEF01234567 \
    198.18.200.1:7000 89ABCDEF0123456789ABCDEF0123456789ABCDEF\n";

/// What one Relay's part of a cluster holds, and how often keys were drawn.
pub(crate) struct World {
    pub(crate) seen: Observed,
    pub(crate) settings: Settings,
    pub(crate) keys_drawn: u64,
    /// What the operator's namespace keeps, with its keys.
    pub(crate) kept: Option<Secret>,
    /// Every Secret that the pod could see, with its keys, in the order of their writes.
    pub(crate) pods_secrets: Vec<Secret>,
    pub(crate) clock: i64,
}

impl World {
    /// A Relay that was just applied, with these fields over a plain spec.
    pub(crate) fn with(fields: serde_json::Value) -> Self {
        let mut spec = json!({"role": "Middle", "nickname": "demo", "contact": "ops@example.org"});
        let fields = fields.as_object().cloned().unwrap_or_default();
        spec.as_object_mut().unwrap().extend(fields);
        let relay: Relay = serde_json::from_value(json!({
            "apiVersion": "relayfleet.io/v1alpha1",
            "kind": "Relay",
            "metadata": {"name": "demo", "namespace": "tor", "uid": "relay-1", "generation": 1},
            "spec": spec,
        }))
        .unwrap();
        let seen = Observed {
            relay,
            network: NetworkText::Public,
            family: FamilySeen::Unnamed,
            pool: PoolSeen::Unnamed,
            custody: Seen::Absent,
            identity: Seen::Absent,
            signing: Seen::Absent,
            token: Seen::Absent,
            torrc: Seen::Absent,
            claim: Seen::Absent,
            service: Seen::Absent,
            pod: Seen::Absent,
        };
        let settings = Settings {
            relay_image: "relay:1".into(),
            tor_image: None,
            custody_namespace: "relayfleet-system".into(),
            pull_policy: None,
            cluster_networks: vec!["198.18.0.0/16".into(), "fd00::/8".into()],
            status_key: None,
            relay_metrics: false,
        };
        Self {
            seen,
            settings,
            keys_drawn: 0,
            kept: None,
            pods_secrets: Vec::new(),
            clock: 1_800_000_000,
        }
    }

    pub(crate) fn plain() -> Self {
        Self::with(json!({}))
    }

    pub(crate) fn plan(&self) -> Plan {
        self.decide().unwrap()
    }

    pub(crate) fn decide(&self) -> Option<Plan> {
        let now = Time(Timestamp::from_second(self.clock).unwrap());
        decide(&self.seen, &self.settings, &now)
    }

    /// Rounds until one has nothing to do; the number of writes.
    pub(crate) fn settle(&mut self) -> usize {
        let mut writes = 0;
        for _ in 0..20 {
            let done = self.round(usize::MAX);
            if done == 0 {
                return writes;
            }
            writes += done;
        }
        panic!("never settles: {:?}", self.plan());
    }

    /// One round, cut off after so many writes; the number of writes.
    pub(crate) fn round(&mut self, writes_max: usize) -> usize {
        self.clock += 1;
        let Some(plan) = self.decide() else { return 0 };
        let mut writes = 0;
        if self.seen.relay.status != plan.status && plan.status.is_some() && writes < writes_max {
            self.seen.relay.status = plan.status;
            writes += 1;
        }
        for step in plan.steps.into_iter().take(writes_max - writes) {
            self.apply(step);
            writes += 1;
        }
        writes
    }

    fn apply(&mut self, step: Step) {
        let uid = format!("uid-{}", self.clock);
        match step {
            Step::CreateIdentity => {
                assert!(matches!(self.seen.custody, Seen::Absent), "keys drawn over keys");
                assert!(matches!(self.seen.identity, Seen::Absent), "keys drawn over keys");
                self.keys_drawn += 1;
                let mut dice = ChaCha12Rng::seed_from_u64(self.keys_drawn);
                self.restore(&desired::identity::new_identity(&self.seen.relay, &self.settings, &mut dice).unwrap());
            }
            Step::CreatePodsPart => {
                let keeper = self.kept.clone().unwrap();
                let part = desired::identity::pods_part(&self.seen.relay, &keeper).unwrap();
                self.seen.identity = Seen::Ours(metadata_of(&part));
                self.pods_secrets.push(part);
            }
            Step::IssueSigning(identity) => {
                let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.clock.unsigned_abs());
                let mut dice = ChaCha12Rng::seed_from_u64(self.clock.unsigned_abs());
                let keeper = self.kept.clone().unwrap();
                let secret = desired::signing::new_signing(&self.seen.relay, &keeper, &identity, now, &mut dice);
                let secret = secret.unwrap();
                self.seen.signing = Seen::Ours(metadata_of(&secret));
                self.pods_secrets.push(secret);
            }
            Step::ApplyToken => {
                let key = self.settings.status_key.unwrap();
                let secret = desired::status_port::token_secret(&key, &self.seen.relay);
                self.seen.token = Seen::Ours(metadata_of(&secret));
                self.pods_secrets.push(secret);
            }
            Step::ApplyTorrc(torrc) => self.seen.torrc = Seen::Ours(*torrc),
            Step::CreateClaim(claim) => {
                let mut claim = *claim;
                claim.metadata.uid = Some(uid);
                self.seen.claim = Seen::Ours(claim);
            }
            Step::ApplyService(service) => self.seen.service = Seen::Ours(*service),
            Step::CreatePod(pod) => {
                assert_eq!(self.seen.pod, Seen::Absent, "a second pod of one identity");
                let mut pod = *pod;
                pod.metadata.uid = Some(uid);
                self.seen.pod = Seen::Ours(pod);
            }
            Step::DeletePod { uid } => {
                let ends = Timestamp::from_second(self.clock + 35).unwrap();
                let pod = self.pod();
                assert_eq!(pod.metadata.uid, Some(uid));
                pod.metadata.deletion_timestamp = Some(Time(ends));
            }
            Step::TouchPod { uid, torrc_hash } => {
                let pod = self.pod();
                assert_eq!(pod.metadata.uid, Some(uid));
                let annotations = pod.metadata.annotations.get_or_insert_default();
                annotations.insert("relayfleet.io/torrc-hash".into(), torrc_hash);
            }
            Step::HoldRelay(held) => {
                self.seen.relay.metadata.finalizers = held.then(|| vec!["relayfleet.io/deletion".into()]);
            }
            Step::DeleteClaim { .. } => self.seen.claim = Seen::Absent,
            Step::DeleteIdentity { .. } => self.seen.custody = Seen::Absent,
        }
    }

    /// Puts a Secret there as from a backup: the plan sees its metadata only.
    pub(crate) fn restore(&mut self, secret: &Secret) {
        let seen = Seen::Ours(metadata_of(secret));
        if secret.metadata.namespace == Some(self.settings.custody_namespace.clone()) {
            self.seen.custody = seen;
            self.kept = Some(secret.clone());
        } else {
            self.seen.identity = seen;
            self.pods_secrets.push(secret.clone());
        }
    }

    pub(crate) fn pod(&mut self) -> &mut Pod {
        match &mut self.seen.pod {
            Seen::Ours(pod) => pod,
            other => panic!("no pod of ours: {other:?}"),
        }
    }

    pub(crate) fn pod_becomes(&mut self, status: serde_json::Value) {
        self.pod().status = Some(serde_json::from_value(status).unwrap());
    }

    pub(crate) fn pod_listens(&mut self) {
        self.pod().status = Some(PodStatus {
            pod_ip: Some("198.18.1.7".into()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: "True".into(),
                ..Default::default()
            }]),
            ..Default::default()
        });
    }

    pub(crate) fn fingerprint(&self) -> Option<String> {
        Some(
            self.seen
                .relay
                .status
                .as_ref()?
                .identity
                .as_ref()?
                .rsa_fingerprint
                .clone(),
        )
    }

    /// Status, reason and message of a condition.
    pub(crate) fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.plan().status;
        let condition = status
            .unwrap()
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == type_)
            .unwrap();
        (condition.status, condition.reason, condition.message)
    }
}

fn metadata_of(secret: &Secret) -> PartialObjectMeta<Secret> {
    let mut metadata: ObjectMeta = secret.metadata.clone();
    metadata.uid = Some("secret".into());
    PartialObjectMeta {
        metadata,
        ..Default::default()
    }
}
