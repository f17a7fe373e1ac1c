//! A family, driven round by round in a cluster in memory.

use std::time::{Duration, SystemTime};

use crate::world::World;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use operator_api::{FamilyIdState, RelayFamily};
use operator_plan::family::{Member, key, shard};
use operator_plan::{FamilyObserved, FamilyPlan, FamilySeen, FamilyStep, Seen, Settings, decide_family};
use rand::SeedableRng as _;
use rand::rngs::ChaCha12Rng;
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::family_bundle::{FamilyBundle, family_of};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::torrc::Torrc;
use serde_json::{Value, json};

const DAY: i64 = 86_400;

/// What one family's part of a cluster holds.
struct Families {
    seen: FamilyObserved,
    settings: Settings,
    /// Secrets in the operator's namespace by generation, with their keys.
    kept: Vec<(i32, Secret)>,
    /// What lies beside the family.
    shared: Option<Secret>,
    clock: i64,
}

fn member(number: u32) -> Member {
    let mut dice = ChaCha12Rng::seed_from_u64(u64::from(number));
    let mut rsa = [0; 20];
    rsa[..4].copy_from_slice(&number.to_be_bytes());
    Member {
        ed25519: Ed25519Secret::generate(&mut dice).public(),
        rsa: RsaIdentity(rsa),
        c_tor: false,
    }
}

impl Families {
    fn of(members: u32, spec: Value) -> Self {
        let family: RelayFamily = serde_json::from_value(json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "RelayFamily",
            "metadata": {"name": "oaks", "namespace": "tor", "uid": "family-1", "generation": 1}, "spec": spec,
        }))
        .unwrap();
        Self {
            seen: FamilyObserved {
                family,
                members: (0..members).map(member).collect(),
                keys: [Seen::Absent, Seen::Absent],
                shards: [Seen::Absent, Seen::Absent, Seen::Absent, Seen::Absent],
                well_known: Seen::Absent,
                shared: Seen::Absent,
            },
            settings: World::plain().settings,
            kept: Vec::new(),
            shared: None,
            clock: 1_800_000_000,
        }
    }

    fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.clock.unsigned_abs())
    }

    fn plan(&self) -> FamilyPlan {
        decide_family(&self.seen, &Time(Timestamp::from_second(self.clock).unwrap())).unwrap()
    }

    /// Rounds until one has nothing to do; the number of writes.
    fn settle(&mut self) -> usize {
        let mut writes = 0;
        for _ in 0..10 {
            self.clock += 1;
            let plan = self.plan();
            let before = writes;
            if self.seen.family.status.as_ref() != Some(&plan.status) {
                self.seen.family.status = Some(plan.status);
                writes += 1;
            }
            for step in plan.steps {
                self.apply(step);
                writes += 1;
            }
            if writes == before {
                return writes;
            }
        }
        panic!("never settles: {:?}", self.plan());
    }

    fn apply(&mut self, step: FamilyStep) {
        match step {
            FamilyStep::CreateKey(generation) => {
                let mut dice = ChaCha12Rng::seed_from_u64(generation.unsigned_abs().into());
                let mut secret = key::new_key(&self.seen.family, generation, &self.settings, &mut dice);
                secret.metadata.creation_timestamp = Some(Time(Timestamp::from_second(self.clock).unwrap()));
                assert!(
                    !self.kept.iter().any(|(made, _)| *made == generation),
                    "a key drawn over a key"
                );
                self.kept.push((generation, secret));
                self.look_at_keys();
            }
            FamilyStep::ApplyShard(plan) => {
                let map = shard::finish(&self.seen.family, &plan, &self.secrets(), self.time());
                self.seen.shards[plan.index] = Seen::Ours(map);
            }
            FamilyStep::ApplyWellKnown(map) => self.seen.well_known = Seen::Ours(*map),
            FamilyStep::ApplyShared(keys) => {
                let secret = key::shared_keys(&self.seen.family, &keys, &self.secrets());
                self.seen.shared = Seen::Ours(metadata_of(&secret));
                self.shared = Some(secret);
            }
        }
    }

    fn secrets(&self) -> Vec<Ed25519Secret> {
        let newest_first = self.kept.iter().rev();
        newest_first
            .map(|(_, secret)| key::secret_key(&self.seen.family, secret).unwrap())
            .collect()
    }

    /// As `gather` would.
    fn look_at_keys(&mut self) {
        let generation = self.seen.family.spec.rotation.generation;
        let of = |wanted: i32| {
            let found = self.kept.iter().find(|(made, _)| *made == wanted);
            found.map_or(Seen::Absent, |(_, secret)| Seen::Ours(metadata_of(secret)))
        };
        self.seen.keys = [of(generation), of(generation - 1)];
    }

    fn bundle(&self, index: usize) -> FamilyBundle {
        FamilyBundle::parse(&self.map(index).data.as_ref().unwrap()["bundle"]).unwrap()
    }

    fn map(&self, index: usize) -> &ConfigMap {
        self.seen.shards[index].ours().unwrap()
    }

    fn families_of(&self, member: &Member) -> Vec<Ed25519Identity> {
        let bundles = (0..4)
            .filter(|index| self.seen.shards[*index].ours().is_some())
            .map(|index| self.bundle(index));
        let certs = bundles.flat_map(|bundle| bundle.valid_certs_of(&member.ed25519, self.time()));
        certs
            .filter_map(|cert| family_of(&cert, &member.ed25519, self.time()))
            .collect()
    }

    fn ids(&self) -> Vec<(String, FamilyIdState)> {
        let status = self.seen.family.status.as_ref().unwrap();
        status.family_ids.iter().map(|id| (id.id.clone(), id.state)).collect()
    }

    fn ready(&self) -> (String, String) {
        let ready = self.plan().status.conditions.remove(0);
        (ready.status, ready.reason)
    }
}

fn metadata_of(secret: &Secret) -> PartialObjectMeta<Secret> {
    PartialObjectMeta {
        metadata: secret.metadata.clone(),
        ..Default::default()
    }
}

#[test]
fn every_member_has_a_certificate_and_the_list_and_nobody_has_the_key() {
    let mut world = Families::of(3, json!({}));
    world.settle();
    assert_eq!(world.ready(), ("True".into(), "Issued".into()));
    let (id, _) = world.ids().remove(0);
    for member in world.seen.members.clone() {
        let shown: Vec<String> = world.families_of(&member).iter().map(ToString::to_string).collect();
        assert_eq!(shown, std::slice::from_ref(&id));
    }
    assert_eq!(world.bundle(0).members, [member(0).rsa, member(1).rsa, member(2).rsa]);
    let secret = world.secrets().remove(0);
    let scalar = &secret.expanded()[..32];
    for map in [world.map(0), world.seen.well_known.ours().unwrap()] {
        let text = serde_json::to_vec(map).unwrap();
        assert!(!text.windows(32).any(|window| window == scalar));
    }
    assert!(world.shared.is_none(), "nobody runs C tor");
    assert_eq!(world.kept[0].1.metadata.namespace.as_deref(), Some("relayfleet-system"));
}

#[test]
fn adding_one_relay_to_a_family_of_200_takes_at_most_four_writes() {
    let mut world = Families::of(200, json!({}));
    world.settle();
    let before = world.bundle(0);
    world.seen.members.push(member(200));
    let writes = world.settle();
    assert!(writes <= 4, "{writes} writes");
    let after = world.bundle(0);
    assert_eq!(after.certs.len(), 201);
    assert!(
        before.certs.iter().all(|cert| after.certs.contains(cert)),
        "nobody else gets another certificate"
    );
    assert_eq!(world.families_of(&member(200)).len(), 1);
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_relay_that_leaves_is_neither_listed_nor_certified() {
    let mut world = Families::of(3, json!({}));
    world.settle();
    world.seen.members.remove(1);
    world.settle();
    assert_eq!(world.bundle(0).members, [member(0).rsa, member(2).rsa]);
    assert!(world.families_of(&member(1)).is_empty());
}

#[test]
fn members_beyond_500_go_into_the_next_config_map_and_nobody_moves() {
    let mut world = Families::of(500, json!({"legacyList": false}));
    world.settle();
    let first = world.map(0).clone();
    world.seen.members.extend((500..503).map(member));
    world.settle();
    assert_eq!(world.bundle(0).certs.len(), 500);
    assert_eq!(world.bundle(1).certs.len(), 3);
    assert_eq!(*world.map(0), first);
    // Room comes up in the first; who is in the second stays there.
    world.seen.members.remove(0);
    world.settle();
    assert_eq!((world.bundle(0).certs.len(), world.bundle(1).certs.len()), (499, 3));
    let bytes = world.map(0).data.as_ref().unwrap()["bundle"].len();
    assert!(bytes * 3 < 1_000_000, "{bytes}");
    assert_eq!(world.settle(), 0);
}

#[test]
fn certificates_are_renewed_together_long_before_they_end() {
    let mut world = Families::of(3, json!({}));
    world.settle();
    world.clock += 4 * DAY;
    world.seen.members.push(member(3)); // younger by four days
    world.settle();
    world.clock += 10 * DAY;
    assert_eq!(world.settle(), 0);
    world.clock += DAY;
    assert!(world.settle() > 0);
    let ends: Vec<_> = world.bundle(0).certs.iter().map(|(_, cert)| cert.expires()).collect();
    assert!(
        ends.iter()
            .all(|end| *end > world.time() + Duration::from_secs(29 * 86_400)),
        "all at once"
    );
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_key_is_changed_with_an_overlap() {
    let mut world = Families::of(2, json!({"rotation": {"overlap": "7d"}}));
    world.settle();
    let (old, _) = world.ids().remove(0);
    world.clock += 100 * DAY;
    world.seen.family.spec.rotation.generation = 2;
    world.look_at_keys();
    world.settle();
    let ids = world.ids();
    assert_eq!((ids.len(), &ids[1]), (2, &(old.clone(), FamilyIdState::Retiring)));
    assert_eq!(world.families_of(&member(0)).len(), 2, "members show both");
    let proof = world.seen.well_known.ours().unwrap().data.clone().unwrap();
    assert_eq!(proof["ed25519-family-id.txt"], format!("{}\n{old}\n", ids[0].0));

    world.clock += 8 * DAY;
    world.settle();
    assert_eq!(world.ids().len(), 1);
    let left: Vec<String> = world.families_of(&member(0)).iter().map(ToString::to_string).collect();
    assert_eq!(left, [ids[0].0.clone()]);
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_lost_key_is_told_and_not_replaced() {
    let mut world = Families::of(2, json!({}));
    world.settle();
    let (ids, shard) = (world.ids(), world.map(0).clone());
    world.seen.keys = [Seen::Absent, Seen::Absent];
    world.seen.members.push(member(2));
    world.settle();
    assert_eq!(world.ready(), ("False".into(), "KeyMissing".into()));
    assert_eq!((world.ids(), world.map(0).clone(), world.kept.len()), (ids, shard, 1));
}

#[test]
fn a_shard_changed_by_hand_is_put_right_and_a_forged_certificate_is_replaced() {
    let mut world = Families::of(2, json!({}));
    world.settle();
    let good = world.map(0).clone();
    let stranger = Ed25519Secret::generate(&mut ChaCha12Rng::seed_from_u64(77));
    let mut bundle = world.bundle(0);
    bundle.certs[0].1 = relay_formats::cert::Ed25519Cert::issue(
        relay_formats::cert::CertType::FAMILY_IDENTITY,
        relay_formats::cert::Certified::Key(bundle.certs[0].0),
        world.time() + Duration::from_secs(20 * 86_400),
        &stranger,
        relay_formats::cert::NameSigner::Yes,
    );
    if let Seen::Ours(map) = &mut world.seen.shards[0] {
        map.data = Some([("bundle".to_owned(), bundle.to_text())].into());
    }
    world.settle();
    assert_eq!(world.bundle(0).certs.len(), 2);
    assert_eq!(
        world.bundle(0).certs[1],
        FamilyBundle::parse(&good.data.unwrap()["bundle"]).unwrap().certs[1]
    );
    for number in [0, 1] {
        assert_eq!(world.families_of(&member(number))[0].to_string(), world.ids()[0].0);
    }
}

#[test]
fn members_outside_are_listed_and_certified_if_their_identity_is_told() {
    let outside = member(900);
    let mut world = Families::of(
        1,
        json!({"externalMembers": [
            {"rsaFingerprint": outside.rsa.to_string(), "ed25519Id": outside.ed25519.to_string(), "note": "at home"},
            {"rsaFingerprint": "AB".repeat(20)},
        ]}),
    );
    world.settle();
    assert_eq!(world.bundle(0).members.len(), 3);
    assert_eq!(world.bundle(0).certs.len(), 2);
    assert_eq!(world.families_of(&outside).len(), 1);
    let proof = world.seen.well_known.ours().unwrap().data.clone().unwrap();
    assert_eq!(
        proof["rsa-fingerprint.txt"],
        format!("{}\n", member(0).rsa),
        "we prove what we run"
    );
}

#[test]
fn c_tor_gets_the_key_file_and_the_list() {
    let mut world = Families::of(2, json!({}));
    world.seen.members[1].c_tor = true;
    world.settle();
    let shared = world.shared.clone().unwrap().data.unwrap();
    assert_eq!(shared.keys().collect::<Vec<_>>(), ["oaks-1.secret_family_key"]);
    assert_eq!(world.bundle(0).certs.len(), 1);
    let torrc = &world.map(0).data.as_ref().unwrap()["torrc"];
    assert_eq!(
        *torrc,
        format!("MyFamily ${}\nMyFamily ${}\n", member(0).rsa, member(1).rsa)
    );
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_list_that_no_descriptor_has_room_for_is_left_out_and_told() {
    let mut world = Families::of(401, json!({}));
    world.settle();
    assert_eq!(world.ready(), ("False".into(), "ListTooLong".into()));
    assert!(world.bundle(0).members.is_empty());
    assert_eq!(world.bundle(0).certs.len(), 401);
}

fn family(spec: Value) -> FamilySeen {
    FamilySeen::There(Box::new(Families::of(0, spec).seen.family))
}

#[test]
fn a_members_pod_mounts_every_bundle_that_there_could_be() {
    let mut world = World::with(json!({"family": {"name": "oaks"}}));
    world.seen.family = family(json!({}));
    world.settle();
    let spec = world.pod().spec.clone().unwrap();
    let volume = spec
        .volumes
        .unwrap()
        .into_iter()
        .find(|volume| volume.name == "family")
        .unwrap();
    let sources = volume.projected.unwrap().sources.unwrap();
    assert_eq!(sources.len(), 4);
    assert!(
        sources
            .iter()
            .all(|source| source.config_map.as_ref().unwrap().optional == Some(true))
    );
    assert_eq!(sources[3].config_map.as_ref().unwrap().name, "oaks-family-3");
    let torrc = world.seen.torrc.ours().unwrap().data.clone().unwrap()["torrc"].clone();
    let read = Torrc::parse(&torrc).unwrap();
    assert_eq!(read.family_directory.unwrap().to_str(), Some("/etc/relayfleet/family"));
    assert!(
        !serde_json::to_string(&world.pod().spec)
            .unwrap()
            .contains("family-keys")
    );
}

#[test]
fn a_family_that_is_not_there_starts_nothing_and_leaves_what_runs() {
    let mut world = World::with(json!({"family": {"name": "oaks"}}));
    world.seen.family = FamilySeen::Missing;
    world.settle();
    let (_, reason, message) = world.condition("ConfigAccepted");
    assert_eq!(reason, "FamilyMissing");
    assert!(
        message.contains("spec.family.name") && message.contains("oaks"),
        "{message}"
    );
    assert_eq!((world.seen.pod.clone(), world.keys_drawn), (Seen::Absent, 0));
    world.seen.family = family(json!({}));
    world.settle();
    let pod = world.pod().clone();
    world.seen.family = FamilySeen::Missing;
    world.settle();
    assert_eq!(*world.pod(), pod);
}

#[test]
fn a_familys_contact_is_made_from_the_live_spec() {
    let mut world = World::with(json!({"family": {"name": "oaks"}, "bandwidth": {"rate": "100Mbit/s"}}));
    world.seen.family = family(json!({"contact": {
        "email": "tor@example.org", "url": "https://example.org", "abuse": "abuse@example.org", "hoster": "hoster.example",
    }}));
    world.settle();
    let torrc = world.seen.torrc.ours().unwrap().data.clone().unwrap()["torrc"].clone();
    assert!(
        torrc.contains(
            "\nContactInfo email:tor[]example.org url:https://example.org proof:uri-familyid-ed25519 \
             abuse:abuse[]example.org hoster:hoster.example uplinkbw:100 offlinemasterkey:y signingkeylifetime:7 \
             ciissversion:3\n"
        ),
        "{torrc}"
    );
}
