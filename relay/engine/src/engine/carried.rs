//! What other shards have to say.

use relay_wire::cell::BODY_BYTES;

use super::{Engine, Verdict};
use crate::door::carry::{Load, Note, ShardId};
use crate::door::{Now, Outbox};

impl Engine {
    /// Takes all of a load, in order.
    pub(super) fn carried(&mut self, now: Now, from: ShardId, load: &mut Load, outbox: &mut Outbox) {
        let Load { notes, bodies } = load;
        let mut rest = bodies.as_slice();
        for note in notes.drain(..) {
            let verdict = match note {
                Note::Forward { guest, command } => match next_body(&mut rest) {
                    Some(body) => self.forward_carried(from, guest, command, body, outbox),
                    None => Verdict::Go,
                },
                Note::Backward {
                    circuit,
                    guest,
                    command,
                } => match next_body(&mut rest) {
                    Some(body) => self.backward_carried(from, (circuit, guest), command, body, outbox),
                    None => Verdict::Go,
                },
                Note::Crossed { circuit, other } => match next_body(&mut rest) {
                    Some(body) => self.crossed_over(from, circuit, other, body, outbox),
                    None => Verdict::Go,
                },
                Note::LegReceived { set, circuit, format } => match next_body(&mut rest) {
                    Some(body) => self.leg_received(now, from, (set, circuit), format, body, outbox),
                    None => Verdict::Go,
                },
                Note::LegSends { circuit, set } => match next_body(&mut rest) {
                    Some(body) => self.leg_sends(now, from, (circuit, set), body, outbox),
                    None => Verdict::Go,
                },
                other => self.heard(now, from, other, outbox),
            };
            self.carry_out(now, verdict, outbox);
        }
        bodies.clear();
    }

    /// All that is no cell.
    fn heard(&mut self, now: Now, from: ShardId, note: Note, outbox: &mut Outbox) -> Verdict {
        match note {
            Note::ForwardWritten { circuit, guest, cells } => self.forward_written(from, circuit, guest, cells),
            Note::BackwardWritten { guest, cells } => self.backward_written(from, guest, cells),
            Note::Housed { circuit, visit, guest } => self.housed(from, circuit, visit, guest, outbox),
            Note::ChannelOpened(listing) => self.directory.add(from, *listing),
            Note::ChannelClosed { rsa, channel } => self.directory.remove(from, &rsa, channel),
            Note::CrossedWritten { circuit, other, cells } => self.crossed_written(from, circuit, other, cells),
            Note::Errand(errand) => self.run(now, *errand, outbox),
            Note::Conflux(errand) => self.run_conflux(now, from, *errand, outbox),
            Note::Extend(wish) => return self.wished(now, wish, outbox),
            Note::Created { circuit, guest, reply } => {
                return self.created_abroad(from, circuit, guest, &reply, outbox);
            }
            Note::Ended { circuit, guest, reason } => return self.ended_abroad(from, circuit, guest, reason),
            Note::Leave { guest, told } => return self.guest_leaves(from, guest, told),
            // All look at their memory after each input.
            Note::MemoryFull => {}
            // Their bodies are taken above.
            Note::Forward { .. }
            | Note::Backward { .. }
            | Note::Crossed { .. }
            | Note::LegReceived { .. }
            | Note::LegSends { .. } => {}
        }
        Verdict::Go
    }
}

fn next_body<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8; BODY_BYTES]> {
    let (body, behind) = rest.split_first_chunk::<BODY_BYTES>()?;
    *rest = behind;
    Some(body)
}
