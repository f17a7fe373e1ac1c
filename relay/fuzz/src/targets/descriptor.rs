//! What we say of ourselves: whatever torrc and the past of a relay hold, the documents made of it are such that strangers
//! read them, or are not made.

use std::net::{Ipv4Addr, SocketAddrV6};
use std::sync::LazyLock;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use relay_formats::descriptor::{DESCRIPTOR_BYTES_MAX, DescribedBandwidth, Descriptor, DescriptorFacts};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::exit_policy::{ExitPolicy, Options};
use relay_formats::extra_info::{BandwidthHistory, EXTRA_INFO_BYTES_MAX, ExtraInfo, ExtraInfoFacts, Histories};
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::nickname::Nickname;
use relay_formats::onion_key::OnionKeyPair;
use relay_node::netdoc::{check_own_documents, extra_infos, server_descriptors};

use crate::relay::{DAY, Relay, now};
use crate::tape::Tape;

struct Keys {
    relay: Relay,
    other: Relay,
    family: Ed25519Secret,
    onion: OnionKeyPair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let mut dice = ChaCha20Rng::seed_from_u64(51);
    Keys {
        relay: Relay::new(0),
        other: Relay::new(1),
        family: Ed25519Secret::generate(&mut dice),
        onion: OnionKeyPair::generate(&mut dice),
    }
});

fn text(tape: &mut Tape<'_>) -> String {
    let length = usize::from(tape.u8());
    String::from_utf8_lossy(tape.take(length)).into_owned()
}

fn history(tape: &mut Tape<'_>) -> Option<BandwidthHistory> {
    tape.coin().then(|| BandwidthHistory {
        ends: now() - Duration::from_secs(tape.u32().into()),
        interval: DAY,
        bytes: (0..tape.below(8)).map(|_| tape.u64()).collect(),
    })
}

fn policy(tape: &mut Tape<'_>) -> ExitPolicy {
    let lines = text(tape);
    let parsed = lines.split('\n').filter_map(|line| ExitPolicy::parse_line(line).ok());
    let lines = parsed.flat_map(|line| line.rules).take(100).collect();
    ExitPolicy::assemble(&Options {
        lines,
        ipv6_exit: tape.coin(),
        ..Options::default()
    })
}

/// Everything that a relay may say, drawn from the tape.
pub(super) fn descriptor(data: &[u8]) {
    let (keys, mut tape) = (&*KEYS, Tape::new(data));
    let tape = &mut tape;
    let nickname: Nickname = text(tape).parse().unwrap_or_else(|_| Nickname::unnamed());
    let histories = Histories {
        write: history(tape),
        read: history(tape),
        ipv6_write: history(tape),
        ipv6_read: history(tape),
        dir_write: history(tape),
        dir_read: history(tape),
    };
    let statistics = (0..tape.below(4)).map(|_| format!("x-{}", text(tape))).collect();
    let extra = ExtraInfoFacts {
        nickname: &nickname,
        published: now(),
        histories,
        statistics,
    };
    let Ok(extra) = ExtraInfo::build(&extra, &keys.relay.signer()) else {
        return;
    };
    assert!(extra.text.len() <= EXTRA_INFO_BYTES_MAX);

    let (contact, version, protocols) = (text(tape), text(tape), text(tape));
    let flags = tape.u8();
    let family: Vec<RsaIdentity> = (0..tape.below(5)).map(|_| RsaIdentity([tape.u8(); 20])).collect();
    let exit_policy = policy(tape);
    let facts = DescriptorFacts {
        nickname: &nickname,
        ipv4: Ipv4Addr::from_bits(tape.u32()),
        or_port: tape.u16().max(1),
        ipv6: (flags & 1 != 0).then(|| SocketAddrV6::new(tape.array::<16>().into(), tape.u16().max(1), 0, 0)),
        version: if flags & 2 != 0 { &version } else { "0.1.0" },
        protocols: if flags & 4 != 0 {
            &protocols
        } else {
            "Cons=1-2 Desc=1-2 Link=3-5 Relay=2-4"
        },
        published: now(),
        uptime: Duration::from_secs(tape.u64() >> 24),
        bandwidth: DescribedBandwidth {
            rate: tape.u32().into(),
            burst: tape.u32().into(),
            observed: tape.u32().into(),
        },
        extra_info: Some(extra.digests),
        caches_extra_info: flags & 8 != 0,
        onion: &keys.onion,
        onion_expires: now() + 28 * DAY,
        dummy_tap: (flags & 16 != 0).then_some(&keys.other.rsa),
        family: &family,
        family_keys: if flags & 32 != 0 { &[&keys.family] } else { &[] },
        family_certs: &[],
        hibernating: flags & 64 != 0,
        contact: (flags & 128 != 0).then_some(&*contact),
        exit_policy: &exit_policy,
        hidden_service_dir: tape.coin(),
        tunnelled_dir_server: tape.coin(),
        overload_general: tape.coin().then(now),
    };
    let Ok(made) = Descriptor::build(&facts, &keys.relay.signer()) else {
        return;
    };
    assert!(made.text.len() <= DESCRIPTOR_BYTES_MAX);
    let [found] = &server_descriptors(&made.text)[..] else {
        panic!("not one descriptor:\n{}", made.text)
    };
    assert_eq!((&*found.text, found.digest), (&*made.text, made.sha1));
    assert_eq!(found.extra_info(), Some(extra.digests.sha1));
    let [found] = &extra_infos(&extra.text)[..] else {
        panic!("not one extra-info:\n{}", extra.text)
    };
    assert_eq!((&*found.text, found.digest), (&*extra.text, extra.digests.sha1));
    // A list of protocols comes from our own build and not from outside; only a sound one is read by others.
    if flags & 4 == 0 {
        let identity = keys.relay.rsa.public().identity();
        let verdict = check_own_documents(&made.text, &extra.text, identity, now());
        assert_eq!(verdict, Ok(()), "{}", made.text);
    }
}
