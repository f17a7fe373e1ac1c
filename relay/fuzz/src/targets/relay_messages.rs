//! Relay messages in both formats, and the bodies of those that have one.

use relay_wire::cell::BODY_BYTES;
use relay_wire::destination::{Destination, NameRule, checked_name};
use relay_wire::flow_control::{Sendme, SendmeBody, TOR1_TAG_BYTES, Xon};
use relay_wire::onion_service::{EstablishIntro, INTRODUCE_BYTES_MAX, Introduce1};
use relay_wire::relay_cells::{DATA_BYTES_MAX, Format, RelayCommand, RelayMessage, V0_DATA_BYTES_MAX};
use relay_wire::stream::{
    Answer, Begin, RESOLVED_TTL_SECONDS, Resolve, connected, end, read_connected, read_end, read_resolved, resolved,
};

pub(super) fn v0(data: &[u8]) {
    message(data, Format::V0);
}

pub(super) fn v1(data: &[u8]) {
    message(data, Format::V1);
}

/// The input is the decrypted body of a cell, filled up with zeros.
fn message(data: &[u8], format: Format) {
    let mut cell = [0; BODY_BYTES];
    let length = data.len().min(BODY_BYTES);
    cell[..length].copy_from_slice(&data[..length]);
    let Ok(message) = RelayMessage::read(&cell, format) else {
        return;
    };
    assert!(message.data.len() <= V0_DATA_BYTES_MAX);
    let (written, fill) = message.write(format).expect("it was in a cell");
    assert_eq!(RelayMessage::read(&written, format), Ok(message));
    assert!(written[fill..].iter().all(|byte| *byte == 0));
    let same = match format {
        // Recognized and digest are the crypto's.
        Format::V0 => [0..1, 3..5, 9..fill],
        Format::V1 => [16..fill, 0..0, 0..0],
    };
    for range in same {
        assert_eq!(written[range.clone()], cell[range]);
    }
    body(message.command, message.data);
}

fn body(command: RelayCommand, data: &[u8]) {
    match command {
        RelayCommand::BEGIN => begin(data),
        RelayCommand::RESOLVE => resolve(data),
        RelayCommand::RESOLVED => answers(data),
        RelayCommand::CONNECTED => connected_message(data),
        RelayCommand::END => assert_eq!(read_end(end(read_end(data)).as_bytes()), read_end(data)),
        RelayCommand::SENDME => sendme(data),
        RelayCommand::XON => {
            if let Ok(xon) = Xon::read(data) {
                assert_eq!(xon.write(), data[..5]);
            }
        }
        RelayCommand::EXTEND2 => super::cells::extend2(data),
        RelayCommand::EXTENDED2 => super::cells::create_extend(data),
        RelayCommand::ESTABLISH_INTRO => establish_intro(data),
        RelayCommand::INTRODUCE1 => {
            if let Ok(introduce) = Introduce1::read(data) {
                assert!(data.len() <= INTRODUCE_BYTES_MAX);
                assert_eq!(Introduce1::read(&introduce.write(b"to the service")), Ok(introduce));
            }
        }
        _ => {}
    }
}

fn begin(data: &[u8]) {
    let (strict, lenient) = (
        Begin::read(data, NameRule::Rfc953),
        Begin::read(data, NameRule::Printable),
    );
    if let Ok(begin) = strict {
        assert_eq!(lenient, Ok(begin), "the lenient rule refuses what the strict one takes");
        is_sound(begin.destination, NameRule::Rfc953);
    }
    if let Ok(begin) = lenient {
        assert_ne!(begin.port, 0);
        is_sound(begin.destination, NameRule::Printable);
    }
    if let Err(error) = strict {
        assert_eq!(read_end(end(error.reason()).as_bytes()), error.reason());
    }
}

/// What goes to a resolver can go there again, and says nothing but a name.
fn is_sound(destination: Destination<'_>, rule: NameRule) {
    if let Destination::Name(name) = destination {
        assert_eq!(checked_name(name, rule), Ok(name));
        assert!(name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(name.parse::<std::net::IpAddr>().is_err());
    }
}

fn resolve(data: &[u8]) {
    for rule in [NameRule::Rfc953, NameRule::Printable] {
        if let Ok(Resolve::Forward(destination)) = Resolve::read(data, rule) {
            is_sound(destination, rule);
        }
    }
}

fn answers(data: &[u8]) {
    let Ok(read) = read_resolved(data) else { return };
    let answers: Vec<Answer<'_>> = read.into_iter().map(|(answer, _)| answer).collect();
    let body = resolved(answers.iter().copied());
    assert!(body.as_bytes().len() <= DATA_BYTES_MAX);
    let again = read_resolved(body.as_bytes()).expect("we wrote it");
    assert!(again.iter().all(|(_, ttl)| *ttl == RESOLVED_TTL_SECONDS));
    let again: Vec<Answer<'_>> = again.into_iter().map(|(answer, _)| answer).collect();
    assert_eq!(again, answers[..again.len()]);
    assert!(again.len() == answers.len() || body.as_bytes().len() + 262 > DATA_BYTES_MAX);
}

fn connected_message(data: &[u8]) {
    if let Ok(Some((address, ttl_seconds))) = read_connected(data) {
        let body = connected(address, ttl_seconds);
        assert_eq!(read_connected(body.as_bytes()), Ok(Some((address, ttl_seconds))));
    }
}

fn sendme(data: &[u8]) {
    if let Ok(Sendme::V1 { tag }) = Sendme::read(data) {
        match SendmeBody::v1(tag) {
            Some(body) => assert_eq!(Sendme::read(body.as_bytes()), Ok(Sendme::V1 { tag })),
            None => assert!(tag.len() > TOR1_TAG_BYTES),
        }
    }
}

fn establish_intro(data: &[u8]) {
    let Ok(read) = EstablishIntro::read(data) else { return };
    assert!(data.starts_with(read.maced));
    let (mut maced, mut signed) = (Vec::new(), Vec::new());
    let mac = |bytes: &[u8]| {
        maced = bytes.to_vec();
        read.mac
    };
    let sign = |bytes: &[u8]| {
        signed = bytes.to_vec();
        read.signature
    };
    let written = EstablishIntro::write(&read.auth_key, read.dos.as_ref(), mac, sign);
    let again = EstablishIntro::read(&written).expect("we wrote it");
    assert_eq!((again.auth_key, again.dos), (read.auth_key, read.dos));
    assert_eq!((again.mac, again.signature), (read.mac, read.signature));
    assert_eq!((again.maced, again.signed()), (&maced[..], signed));
}
