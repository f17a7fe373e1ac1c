//! What a relay does with a message that is meant for it. Pure: says the deed, does none.
//!
//! Streams are served where the settings say so.

use std::net::IpAddr;

use relay_wire::circuit_padding::CircuitPaddingNegotiate;
use relay_wire::extend::Extend2;
use relay_wire::relay_cells::{DestroyReason, EndReason, RelayCommand, RelayMessage};

/// What follows from a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Deed<'a> {
    /// Nothing: it means nothing here, or nothing any more.
    Ignore,
    /// A RELAY_DROP: counted, thrown away.
    Drop,
    /// A DATA cell: counted for flow control whether its stream is there or not.
    Data,
    /// BEGIN, BEGIN_DIR or RESOLVE that we serve.
    Begin,
    /// END, SENDME, XON or XOFF, where streams are served.
    Stream,
    Extend(Extend2<'a>),
    Truncate,
    /// For the circuit's padding machine.
    Padding(CircuitPaddingNegotiate),
    /// LINK, LINKED_ACK or SWITCH.
    Conflux,
    /// A message of a stream on a leg of a conflux set: it has a number, and its turn.
    InOrder,
    /// BEGIN_DIR on such a leg, which it must not be.
    NoDirectory,
    /// For an introduction or rendezvous point.
    OnionService,
    /// Answer on the same stream.
    Answer(RelayCommand, Vec<u8>),
    /// The client broke a rule, or wants what must not be.
    End(DestroyReason),
}

/// How the message came.
#[derive(Clone, Copy)]
pub(crate) struct Circumstances {
    /// In RELAY_EARLY, or the consensus does not ask for it.
    pub(crate) may_extend: bool,
    /// The hop before us is a client, not a relay.
    pub(crate) from_client: bool,
    /// Streams may go out from here.
    pub(crate) exits: bool,
    /// Streams may go to our directory server.
    pub(crate) directory: bool,
    /// The circuit serves an onion service or its client: it has no streams here and goes on to nobody.
    pub(crate) on_duty: bool,
    /// The circuit is a leg of a conflux set.
    pub(crate) is_leg: bool,
}

/// The deed that belongs to a message.
pub(crate) fn deed<'a>(message: &RelayMessage<'a>, how: Circumstances) -> Deed<'a> {
    use RelayCommand as C;
    let broken = Deed::End(DestroyReason::TorProtocol);
    let for_circuit = message.stream_id == 0;
    match message.command {
        // With numbers, whatever they are about (C tor `conflux_should_multiplex`).
        C::BEGIN | C::DATA | C::END | C::CONNECTED | C::RESOLVE | C::RESOLVED | C::XON | C::XOFF if how.is_leg => {
            Deed::InOrder
        }
        C::BEGIN_DIR if how.is_leg && !for_circuit => Deed::NoDirectory,
        C::EXTEND2 if for_circuit && how.may_extend && !how.on_duty => {
            Extend2::read(message.data).map_or(broken, Deed::Extend)
        }
        C::EXTEND2 | C::EXTEND => broken,
        // Without a reason it is malformed (TROVE-2026-011).
        C::TRUNCATE if message.data.is_empty() => broken,
        C::TRUNCATE => Deed::Truncate,
        C::DROP => Deed::Drop,
        C::DATA if for_circuit => broken,
        C::DATA => Deed::Data,
        C::SENDME if how.exits || how.directory => Deed::Stream,
        // We send no DATA, so nobody can acknowledge any.
        C::SENDME if for_circuit => broken,
        C::END | C::XON | C::XOFF if !for_circuit && (how.exits || how.directory) => Deed::Stream,
        C::BEGIN | C::BEGIN_DIR | C::RESOLVE if for_circuit => Deed::Ignore,
        C::BEGIN if how.on_duty => end(EndReason::TorProtocol),
        C::BEGIN_DIR if how.on_duty => end(EndReason::NotDirectory),
        C::RESOLVE if how.on_duty => Deed::Answer(C::RESOLVED, resolve_error()),
        C::BEGIN | C::RESOLVE if how.exits => Deed::Begin,
        C::BEGIN_DIR if how.directory => Deed::Begin,
        C::BEGIN if how.from_client => end(EndReason::TorProtocol),
        C::BEGIN => begin(message.data),
        C::BEGIN_DIR => end(EndReason::NotDirectory),
        C::RESOLVE => Deed::Answer(C::RESOLVED, resolve_error()),
        // Where it makes no sense, C tor does not answer.
        C::PADDING_NEGOTIATE => CircuitPaddingNegotiate::read(message.data).map_or(Deed::Ignore, Deed::Padding),
        C::ESTABLISH_INTRO | C::ESTABLISH_RENDEZVOUS | C::INTRODUCE1 | C::RENDEZVOUS1 => Deed::OnionService,
        C::CONFLUX_LINK | C::CONFLUX_LINKED_ACK | C::CONFLUX_SWITCH => Deed::Conflux,
        // Only we send it.
        C::CONFLUX_LINKED => broken,
        // Streams that we do not have, messages that only relays send, commands that nobody knows.
        _ => Deed::Ignore,
    }
}

fn end<'a>(reason: EndReason) -> Deed<'a> {
    Deed::Answer(RelayCommand::END, vec![reason as u8])
}

/// No exit: the address, where it is one, and how long to remember that (an hour), as C tor does.
fn begin<'a>(data: &[u8]) -> Deed<'a> {
    let Some(text) = data
        .split(|byte| *byte == 0)
        .next()
        .and_then(|text| std::str::from_utf8(text).ok())
    else {
        return end(EndReason::TorProtocol);
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return end(EndReason::TorProtocol);
    };
    if data.len() == text.len() || port.parse::<u16>().map_or(true, |port| port == 0) {
        return end(EndReason::TorProtocol);
    }
    let mut answer = vec![EndReason::ExitPolicy as u8];
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => answer.extend(ip.octets()),
        Ok(IpAddr::V6(ip)) => answer.extend(ip.octets()),
        Err(_) => return end(EndReason::ExitPolicy),
    }
    answer.extend(3_600_u32.to_be_bytes());
    Deed::Answer(RelayCommand::END, answer)
}

/// One answer: a lasting error, no text, remembered for 60 s (tor-spec, "RESOLVED").
fn resolve_error() -> Vec<u8> {
    vec![0xf1, 0, 0, 0, 0, 60]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RELAY: Circumstances = Circumstances {
        may_extend: true,
        from_client: false,
        exits: false,
        directory: false,
        on_duty: false,
        is_leg: false,
    };

    fn asked(command: RelayCommand, stream_id: u16, data: &[u8]) -> Deed<'_> {
        deed(
            &RelayMessage {
                command,
                stream_id,
                data,
            },
            RELAY,
        )
    }

    #[test]
    fn a_middle_is_no_exit_no_directory_and_no_resolver() {
        let end = |reason: EndReason| Deed::Answer(RelayCommand::END, vec![reason as u8]);
        assert_eq!(
            asked(RelayCommand::BEGIN, 1, b"example.com:80\0"),
            end(EndReason::ExitPolicy)
        );
        assert_eq!(
            asked(RelayCommand::BEGIN, 1, b"192.0.2.7:80\0"),
            Deed::Answer(RelayCommand::END, vec![4, 192, 0, 2, 7, 0, 0, 14, 16])
        );
        assert_eq!(asked(RelayCommand::BEGIN_DIR, 1, b""), end(EndReason::NotDirectory));
        assert_eq!(
            asked(RelayCommand::RESOLVE, 1, b"a\0"),
            Deed::Answer(RelayCommand::RESOLVED, resolve_error())
        );
        for bad in [&b""[..], b"\0", b"a:0\0", b"a:x\0", b"a:80", b"a\0"] {
            assert_eq!(
                asked(RelayCommand::BEGIN, 1, bad),
                end(EndReason::TorProtocol),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_a_middle_cannot_be_ends_the_circuit() {
        for command in [6_u8, 20] {
            assert_eq!(
                asked(RelayCommand(command), 0, &[0; 40]),
                Deed::End(DestroyReason::TorProtocol),
                "{command}"
            );
        }
    }

    /// TROVE-2017-004 and 2017-005 were assertions in what a circuit of an onion service did with a BEGIN.
    #[test]
    fn trove_2017_004_and_005_a_circuit_of_an_onion_service_has_no_streams() {
        for (command, answer) in [
            (RelayCommand::BEGIN, vec![EndReason::TorProtocol as u8]),
            (RelayCommand::BEGIN_DIR, vec![EndReason::NotDirectory as u8]),
        ] {
            let message = RelayMessage {
                command,
                stream_id: 1,
                data: b"192.0.2.7:80\0",
            };
            let how = Circumstances {
                on_duty: true,
                exits: true,
                directory: true,
                ..RELAY
            };
            assert_eq!(deed(&message, how), Deed::Answer(RelayCommand::END, answer));
        }
    }

    #[test]
    fn unknown_and_late_messages_are_ignored() {
        for (command, stream) in [
            (99, 0),
            (3, 5),
            (4, 5),
            (5, 5),
            (9, 0),
            (15, 0),
            (41, 0),
            (42, 0),
            (43, 5),
            (44, 5),
        ] {
            assert_eq!(asked(RelayCommand(command), stream, &[]), Deed::Ignore, "{command}");
        }
    }

    #[test]
    fn an_extend_outside_relay_early_ends_the_circuit() {
        let message = RelayMessage {
            command: RelayCommand::EXTEND2,
            stream_id: 0,
            data: &[0, 0, 2, 0, 0],
        };
        let late = Circumstances {
            may_extend: false,
            ..RELAY
        };
        assert_eq!(deed(&message, late), Deed::End(DestroyReason::TorProtocol));
        assert!(matches!(deed(&message, RELAY), Deed::Extend(_)));
    }

    /// TROVE-2026-011
    #[test]
    fn trove_2026_011_empty_end_and_truncate_are_survived() {
        assert_eq!(asked(RelayCommand::END, 7, &[]), Deed::Ignore);
        assert_eq!(
            asked(RelayCommand::TRUNCATE, 0, &[]),
            Deed::End(DestroyReason::TorProtocol)
        );
    }

    proptest! {
        #[test]
        fn no_message_makes_us_panic(command: u8, stream_id: u16, data in proptest::collection::vec(any::<u8>(), 0..498)) {
            let _ = asked(RelayCommand(command), stream_id, &data);
        }
    }
}
