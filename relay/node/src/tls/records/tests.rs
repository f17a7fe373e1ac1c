use std::io::Write;
use std::mem::discriminant;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{AlertDescription, Connection, ConnectionTrafficSecrets, Error, ExtractedSecrets, SupportedCipherSuite};

use super::{
    ALERT, APPLICATION_DATA, BODY_BYTES_MAX, EMPTY_MAX, FATAL, HANDSHAKE, HEADER_BYTES, KEY_UPDATES_MAX, NextKeys,
    PLAIN_BYTES_MAX, RECORD_BYTES_MAX, RecordError, Records, Role, Room, WARNING, WARNINGS_MAX,
};
use crate::tls::Session;
use crate::tls::tests::{Shown, Stranger, feed, shake, suites};

const ASKS: [u8; 5] = [24, 0, 0, 1, 1];
const TELLS: [u8; 5] = [24, 0, 0, 1, 0];

/// Keys that are as easily known as an end and a number.
struct Numbered {
    sealing: (u8, u8),
    opening: (u8, u8),
}

fn secrets((end, number): (u8, u8)) -> ConnectionTrafficSecrets {
    let (key, iv) = (AeadKey::from([number ^ (end << 7); 32]), Iv::new([end; 12]));
    match number % 2 {
        0 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
        _ => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
    }
}

impl NextKeys for Numbered {
    fn sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.sealing.1 = self.sealing.1.wrapping_add(1);
        Ok((0, secrets(self.sealing)))
    }

    fn opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        self.opening.1 = self.opening.1.wrapping_add(1);
        Ok((0, secrets(self.opening)))
    }
}

/// Our own two ends, without a handshake.
fn ends() -> (Records, Records) {
    let end = |role, own, other| {
        let (sealing, opening) = ((own, 0), (other, 0));
        let extracted = ExtractedSecrets {
            tx: (0, secrets(sealing)),
            rx: (0, secrets(opening)),
        };
        Records::new(role, extracted, Box::new(Numbered { sealing, opening }), 1 << 24).unwrap()
    };
    (end(Role::Client, 0, 1), end(Role::Server, 1, 0))
}

/// A record of any inner plaintext under the keys of `records`.
fn sealed(records: &mut Records, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Room::append(&mut out, |out| records.sealing.seal(kind, content, out)).unwrap();
    out
}

/// The same, with zeros behind the type.
fn padded(records: &mut Records, kind: u8, content: &[u8], zeros: usize) -> Vec<u8> {
    let mut inner = content.to_vec();
    inner.push(kind);
    inner.resize(content.len() + zeros, 0);
    sealed(
        records,
        if zeros == 0 { kind } else { 0 },
        &inner[..content.len() + zeros],
    )
}

fn said(records: &mut Records, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Room::append(&mut out, |out| records.seal(plain, out)).unwrap();
    out
}

struct Heard {
    plain: Vec<u8>,
    out: Vec<u8>,
    result: Result<usize, RecordError>,
}

fn heard(records: &mut Records, cipher: &[u8]) -> Heard {
    let (mut plain, mut out) = (Room::default(), Vec::new());
    let result = records.receive(cipher, &mut plain, &mut out);
    Heard {
        plain: plain.filled().to_vec(),
        out,
        result,
    }
}

/// What `to` says to `cipher` must be this error, and its alert must reach `from`.
fn refused(from: &mut Records, to: &mut Records, cipher: &[u8], expected: RecordError) {
    let Heard { plain, out, result } = heard(to, cipher);
    assert_eq!(plain, b"");
    let error = result.unwrap_err();
    assert_eq!(error, expected);
    match error.alert() {
        Some(alert) => {
            let told = heard(from, &out).result.unwrap_err();
            assert_eq!(told, RecordError::Alert(alert));
            assert!(out.len() < 64, "an alert and nothing else");
        }
        None => assert!(out.is_empty()),
    }
    let again = heard(to, &said(&mut ends().0, b"more"));
    assert_eq!((again.result, again.out.len()), (Err(error), 0), "dead, and silent");
    let mut room = Room::default();
    assert_eq!(to.seal(b"more", &mut room), Err(RecordError::Ended));
    assert_eq!(to.seal_end(&mut room), Err(RecordError::Ended));
}

fn tls13_suites() -> Vec<SupportedCipherSuite> {
    let all = suites().into_iter();
    let suites: Vec<_> = all.filter(|suite| suite.tls13().is_some()).collect();
    assert_eq!(suites.len(), 3);
    suites
}

/// Sessions of ours of both roles with every suite, each with the rustls that it talks to.
fn with_strangers(mut story: impl FnMut(&mut Session, &mut Stranger)) {
    let shown = Shown::new();
    let ours = shown.ours();
    for suite in tls13_suites() {
        let theirs = shown.stranger(suite);
        let mut stranger = Stranger::client(&theirs);
        let mut session = Session::accept(&ours).unwrap();
        shake(&mut session, &mut stranger, Vec::new(), 65_536);
        assert!(session.records().is_some());
        story(&mut session, &mut stranger);

        let (mut hello, mut stranger) = (Vec::new(), Stranger::server(&theirs));
        let mut session = Session::connect(&ours, &mut hello).unwrap();
        shake(&mut session, &mut stranger, hello, 65_536);
        assert!(session.records().is_some());
        story(&mut session, &mut stranger);
    }
}

impl Stranger {
    fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // It takes 64 KiB at once.
        for part in plain.chunks(60_000) {
            self.0.writer().write_all(part).unwrap();
            out.extend(self.give());
        }
        out
    }

    fn change_keys(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Connection::Client(client) => client.refresh_traffic_keys().unwrap(),
            Connection::Server(server) => server.refresh_traffic_keys().unwrap(),
        }
        self.give()
    }

    /// What it says to bytes that end the session.
    fn complaint(&mut self, mut cipher: &[u8]) -> Error {
        self.0.read_tls(&mut cipher).unwrap();
        self.0.process_new_packets().unwrap_err()
    }
}

fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|number| (number % 251) as u8).collect()
}

#[test]
fn every_length_comes_through_both_ways() {
    let edges = [
        1, 2, 15, 16, 17, 255, 256, 514, 16_383, 16_384, 16_385, 32_767, 32_768, 32_769, 65_535, 70_000,
    ];
    with_strangers(|session, stranger| {
        for length in (0..70_000).step_by(4_999).chain(edges) {
            let plain = numbered(length);
            let mut out = Vec::new();
            session.seal(&plain, &mut out).unwrap();
            assert_eq!(stranger.take(&out), plain);
            let (back, answer) = feed(session, &stranger.say(&plain), 65_536);
            assert_eq!(back, plain);
            assert!(answer.is_empty());
            assert_eq!(session.unfinished_capacity(), 0, "idle, it holds nothing");
        }
    });
}

#[test]
fn bytes_may_come_in_any_pieces() {
    with_strangers(|session, stranger| {
        let mut cipher = stranger.say(b"first");
        cipher.extend(stranger.change_keys());
        cipher.extend(stranger.say(b", second"));
        // Each round is split at another byte, and each goes on where the last ended.
        for at in 0..cipher.len() {
            let (mut heard, _) = feed(session, &cipher[..at], cipher.len());
            heard.extend(feed(session, &cipher[at..], cipher.len()).0);
            assert_eq!(heard, b"first, second");
            cipher = stranger.say(b"first");
            cipher.extend(stranger.change_keys());
            cipher.extend(stranger.say(b", second"));
        }
        assert_eq!(feed(session, &cipher, 1).0, b"first, second");
    });
}

#[test]
fn what_comes_with_the_handshakes_end_is_ours_to_follow() {
    let shown = Shown::new();
    for suite in tls13_suites() {
        let mut stranger = Stranger::client(&shown.stranger(suite));
        let mut session = Session::accept(&shown.ours()).unwrap();
        let (_, flight) = feed(&mut session, &stranger.give(), 65_536);
        stranger.take(&flight);
        // All at once: the last of the handshake, plain bytes, a KeyUpdate that wants an answer, half a record.
        let mut cipher = stranger.give();
        cipher.extend(stranger.say(b"at once"));
        cipher.extend(stranger.change_keys());
        let split = stranger.say(b", and later");
        cipher.extend(&split[..9]);
        let (plain, _) = feed(&mut session, &cipher, 65_536);
        assert_eq!(plain, b"at once");
        assert!(session.records().is_some());
        let mut out = Vec::new();
        session.seal(b"under the keys that were asked for", &mut out).unwrap();
        assert_eq!(stranger.take(&out), b"under the keys that were asked for");
        assert_eq!(feed(&mut session, &split[9..], 65_536).0, b", and later");
    }
}

#[test]
fn a_handshake_in_many_small_records_ends_as_ours_too() {
    let shown = Shown::new();
    for suite in tls13_suites() {
        let mut theirs = shown.stranger(suite);
        Arc::make_mut(&mut theirs.client).max_fragment_size = Some(64);
        Arc::make_mut(&mut theirs.server).max_fragment_size = Some(64);
        for step in [1, 7, 13, 64, 100, 65_536] {
            let mut stranger = Stranger::client(&theirs);
            let mut session = Session::accept(&shown.ours()).unwrap();
            shake(&mut session, &mut stranger, Vec::new(), step);
            assert!(session.records().is_some());
            assert_eq!(
                feed(&mut session, &stranger.say(&numbered(1_000)), step).0,
                numbered(1_000)
            );

            let (mut hello, mut stranger) = (Vec::new(), Stranger::server(&theirs));
            let mut session = Session::connect(&shown.ours(), &mut hello).unwrap();
            shake(&mut session, &mut stranger, hello, step);
            assert!(session.records().is_some());
            assert_eq!(
                feed(&mut session, &stranger.say(&numbered(1_000)), step).0,
                numbered(1_000)
            );
        }
    }
}

#[test]
fn tls_1_2_stays_with_rustls() {
    let shown = Shown::new();
    for suite in suites().into_iter().filter(|suite| suite.tls13().is_none()) {
        let mut stranger = Stranger::client(&shown.stranger(suite));
        let mut session = Session::accept(&shown.ours()).unwrap();
        shake(&mut session, &mut stranger, Vec::new(), 65_536);
        assert!(session.records().is_none());
        assert_eq!(
            feed(&mut session, &stranger.say(&numbered(70_000)), 999).0,
            numbered(70_000)
        );
    }
}

#[test]
fn one_answer_is_enough_for_all_who_asked() {
    with_strangers(|session, stranger| {
        for round in 1..=3_usize {
            let mut cipher = Vec::new();
            for _ in 0..round {
                cipher.extend(stranger.change_keys());
            }
            let (_, answer) = feed(session, &cipher, 65_536);
            assert!(answer.is_empty(), "it can wait for what we say next");
            let (mut out, mut plain_alone) = (Vec::new(), Vec::new());
            session.seal(b"answer", &mut out).unwrap();
            session.seal(b"answer", &mut plain_alone).unwrap();
            let key_update = HEADER_BYTES + 5 + 1 + 16;
            assert_eq!(out.len(), plain_alone.len() + key_update);
            assert_eq!(stranger.take(&out), b"answer");
            assert_eq!(stranger.take(&plain_alone), b"answer");
        }
    });
}

#[test]
fn keys_that_have_sealed_enough_are_changed() {
    with_strangers(|session, stranger| {
        session.records().unwrap().sealed_max = 5;
        let mut total = 0;
        for _ in 0..20 {
            let plain = numbered(50_000);
            let mut out = Vec::new();
            session.seal(&plain, &mut out).unwrap();
            total += out.len();
            assert_eq!(stranger.take(&out), plain);
            // Asked to do the same, it does.
            assert_eq!(feed(session, &stranger.say(b"changed"), 65_536).0, b"changed");
            assert!(session.records().unwrap().sealing.next < 5);
        }
        // 80 records of plain bytes, four under each key, and a KeyUpdate between any two keys.
        assert_eq!(total, 20 * (50_000 + 4 * 22) + 19 * 27);
    });
}

#[test]
fn the_limit_is_the_ciphers() {
    with_strangers(|session, stranger| {
        let suite = stranger.0.negotiated_cipher_suite().unwrap();
        let limit = suite.tls13().unwrap().common.confidentiality_limit;
        assert_eq!(session.records().unwrap().sealed_max, limit);
        let chacha = format!("{suite:?}").contains("CHACHA20");
        assert_eq!(limit, if chacha { u64::MAX } else { 1 << 24 });
    });
}

#[test]
fn no_record_is_sealed_when_numbers_or_keys_have_come_to_an_end() {
    let (mut client, mut server) = ends();
    (client.sealed_max, client.sealing.next) = (1, 0);
    // Even a key that may seal one record only seals no more: each has its KeyUpdate.
    let cipher = said(&mut client, &numbered(3 * PLAIN_BYTES_MAX));
    assert_eq!(heard(&mut server, &cipher).plain, numbered(3 * PLAIN_BYTES_MAX));
    client.sealed_max = 0;
    assert_eq!(client.seal(b"more", &mut Room::default()), Err(RecordError::KeysUsedUp));
    assert_eq!(client.seal(b"more", &mut Room::default()), Err(RecordError::Ended));

    let (mut client, _) = ends();
    (client.sealed_max, client.sealing.next) = (u64::MAX, u64::MAX);
    assert_eq!(client.seal(b"more", &mut Room::default()), Err(RecordError::KeysUsedUp));
}

#[test]
fn the_end_is_told_and_heard() {
    with_strangers(|session, stranger| {
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let mut cipher = stranger.say(b"last");
        stranger.0.send_close_notify();
        cipher.extend(stranger.give());
        cipher.extend(b"what no end may be followed by");
        let progress = session.receive(&mut cipher, &mut plain, &mut out).unwrap();
        assert!(progress.peer_closed && progress.established && out.is_empty());
        assert_eq!(plain, b"last");
        assert_eq!(session.unfinished_capacity(), 0);
        // Its end is not ours.
        session.seal(b"ours", &mut out).unwrap();
        session.seal_end(&mut out).unwrap();
        let mut heard = &out[..];
        stranger.0.read_tls(&mut heard).unwrap();
        assert!(session.seal(b"more", &mut out).is_err());
        assert!(session.seal_end(&mut out).is_err());
    });
    with_strangers(|session, stranger| {
        let mut out = Vec::new();
        session.seal_end(&mut out).unwrap();
        stranger.0.read_tls(&mut &out[..]).unwrap();
        assert!(stranger.0.process_new_packets().unwrap().peer_has_closed());
    });
}

#[test]
fn a_record_with_any_bit_changed_is_refused_and_the_peer_told() {
    let shown = Shown::new();
    let suite = tls13_suites()[0];
    let ours = shown.stranger(suite);
    let record = HEADER_BYTES + b"record".len() + 1 + 16;
    for at in 0..record {
        let mut stranger = Stranger::client(&ours);
        let mut session = Session::accept(&ours).unwrap();
        shake(&mut session, &mut stranger, Vec::new(), 65_536);
        let mut cipher = stranger.say(b"record");
        assert_eq!(cipher.len(), record);
        cipher[at] ^= 1 << (at % 8);
        // Where the length has grown: what it then wants to see.
        cipher.extend([0; 1 << 15]);
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let error = session.receive(&mut cipher, &mut plain, &mut out).unwrap_err();
        assert!(plain.is_empty(), "{at}");
        let expected = match at {
            0 => AlertDescription::UnexpectedMessage,
            _ => AlertDescription::BadRecordMac,
        };
        assert_eq!(
            stranger.complaint(&out),
            Error::AlertReceived(expected),
            "{at}: {error}"
        );
    }
    for bit in 0..8 * record {
        let (mut client, mut server) = ends();
        let mut cipher = said(&mut client, b"record");
        cipher[bit / 8] ^= 1 << (bit % 8);
        cipher.extend([0; 1 << 16]);
        let Heard { plain, result, .. } = heard(&mut server, &cipher);
        assert!(plain.is_empty() && result.is_err(), "bit {bit}");
    }
}

#[test]
fn records_come_once_and_in_order() {
    with_strangers(|session, stranger| {
        let first = stranger.say(b"first");
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        session.receive(&mut first.clone(), &mut plain, &mut out).unwrap();
        assert!(session.receive(&mut first.clone(), &mut plain, &mut out).is_err());
        assert_eq!(plain, b"first");
        assert_eq!(
            stranger.complaint(&out),
            Error::AlertReceived(AlertDescription::BadRecordMac)
        );
    });
    with_strangers(|session, stranger| {
        let _lost = stranger.say(b"first");
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        assert!(
            session
                .receive(&mut stranger.say(b"second"), &mut plain, &mut out)
                .is_err()
        );
        assert!(plain.is_empty());
        assert_eq!(
            stranger.complaint(&out),
            Error::AlertReceived(AlertDescription::BadRecordMac)
        );
    });
    let (mut client, mut server) = ends();
    let (first, second) = (said(&mut client, b"first"), said(&mut client, b"second"));
    refused(
        &mut client,
        &mut server,
        &[second, first].concat(),
        RecordError::Undecryptable,
    );
    // A record is no answer to itself either.
    let (mut client, mut server) = ends();
    let own = said(&mut server, b"mirrored");
    assert_eq!(heard(&mut client, &own).plain, b"mirrored");
    refused(&mut client, &mut server, &own, RecordError::Undecryptable);
}

#[test]
fn padding_is_taken_off() {
    let (mut client, mut server) = ends();
    for (length, zeros) in [
        (0, 0),
        (1, 1),
        (5, 300),
        (100, PLAIN_BYTES_MAX - 100),
        (PLAIN_BYTES_MAX, 0),
    ] {
        // Zeros of its own end it, which are no padding.
        let mut plain = numbered(length);
        plain.iter_mut().rev().take(3).for_each(|byte| *byte = 0);
        let cipher = padded(&mut client, APPLICATION_DATA, &plain, zeros);
        let heard = heard(&mut server, &cipher);
        assert_eq!(heard.result, Ok(cipher.len()));
        assert_eq!(heard.plain, plain);
    }
    let cipher = padded(&mut client, APPLICATION_DATA, &[1; PLAIN_BYTES_MAX], 1);
    refused(&mut client, &mut server, &cipher, RecordError::Overlong);
}

#[test]
fn a_record_that_breaks_the_rules_ends_the_session() {
    let whole = |kind, content: &'static [u8], error| (vec![(kind, content)], error);
    let cases = vec![
        whole(0, b"", RecordError::NoType),
        whole(0, &[0; 300], RecordError::NoType),
        whole(20, &[1], RecordError::RecordType(20)),
        whole(24, b"heartbeat", RecordError::RecordType(24)),
        whole(255, b"", RecordError::RecordType(255)),
        whole(APPLICATION_DATA, &[7; PLAIN_BYTES_MAX + 1], RecordError::Overlong),
        whole(HANDSHAKE, b"", RecordError::Interleaved),
        whole(HANDSHAKE, &[1, 0, 0, 9, 9], RecordError::MessageType(1)),
        whole(HANDSHAKE, &[20, 0, 0, 32], RecordError::MessageType(20)),
        whole(HANDSHAKE, &[4, 0, 0, 20], RecordError::MessageType(4)),
        whole(HANDSHAKE, &[24, 0, 0, 2, 0, 0], RecordError::Malformed(24)),
        whole(HANDSHAKE, &[24, 0, 0, 0], RecordError::Malformed(24)),
        whole(HANDSHAKE, &[24, 0, 0, 1, 2], RecordError::KeyUpdateRequest(2)),
        whole(
            HANDSHAKE,
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            RecordError::BehindKeyUpdate,
        ),
        whole(ALERT, b"", RecordError::MalformedAlert),
        whole(ALERT, &[FATAL], RecordError::MalformedAlert),
        whole(ALERT, &[WARNING, 0, WARNING, 0], RecordError::MalformedAlert),
        whole(ALERT, &[3, 0], RecordError::AlertLevel(3)),
        whole(
            ALERT,
            &[WARNING, 40],
            RecordError::Warning(AlertDescription::HandshakeFailure),
        ),
        whole(
            ALERT,
            &[FATAL, 40],
            RecordError::Alert(AlertDescription::HandshakeFailure),
        ),
        (
            vec![(HANDSHAKE, &ASKS[..3]), (APPLICATION_DATA, b"between")],
            RecordError::Interleaved,
        ),
        (
            vec![(HANDSHAKE, &ASKS[..4]), (ALERT, &[WARNING, 0])],
            RecordError::Interleaved,
        ),
        (
            vec![(APPLICATION_DATA, b""); usize::from(EMPTY_MAX) + 1],
            RecordError::TooManyEmpty,
        ),
        (
            vec![(ALERT, &[WARNING, 90]); usize::from(WARNINGS_MAX) + 1],
            RecordError::Warning(AlertDescription::UserCanceled),
        ),
    ];
    for (records, error) in cases {
        let (mut client, mut server) = ends();
        let cipher: Vec<u8> = records
            .iter()
            .flat_map(|(kind, content)| sealed(&mut client, *kind, content))
            .collect();
        refused(&mut client, &mut server, &cipher, error);
    }
}

#[test]
fn headers_that_no_record_has_are_refused_before_the_rest_comes() {
    let long = u16::try_from(BODY_BYTES_MAX + 1).unwrap().to_be_bytes();
    let cases = [
        ([20, 3, 3, 0, 1], RecordError::RecordType(20)),
        ([22, 3, 3, 0, 40], RecordError::RecordType(22)),
        ([23, 3, 3, long[0], long[1]], RecordError::Overlong),
        ([23, 3, 3, 255, 255], RecordError::Overlong),
    ];
    for (header, error) in cases {
        let (mut client, mut server) = ends();
        refused(&mut client, &mut server, &header, error);
    }
    for length in 0..16 {
        let (mut client, mut server) = ends();
        let short = [&[23, 3, 3, 0, length][..], &[0; 16][..usize::from(length)]].concat();
        refused(&mut client, &mut server, &short, RecordError::Undecryptable);
    }
    assert_eq!(
        heard(&mut ends().0, &[23, 3, 3, 0x41, 0]).result,
        Ok(0),
        "so long it may be"
    );
    assert_eq!(RECORD_BYTES_MAX, 16_645);
}

#[test]
fn bounds_begin_anew_with_plain_bytes() {
    let (mut client, mut server) = ends();
    for _ in 0..3 {
        let mut cipher = Vec::new();
        for _ in 0..EMPTY_MAX {
            cipher.extend(sealed(&mut client, APPLICATION_DATA, b""));
        }
        for _ in 0..KEY_UPDATES_MAX {
            Room::append(&mut cipher, |out| client.change_keys(super::Request::None, out)).unwrap();
        }
        cipher.extend(said(&mut client, b"more"));
        assert_eq!(heard(&mut server, &cipher).plain, b"more");
    }
    let mut cipher = Vec::new();
    for _ in 0..=KEY_UPDATES_MAX {
        Room::append(&mut cipher, |out| client.change_keys(super::Request::None, out)).unwrap();
    }
    refused(&mut client, &mut server, &cipher, RecordError::TooManyKeyUpdates);
}

#[test]
fn a_key_update_may_come_byte_by_byte() {
    let (mut client, mut server) = ends();
    let mut cipher = Vec::new();
    for byte in TELLS {
        cipher.extend(sealed(&mut client, HANDSHAKE, &[byte]));
    }
    let mut new_keys = ends().0;
    Room::append(&mut Vec::new(), |out| new_keys.change_keys(super::Request::None, out)).unwrap();
    cipher.extend(said(&mut new_keys, b"followed"));
    assert_eq!(heard(&mut server, &cipher).plain, b"followed");
    assert!(!server.answer_owed);
}

#[test]
fn a_client_leaves_tickets_unread_and_keeps_nothing_of_them() {
    let (mut client, mut server) = ends();
    let mut ticket = vec![4, 0, 0xff, 0xff];
    ticket.resize(4 + 0xffff, 9);
    let short = [&[4, 0, 0, 14][..], &[0; 14]].concat();
    let messages = [short.clone(), ticket, short].concat();
    for pieces in [messages.len(), PLAIN_BYTES_MAX, 1_000, 7] {
        for piece in messages.chunks(pieces.min(PLAIN_BYTES_MAX)) {
            let cipher = sealed(&mut server, HANDSHAKE, piece);
            assert_eq!(heard(&mut client, &cipher).result, Ok(cipher.len()));
        }
        let cipher = said(&mut server, b"behind them");
        assert_eq!(heard(&mut client, &cipher).plain, b"behind them");
    }
    let cipher = sealed(&mut server, HANDSHAKE, &[4, 1, 0, 0]);
    refused(&mut server, &mut client, &cipher, RecordError::Malformed(4));
    let (mut client, mut server) = ends();
    let cipher = sealed(&mut server, HANDSHAKE, &[4, 0, 0, 13]);
    refused(&mut server, &mut client, &cipher, RecordError::Malformed(4));
}

#[test]
fn what_came_before_a_fault_is_heard() {
    let (mut client, mut server) = ends();
    let mut cipher = said(&mut client, b"before");
    cipher.extend(sealed(&mut client, 99, b"fault"));
    cipher.extend(said(&mut client, b"behind"));
    let heard = heard(&mut server, &cipher);
    assert_eq!(heard.plain, b"before");
    assert_eq!(heard.result, Err(RecordError::RecordType(99)));
}

/// Records as a peer with the right keys and no manners could send them.
fn any_record() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let kind = prop_oneof![4 => 20..25_u8, 1 => any::<u8>()];
    let content = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        2 => Just(TELLS.to_vec()),
        2 => Just(ASKS.to_vec()),
        1 => Just(vec![WARNING, 90]),
        1 => (0..BODY_BYTES_MAX + 40).prop_map(|length| vec![1; length]),
    ];
    (kind, content)
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(cipher in proptest::collection::vec(any::<u8>(), 0..200), header: bool) {
        let cipher = if header { [&[23, 3, 3, 0, 20][..], &cipher].concat() } else { cipher };
        let mut server = ends().1;
        let heard = heard(&mut server, &cipher);
        prop_assert!(heard.plain.is_empty());
        prop_assert!(heard.out.len() <= 24);
    }

    #[test]
    fn no_records_make_it_panic_and_their_pieces_do_not_matter(
        records in proptest::collection::vec(any_record(), 0..20),
        step in 1..5_000_usize,
    ) {
        let (mut client, mut whole) = ends();
        let mut pieces = ends().1;
        let mut cipher = Vec::new();
        for (kind, content) in &records {
            cipher.extend(sealed(&mut client, *kind, content));
            if *kind == HANDSHAKE && (content == &TELLS || content == &ASKS) {
                client.sealing = super::Keys::new(client.next_keys.sealing().unwrap()).unwrap();
            }
        }
        let at_once = heard(&mut whole, &cipher);
        prop_assert!(at_once.plain.len() <= cipher.len());
        let (mut plain, mut out, mut result, mut buffer) = (Vec::new(), Vec::new(), Ok(0), Vec::new());
        for piece in cipher.chunks(step) {
            buffer.extend_from_slice(piece);
            let some = heard(&mut pieces, &buffer);
            plain.extend(some.plain);
            out.extend(some.out);
            result = some.result;
            let Ok(taken) = &result else { break };
            buffer.drain(..*taken);
        }
        prop_assert_eq!(discriminant(&result), discriminant(&at_once.result));
        prop_assert_eq!(result.err(), at_once.result.err());
        prop_assert_eq!(plain, at_once.plain);
        prop_assert_eq!(out, at_once.out);
    }
}
