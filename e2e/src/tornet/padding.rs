//! What C tor's client says of padding machines on its circuits, in a log of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What C tor calls its machine for circuits to introduction points.
pub const INTRODUCTION: &str = "client_ip_circ";
/// And the one for circuits to rendezvous points.
pub const RENDEZVOUS: &str = "client_rp_circ";

/// The torrc line that has a client of C tor's tell of padding, and where.
pub fn told_in(folder: &Path, client: &str) -> (String, PathBuf) {
    let log = folder.join("node").join(client).join("padding.log");
    (format!("Log [circ]info file {}", log.display()), log)
}

/// What became of the machines of one circuit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Padded {
    /// What C tor calls the newest one.
    pub machine: String,
    /// PADDING_NEGOTIATE with START that were sent.
    pub asked: u32,
    /// PADDING_NEGOTIATED with ERR.
    pub refused: u32,
    /// PADDING_NEGOTIATED with STOP: the relay has sent all, or heard ours.
    pub ended: u32,
    /// DROP cells sent by the client.
    pub sent: u32,
    /// DROP cells that came from the hop that was asked.
    pub came: u32,
}

/// All circuits of which the log says that a machine was put on them, by C tor's number.
///
/// # Errors
/// There is no log.
pub fn read(log: &Path) -> anyhow::Result<BTreeMap<u64, Padded>> {
    let text = fs::read(log).with_context(|| format!("no log {}", log.display()))?;
    Ok(of_lines(&String::from_utf8_lossy(&text)))
}

fn of_lines(text: &str) -> BTreeMap<u64, Padded> {
    let mut circuits: BTreeMap<u64, Padded> = BTreeMap::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Registering machine ") {
            let mut words = rest.split(' ');
            let (machine, number) = (words.next().unwrap_or_default(), number_after(rest, "to origin circ "));
            if let Some(number) = number {
                circuits.entry(number).or_default().machine = machine.to_owned();
            }
            continue;
        }
        let mut count = |words: &str, of: fn(&mut Padded) -> &mut u32| {
            let number = number_after(line, words);
            if let Some(circuit) = number.and_then(|number| circuits.get_mut(&number)) {
                *of(circuit) += 1;
            }
        };
        if line.contains(", command 2, ") {
            count("Negotiating padding on circuit ", |circuit| &mut circuit.asked);
        }
        count("did not accept our padding request on circuit ", |circuit| {
            &mut circuit.refused
        });
        count("Received STOP command on PADDING_NEGOTIATED for circuit ", |circuit| {
            &mut circuit.ended
        });
        count("Callback: Sending padding to origin circuit ", |circuit| {
            &mut circuit.sent
        });
        count("Got padding cell on origin circuit ", |circuit| &mut circuit.came);
    }
    circuits
}

fn number_after(line: &str, words: &str) -> Option<u64> {
    let (_, rest) = line.split_once(words)?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_log_tells_what_came_of_each_machine() {
        let log = "Nov 22 [info] circpad_setup_machine_on_circ(): Registering machine client_ip_circ to origin circ 14 (7)\n\
                   Nov 22 [info] circpad_negotiate_padding(): Negotiating padding on circuit 14 (7), command 2, for ctr 1\n\
                   Nov 22 [info] circpad_deliver_recognized_relay_cell_events(): Got padding cell on origin circuit 14.\n\
                   Nov 22 [info] circpad_deliver_recognized_relay_cell_events(): Got padding cell on origin circuit 14.\n\
                   Nov 22 [info] circpad_handle_padding_negotiated(): Received STOP command on PADDING_NEGOTIATED for circuit 14\n\
                   Nov 22 [info] circpad_setup_machine_on_circ(): Registering machine client_rp_circ to origin circ 2 (12)\n\
                   Nov 22 [info] circpad_negotiate_padding(): Negotiating padding on circuit 2 (12), command 2, for ctr 1\n\
                   Nov 22 [info] circpad_send_padding_cell_for_callback(): Callback: Sending padding to origin circuit 2 (12) [length: 0]\n\
                   Nov 22 [warn] circpad_handle_padding_negotiated(): Middle node did not accept our padding request on circuit 2 (12)\n\
                   Nov 22 [info] circpad_negotiate_padding(): Negotiating padding on circuit 2 (12), command 1, for ctr 1\n\
                   Nov 22 [info] circpad_deliver_recognized_relay_cell_events(): Got padding cell on origin circuit 3.\n";
        let circuits = of_lines(log);
        let expected = [
            (
                2,
                Padded {
                    machine: RENDEZVOUS.into(),
                    asked: 1,
                    refused: 1,
                    sent: 1,
                    ..Padded::default()
                },
            ),
            (
                14,
                Padded {
                    machine: INTRODUCTION.into(),
                    asked: 1,
                    ended: 1,
                    came: 2,
                    ..Padded::default()
                },
            ),
        ];
        assert_eq!(circuits, expected.into());
    }
}
