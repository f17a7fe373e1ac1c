//! The directory's two sides: what clients ask of us, and what directories answer us.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use relay_formats::fingerprint::RsaIdentity;
use relay_node::dircache::request::{BODY_BYTES_MAX, Flavor, HEAD_BYTES_MAX, Wanted, parse};
use relay_node::dircache::store::{Certificate, Consensus, Descriptor, Diffs, Packed, Shelf, Text};
use relay_node::dircache::{Asker, Conversation, Service};
use relay_node::directory::http;

use crate::relay::now;
use crate::tape::Tape;

const HOUR: Duration = Duration::from_secs(3_600);

/// A cache with one document of each kind.
static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let text = |bytes: &[u8]| Text::from(bytes);
    let consensus = Consensus {
        digest: [8; 32],
        valid_after: now() - HOUR,
        fresh_until: now() + HOUR,
        valid_until: now() + 3 * HOUR,
        signed_by: vec![RsaIdentity([0xaa; 20]), RsaIdentity([0xbb; 20])],
        document: Packed::new(text(b"the whole consensus")).expect("memory"),
    };
    let diff = Packed::new(text(b"what changed")).expect("memory");
    let descriptor = |relay: u8, words: &[u8]| Descriptor {
        relay: RsaIdentity([relay; 20]),
        digest: [relay; 20],
        text: text(words),
    };
    let service = Service::default();
    service.change(|store| {
        store.consensuses = [(Flavor::Microdesc, Arc::new(consensus))].into();
        let diffs = Diffs {
            to: [8; 32],
            from: HashMap::from([([9; 32], Arc::new(diff))]),
        };
        store.diffs = [(Flavor::Microdesc, Arc::new(diffs))].into();
        store.microdescriptors = Arc::new([([0; 32], text(b"onion-key\n"))].into());
        store.servers = Arc::new(Shelf::new([descriptor(0x11, b"router one\n")], []));
        store.certificates = Arc::new(vec![Certificate {
            identity: RsaIdentity([0xaa; 20]),
            signing_key: RsaIdentity([0xab; 20]),
            published: now() - HOUR,
            text: text(b"dir-key-certificate\n"),
        }]);
        store.own_server = Some(descriptor(0x77, b"router self\n"));
    });
    service
});

/// A byte says in which pieces the request comes; the rest is the request.
pub(super) fn dir_request(data: &[u8]) {
    let mut tape = Tape::new(data);
    let (step, room) = (usize::from(tape.u8()) + 1, usize::from(tape.u8()) + 1);
    let bytes = tape.rest();
    let whole = parse(bytes);
    if let Ok(Some(request)) = &whole {
        assert!(request.body.len() <= BODY_BYTES_MAX);
        assert!(request.has_consensuses.len() <= 65);
        if !matches!(request.wanted, Wanted::PublishOnionService(_)) {
            assert!(request.body.is_empty());
            // One request a stream: what follows it says nothing.
            assert_eq!(parse(&[bytes, b"GET / HTTP/1.0\r\n\r\n"].concat()), whole);
        }
    }
    let at_once = converse(bytes, bytes.len().max(1), usize::MAX);
    let in_pieces = converse(bytes, step, room);
    // With no Content-Length an upload ends where the pieces end.
    let measured = bytes
        .to_ascii_lowercase()
        .windows(15)
        .any(|word| word == b"content-length:");
    if let (Some(one), Some(other)) = (&at_once, &in_pieces)
        && (measured || !bytes.starts_with(b"POST"))
    {
        assert_eq!(one, other, "pieces make another answer");
    }
    // Nothing is answered before the head has ended, and nothing that has ended is left without an answer.
    let ended = bytes.starts_with(b"POST ") || bytes.windows(4).any(|four| four == b"\r\n\r\n");
    assert_eq!(ended && whole != Ok(None), at_once.is_some());
    assert_eq!(SERVICE.budget().spent(), 0, "memory that nobody gives back");
}

/// The answer, if there is one.
fn converse(bytes: &[u8], step: usize, room: usize) -> Option<Vec<u8>> {
    let service = &*SERVICE;
    // An upload would change what the next story hears.
    let start = Duration::ZERO;
    let mut conversation = Conversation::new(Asker { address: None }, start);
    let mut ready = false;
    for piece in bytes.chunks(step) {
        ready |= conversation.hear(piece, service, start, now());
        assert!(bytes.len() <= HEAD_BYTES_MAX + BODY_BYTES_MAX);
    }
    if !ready {
        let mut none = Vec::new();
        assert!(!conversation.say(room, start, &mut none) && none.is_empty());
        return None;
    }
    let mut said = Vec::new();
    loop {
        let before = said.len();
        let more = conversation.say(room, start, &mut said);
        assert!(said.len() - before <= room);
        assert!(said.len() <= 64 * 1024, "an answer of {} bytes", said.len());
        if !more {
            break;
        }
        assert!(said.len() > before, "says that there is more and says nothing");
    }
    assert!(conversation.is_over());
    assert!(said.starts_with(b"HTTP/1.0 "), "no answer");
    assert!(said.windows(4).any(|four| four == b"\r\n\r\n"));
    assert!(!conversation.is_stalled(start + Duration::from_secs(60)));
    Some(said)
}

/// An answer of a directory that we asked.
pub(super) fn dir_response(data: &[u8]) {
    const BYTES_MAX: usize = 64 * 1024;
    if let Ok(response) = http::decode(data, BYTES_MAX) {
        assert!(response.body.len() <= BYTES_MAX, "{} bytes", response.body.len());
        assert!(response.status <= 999);
        assert!(response.reason.len() <= 300);
        assert!(
            response
                .reason
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        );
    }
}
