//! Sessions that go well: with rustls at the other end, and as long as there are keys.

use std::sync::Arc;

use super::*;

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
