use std::net::IpAddr;

use super::*;

fn rules(text: &str) -> Vec<Rule> {
    ExitPolicy::parse_line(text).unwrap().rules
}

fn exit(text: &str) -> Options {
    Options {
        exit_relay: Some(true),
        ipv6_exit: true,
        reject_private: false,
        lines: rules(text),
        ..Options::default()
    }
}

fn policy(text: &str) -> ExitPolicy {
    ExitPolicy::assemble(&exit(text))
}

fn allows(policy: &ExitPolicy, address: &str, port: u16) -> bool {
    policy.allows(address.parse().unwrap(), port)
}

fn shown(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(Rule::to_string).collect()
}

#[test]
fn each_form_of_an_entry_reads_as_c_tor_reads_it() {
    let table: &[(&str, &[&str])] = &[
        ("accept *:80", &["accept *4:80", "accept *6:80"]),
        ("reject *4:*", &["reject *4:*"]),
        ("accept *6:20-23", &["accept *6:20-23"]),
        ("accept6 *:443", &["accept *6:443"]),
        ("reject6 [2001:db8::]/32:443", &["reject [2001:db8::]/32:443"]),
        ("reject [2001:db8::1]", &["reject [2001:db8::1]:*"]),
        ("reject 192.0.2.1", &["reject 192.0.2.1:*"]),
        ("reject 192.0.2.1:", &["reject 192.0.2.1:*"]),
        ("reject 18.0.0.0/8:*", &["reject 18.0.0.0/8:*"]),
        ("reject 18.1.2.3/255.0.0.0:25", &["reject 18.1.2.3/8:25"]),
        ("reject 0.0.0.0/0.0.0.0:25", &["reject *4:25"]),
        ("reject [::ffff:192.0.2.0]/24:*", &["reject [::ffff:192.0.2.0]/120:*"]),
        ("reject [192.0.2.1]:080", &["reject 192.0.2.1:80"]),
        (
            "  accept   *4:1-65535 ,, reject\t*6:* , ",
            &["accept *4:*", "reject *6:*"],
        ),
        ("", &[]),
    ];
    for (text, expected) in table {
        assert_eq!(&shown(&rules(text)), expected, "{text}");
    }
    assert_eq!(rules("reject private:80").len(), private_networks().len());
}

#[test]
fn a_bad_entry_is_named_with_its_column() {
    let table = [
        ("accept *:80, Reject *:*", 14, Problem::Action),
        ("*:80", 1, Problem::Action),
        ("permit *:80", 1, Problem::Action),
        ("accept", 7, Problem::NoTarget),
        ("accept *:80, reject ", 20, Problem::NoTarget),
        ("reject 192.0.2.1 :80", 18, Problem::TwoTargets),
        ("reject *: 80", 11, Problem::TwoTargets),
        ("reject private", 8, Problem::PrivatePorts),
        ("reject privates:80", 8, Problem::PrivatePorts),
        ("reject private/8:80", 8, Problem::PrivatePorts),
        ("reject [::1:80", 8, Problem::Bracket),
        ("reject [::1]80", 13, Problem::Address),
        ("reject 2001:db8::1", 8, Problem::Address),
        ("reject example.com:80", 8, Problem::Address),
        ("reject 192.0.2.300:80", 8, Problem::Address),
        ("reject *5:80", 8, Problem::Address),
        ("reject */8:80", 10, Problem::WildcardMask),
        ("reject 192.0.2.1/33:*", 18, Problem::Mask),
        ("reject 192.0.2.1/:80", 18, Problem::Mask),
        ("reject 192.0.2.1/+8:80", 18, Problem::Mask),
        ("reject [2001:db8::]/129:*", 21, Problem::Mask),
        ("reject [2001:db8::]/255.0.0.0:*", 21, Problem::Mask),
        ("reject [::ffff:192.0.2.0]/64:*", 27, Problem::Mask),
        ("reject 192.0.2.1/255.0.255.0:*", 18, Problem::MaskHole),
        ("accept *:0", 10, Problem::PortZero),
        ("accept *:0-80", 10, Problem::PortZero),
        ("accept *:80-", 13, Problem::Port),
        ("accept *:-80", 10, Problem::Port),
        ("accept *:65536", 10, Problem::Port),
        ("accept *:http", 10, Problem::Port),
        ("accept *:1-1-1", 12, Problem::Port),
        ("accept *:80-70", 10, Problem::PortOrder),
        ("accept *:99999999999999999999", 10, Problem::Port),
    ];
    for (text, column, problem) in table {
        assert_eq!(
            ExitPolicy::parse_line(text),
            Err(BadPolicy { column, problem }),
            "{text}"
        );
    }
    let counted_in_characters = ExitPolicy::parse_line("accept *:80,\u{a0}reject ä:80").unwrap_err();
    assert_eq!(
        counted_in_characters.to_string(),
        format!("column 21: {}", Problem::Address)
    );
}

/// tor#41292: an assertion fell over a policy that names port 0.
#[test]
fn trove_41292_port_0_is_in_no_policy_and_no_range_of_one() {
    for form in [
        "*:0",
        "*4:0",
        "*6:0-0",
        "192.0.2.1:0",
        "[2001:db8::1]:0-65535",
        "private:0",
        "192.0.2.0/24:0-80",
    ] {
        for action in ["accept", "reject", "accept6", "reject6"] {
            let refused = ExitPolicy::parse_line(&format!("{action} {form}"));
            assert!(refused.is_err(), "{action} {form}");
        }
    }
    assert!(!allows(&policy("accept *:*"), "192.0.2.1", 0));
}

#[test]
fn an_ipv4_address_behind_accept6_has_no_effect_and_says_so() {
    for text in [
        "accept6 192.0.2.1:80, reject *:*",
        "reject6 private:*, reject *:*",
        "accept6 *4:80, reject *:*",
    ] {
        let parsed = ExitPolicy::parse_line(text).unwrap();
        assert_eq!(
            (parsed.rules.len(), parsed.warnings.as_slice()),
            (2, &[Warning { column: 9 }][..]),
            "{text}"
        );
    }
}

#[test]
fn a_relay_that_says_nothing_of_exits_is_none() {
    let policy = ExitPolicy::assemble(&Options::default());
    assert_eq!(policy, ExitPolicy::reject_all());
    assert!(policy.is_reject_all() && !policy.is_general_exit());
    assert_eq!(policy.descriptor_lines(), ["reject *:*"]);
    assert_eq!(
        (policy.ipv6_policy(), policy.summary(IpFamily::V4).as_str()),
        (None, "reject 1-65535")
    );
    let refused = Options {
        exit_relay: Some(false),
        ..exit("accept *:*")
    };
    assert_eq!(ExitPolicy::assemble(&refused), ExitPolicy::reject_all());
}

/// What `GETINFO exit-policy/ipv4` of C tor 0.4.9 says for `ExitRelay 1`, and our two networks more.
#[test]
fn the_default_policy_prints_as_c_tor_prints_it() {
    let policy = ExitPolicy::assemble(&Options {
        exit_relay: Some(true),
        ..Options::default()
    });
    let expected = "reject 0.0.0.0/8:*
reject 169.254.0.0/16:*
reject 127.0.0.0/8:*
reject 192.168.0.0/16:*
reject 10.0.0.0/8:*
reject 172.16.0.0/12:*
reject 100.64.0.0/10:*
reject 198.18.0.0/15:*
reject *:25
reject *:119
reject *:135-139
reject *:445
reject *:563
reject *:1214
reject *:4661-4666
reject *:6346-6429
reject *:6699
reject *:6881-6999
accept *:*";
    assert_eq!(policy.descriptor_lines().join("\n"), expected);
    assert_eq!(
        policy.summary(IpFamily::V4),
        "reject 25,119,135-139,445,563,1214,4661-4666,6346-6429,6699,6881-6999"
    );
    assert_eq!(policy.ipv6_policy(), None);
    assert!(policy.is_general_exit() && !policy.is_reject_all());
    let both = ExitPolicy::assemble(&Options {
        ipv6_exit: true,
        ..Options::default()
    });
    assert_eq!(both.ipv6_policy(), Some(both.summary(IpFamily::V4)));
}

#[test]
fn the_reduced_policy_opens_its_ports_and_no_other() {
    let policy = ExitPolicy::assemble(&Options {
        reduced: true,
        ..Options::default()
    });
    assert_eq!(
        policy.summary(IpFamily::V4),
        "accept 20-23,43,53,79-81,88,110,143,194,220,389,443,464-465,531,543-544,554,563,587,636,706,749,873,902-904,981,\
         989-995,1194,1220,1293,1500,1533,1677,1723,1755,1863,2082-2083,2086-2087,2095-2096,2102-2104,3128,3389,3690,4321,\
         4643,5050,5190,5222-5223,5228,5900,6660-6669,6679,6697,8000,8008,8074,8080,8082,8087-8088,8232-8233,8332-8333,\
         8443,8888,9418,9999-10000,11371,18080-18081,18089,19294,19638,50002,64738"
    );
    assert!(allows(&policy, "192.0.2.1", 443) && !allows(&policy, "192.0.2.1", 25));
}

#[test]
fn a_bridge_gets_no_default_policy() {
    let lines = rules("accept *4:443");
    let policy = ExitPolicy::assemble(&Options {
        bridge_relay: true,
        lines,
        ..Options::default()
    });
    assert!(allows(&policy, "192.0.2.1", 443) && !allows(&policy, "192.0.2.1", 80));
}

/// Check 14 of the reliability list: private, own, metadata, mapped, NAT64, cluster, all refused.
#[test]
fn no_user_line_opens_what_lies_around_us() {
    let options = Options {
        exit_relay: Some(true),
        ipv6_exit: true,
        lines: rules("accept *:*"),
        own_addresses: vec!["203.0.113.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
        cluster: vec!["198.51.100.0/24".parse().unwrap(), "2001:db8:7::/48".parse().unwrap()],
        ..Options::default()
    };
    let policy = ExitPolicy::assemble(&options);
    let refused = [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "203.0.113.5",
        "198.51.100.77",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:192.0.2.1",
        "::10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:a00:1::1",
        "2002:6440:1::",
        "2001:0:a00:1::",
        "2001:0:c000:201:0:0:f5ff:fffe",
        "fd00::1",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::5",
        "2001:db8:7::9",
    ];
    for address in refused {
        assert!(!allows(&policy, address, 443), "{address}");
    }
    let open = [
        "192.0.2.1",
        "100.63.255.255",
        "100.128.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.113.6",
        "2001:db8::6",
        "2606:4700::1",
        "2002:c000:201::1",
        "2001:0:c000:201:0:0:3fff:fdfe",
        "172.32.0.0",
    ];
    for address in open {
        assert!(allows(&policy, address, 443), "{address}");
    }
    assert!(!allows(&policy, "192.0.2.1", 0));
}

#[test]
fn a_test_network_may_lift_the_private_networks_but_not_the_cluster() {
    let lifted = Options {
        cluster: vec!["10.96.0.0/12".parse().unwrap()],
        ..exit("accept *:*")
    };
    let policy = ExitPolicy::assemble(&lifted);
    assert!(allows(&policy, "127.0.0.1", 80) && allows(&policy, "100.64.0.1", 80) && allows(&policy, "::1", 80));
    assert!(!allows(&policy, "10.97.0.1", 80) && !allows(&policy, "::ffff:10.97.0.1", 80));
    let only_extra = Options {
        reject_private: true,
        extra_private: Vec::new(),
        ..exit("accept *:*")
    };
    let policy = ExitPolicy::assemble(&only_extra);
    assert!(allows(&policy, "198.18.0.1", 80) && !allows(&policy, "10.0.0.1", 80));
}

#[test]
fn local_interfaces_are_refused_only_when_asked_and_only_when_public() {
    let local_addresses: Vec<IpAddr> = ["203.0.113.9", "10.1.1.1"].map(|text| text.parse().unwrap()).to_vec();
    let off = Options {
        local_addresses,
        ..exit("accept *:*")
    };
    assert!(allows(&ExitPolicy::assemble(&off), "203.0.113.9", 80));
    let policy = ExitPolicy::assemble(&Options {
        reject_local_interfaces: true,
        ..off
    });
    assert!(!allows(&policy, "203.0.113.9", 80) && allows(&policy, "10.1.1.1", 80));
}

#[test]
fn without_ipv6exit_no_line_opens_ipv6() {
    let policy = ExitPolicy::assemble(&Options {
        ipv6_exit: false,
        ..exit("accept *:*, accept6 [2001:db8::]/32:*")
    });
    assert!(!allows(&policy, "2001:db8::1", 80) && allows(&policy, "192.0.2.1", 80));
    assert_eq!(shown(policy.rules()), ["reject *6:*", "accept *4:*"]);
}

#[test]
fn the_first_match_decides() {
    let policy = policy("accept 192.0.2.0/24:80, reject 192.0.2.0/24:*, accept *:*");
    assert!(allows(&policy, "192.0.2.9", 80) && !allows(&policy, "192.0.2.9", 81) && allows(&policy, "192.0.3.9", 81));
}

/// Examples in the manner of C tor's own policy tests.
#[test]
fn redundant_rules_go_and_the_rest_keeps_its_order() {
    let table = [
        (
            "accept *4:80, reject *4:*, accept *4:81, reject *6:*",
            "accept *4:80;reject *4:*;reject *6:*",
        ),
        (
            "accept 10.0.0.0/8:*, reject 10.1.0.0/16:80, reject *:*",
            "accept 10.0.0.0/8:*;reject *4:*;reject *6:*",
        ),
        (
            "accept 10.1.0.0/16:80, accept 10.0.0.0/8:*, reject *:*",
            "accept 10.0.0.0/8:*;reject *4:*;reject *6:*",
        ),
        (
            "accept 10.1.0.0/16:80, reject 10.1.2.0/24:*, accept 10.0.0.0/8:*, reject *:*",
            "accept 10.1.0.0/16:80;reject 10.1.2.0/24:*;accept 10.0.0.0/8:*;reject *4:*;reject *6:*",
        ),
        (
            "reject *:25, reject *:25, accept *:*",
            "reject *4:25;reject *6:25;accept *4:*;accept *6:*",
        ),
        ("reject 192.0.2.1:25, reject *:*", "reject *4:*;reject *6:*"),
    ];
    for (text, expected) in table {
        assert_eq!(shown(policy(text).rules()).join(";"), expected, "{text}");
    }
}

/// dir-spec and C tor's `test_policy_summary_helper` tell the same story: few rejected addresses close no port.
#[test]
fn a_summary_tells_the_ports_open_to_nearly_everyone() {
    let table = [
        ("accept *:*", "accept 1-65535"),
        ("reject *:*", "reject 1-65535"),
        ("reject private:*, accept *:*", "accept 1-65535"),
        ("accept *:80, accept *:443, reject *:*", "accept 80,443"),
        (
            "accept *:80-90, accept *:91, accept *:93, reject *:*",
            "accept 80-91,93",
        ),
        ("reject *:25, accept *:*", "reject 25"),
        ("reject 18.0.0.0/8:*, accept *:*", "accept 1-65535"),
        ("reject 18.0.0.0/8:*, reject 19.0.0.0/8:*, accept *:*", "accept 1-65535"),
        (
            "reject 18.0.0.0/8:*, reject 19.0.0.0/8:*, reject 20.0.0.1:*, accept *:*",
            "reject 1-65535",
        ),
        ("reject 18.0.0.0/6:80, accept *:*", "reject 80"),
        ("accept 18.0.0.0/8:*, reject *:*", "reject 1-65535"),
        ("accept 11.0.0.0/9:80, reject *:80, accept *:*", "reject 80"),
        ("accept *:1, accept *:3, accept *:5-65535, reject *:*", "reject 2,4"),
    ];
    for (text, expected) in table {
        assert_eq!(policy(text).summary(IpFamily::V4), expected, "{text}");
    }
}

#[test]
fn an_ipv6_summary_counts_in_64s_and_gives_up_beyond_one_16() {
    let table = [
        ("accept *:*", Some("accept 1-65535")),
        ("reject *6:*, accept *:*", None),
        ("reject [2001::]/16:*, accept *:*", Some("accept 1-65535")),
        ("reject [2001::]/16:*, reject [2002:db8::]/64:*, accept *:*", None),
        (
            "reject [2001::]/16:*, reject [2002:db8::]/65:*, accept *:*",
            Some("accept 1-65535"),
        ),
        ("reject [2001::]/15:25, accept *:*", Some("reject 25")),
        ("accept6 *:443, reject *:*", Some("accept 443")),
    ];
    for (text, expected) in table {
        assert_eq!(policy(text).ipv6_policy().as_deref(), expected, "{text}");
    }
}

#[test]
fn a_summary_too_long_for_a_microdescriptor_ends_with_a_whole_port() {
    let entries: Vec<_> = (1..400).map(|n| format!("accept *:{}", 20_000 + 2 * n)).collect();
    let policy = policy(&format!("{}, reject *:*", entries.join(", ")));
    let summary = policy.summary(IpFamily::V4);
    assert!(summary.starts_with("accept 20002,20004,") && summary.len() <= 1_000 && summary.len() > 990);
    assert_eq!(summary.rsplit(',').next().map(str::len), Some(5));
}

#[test]
fn the_exit_flag_needs_both_web_ports_on_one_whole_public_8() {
    let table = [
        ("accept *:80, accept *:443, reject *:*", true),
        ("accept *:80, reject *:*", false),
        ("accept *:443, accept *:6667, reject *:*", false),
        ("accept 18.0.0.0/8:80, accept 19.0.0.0/8:443, reject *:*", true),
        ("accept 18.0.0.0/9:80, accept *:443, reject *:*", false),
        ("accept 10.0.0.0/8:80, accept *:443, reject *:*", false),
        ("accept 18.0.0.0/7:*, reject *:*", true),
        ("reject 18.0.0.1:*, accept 18.0.0.0/8:*, reject *:*", false),
        ("accept6 *:*, reject *4:*", false),
    ];
    for (text, general) in table {
        assert_eq!(policy(text).is_general_exit(), general, "{text}");
    }
}

#[test]
fn a_network_reads_as_it_prints() {
    for text in ["10.0.0.0/8", "192.0.2.1", "[2001:db8::]/32", "[::1]", "0.0.0.0/0"] {
        assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
    }
    assert_eq!("fd00::/8".parse::<Network>().unwrap().to_string(), "[fd00::]/8");
    assert_eq!("10.0.0.0/33".parse::<Network>(), Err(BadNetwork::Prefix));
    assert_eq!("10.0.0/8".parse::<Network>(), Err(BadNetwork::Address));
}

mod any_text {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec!["accept", "reject"]);
        let target = prop_oneof![
            Just("*".to_owned()),
            Just("private".to_owned()),
            (any::<[u8; 4]>(), 0..=32_u8).prop_map(|([a, b, c, d], bits)| format!("{a}.{b}.{c}.{d}/{bits}")),
            (any::<u16>(), 0..=128_u8).prop_map(|(start, bits)| format!("[{start:x}::1]/{bits}")),
        ];
        let first_last = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(one, two)| (one.min(two), one.max(two)));
        (word, target, first_last).prop_map(|(word, target, (first, last))| format!("{word} {target}:{first}-{last}"))
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in r"(accept6?|reject6?)? ?[\[\]*/:.,a-f0-9 ä-]{0,40}") {
            let _ = ExitPolicy::parse_line(&text);
        }

        #[test]
        fn refining_changes_nothing_that_anyone_may_ask(
            entries in prop::collection::vec(entry(), 0..12),
            asked in prop::collection::vec((any::<u32>(), any::<u16>(), 1..=u16::MAX), 20),
        ) {
            let lines = rules(&entries.join(", "));
            let refined = ExitPolicy::assemble(&Options { bridge_relay: true, ..exit(&entries.join(", ")) });
            for (v4, v6, port) in asked {
                let v6 = IpAddr::from([v6, 0, 0, 0, 0, 0, 0, 1]);
                for address in [IpAddr::V4(v4.into()), v6] {
                    let plain = first_match(&lines, address, port).unwrap_or(Action::Reject);
                    prop_assert_eq!(first_match(refined.rules(), address, port), Some(plain));
                }
            }
        }

        #[test]
        fn a_rule_reads_as_it_prints(entries in prop::collection::vec(entry(), 1..5)) {
            for rule in rules(&entries.join(",")) {
                prop_assert_eq!(rules(&rule.to_string()), vec![rule]);
            }
        }

        #[test]
        fn a_summary_is_never_longer_than_a_microdescriptor_takes(entries in prop::collection::vec(entry(), 0..40)) {
            for family in [IpFamily::V4, IpFamily::V6] {
                prop_assert!(policy(&entries.join(",")).summary(family).len() <= 1_000);
            }
        }
    }
}
