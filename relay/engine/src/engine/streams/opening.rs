//! A stream begins, or does not: what a client asks for, and how the driver answers.

use relay_wire::destination::{Destination, NameRule};
use relay_wire::relay_cells::{DestroyReason, EndReason, RelayCommand, RelayMessage};
use relay_wire::stream::{self as bodies, Answer, Begin, Resolve};

use super::super::{Engine, Verdict};
use super::{desk_of, wake};
use crate::door::{ClientAddress, Effect, Host, Now, Outbox, Question, Refusal, StreamId, Target};
use crate::dos::StreamDefense;
use crate::stream::{Owner, STREAMS_MAX, Stage, Stream};

impl Engine {
    /// BEGIN, BEGIN_DIR and RESOLVE, in the order of C tor's checks (`connection_exit_begin_conn`).
    pub(in super::super) fn begin(
        &mut self,
        now: Now,
        owner: Owner,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Verdict {
        if let Owner::Circuit(key) = owner
            && let Some(circuit) = self.circuits.get_mut(key)
        {
            circuit.edge(&self.network.parameters);
        }
        let rules = self.dos.streams.filter(|_| message.command != RelayCommand::BEGIN_DIR);
        let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) else {
            return Verdict::Go;
        };
        if desk.by_number.contains_key(&message.stream_id) {
            self.tally.stray_stream_cells += 1;
            return Verdict::Go;
        }
        let defense = rules
            .filter(|rules| !desk.may_open(now.steady, rules))
            .map(|rules| rules.defense);
        let (rate, full) = (desk.rate, desk.by_number.len() >= STREAMS_MAX);
        self.tally.dos_streams_rejected += u64::from(defense.is_some());
        match defense {
            Some(StreamDefense::CloseCircuit) => return Verdict::end_owner(owner, DestroyReason::ResourceLimit),
            Some(StreamDefense::Refuse) => return self.decline(owner, message, outbox),
            Some(StreamDefense::Nothing) | None => {}
        }
        if full {
            // RESOURCELIMIT would make clients shun us for good.
            return self.decline(owner, message, outbox);
        }
        let wish = match self.wish(owner, message) {
            Ok(wish) => wish,
            Err(_) if message.command == RelayCommand::RESOLVE => {
                let body = bodies::resolved([Answer::PermanentError]);
                return self.say(
                    owner,
                    RelayCommand::RESOLVED,
                    message.stream_id,
                    body.as_bytes(),
                    outbox,
                );
            }
            Err(reason) => return self.say_end(owner, message.stream_id, reason, outbox),
        };
        let stage = match wish {
            Wish::Resolve(_) => Stage::Asking,
            Wish::Open(_) | Wish::Directory(_) => Stage::Opening,
        };
        let stream = self.streams.insert(Stream::new(owner, message.stream_id, stage, rate));
        if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
            desk.by_number.insert(message.stream_id, stream);
        }
        self.tally.streams_begun += 1;
        match &wish {
            Wish::Open(_) => {}
            Wish::Directory(_) => self.tally.streams_directory += 1,
            Wish::Resolve(_) => self.tally.streams_resolve += 1,
        }
        outbox.effects.push(match wish {
            Wish::Open(target) => Effect::OpenStream { stream, target },
            Wish::Directory(asker) => Effect::OpenDirectory { stream, asker },
            Wish::Resolve(question) => Effect::Resolve { stream, question },
        });
        Verdict::Go
    }

    /// There are too many streams. A question is answered in its own kind, as C tor answers it.
    fn decline(&mut self, owner: Owner, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        if message.command != RelayCommand::RESOLVE {
            return self.say_end(owner, message.stream_id, EndReason::Misc, outbox);
        }
        let body = bodies::resolved([Answer::TransientError]);
        self.say(
            owner,
            RelayCommand::RESOLVED,
            message.stream_id,
            body.as_bytes(),
            outbox,
        )
    }

    /// What the client wants, if it may.
    fn wish(&self, owner: Owner, message: &RelayMessage<'_>) -> Result<Wish, EndReason> {
        let Some(settings) = &self.settings else {
            return Err(EndReason::Internal);
        };
        if self.retiring {
            return Err(EndReason::Hibernating);
        }
        let rule = match settings.services.any_printable_name {
            true => NameRule::Printable,
            false => NameRule::Rfc953,
        };
        match message.command {
            RelayCommand::BEGIN_DIR => Ok(Wish::Directory(self.client_of(owner))),
            RelayCommand::RESOLVE => match Resolve::read(message.data, rule) {
                Ok(Resolve::Forward(host)) => Ok(Wish::Resolve(Question::Forward(owned(host)))),
                Ok(Resolve::Reverse(address)) => Ok(Wish::Resolve(Question::Reverse(address))),
                Err(_) => Err(EndReason::ResolveFailed),
            },
            _ => {
                let begin = Begin::read(message.data, rule).map_err(|bad| bad.reason())?;
                self.may_leave(owner)?;
                Ok(Wish::Open(Target {
                    host: owned(begin.destination),
                    port: begin.port,
                    flags: begin.flags,
                }))
            }
        }
    }

    /// Where the client sits, if it is before us.
    fn client_of(&self, owner: Owner) -> Option<ClientAddress> {
        let Owner::Circuit(key) = owner else { return None };
        let channel = self.channels.get(self.circuits.get(key)?.prev.channel)?;
        let address = ClientAddress(channel.peer_address.ip());
        channel.peer().is_none().then_some(address)
    }

    /// Nobody may use us as a proxy of one hop; nor may who is no relay of the network, where it says so. Of a set all legs
    /// must be right.
    fn may_leave(&self, owner: Owner) -> Result<(), EndReason> {
        let peers = match owner {
            Owner::Circuit(key) => {
                let circuit = self.circuits.get(key).ok_or(EndReason::Internal)?;
                let peer = self
                    .channels
                    .get(circuit.prev.channel)
                    .and_then(|channel| channel.peer());
                vec![peer.map(|peer| peer.rsa())]
            }
            Owner::Set(key) => {
                let set = self.sets.get(key).ok_or(EndReason::Internal)?;
                set.legs().iter().map(|leg| leg.peer).collect()
            }
        };
        for peer in peers {
            let peer = peer.ok_or(EndReason::TorProtocol)?;
            if !self.network.relays.contains_key(&peer) && self.refuses_unknown_exits() {
                return Err(EndReason::Misc);
            }
        }
        Ok(())
    }

    /// torrc `RefuseUnknownExits`, or param-spec `refuseunknownexits`.
    fn refuses_unknown_exits(&self) -> bool {
        let own = self
            .settings
            .as_ref()
            .and_then(|settings| settings.services.refuse_unknown_exits);
        own.unwrap_or_else(|| self.network.parameters.clamped("refuseunknownexits", 1, 0, 1) == 1)
    }

    /// The driver's answer: open.
    pub(in super::super) fn stream_connected(
        &mut self,
        now: Now,
        id: StreamId,
        address: Option<(std::net::IpAddr, u32)>,
        outbox: &mut Outbox,
    ) {
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.stage == Stage::Opening) else {
            return;
        };
        stream.stage = Stage::Open;
        let (owner, number) = (stream.owner, stream.number);
        wake(id, stream, outbox);
        let body = address.map(|(address, ttl_seconds)| bodies::connected(address, ttl_seconds));
        let data = body.as_ref().map(|body| body.as_bytes()).unwrap_or_default();
        let verdict = self.say(owner, RelayCommand::CONNECTED, number, data, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// The driver's answer: not to be.
    pub(in super::super) fn stream_refused(&mut self, now: Now, id: StreamId, refusal: Refusal, outbox: &mut Outbox) {
        let Some(stream) = self.forget_stream(id) else { return };
        let verdict = match (stream.stage, refusal) {
            (Stage::Asking, _) => {
                let body = bodies::resolved([Answer::TransientError]);
                self.say(
                    stream.owner,
                    RelayCommand::RESOLVED,
                    stream.number,
                    body.as_bytes(),
                    outbox,
                )
            }
            (_, Refusal::Reason(reason)) => self.say_end(stream.owner, stream.number, reason, outbox),
            (_, Refusal::ExitPolicy { address, ttl_seconds }) => {
                let body = bodies::end_exit_policy(address, ttl_seconds);
                self.say(stream.owner, RelayCommand::END, stream.number, body.as_bytes(), outbox)
            }
        };
        self.carry_out(now, verdict, outbox);
    }

    /// The driver's answer to a question.
    pub(in super::super) fn stream_resolved(
        &mut self,
        now: Now,
        id: StreamId,
        answers: &[Answer<'_>],
        outbox: &mut Outbox,
    ) {
        if self
            .streams
            .get_mut(id)
            .is_none_or(|stream| stream.stage != Stage::Asking)
        {
            return;
        }
        let Some(stream) = self.forget_stream(id) else { return };
        let body = bodies::resolved(answers.iter().copied());
        let verdict = self.say(
            stream.owner,
            RelayCommand::RESOLVED,
            stream.number,
            body.as_bytes(),
            outbox,
        );
        self.carry_out(now, verdict, outbox);
    }
}

/// What a client wants of us.
enum Wish {
    Open(Target),
    Directory(Option<ClientAddress>),
    Resolve(Question),
}

fn owned(destination: Destination<'_>) -> Host {
    match destination {
        Destination::Address(address) => Host::Address(address),
        Destination::Name(name) => Host::Name(name.into()),
    }
}
