//! Every option that C tor 0.4.9.11 knows, and what becomes of it here; and the few that only we know.

use std::sync::LazyLock;

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Read into `Torrc`.
    Honoured,
    /// Taken with a warning: what it would change, does not exist here.
    WithoutEffect(&'static str),
    /// Taken while it is off (`0`, `auto` or nothing); refused otherwise.
    OffOnly(&'static str),
    /// As `OffOnly`, but a private network's relay may have it, with a warning.
    OffOutsideTests(&'static str),
    /// Refused.
    NotBuilt(&'static str),
}

/// The option's own spelling and its fate; letter case does not matter.
pub(super) fn find(name: &str) -> Option<(&'static str, Fate)> {
    let name = match name {
        _ if name.eq_ignore_ascii_case("DirServer") => "DirAuthority",
        _ => name,
    };
    all().find(|(known, _)| known.eq_ignore_ascii_case(name))
}

pub(super) fn all() -> impl Iterator<Item = (&'static str, Fate)> {
    // Each line of a torrc asks, so the table's words are taken apart once.
    static ALL: LazyLock<Vec<(&'static str, Fate)>> = LazyLock::new(|| {
        let each = TABLE
            .iter()
            .flat_map(|(fate, names)| names.split_whitespace().map(|name| (name, *fate)));
        each.collect()
    });
    ALL.iter().copied()
}

/// Options whose values add up.
pub(super) fn is_list(name: &str) -> bool {
    LISTS.split_whitespace().any(|list| list == name)
}

/// The known name that looks most like `name`, if any looks like it at all.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let far_max = 1 + name.len() / 4;
    let (far, known) = all()
        // Words are at least as far from each other as their lengths: most need no closer look, however long `name` is.
        .filter(|(known, _)| known.len().abs_diff(name.len()) <= far_max)
        .map(|(known, _)| (distance(name, known), known))
        .min()?;
    (far <= far_max).then_some(known)
}

/// How many letters must be put in, taken out or changed to make one word the other; letter case does not matter.
fn distance(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, byte) in one.bytes().enumerate() {
        let (mut corner, mut left) = (at, at + 1);
        for (cell, letter) in row.iter_mut().skip(1).zip(other) {
            let changed = corner + usize::from(!byte.eq_ignore_ascii_case(letter));
            corner = *cell;
            left = changed.min(corner + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

const LISTS: &str = "Address DirAuthority FamilyId Log MyFamily ORPort OutboundBindAddress OutboundBindAddressOR
    OutboundBindAddressExit ExitPolicy MetricsPort MetricsPortPolicy StatusPort ControlPort ControlSocket SocksPort DNSPort TransPort NATDPort
    HTTPTunnelPort ExtORPort DirPort HashedControlPassword";

const CLIENT: Fate = Fate::WithoutEffect("only a client uses it");
const AUTHORITY: Fate = Fate::WithoutEffect("only a directory authority uses it");
const TUNING: Fate = Fate::WithoutEffect("what it tunes is not built yet");

/// Ours: C tor refuses a torrc that has them.
const OURS: &str = "FamilyDirectory SigningKeyDirectory StatusPort StatusTokenFile";

const TABLE: &[(Fate, &str)] = &[
    (Fate::Honoured, OURS),
    (Fate::Honoured, "CircuitPadding ConfluxEnabled ConnectionPadding"),
    (Fate::Honoured, "AccountingMax AccountingRule AccountingStart MetricsPort MetricsPortPolicy"),
    (
        Fate::Honoured,
        "DoSCircuitCreationEnabled DoSConnectionEnabled DoSStreamCreationEnabled DoSRefuseSingleHopClientRendezvous
        DoSCircuitCreationBurst DoSCircuitCreationDefenseTimePeriod DoSCircuitCreationDefenseType
        DoSCircuitCreationMinConnections DoSCircuitCreationRate DoSConnectionConnectBurst
        DoSConnectionConnectDefenseTimePeriod DoSConnectionConnectRate DoSConnectionDefenseType
        DoSConnectionMaxConcurrentCount DoSStreamCreationBurst DoSStreamCreationDefenseType
        DoSStreamCreationRate MaxMemInQueues",
    ),
    (
        Fate::Honoured,
        "Address AddressDisableIPv6 AssumeReachable AssumeReachableIPv6 BandwidthBurst BandwidthRate CacheDirectory
        ContactInfo CountPrivateBandwidth HeartbeatPeriod OverloadStatistics DataDirectory DirAuthority DirCache DirPortFrontPage
        DownloadExtraInfo ExitPolicy ExitPolicyRejectLocalInterfaces
        ExitPolicyRejectPrivate ExitRelay ExtendAllowPrivateAddresses FamilyId FamilyKeyDirectory IPv6Exit
        KeyDirectory Log MaxAdvertisedBandwidth MaxConsensusAgeForDiffs MaxHSDirCacheBytes
        MyFamily Nickname NumCPUs OfflineMasterKey ORPort
        OutboundBindAddress
        OutboundBindAddressExit OutboundBindAddressOR PerConnBWBurst PerConnBWRate PublishServerDescriptor ReducedExitPolicy ReevaluateExitPolicy
        RefuseUnknownExits RelayBandwidthBurst RelayBandwidthRate ServerDNSAllowBrokenConfig
        ServerDNSAllowNonRFC953Hostnames ServerDNSDetectHijacking ServerDNSRandomizeCase ServerDNSResolvConfFile ServerDNSSearchDomains ServerDNSTestAddresses
        ShutdownWaitLength SigningKeyLifetime SSLKeyLifetime TestingTorNetwork User",
    ),
    (
        Fate::OffOutsideTests("the control port is not built yet"),
        "ControlPort ControlSocket __ControlPort",
    ),
    (
        Fate::WithoutEffect("there is no control port"),
        "ControlPortFileGroupReadable ControlPortWriteToFile ControlSocketsGroupWritable CookieAuthentication
        CookieAuthFile CookieAuthFileGroupReadable HashedControlPassword __HashedControlSessionPassword
        TestingEnableCellStatsEvent TestingEnableConnBwEvent __LeaveStreamsUnattached",
    ),
    (
        Fate::OffOnly("this program is a relay and opens no ports for clients"),
        "SocksPort __SocksPort DNSPort __DNSPort TransPort __TransPort NATDPort __NATDPort HTTPTunnelPort
        __HTTPTunnelPort ClientOnly",
    ),
    (
        Fate::OffOnly("a directory port is not built yet (relays answer directory requests on their ORPort)"),
        "DirPort __DirPort",
    ),
    (
        Fate::WithoutEffect("it says who may connect to a directory port, and there is none"),
        "DirPolicy",
    ),
    (
        Fate::WithoutEffect("only an exit of bandwidth measurers uses it"),
        "__SbwsExit",
    ),
    (
        Fate::OffOnly("bridges are not built yet"),
        "BridgeRelay ExtORPort __ExtORPort",
    ),
    (
        Fate::NotBuilt("pluggable transports are not built yet"),
        "ServerTransportListenAddr ServerTransportOptions ServerTransportPlugin",
    ),
    (
        Fate::WithoutEffect("bridges are not built yet"),
        "BridgeDistribution BridgeRecordUsageByCountry ExtORPortCookieAuthFile ExtORPortCookieAuthFileGroupReadable
        OutboundBindAddressPT",
    ),
    (
        Fate::NotBuilt("this program is a relay; it serves no onion services"),
        "HiddenServiceAllowUnknownPorts HiddenServiceDir HiddenServiceDirGroupReadable
        HiddenServiceEnableIntroDoSBurstPerSec HiddenServiceEnableIntroDoSDefense
        HiddenServiceEnableIntroDoSRatePerSec HiddenServiceExportCircuitID HiddenServiceMaxStreams
        HiddenServiceMaxStreamsCloseCircuit HiddenServiceNonAnonymousMode HiddenServiceNumIntroductionPoints
        HiddenServiceOnionBalanceInstance HiddenServicePort HiddenServicePoWDefensesEnabled
        HiddenServicePoWQueueBurst HiddenServicePoWQueueRate HiddenServiceSingleHopMode HiddenServiceVersion",
    ),
    (
        Fate::OffOnly("directory authorities are not built"),
        "AuthoritativeDirectory V3AuthoritativeDirectory BridgeAuthoritativeDir VersioningAuthoritativeDirectory",
    ),
    (
        AUTHORITY,
        "AuthDirBadExit AuthDirBadExitCCs AuthDirFastGuarantee AuthDirGuardBWGuarantee AuthDirHasIPv6Connectivity
        AuthDirInvalid AuthDirInvalidCCs AuthDirListBadExits AuthDirListMiddleOnly AuthDirMaxServersPerAddr
        AuthDirMiddleOnly AuthDirMiddleOnlyCCs AuthDirPinKeys AuthDirReject AuthDirRejectCCs
        AuthDirRejectRequestsUnderLoad AuthDirSharedRandomness AuthDirTestEd25519LinkKeys AuthDirTestReachability
        AuthDirVoteGuard AuthDirVoteGuardBwThresholdFraction AuthDirVoteGuardGuaranteeTimeKnown
        AuthDirVoteGuardGuaranteeWFU AuthDirVoteStableGuaranteeMinUptime AuthDirVoteStableGuaranteeMTBF
        BridgePassword ConsensusParams DirAllowPrivateAddresses GuardfractionFile MinimalAcceptedServerVersion
        MinMeasuredBWsForAuthToIgnoreAdvertised MinUptimeHidServDirectoryV2 RecommendedClientVersions
        RecommendedServerVersions RecommendedVersions RephistTrackTime TestingAuthDirTimeToLearnReachability
        TestingAuthKeyLifetime TestingAuthKeySlop TestingDirAuthVoteExit TestingDirAuthVoteExitIsStrict
        TestingDirAuthVoteGuard TestingDirAuthVoteGuardIsStrict TestingDirAuthVoteHSDir
        TestingDirAuthVoteHSDirIsStrict TestingMinExitFlagThreshold TestingMinFastFlagThreshold
        TestingV3AuthInitialDistDelay TestingV3AuthInitialVoteDelay TestingV3AuthInitialVotingInterval
        TestingV3AuthVotingStartOffset V3AuthDistDelay V3AuthNIntervalsValid V3AuthUseLegacyKey V3AuthVoteDelay
        V3AuthVotingInterval V3BandwidthsFile CompiledProofOfWorkHash",
    ),
    (
        Fate::NotBuilt("only DirAuthority can name directory servers yet"),
        "AlternateBridgeAuthority AlternateDirAuthority FallbackDir",
    ),
    (
        CLIENT,
        "__AllDirActionsPrivate __AlwaysCongestionControl AllowNonRFC953Hostnames __DisablePredictedCircuits AutomapHostsOnResolve
        AutomapHostsSuffixes Bridge CircuitBuildTimeout CircuitsAvailableTimeout CircuitStreamTimeout
        ClientBootstrapConsensusAuthorityDownloadInitialDelay
        ClientBootstrapConsensusAuthorityOnlyDownloadInitialDelay
        ClientBootstrapConsensusFallbackDownloadInitialDelay ClientBootstrapConsensusMaxInProgressTries
        ClientDNSRejectInternalAddresses ClientOnionAuthDir ClientPreferIPv6DirPort ClientPreferIPv6ORPort
        ClientRejectInternalAddresses ClientTransportPlugin ClientUseIPv4 ClientUseIPv6 ConfluxClientUX
        DormantCanceledByStartup DormantClientTimeout DormantOnFirstStartup DormantTimeoutDisabledByIdleStreams
        DormantTimeoutEnabled EnforceDistinctSubnets EntryNodes ExcludeExitNodes ExcludeNodes ExitNodes
        FascistFirewall FetchHidServDescriptors FirewallPorts GeoIPExcludeUnknown GuardLifetime HSLayer2Nodes
        HSLayer3Nodes LearnCircuitBuildTimeout LongLivedPorts MapAddress MaxCircuitDirtiness
        MaxClientCircuitsPending MiddleNodes NewCircuitPeriod NodeFamily NumDirectoryGuards NumEntryGuards
        NumPrimaryGuards PathBiasCircThreshold PathBiasDropGuards PathBiasExtremeRate PathBiasExtremeUseRate
        PathBiasNoticeRate PathBiasNoticeUseRate PathBiasScaleThreshold PathBiasScaleUseThreshold
        PathBiasUseThreshold PathBiasWarnRate PathsNeededToBuildCircuits PublishHidServDescriptors
        ReachableAddresses ReachableDirAddresses ReachableORAddresses ReconfigDropsBridgeDescs
        ReducedCircuitPadding ReducedConnectionPadding RejectPlaintextPorts SafeSocks SocksPolicy SocksTimeout
        StrictNodes TestingBridgeBootstrapDownloadInitialDelay TestingBridgeDownloadInitialDelay
        TestingClientConsensusDownloadInitialDelay TestingClientDownloadInitialDelay
        TestingClientMaxIntervalWithoutRequest TestSocks TrackHostExits TrackHostExitsExpire TransProxyType
        UnixSocksGroupWritable UpdateBridgesFromAuthority UseBridges UseEntryGuards UseGuardFraction
        UseMicrodescriptors VanguardsLiteEnabled VirtualAddrNetworkIPv4 VirtualAddrNetworkIPv6 WarnPlaintextPorts
        ExtendByEd25519ID DirAuthorityFallbackRate UseDefaultFallbackDirs",
    ),
    (
        Fate::NotBuilt("connecting through a proxy is not built"),
        "HTTPProxy HTTPProxyAuthenticator HTTPSProxy HTTPSProxyAuthenticator Socks4Proxy Socks5Proxy
        Socks5ProxyPassword Socks5ProxyUsername TCPProxy",
    ),
    (
        Fate::OffOnly("this limit is not built yet"),
        "ConstrainedSockets",
    ),
    (
        Fate::OffOnly("this statistic is not built yet"),
        "CellStatistics EntryStatistics ExitPortStatistics ConnDirectionStatistics MainloopStats",
    ),
    (
        Fate::WithoutEffect("this statistic is not built yet"),
        "ExtraInfoStatistics DirReqStatistics HiddenServiceStatistics PaddingStatistics GeoIPFile
        GeoIPv6File",
    ),
    (
        Fate::OffOnly("this is not built yet"),
        "RunAsDaemon Sandbox DisableAllSwap DisableNetwork
        CacheDirectoryGroupReadable DataDirectoryGroupReadable KeyDirectoryGroupReadable",
    ),
    (
        Fate::NotBuilt("this is not built yet"),
        "PidFile __OwningControllerFD __OwningControllerProcess",
    ),
    (
        TUNING,
        "CircuitPriorityHalflife ConnLimit ConstrainedSockSize
        DisableOOSCheck KeepalivePeriod KISTSchedRunInterval
        KISTSockBufSizeFactor MaxOnionQueueDelay
        MaxUnparseableDescSizeToLog Schedulers TestingDirConnectionMaxStall TestingLinkCertLifetime
        TestingLinkKeySlop TestingMinTimeToReportBandwidth TestingServerConsensusDownloadInitialDelay
        TestingServerDownloadInitialDelay TestingSigningKeySlop AvoidDiskWrites
        DisableDebuggerAttachment KeepBindCapabilities __DisableSignalHandlers __ReloadTorrcOnSIGHUP
        FetchDirInfoEarly FetchDirInfoExtraEarly",
    ),
    (
        Fate::WithoutEffect("a directory cache fetches exactly what the consensus lists"),
        "FetchServerDescriptors FetchUselessDescriptors",
    ),
    (
        Fate::WithoutEffect("the buckets are refilled every 100 milliseconds"),
        "TokenBucketRefillInterval",
    ),
    (
        Fate::WithoutEffect("the log has a form of its own and never tells an address of a client"),
        "LogMessageDomains LogTimeGranularity ProtocolWarnings SafeLogging SyslogIdentityTag TruncateLogFile",
    ),
    (Fate::WithoutEffect("nothing here starts another program"), "NoExec"),
    (
        Fate::WithoutEffect("obsolete in C tor too"),
        "AccelDir AccelName HardwareAccel",
    ),
    (Fate::NotBuilt("use the option without __"), "__ORPort __MetricsPort"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_option_of_c_tor_has_one_fate() {
        let theirs: BTreeSet<&str> = include_str!("../../tests/ctor/options.txt").lines().collect();
        let ours: Vec<&str> = all().map(|(name, _)| name).collect();
        let known: BTreeSet<&str> = ours.iter().copied().collect();
        assert_eq!(
            theirs.difference(&known).collect::<Vec<_>>(),
            Vec::<&&str>::new(),
            "lacking"
        );
        assert_eq!(
            known.difference(&theirs).copied().collect::<Vec<_>>(),
            OURS.split_whitespace().collect::<Vec<_>>(),
            "invented"
        );
        assert_eq!(ours.len(), known.len(), "told twice");
    }

    #[test]
    fn a_slip_of_the_pen_is_guessed() {
        assert_eq!(nearest("Nicknam"), Some("Nickname"));
        assert_eq!(nearest("RelayBandwithRate"), Some("RelayBandwidthRate"));
        assert_eq!(nearest("exitpolcy"), Some("ExitPolicy"));
        assert_eq!(nearest("ReplicaCount"), None);
    }
}
