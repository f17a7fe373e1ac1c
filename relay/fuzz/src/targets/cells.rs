//! Cells on the link, and the bodies that have no state.

use std::net::{IpAddr, Ipv4Addr};

use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command, Frame, Framed, frame, write_fixed, write_variable};
use relay_wire::channel_cells::{self as link, Authenticate, Netinfo, PaddingNegotiate};
use relay_wire::create::{Create2, created2, write_created2};
use relay_wire::extend::Extend2;
use relay_wire::reader::Reader;

/// The first byte says how wide circuit ids are; the rest is what came over the link.
pub(super) fn cells(data: &[u8]) {
    let Some((&width, mut bytes)) = data.split_first() else {
        return;
    };
    let width = CircIdWidth::of_version(u16::from(width % 3) + 3);
    loop {
        match frame(bytes, width) {
            Framed::Short { total_bytes } => {
                assert!(total_bytes > bytes.len(), "asks for no more than there is");
                assert!(total_bytes <= relay_wire::cell::VARIABLE_CELL_BYTES_MAX);
                return;
            }
            Framed::Whole(found) => {
                is_found_alike_from_every_beginning(&bytes[..found.ends], width, &found);
                comes_back(&bytes[..found.ends], width, &found);
                body(found.command, &bytes[found.body_begins..found.ends]);
                bytes = &bytes[found.ends..];
            }
        }
    }
}

fn is_found_alike_from_every_beginning(cell: &[u8], width: CircIdWidth, found: &Frame) {
    assert_eq!(
        frame(cell, width),
        Framed::Whole(*found),
        "what follows a cell changes it"
    );
    let header = found.body_begins;
    for length in (0..=header)
        .chain([cell.len() - 1])
        .filter(|length| *length < cell.len())
    {
        match frame(&cell[..length], width) {
            Framed::Short { total_bytes } => assert!(length < total_bytes && total_bytes <= cell.len()),
            Framed::Whole(_) => panic!("{length} of {} bytes are taken for a cell", cell.len()),
        }
    }
}

fn comes_back(cell: &[u8], width: CircIdWidth, found: &Frame) {
    let mut written = Vec::new();
    let body = &cell[found.body_begins..];
    if found.command.is_variable() {
        write_variable(&mut written, width, found.command, body).expect("it was one");
        assert_eq!(written[width.bytes()..], cell[width.bytes()..]);
    } else {
        write_fixed(&mut written, width, found.circ_id, found.command, body);
        assert_eq!(written, cell);
    }
}

fn body(command: Command, body: &[u8]) {
    match command {
        Command::VERSIONS => {
            if let Ok(versions) = link::versions(body) {
                assert_eq!(link::write_versions(&versions.collect::<Vec<_>>()), body);
            }
        }
        Command::NETINFO => {
            if let Ok(netinfo) = Netinfo::read(body) {
                netinfo_comes_back(netinfo);
            }
        }
        Command::AUTH_CHALLENGE => {
            let _ = link::challenge_offers_ed25519(body);
        }
        Command::AUTHENTICATE => {
            if let Ok(read) = Authenticate::read(body) {
                let signed = read.signed.try_into().expect("the length that it always has");
                let written = Authenticate::write(signed, &read.signature);
                let again = Authenticate::read(&written).expect("we wrote it");
                assert_eq!((again.fixed, again.signed), (read.fixed, read.signed));
                assert_eq!(again.signature, read.signature);
                assert!(read.signed.starts_with(read.fixed));
            }
        }
        Command::PADDING_NEGOTIATE => {
            let _ = PaddingNegotiate::read(body);
        }
        Command::CREATE2 | Command::CREATED2 => create_extend(body),
        _ => {}
    }
}

fn netinfo_comes_back(mut netinfo: Netinfo) {
    let written = netinfo.write();
    assert!(written.len() <= BODY_BYTES, "a NETINFO of {} bytes", written.len());
    let again = Netinfo::read(&written).expect("we wrote it");
    netinfo.own.truncate(again.own.len());
    netinfo.other.get_or_insert(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    assert_eq!(again, netinfo);
}

/// The body of a CREATE2, of a CREATED2 and of an EXTEND2 at once: they tell each other apart by nothing but the command.
pub(super) fn create_extend(data: &[u8]) {
    let data = data.get(..BODY_BYTES).unwrap_or(data);
    let mut reader = Reader::new(data);
    if let Ok(create) = Create2::take(&mut reader) {
        let mut written = Vec::new();
        create.write(&mut written);
        let read = data.len() - reader.rest().len();
        assert_eq!(written, data[..read]);
    }
    if let Ok(reply) = created2(data) {
        let mut written = Vec::new();
        write_created2(&mut written, reply);
        assert_eq!(written, data[..reply.len() + 2]);
    }
    extend2(data);
}

/// EXTEND2 comes back but for specifiers that nobody knows or that stand there twice.
pub(super) fn extend2(data: &[u8]) {
    if let Ok(extend) = Extend2::read(data) {
        let written = extend.write();
        assert!(written.len() <= data.len().max(1));
        assert_eq!(Extend2::read(&written).as_ref(), Ok(&extend));
    }
}
