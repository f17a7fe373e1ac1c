//! A name server on loopback that knows what a test tells it.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use relay_formats::torrc::ServerDns;
use relay_node::dns::resolver::Resolver;

/// What it says about a name.
#[derive(Clone)]
pub(crate) enum Record {
    /// Its address.
    A(Ipv4Addr),
    /// Its address, and it has no other.
    Aaaa(Ipv6Addr),
    /// Its address, for who asks over TCP.
    LongA(Ipv4Addr),
    /// The labels that an address is called by, any bytes in them.
    Ptr(Vec<&'static [u8]>),
    /// It cannot say.
    Failure,
}

/// A resolver whose server knows `records`, by names in small letters; and how many questions it was asked.
pub(crate) fn resolver(records: &[(&'static str, Record)]) -> (Resolver, Arc<AtomicUsize>) {
    let (server, listener) = sockets();
    let port = server.local_addr().unwrap().port();
    let known: HashMap<String, Record> = records
        .iter()
        .map(|(name, record)| ((*name).to_owned(), record.clone()))
        .collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let over_tcp = known.clone();
    std::thread::spawn(move || serve(&server, &known, &count));
    std::thread::spawn(move || serve_tcp(&listener, &over_tcp));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
    let settings = ServerDns {
        resolv_conf: Some(file),
        ..ServerDns::default()
    };
    let resolver = Resolver::start_towards(settings, port, Arc::default(), || ()).unwrap();
    // The resolver looks again while questions come.
    std::mem::forget(folder);
    (resolver, asked)
}

/// Both on one port.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(listener) = TcpListener::bind(server.local_addr().unwrap()) {
            return (server, listener);
        }
    }
}

fn serve(server: &UdpSocket, known: &HashMap<String, Record>, asked: &AtomicUsize) {
    let mut bytes = [0; 512];
    while let Ok((length, from)) = server.recv_from(&mut bytes) {
        let question = &bytes[12..length];
        let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
        asked.fetch_add(1, Ordering::Relaxed);
        let mut answer = answer(&bytes[..2], &question[..end], known);
        if let Some(Record::LongA(_)) = known.get(&name(question)) {
            // TC: there is more. What there is, is none.
            answer[2] |= 2;
            answer[7] = 0;
            answer.truncate(12 + end);
        }
        server.send_to(&answer, from).unwrap();
    }
}

/// RFC 1035, 4.2.2: each message behind its length.
fn serve_tcp(listener: &TcpListener, known: &HashMap<String, Record>) {
    for link in listener.incoming() {
        let mut link = link.unwrap();
        let mut length = [0; 2];
        while link.read_exact(&mut length).is_ok() {
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            link.read_exact(&mut bytes).unwrap();
            let end = 12 + bytes[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let answer = answer(&bytes[..2], &bytes[12..end], known);
            link.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            link.write_all(&answer).unwrap();
        }
    }
}

/// RFC 1035, 4.1: the question as it was asked, letter case and all, and what is known.
fn answer(id: &[u8], question: &[u8], known: &HashMap<String, Record>) -> Vec<u8> {
    let kind = question[question.len() - 3];
    let (code, data) = match (known.get(&name(question)), kind) {
        (Some(Record::Aaaa(address)), 28) => (0, Some(address.octets().to_vec())),
        (Some(Record::A(address) | Record::LongA(address)), 1) => (0, Some(address.octets().to_vec())),
        (Some(Record::Ptr(labels)), 12) => (0, Some(wire(labels))),
        (Some(Record::Failure), _) => (2, None),
        (Some(_), _) => (0, None),
        (None, _) => (3, None),
    };
    let mut message = id.to_vec();
    message.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    message.extend(question);
    if let Some(data) = data {
        // The name is the one at byte 12; class IN, for an hour.
        message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0x0e, 0x10, 0, data.len() as u8]);
        message.extend(data);
    }
    message
}

fn name(question: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = question;
    while let [length, more @ ..] = rest
        && *length > 0
    {
        let (label, behind) = more.split_at(usize::from(*length));
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = behind;
    }
    labels.join(".")
}

fn wire(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes: Vec<u8> = labels
        .iter()
        .flat_map(|label| [&[label.len() as u8][..], label].concat())
        .collect();
    bytes.push(0);
    bytes
}
