//! What both files of tests need: two ends of ours without a handshake, and sessions of ours with rustls at the other end.

mod faults;
mod peers;

use std::io::Write;

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
