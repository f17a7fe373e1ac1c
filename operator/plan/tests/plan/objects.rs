//! What the objects say.

use crate::world::{NETWORK, World};
use operator_plan::{NetworkText, Seen};
use relay_formats::key_file::{self, Ed25519Role};
use relay_formats::rsa_key::RsaSecret;
use relay_formats::torrc::Torrc;
use serde_json::json;

fn torrc(world: &World) -> String {
    world.seen.torrc.ours().unwrap().data.as_ref().unwrap()["torrc"].clone()
}

#[test]
fn the_torrc_says_what_the_spec_says() {
    let mut world = World::with(json!({
        "bandwidth": {"rate": "10MiB/s", "burst": "100Mbit/s", "maxAdvertised": "5MB/s"},
        "orPort": 9443,
        "address": {"source": "Static", "ipv4": "203.0.113.7"},
        "network": {"configMap": {"name": "private"}},
    }));
    world.seen.network = NetworkText::Text(NETWORK.into());
    world.settle();
    assert_eq!(
        torrc(&world),
        "# Made from Relay tor/demo. The operator undoes changes made here.\n\
         Nickname demo\n\
         ContactInfo ops@example.org\n\
         ORPort 0.0.0.0:9443 IPv4Only\n\
         Address 203.0.113.7\n\
         SocksPort 0\n\
         DataDirectory /var/lib/relayfleet/data\n\
         Log notice stdout\n\
         ShutdownWaitLength 20 seconds\n\
         OfflineMasterKey 1\n\
         SigningKeyDirectory /etc/relayfleet/signing\n\
         CountPrivateBandwidth 1\n\
         RelayBandwidthRate 10485760 bytes\n\
         RelayBandwidthBurst 12500000 bytes\n\
         MaxAdvertisedBandwidth 5000000 bytes\n\
         ExitRelay 0\n\
         ExitPolicy reject *:*\n"
            .to_owned()
            + NETWORK.strip_prefix("# shared\n").unwrap()
    );
}

#[test]
fn our_relay_takes_every_line_of_the_torrc() {
    let mut world = World::with(json!({
        "contact": "ops #1 \"on call\"",
        "bandwidth": {"rate": "75KiB/s", "burst": "2147MB/s", "maxAdvertised": "38KiB/s"},
        "address": {"source": "Static", "ipv4": "203.0.113.7"},
        "network": {"configMap": {"name": "private"}},
    }));
    world.seen.network = NetworkText::Text(format!("{NETWORK}AssumeReachable 1\n"));
    world.settings.status_key = Some([7; 32]);
    world.settle();
    let read = Torrc::parse(&torrc(&world)).unwrap();
    assert_eq!(read.warnings, []);
    assert_eq!(read.nickname.as_str(), "demo");
    assert_eq!(read.contact_info.as_deref(), Some("ops #1 \"on call\""));
    assert_eq!(read.or_ports.len(), 1);
    assert_eq!(read.bandwidth.relayed.unwrap().bytes_per_second_max, 75 * 1024);
    assert_eq!(read.bandwidth.relayed.unwrap().bytes_burst_max, 2_147_000_000);
    assert_eq!(read.bandwidth.advertised_max, 38 * 1024);
    assert!(read.testing_tor_network && read.assume_reachable);
    let ports: Vec<_> = read.status_ports.iter().map(|one| one.port).collect();
    assert_eq!(ports, [Some(9099)]);
    let file = read.status_token_file.unwrap();
    let (folder, key) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
    assert_eq!(folder, std::path::Path::new("/etc/relayfleet/config"));
    let data = world.seen.torrc.ours().unwrap().data.clone().unwrap();
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        ["torrc"],
        "whoever reads ConfigMaps must not read the token"
    );
    let secrets = world
        .pods_secrets
        .iter()
        .filter_map(|secret| secret.data.as_ref()?.get(key));
    let tokens: Vec<String> = secrets
        .map(|token| String::from_utf8(token.0.clone()).unwrap())
        .collect();
    let [token] = &*tokens else {
        panic!("{} tokens", tokens.len())
    };
    assert_eq!(token.len(), 64);
    world.seen.relay.metadata.name = Some("other".into());
    let other = operator_plan::desired::status_port::status_token(&[7; 32], &world.seen.relay);
    assert_ne!(*token, other, "each relay has its own");
}

#[test]
fn a_pod_without_an_address_in_the_spec_publishes_its_own() {
    let mut world = World::plain();
    world.settle();
    let spec = world.pod().spec.clone().unwrap();
    let args = spec.containers[0].args.clone().unwrap();
    assert_eq!(
        args,
        [
            "-f",
            "/etc/relayfleet/config/torrc",
            "--watch-torrc",
            "--Address",
            "$(POD_IP)"
        ]
    );
    assert!(!torrc(&world).contains("Address"));
}

#[test]
fn the_pod_meets_pod_security_restricted() {
    let mut world = World::plain();
    world.settle();
    let spec = world.pod().spec.clone().unwrap();
    let pod = spec.security_context.unwrap();
    assert_eq!(pod.run_as_non_root, Some(true));
    assert!(pod.run_as_user.unwrap() >= 10_000);
    assert_eq!(pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
    for container in spec.init_containers.unwrap().into_iter().chain(spec.containers) {
        let own = container.security_context.unwrap();
        assert_eq!(own.allow_privilege_escalation, Some(false));
        assert_eq!(own.read_only_root_filesystem, Some(true));
        assert_eq!(own.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    }
}

#[test]
fn only_the_init_container_sees_the_secret() {
    let mut world = World::plain();
    world.settle();
    let spec = world.pod().spec.clone().unwrap();
    let mounts = |container: &k8s_openapi::api::core::v1::Container| -> Vec<String> {
        container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| mount.name.clone())
            .collect()
    };
    assert!(mounts(&spec.init_containers.unwrap()[0]).contains(&"identity".to_owned()));
    assert!(!mounts(&spec.containers[0]).contains(&"identity".to_owned()));
    assert_eq!(spec.automount_service_account_token, Some(false));
}

#[test]
fn the_identity_secret_holds_c_tors_files_of_the_fingerprints_it_names() {
    use rand::SeedableRng as _;
    let world = World::plain();
    let mut dice = rand::rngs::ChaCha12Rng::seed_from_u64(7);
    let secret = operator_plan::desired::identity::new_identity(&world.seen.relay, &world.settings, &mut dice).unwrap();
    let data = secret.data.unwrap();
    let rsa = RsaSecret::from_pem(std::str::from_utf8(&data[key_file::RSA_IDENTITY].0).unwrap()).unwrap();
    let ed25519 = key_file::decode_ed25519_secret(Ed25519Role::Master, &data[key_file::MASTER_SECRET].0).unwrap();
    let annotations = secret.metadata.annotations.unwrap();
    assert_eq!(
        annotations["relayfleet.io/rsa-fingerprint"],
        rsa.public().identity().to_string()
    );
    assert_eq!(annotations["relayfleet.io/ed25519-id"], ed25519.public().to_string());
    assert_eq!(
        key_file::decode_master_public(&data[key_file::MASTER_PUBLIC].0).unwrap(),
        ed25519.public()
    );

    assert_eq!(secret.immutable, Some(true));
    assert_eq!(secret.metadata.finalizers.unwrap(), ["relayfleet.io/identity"]);
    assert_eq!(
        secret.metadata.owner_references, None,
        "no garbage collector may take an identity"
    );
}

#[test]
fn keys_and_volume_have_no_owner_and_the_rest_has() {
    let mut world = World::plain();
    world.settle();
    let Seen::Ours(claim) = &world.seen.claim else {
        panic!("no claim")
    };
    assert_eq!(claim.metadata.owner_references, None);
    assert_eq!(
        claim.spec.as_ref().unwrap().access_modes.as_ref().unwrap(),
        &["ReadWriteOncePod"]
    );
    let Seen::Ours(service) = &world.seen.service else {
        panic!("no service")
    };
    assert_eq!(service.metadata.owner_references.as_ref().unwrap()[0].uid, "relay-1");
}

#[test]
fn an_exit_refuses_the_cluster_first_then_does_what_its_policy_says() {
    let mut world = World::with(json!({
        "role": "Exit",
        "exit": {"policy": ["reject 203.0.113.0/24:*", "accept *:6667"], "ipv6": true},
        "accounting": {"max": "10TB", "rule": "Sum", "start": {"every": "Week", "day": 3, "time": "06:30"}},
    }));
    let lines = operator_plan::desired::exit::exit_lines(&world.seen.relay, &world.settings).unwrap();
    assert_eq!(
        lines,
        [
            "ExitRelay 1",
            "IPv6Exit 1",
            "ExitPolicy reject 198.18.0.0/16:*",
            "ExitPolicy reject6 [fd00::]/8:*",
            "ExitPolicy reject 203.0.113.0/24:*",
            "ExitPolicy accept *:6667",
            "ReducedExitPolicy 1",
        ]
    );
    for line in lines.iter().filter_map(|line| line.strip_prefix("ExitPolicy ")) {
        relay_formats::exit_policy::ExitPolicy::parse_line(line).unwrap();
    }
    world.seen.relay.spec.exit = serde_json::from_value(json!({"policy": ["accept *:80", "accept 1.2.3:80"]})).unwrap();
    world.settle();
    let (status, _, message) = world.condition("ConfigAccepted");
    assert_eq!(status, "False");
    assert!(message.contains("spec.exit.policy[1]"), "{message}");
}

#[test]
fn accounting_is_said_in_c_tors_words() {
    let read = |accounting| serde_json::from_value(accounting).unwrap();
    let lines = |accounting| operator_plan::desired::accounting::accounting_lines(&read(accounting));
    assert_eq!(
        lines(json!({"max": "500GB"})),
        [
            "AccountingMax 500000000000 bytes",
            "AccountingRule max",
            "AccountingStart month 1 00:00"
        ]
    );
    assert_eq!(
        lines(json!({"max": "1TiB", "rule": "Sum", "start": {"every": "Day", "time": "06:30"}})),
        [
            "AccountingMax 1099511627776 bytes",
            "AccountingRule sum",
            "AccountingStart day 06:30"
        ]
    );
}

#[test]
fn overrides_are_laid_over_the_pod_and_the_operators_own_words_win() {
    let mut world = World::with(json!({"pod": {
        "labels": {"team": "tor", "relayfleet.io/relay": "other"}, "annotations": {"note": "x"},
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
        "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high",
        "tolerations": [{"key": "relays", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    }}));
    world.settle();
    let pod = world.pod().clone();
    let (labels, spec) = (pod.metadata.labels.unwrap(), pod.spec.unwrap());
    assert_eq!(
        (labels["team"].as_str(), labels["relayfleet.io/relay"].as_str()),
        ("tor", "demo")
    );
    assert_eq!(pod.metadata.annotations.unwrap()["note"], "x");
    assert_eq!(spec.node_selector.unwrap()["disk"], "ssd");
    assert_eq!(spec.tolerations.unwrap()[0].key.as_deref(), Some("relays"));
    assert_eq!(spec.priority_class_name.as_deref(), Some("high"));
    assert!(spec.affinity.unwrap().node_affinity.is_some());
    let resources = spec.containers[0].resources.clone().unwrap();
    assert_eq!(resources.requests.unwrap()["cpu"].0, "500m");
    assert_eq!(resources.limits.unwrap()["memory"].0, "1Gi");
}

/// C tor reads the same torrc and the same keys; what only our relay can do is not asked of it, and what it needs is there.
#[test]
fn nothing_is_asked_of_c_tor_that_it_cannot_do() {
    let mut world = World::with(json!({
        "engine": "Tor", "role": "Exit", "image": {"reference": "tor:1"}, "family": {"name": "oaks"},
        "exit": {"policy": ["accept *:6667"]}, "accounting": {"max": "10TB"}, "bandwidth": {"rate": "1MB/s"},
        "identity": {"signingKeyLifetime": "30d"}, "metrics": {"enabled": true},
    }));
    let family = json!({"apiVersion": "relayfleet.io/v1alpha1", "kind": "RelayFamily",
        "metadata": {"name": "oaks", "namespace": "tor"}, "spec": {}});
    world.seen.family = operator_plan::FamilySeen::There(Box::new(serde_json::from_value(family).unwrap()));
    world.settings.status_key = Some([7; 32]);
    world.settle();
    let text = torrc(&world);
    for ours in [
        "FamilyDirectory",
        "SigningKeyDirectory",
        "StatusPort",
        "StatusTokenFile",
        "OfflineMasterKey",
    ] {
        assert!(!text.contains(ours), "{ours}: {text}");
    }
    for line in [
        "SigningKeyLifetime 30 days\n",
        "FamilyId *\n",
        "FamilyKeyDirectory /etc/relayfleet/family-keys\n",
        "%include /etc/relayfleet/family/*.torrc\n",
        "AccountingMax 10000000000000 bytes\n",
        "MetricsPort 0.0.0.0:9035\n",
        "ExitPolicy accept *:6667\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let spec = world.pod().spec.clone().unwrap();
    assert_eq!(spec.containers[0].image.as_deref(), Some("tor:1"));
    assert_eq!(
        spec.init_containers.unwrap()[0].image.as_deref(),
        Some("relay:1"),
        "ours puts the keys in place"
    );
    let volumes = spec.volumes.unwrap();
    let secret = |name: &str| {
        let volume = volumes.iter().find(|volume| volume.name == name)?;
        volume.secret.clone()
    };
    assert_eq!(
        secret("family-keys").unwrap().secret_name.as_deref(),
        Some("oaks-family-keys")
    );
    let keys = secret("identity").unwrap().items.unwrap();
    assert!(
        keys.iter().any(|item| item.key == key_file::MASTER_SECRET),
        "C tor renews its signing key itself"
    );
    assert!(secret("signing").is_none());
    assert_eq!(world.condition("SigningKeyFresh").1, "InPod");
}

#[test]
fn what_c_tor_cannot_do_is_refused_with_the_remedy() {
    for (fields, reason, remedy) in [
        (json!({"engine": "Tor"}), "NoImage", "set spec.image"),
        (
            json!({"engine": "Tor", "image": {"reference": "tor:1"}, "identity": {"custody": "Operator"}}),
            "SpecInvalid",
            "write InPod",
        ),
        (
            json!({"role": "Bridge"}),
            "SpecInvalid",
            "bridges are not built yet; use Guard, Middle or Exit",
        ),
    ] {
        let mut world = World::with(fields.clone());
        world.settle();
        let (status, found, message) = world.condition("ConfigAccepted");
        assert_eq!((status.as_str(), found.as_str()), ("False", reason), "{fields}");
        assert!(message.contains(remedy), "{message}");
        assert!(world.seen.pod.ours().is_none());
    }
}
