//! Cells and relay messages as bytes, by the numbers of tor-spec ("Cells", "Relay cells"). Nothing here keeps anybody from
//! writing what makes no sense.

/// Commands of cells.
pub mod command {
    #![expect(missing_docs, reason = "tor-spec's own names")]
    pub const PADDING: u8 = 0;
    pub const CREATE: u8 = 1;
    pub const CREATED: u8 = 2;
    pub const RELAY: u8 = 3;
    pub const DESTROY: u8 = 4;
    pub const CREATE_FAST: u8 = 5;
    pub const CREATED_FAST: u8 = 6;
    pub const VERSIONS: u8 = 7;
    pub const NETINFO: u8 = 8;
    pub const RELAY_EARLY: u8 = 9;
    pub const CREATE2: u8 = 10;
    pub const CREATED2: u8 = 11;
    pub const PADDING_NEGOTIATE: u8 = 12;
    pub const VPADDING: u8 = 128;
    pub const CERTS: u8 = 129;
    pub const AUTH_CHALLENGE: u8 = 130;
    pub const AUTHENTICATE: u8 = 131;
    pub const AUTHORIZE: u8 = 132;
}

/// Commands of relay messages.
pub mod relay {
    #![expect(missing_docs, reason = "tor-spec's own names")]
    pub const BEGIN: u8 = 1;
    pub const DATA: u8 = 2;
    pub const END: u8 = 3;
    pub const CONNECTED: u8 = 4;
    pub const SENDME: u8 = 5;
    pub const EXTEND: u8 = 6;
    pub const TRUNCATE: u8 = 8;
    pub const TRUNCATED: u8 = 9;
    pub const DROP: u8 = 10;
    pub const RESOLVE: u8 = 11;
    pub const RESOLVED: u8 = 12;
    pub const BEGIN_DIR: u8 = 13;
    pub const EXTEND2: u8 = 14;
    pub const EXTENDED2: u8 = 15;
    pub const CONFLUX_LINK: u8 = 19;
    pub const CONFLUX_LINKED: u8 = 20;
    pub const CONFLUX_LINKED_ACK: u8 = 21;
    pub const CONFLUX_SWITCH: u8 = 22;
    pub const ESTABLISH_INTRO: u8 = 32;
    pub const ESTABLISH_RENDEZVOUS: u8 = 33;
    pub const INTRODUCE1: u8 = 34;
    pub const INTRODUCE2: u8 = 35;
    pub const RENDEZVOUS1: u8 = 36;
    pub const RENDEZVOUS2: u8 = 37;
    pub const INTRO_ESTABLISHED: u8 = 38;
    pub const RENDEZVOUS_ESTABLISHED: u8 = 39;
    pub const INTRODUCE_ACK: u8 = 40;
    pub const PADDING_NEGOTIATE: u8 = 41;
    pub const PADDING_NEGOTIATED: u8 = 42;
    pub const XOFF: u8 = 43;
    pub const XON: u8 = 44;
}

/// Bytes of a fixed cell's body.
pub const BODY_BYTES: usize = 509;

/// Bytes of data that a relay message holds at most.
pub const DATA_BYTES_MAX: usize = 498;

/// A cell that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its circuit, 0 for the link.
    pub circuit: u32,
    /// What it is.
    pub command: u8,
    /// Without its header.
    pub body: Vec<u8>,
}

/// A fixed cell; what the body lacks is zero, what it has too much is cut.
#[must_use]
pub fn fixed(circuit: u32, command: u8, body: &[u8]) -> Vec<u8> {
    let mut cell = circuit.to_be_bytes().to_vec();
    cell.push(command);
    cell.extend_from_slice(body);
    cell.resize(5 + BODY_BYTES, 0);
    cell
}

/// A variable cell with a circuit id of four bytes.
#[must_use]
pub fn variable(circuit: u32, command: u8, body: &[u8]) -> Vec<u8> {
    [&circuit.to_be_bytes()[..], &variable_tail(command, body)].concat()
}

/// A variable cell with a circuit id of two bytes, as VERSIONS has it.
#[must_use]
pub fn variable_narrow(circuit: u16, command: u8, body: &[u8]) -> Vec<u8> {
    [&circuit.to_be_bytes()[..], &variable_tail(command, body)].concat()
}

fn variable_tail(command: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let body = body.get(..usize::from(length)).unwrap_or(body);
    [&[command], &length.to_be_bytes()[..], body].concat()
}

/// VERSIONS with these.
#[must_use]
pub fn versions(offered: &[u16]) -> Vec<u8> {
    let body: Vec<u8> = offered.iter().flat_map(|version| version.to_be_bytes()).collect();
    variable_narrow(0, command::VERSIONS, &body)
}

/// NETINFO of a client: no time, a peer's address, none of its own.
#[must_use]
pub fn netinfo() -> Vec<u8> {
    fixed(0, command::NETINFO, &[0, 0, 0, 0, 4, 4, 192, 0, 2, 1, 0])
}

/// A relay message as a plain body, its digest still zero; the length says `claimed` whatever there is.
#[must_use]
pub fn message(relay_command: u8, stream: u16, data: &[u8], claimed: u16) -> [u8; BODY_BYTES] {
    let [high, low] = stream.to_be_bytes();
    let [long, short] = claimed.to_be_bytes();
    let mut body = [0; BODY_BYTES];
    let header = [relay_command, 0, 0, high, low, 0, 0, 0, 0, long, short];
    for (to, from) in body.iter_mut().zip(header.iter().chain(data)) {
        *to = *from;
    }
    body
}

/// The name of a DESTROY's reason.
#[must_use]
pub fn destroy_reason(reason: u8) -> String {
    named(
        reason,
        &[
            "NONE",
            "PROTOCOL",
            "INTERNAL",
            "REQUESTED",
            "HIBERNATING",
            "RESOURCELIMIT",
            "CONNECTFAILED",
            "OR_IDENTITY",
            "CHANNEL_CLOSED",
            "FINISHED",
            "TIMEOUT",
            "DESTROYED",
            "NOSUCHSERVICE",
        ],
    )
}

/// The name of an END's reason.
#[must_use]
pub fn end_reason(reason: u8) -> String {
    named(
        reason,
        &[
            "0",
            "MISC",
            "RESOLVEFAILED",
            "CONNECTREFUSED",
            "EXITPOLICY",
            "DESTROY",
            "DONE",
            "TIMEOUT",
            "NOROUTE",
            "HIBERNATING",
            "INTERNAL",
            "RESOURCELIMIT",
            "CONNRESET",
            "TORPROTOCOL",
            "NOTDIRECTORY",
        ],
    )
}

fn named(number: u8, names: &[&str]) -> String {
    names
        .get(usize::from(number))
        .map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// The name of a relay message's command, of those that a relay says.
#[must_use]
pub fn relay_name(command: u8) -> String {
    let name = match command {
        relay::DATA => "DATA",
        relay::END => "END",
        relay::CONNECTED => "CONNECTED",
        relay::SENDME => "SENDME",
        relay::TRUNCATED => "TRUNCATED",
        relay::RESOLVED => "RESOLVED",
        relay::EXTENDED2 => "EXTENDED2",
        relay::CONFLUX_LINKED => "CONFLUX_LINKED",
        relay::INTRODUCE2 => "INTRODUCE2",
        relay::RENDEZVOUS2 => "RENDEZVOUS2",
        relay::INTRO_ESTABLISHED => "INTRO_ESTABLISHED",
        relay::RENDEZVOUS_ESTABLISHED => "RENDEZVOUS_ESTABLISHED",
        relay::INTRODUCE_ACK => "INTRODUCE_ACK",
        relay::PADDING_NEGOTIATED => "PADDING_NEGOTIATED",
        relay::DROP => "DROP",
        other => return format!("relay command {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_tors_own_versions_cell_comes_out() {
        assert_eq!(versions(&[3, 4, 5]), [0, 0, 7, 0, 6, 0, 3, 0, 4, 0, 5]);
    }

    #[test]
    fn a_message_says_the_length_that_it_is_told_to() {
        let body = message(relay::DATA, 0x0102, b"ab", 499);
        assert_eq!(
            body.get(..13),
            Some(&[2, 0, 0, 1, 2, 0, 0, 0, 0, 1, 243, b'a', b'b'][..])
        );
        assert_eq!(fixed(1, command::RELAY, &body).len(), 514);
    }
}
