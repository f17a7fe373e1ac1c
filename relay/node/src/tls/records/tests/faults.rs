//! Records that break the rules, come in another order or are changed, and those that only look so.

use std::mem::discriminant;

use proptest::prelude::*;

use super::*;

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
            Room::append(&mut cipher, |out| client.change_keys(super::super::Request::None, out)).unwrap();
        }
        cipher.extend(said(&mut client, b"more"));
        assert_eq!(heard(&mut server, &cipher).plain, b"more");
    }
    let mut cipher = Vec::new();
    for _ in 0..=KEY_UPDATES_MAX {
        Room::append(&mut cipher, |out| client.change_keys(super::super::Request::None, out)).unwrap();
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
    Room::append(&mut Vec::new(), |out| {
        new_keys.change_keys(super::super::Request::None, out)
    })
    .unwrap();
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
                client.sealing = super::super::Keys::new(client.next_keys.sealing().unwrap()).unwrap();
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
