use std::path::Path;

use super::*;
use crate::exit_policy::ExitPolicy;

/// What every torrc here needs.
const PORT: &str = "ORPort 9001\n";

fn good(text: &str) -> Torrc {
    Torrc::parse(&format!("{text}\n{PORT}")).unwrap()
}

fn complaints(text: &str) -> String {
    Torrc::parse(&format!("{text}\n{PORT}")).unwrap_err().to_string()
}

fn warnings(torrc: &Torrc) -> Vec<String> {
    torrc.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_least_torrc_is_a_port() {
    let torrc = good("");
    assert_eq!(torrc.nickname, Nickname::unnamed());
    assert_eq!(torrc.shutdown_wait, Duration::from_secs(30));
    assert_eq!(torrc.signing_key_lifetime, Duration::from_secs(30 * 86_400));
    assert_eq!(
        (torrc.bandwidth.bytes_per_second_max, torrc.bandwidth.bytes_burst_max),
        (1 << 30, 1 << 30)
    );
    assert!(torrc.publish_server_descriptor && !torrc.extend_allow_private_addresses);
    assert_eq!(torrc.family_ids, FamilyIds::Named(vec![]));
    assert_eq!(warnings(&torrc), Vec::<String>::new());
}

#[test]
fn a_heart_beats_every_six_hours_or_as_often_as_every_half_hour_or_not_at_all() {
    let period = |text: &str| good(text).heartbeat_period;
    assert_eq!(period(""), Some(Duration::from_secs(6 * 3_600)));
    assert_eq!(period("HeartbeatPeriod 0"), None);
    assert_eq!(period("HeartbeatPeriod 1 hour"), Some(Duration::from_secs(3_600)));
    let soon = good("HeartbeatPeriod 10 minutes");
    assert_eq!(soon.heartbeat_period, Some(Duration::from_secs(1_800)));
    assert!(warnings(&soon)[0].contains("raising to 1800 seconds"));
}

#[test]
fn without_a_port_there_is_no_relay() {
    for text in ["", "ORPort 0"] {
        let error = Torrc::parse(text).unwrap_err().to_string();
        assert!(
            error.ends_with("ORPort is missing: a relay must have a port for others to connect to"),
            "{error}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_place() {
    let text = "Nicknam a\nNickname my-relay\nBandwidthRate 10 KBytes\n  ExitRelay yes\nSigningKeyLifetime 1 day";
    assert_eq!(
        complaints(text),
        "line 1, column 1: unknown option `Nicknam`; did you mean Nickname?\n\
         line 2, column 10: Nickname: a nickname has only the letters a to z and A to Z and digits, not '-'\n\
         line 3, column 15: BandwidthRate: a relay needs at least 76800 bytes a second, found 10240\n\
         line 4, column 13: ExitRelay: expected 0, 1 or auto, found `yes`\n\
         line 5, column 20: SigningKeyLifetime: expected 2 days at least, found `1 day`"
    );
}

#[test]
fn what_is_not_built_is_refused_unless_it_is_off() {
    for off in [
        "BridgeRelay 0",
        "AccountingMax 0",
        "ControlPort 0",
        "DirPort 0",
        "MetricsPort 0",
        "SocksPort 0",
        "ExitRelay 0",
        "ExitRelay auto",
        "DoSConnectionEnabled auto",
        "RunAsDaemon 0",
    ] {
        assert_eq!(warnings(&good(off)), Vec::<String>::new(), "{off}");
    }
    for on in [
        "BridgeRelay 1",
        "ControlPort 9051",
        "DirPort 9030",
        "SocksPort 9050",
        "HiddenServiceDir /x",
        "RunAsDaemon 1",
        "ServerTransportPlugin obfs4 exec /x",
        "ConstrainedSockets 1",
    ] {
        let told = complaints(on);
        assert!(
            told.starts_with("line 1, column ") && told.contains("not built") || told.contains("is a relay"),
            "{told}"
        );
    }
}

#[test]
fn what_changes_nothing_is_taken_with_a_warning() {
    let torrc = good("SafeLogging 0\nKeepalivePeriod 2");
    assert_eq!(
        warnings(&torrc),
        [
            "line 1, column 1: SafeLogging changes nothing: the log has a form of its own and never tells an address \
             of a client",
            "line 2, column 1: KeepalivePeriod changes nothing: what it tunes is not built yet",
        ]
    );
}

fn allows(torrc: &Torrc, address: &str, port: u16) -> bool {
    let policy = ExitPolicy::assemble(&torrc.exit_policy_options(&[], &[]));
    policy.allows(address.parse().unwrap(), port)
}

#[test]
fn a_closed_exit_policy_is_no_exit() {
    for closed in [
        "ExitPolicy reject *:*",
        "ExitPolicy reject *:25, reject *:*",
        "ExitPolicy reject *:*\nExitRelay 0",
        "ExitPolicyRejectPrivate 0",
    ] {
        let torrc = good(closed);
        assert_eq!(warnings(&torrc), Vec::<String>::new(), "{closed}");
        assert!(!allows(&torrc, "192.0.2.1", 80));
    }
    let overruled = good("ExitPolicy accept *:*\nExitRelay 0");
    assert_eq!(
        warnings(&overruled),
        ["line 1, column 12: ExitPolicy changes nothing: ExitRelay is 0"]
    );
    assert!(!allows(&overruled, "192.0.2.1", 80));
}

#[test]
fn an_exit_by_the_way_is_told_so() {
    for open in ["ExitPolicy reject *:25", "ReducedExitPolicy 1", "IPv6Exit 1"] {
        let torrc = good(open);
        assert!(warnings(&torrc)[0].contains("makes this relay an exit"), "{open}");
        assert!(allows(&torrc, "192.0.2.1", 80));
        let wanted = good(&format!("{open}\nExitRelay 1"));
        assert_eq!(warnings(&wanted), Vec::<String>::new());
    }
    assert!(allows(&good("ExitRelay 1"), "192.0.2.1", 80));
}

#[test]
fn an_exit_policy_is_read_as_written_and_its_mistakes_are_placed() {
    let torrc = good("ExitRelay 1\nExitPolicy reject 192.0.2.0/24:*\nExitPolicy accept *:443,reject *:*\nIPv6Exit 1");
    assert!(allows(&torrc, "198.51.100.1", 443) && allows(&torrc, "2001:db8::1", 443));
    assert!(!allows(&torrc, "192.0.2.9", 443) && !allows(&torrc, "198.51.100.1", 80));
    assert_eq!(
        complaints("ExitRelay 1\nExitPolicy accept *:443, reject *:0"),
        "line 2, column 35: ExitPolicy: port 0 does not exist"
    );
    assert_eq!(
        warnings(&good("ExitPolicy accept6 192.0.2.1:80,reject *:*")),
        [
            "line 1, column 20: ExitPolicy: accept6 and reject6 need an IPv6 address; the entry has no effect. Use accept or reject"
        ]
    );
}

#[test]
fn an_exit_does_not_lead_to_its_own_machine() {
    let torrc = good("ExitRelay 1\nOutboundBindAddressExit 203.0.113.5\nExitPolicy accept *:*");
    let own = ["203.0.113.9".parse().unwrap()];
    let policy = ExitPolicy::assemble(&torrc.exit_policy_options(&["203.0.113.7".parse().unwrap()], &own));
    for ours in ["203.0.113.5", "203.0.113.7", "203.0.113.9", "10.0.0.1", "100.64.0.1"] {
        assert!(!policy.allows(ours.parse().unwrap(), 80), "{ours}");
    }
    assert!(policy.allows("203.0.113.8".parse().unwrap(), 80));
}

#[test]
fn who_asks_the_dns_and_from_where_is_as_torrc_says() {
    let plain = good("ExitRelay 1").exits;
    assert_eq!(plain.dns, ServerDns::default());
    let torrc = good(
        "OutboundBindAddress 203.0.113.1\nOutboundBindAddress [2001:db8::1]\nOutboundBindAddressExit 203.0.113.2\n\
         ServerDNSResolvConfFile /x/resolv.conf\nServerDNSAllowBrokenConfig 0\nServerDNSSearchDomains 1\n\
         ServerDNSAllowNonRFC953Hostnames 1\nServerDNSRandomizeCase 0\n\
         ServerDNSDetectHijacking 0\nServerDNSTestAddresses a.example, b.example\nRefuseUnknownExits 0",
    );
    let Exits {
        dns,
        outbound_bind,
        refuse_unknown,
        ..
    } = torrc.exits;
    assert_eq!(
        dns,
        ServerDns {
            resolv_conf: Some("/x/resolv.conf".into()),
            allow_broken_config: false,
            search_domains: true,
            any_printable_name: true,
            detect_hijacking: false,
            test_addresses: vec!["a.example".to_owned(), "b.example".to_owned()],
            randomize_case: false,
        }
    );
    let both: Vec<IpAddr> = vec!["203.0.113.2".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    assert_eq!((outbound_bind, refuse_unknown), (both, Some(false)));
    assert_eq!(torrc.outbound_bind[0], "203.0.113.1".parse::<IpAddr>().unwrap());
}

#[test]
fn the_last_value_wins_and_lists_add_up() {
    let torrc = good("nickname a\nNICKNAME b");
    assert_eq!(torrc.nickname.as_str(), "b");
    assert_eq!(
        warnings(&torrc),
        ["line 2, column 1: Nickname stands here again; only the last counts"]
    );
    let torrc = good("Log notice stdout\n+Log debug file /x\nORPort [::1]:5");
    assert_eq!((torrc.logs.len(), torrc.or_ports.len()), (2, 2));
    let torrc = good("Log notice stdout\n/Log\nLog err stderr");
    assert_eq!(torrc.logs.len(), 1);
}

#[test]
fn rates_follow_c_tors_rules() {
    let only_rate = good("RelayBandwidthRate 1 MB").bandwidth;
    let megabyte = RelayedBandwidth {
        bytes_per_second_max: 1 << 20,
        bytes_burst_max: 1 << 20,
    };
    assert_eq!(only_rate.relayed, Some(megabyte));
    assert_eq!(good("RelayBandwidthBurst 1 MB").bandwidth.relayed, Some(megabyte));
    assert_eq!(
        (only_rate.advertised_rate(), only_rate.advertised_burst()),
        (1 << 20, 1 << 20)
    );

    let raised = good("BandwidthRate 1 MB\nBandwidthBurst 1 MB\nRelayBandwidthRate 2 MB").bandwidth;
    assert_eq!(
        (raised.bytes_per_second_max, raised.bytes_burst_max),
        (2 << 20, 2 << 20)
    );
    assert_eq!(
        good("MaxAdvertisedBandwidth 100 KB").bandwidth.advertised_rate(),
        102_400
    );
    assert_eq!(
        good("BandwidthRate 1 GB\nBandwidthBurst 2 GB")
            .bandwidth
            .bytes_burst_max,
        i32::MAX as u64
    );

    assert!(complaints("RelayBandwidthRate 74 KB").contains("at least 76800"));
    assert!(complaints("RelayBandwidthBurst 74 KB").contains("at least 76800"));
    assert!(complaints("MaxAdvertisedBandwidth 37 KB").contains("at least 38400"));
    assert!(complaints("BandwidthRate 3 GB").contains("at most 2147483647"));
    let low_burst = complaints("RelayBandwidthRate 2 MB\nRelayBandwidthBurst 1 MB");
    assert_eq!(
        low_burst,
        "line 2, column 21: RelayBandwidthBurst (1048576 bytes) must not be below RelayBandwidthRate (2097152 bytes)"
    );
}

#[test]
fn families_are_fingerprints_and_ids() {
    let (one, two) = ("AB".repeat(20), "01".repeat(20));
    let torrc = good(&format!("MyFamily ${one},{two}~nick\nMyFamily {one} friend"));
    assert_eq!(torrc.my_family, [RsaIdentity([1; 20]), RsaIdentity([0xab; 20])]);
    assert!(warnings(&torrc)[0].contains("`friend` is passed over"));
    assert!(complaints("MyFamily $ABC").contains("40 hexadecimal digits"));

    let id = Ed25519Identity([3; 32]);
    assert_eq!(good(&format!("FamilyId {id}")).family_ids, FamilyIds::Named(vec![id]));
    assert_eq!(
        good(&format!("FamilyId {id}\nFamilyId *")).family_ids,
        FamilyIds::AllPresent
    );
    assert!(complaints("FamilyId x").contains("43 base64"));
}

#[test]
fn a_signing_key_comes_from_elsewhere_only_if_the_master_is_elsewhere_too() {
    let torrc = good("OfflineMasterKey 1\nSigningKeyDirectory /signing\nFamilyDirectory /family");
    assert_eq!(torrc.signing_key_directory.as_deref(), Some(Path::new("/signing")));
    assert_eq!(torrc.family_directory.as_deref(), Some(Path::new("/family")));
    assert!(complaints("SigningKeyDirectory /signing").contains("needs OfflineMasterKey 1"));
}

#[test]
fn one_address_a_family_is_enough() {
    let torrc = good("Address 192.0.2.1\nAddress 2001:db8::1\nAddress relay.example");
    assert_eq!(torrc.addresses.len(), 3);
    assert!(complaints("Address 192.0.2.1\nAddress 192.0.2.2").contains("line 2, column 9: Address: a second IPv4"));
    let torrc = good("OutboundBindAddress 192.0.2.1\nOutboundBindAddress [::1]\nOutboundBindAddressOR 192.0.2.2");
    assert_eq!(
        torrc.outbound_bind,
        ["192.0.2.2".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]
    );
}

#[test]
fn a_testing_network_stays_by_itself() {
    assert!(complaints("TestingTorNetwork 1").contains("needs DirAuthority lines"));
    let torrc = good(&format!(
        "TestingTorNetwork 1\nDirAuthority a 127.0.0.1:1 {}",
        "AB".repeat(20)
    ));
    assert!(torrc.extend_allow_private_addresses && torrc.assume_reachable && torrc.count_private_bandwidth);
}

#[test]
fn an_include_is_refused() {
    assert_eq!(
        complaints("%include /etc/x"),
        "line 1, column 1: %include is not built yet; write its lines here"
    );
}

#[test]
fn the_command_line_overrules_the_file() {
    let given = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let text = "ORPort 9001\nNickname a\nAddress 192.0.2.1\nLog notice stdout\n";
    let options = given(&[("address", "192.0.2.7"), ("Nickname", "b"), ("+Log", "err stderr")]);
    let torrc = Torrc::parse_with(text, &options).unwrap();
    assert_eq!(torrc.addresses, [AdvertisedAddress::Ip("192.0.2.7".parse().unwrap())]);
    assert_eq!((torrc.nickname.as_str(), torrc.logs.len()), ("b", 2));
    assert_eq!(warnings(&torrc), Vec::<String>::new());
    let error = Torrc::parse_with(text, &given(&[("Nickname", "b"), ("Adress", "x")])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "command line, option 2: unknown option `Adress`; did you mean Address?"
    );
}

const AUTHORITIES: &str = "\
DirAuthority a1 orport=9001 v3ident=0123456789012345678901234567890123456789 127.1.1.1:9030 \
0123456789ABCDEF0123456789ABCDEF01234567
DirAuthority a2 orport=9001 v3ident=0123456789012345678901234567890123456780 127.1.1.2:9030 \
0123456789ABCDEF0123456789ABCDEF01234568
";

/// What a relay of a private network is given when little is known of it.
#[test]
fn a_slot_of_a_private_network_is_taken() {
    let torrc = Torrc::parse(&format!(
        "TestingTorNetwork 1\nDataDirectory /x/data\nNickname r2\nOutboundBindAddress 127.5.1.1\n\
         Log notice file /x/tor.log\nShutdownWaitLength 0\n{AUTHORITIES}SocksPort 0\nAddress 127.5.1.1\n\
         ORPort 127.5.1.1:9001\nContactInfo r2@example.invalid\nAssumeReachable 1\nMetricsPort 127.5.1.1:9035\n\
         MetricsPortPolicy accept 127.0.0.0/8\nExitRelay 0\n"
    ))
    .unwrap();
    assert_eq!((torrc.dir_authorities.len(), torrc.shutdown_wait), (2, Duration::ZERO));
    assert_eq!(torrc.or_ports[0].address, Some("127.5.1.1".parse().unwrap()));
    assert_eq!(torrc.contact_info.as_deref(), Some("r2@example.invalid"));
    assert_eq!(
        (torrc.metrics_ports[0].port, torrc.metrics_policy.len()),
        (Some(9035), 1)
    );
    assert_eq!(warnings(&torrc), Vec::<String>::new());
}

/// What a C tor relay of the same network is given.
#[test]
fn a_c_tor_relays_whole_torrc_is_taken() {
    let torrc = Torrc::parse(&format!(
        "TestingTorNetwork 1\nDataDirectory /x/data\nNickname r2\nOutboundBindAddress 127.5.1.1\n\
         ControlPort 127.5.1.1:9051\nCookieAuthentication 1\nLog notice file /x/tor.log\nLogTimeGranularity 1\n\
         SafeLogging 0\nProtocolWarnings 1\nShutdownWaitLength 0\nDisableDebuggerAttachment 0\nAvoidDiskWrites 1\n\
         PathsNeededToBuildCircuits 0.67\nFetchDirInfoEarly 1\nFetchDirInfoExtraEarly 1\n{AUTHORITIES}SocksPort 0\n\
         Address 127.5.1.1\nORPort 127.5.1.1:9001\nContactInfo r2@example.invalid\nAssumeReachable 1\n\
         MetricsPort 127.5.1.1:9035\nMetricsPortPolicy accept 127.0.0.0/8\nExitRelay 0\n\
         V3AuthVotingInterval 10\nTestingV3AuthInitialVotingInterval 5\n"
    ))
    .unwrap();
    assert_eq!(torrc.nickname.as_str(), "r2");
    assert!(
        warnings(&torrc)
            .iter()
            .any(|told| told.contains("ControlPort changes nothing"))
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_stumble(text in "\\PC{0,80}|(ORPort|Log|DirAuthority|MyFamily|Address|\\+?ExitPolicy) [ -~\\n\\\\]{0,60}") {
        let _ = Torrc::parse(&text);
    }
}

#[test]
fn processors_are_counted_by_the_process_unless_torrc_knows_better() {
    assert_eq!((good("").cpus, good("NumCPUs 0").cpus), (None, None));
    assert_eq!(good("NumCPUs 3").cpus.map(u16::from), Some(3));
    assert!(complaints("NumCPUs 513").contains("NumCPUs: expected 0 (as many as there are) to 512, found `513`"));
    assert!(complaints("NumCPUs auto").contains("found `auto`"));
}

#[test]
fn what_torrc_says_of_floods_is_kept() {
    let torrc = good("DoSConnectionEnabled 1\nDoSCircuitCreationRate 7\nDoSCircuitCreationDefenseTimePeriod 2 hours");
    assert_eq!(torrc.dos.connection_enabled, Some(true));
    assert_eq!(torrc.dos.circuit_creation_enabled, None);
    assert_eq!(torrc.dos.circuit_creation_rate, Some(7));
    let period = torrc.dos.circuit_creation_defense_time_period;
    assert_eq!(period, Some(Duration::from_secs(7_200)));
    assert!(complaints("DoSCircuitCreationRate many").contains("expected a number"));
    assert_eq!(good("MaxMemInQueues 0").max_mem_in_queues, None);
    assert_eq!(good("MaxMemInQueues 1 GB").max_mem_in_queues, Some(1 << 30));
    let few = good("MaxMemInQueues 1 MB");
    assert_eq!(few.max_mem_in_queues, Some(64 << 20));
    assert!(warnings(&few)[0].contains("64 MB are few"), "{:?}", warnings(&few));
}
