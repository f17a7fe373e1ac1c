//! Channels: coming up, reading cells, writing them, going down.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use rand::RngExt;
use relay_wire::cell::{CircIdWidth, Command, Frame, Framed, frame};
use relay_wire::channel_cells::{Netinfo, PaddingNegotiate};
use relay_wire::relay_cells::DestroyReason;

use super::{Engine, Verdict};
use crate::channel::handshake::{Cell, Handshake, LinkError, Opened, Step, Surroundings};
use crate::channel::padding::Padding;
use crate::channel::{Channel, HELD_BYTES_MAX, KEEPALIVE_PERIOD, Link};
use crate::circuit::{Seated, Side};
use crate::door::carry::{Listing, Note};
use crate::door::{ChannelFacts, ChannelId, Effect, Now, Outbox, Report, Role};
use crate::keyed;
use crate::mux::Worth;
use crate::slab::Key;
use crate::timers::Alarm;

/// A clock that is so far off is worth a word (tor-spec, "NETINFO cells"; C tor `NETINFO_NOTICE_SKEW`).
const CLOCK_SKEW_SECONDS: i64 = 3_600;
/// An idle channel keeps a buffer of so much at most: two cells (our own number).
const KEPT_BYTES_MAX: usize = 1_028;
/// After a slower handshake a NETINFO's time says nothing.
const PROMPT_HANDSHAKE: Duration = Duration::from_secs(180);

impl Engine {
    pub(super) fn channel_up(&mut self, now: Now, id: ChannelId, facts: ChannelFacts, outbox: &mut Outbox) {
        let (attempt, handshake, control) = match facts.role {
            Role::Responder { credentials } => (None, Some(Handshake::respond(credentials)), Vec::new()),
            Role::Initiator {
                attempt,
                peer_tls_certificate_sha256,
                credentials,
            } => {
                let mut control = Vec::new();
                let handshake = self.attempts.target(attempt).map(|target| {
                    let tls = peer_tls_certificate_sha256;
                    Handshake::initiate(credentials, target.relay, tls, &mut control)
                });
                (Some(attempt), handshake, control)
            }
        };
        // A session that answers no wish of ours, before we know who we are, or while we are leaving.
        let (Some(handshake), Some(_), false) = (handshake, &self.settings, self.retiring) else {
            outbox.effects.push(Effect::Close { channel: id });
            if let Some(attempt) = attempt {
                self.attempt_failed(now, attempt, DestroyReason::ConnectFailed, outbox);
            }
            return;
        };
        let mut channel = Channel::new(id, facts.peer, attempt, now.steady);
        channel.handshake = Some(Box::new(handshake));
        channel.control = control;
        if !channel.control.is_empty() {
            channel.wake(outbox);
        }
        let key = self.channels.insert(channel);
        self.channel_keys.insert(id, key);
        self.look_for_rest();
        self.arm(key, now);
    }

    pub(super) fn channel_down(&mut self, now: Now, id: ChannelId, outbox: &mut Outbox) {
        if let Some(&key) = self.channel_keys.get(&id) {
            self.forget_channel(now, key, outbox);
        }
    }

    /// Ends a channel by our own decision.
    pub(super) fn close_channel(&mut self, now: Now, key: Key, rule: Option<&'static str>, outbox: &mut Outbox) {
        let Some(channel) = self.channels.get(key) else { return };
        let id = channel.id;
        if let Some(rule) = rule {
            self.tally.protocol_violations += 1;
            // Of strangers nothing is said: they could fill the log with it.
            if channel.we_began() || channel.peer().is_some() {
                outbox.effects.push(Effect::Report(Report::ProtocolViolation(rule)));
            }
        }
        self.forget_channel(now, key, outbox);
        outbox.effects.push(Effect::Close { channel: id });
    }

    /// Takes a channel out of all tables and ends its circuits.
    fn forget_channel(&mut self, now: Now, key: Key, outbox: &mut Outbox) {
        let Some(channel) = self.channels.get(key) else { return };
        self.channel_keys.remove(&channel.id);
        keyed::shrink(&mut self.channel_keys);
        let (attempt, open) = (channel.attempt, channel.link.is_some());
        if let Some(link) = &channel.link {
            match &link.peer {
                Some(peer) => {
                    if let Some(home) = self.directory.home_elsewhere(&peer.rsa()) {
                        let (rsa, channel) = (peer.rsa(), channel.id);
                        outbox.carry.to(home).note(Note::ChannelClosed { rsa, channel });
                    }
                    self.relays.remove(peer, key);
                    self.tally.channels_relay_open -= 1;
                }
                None => self.tally.channels_client_open -= 1,
            }
        }
        let mut seats: Vec<_> = channel.seats().collect();
        // A hash map's order is nobody's; a run must be the same each time.
        seats.sort_unstable_by_key(|seat| (seat.circuit, seat.side == Side::Next));
        for seat in seats {
            let gone = Some(DestroyReason::ChannelClosed);
            match seat.side {
                Side::Prev => self.end_circuit(now, seat.circuit, None, gone, outbox),
                Side::Next => self.end_circuit(now, seat.circuit, gone, None, outbox),
                Side::Guest => self.end_guest(now, seat.circuit, gone, None, outbox),
            }
        }
        if let Some(channel) = self.channels.remove(key) {
            self.unread_bytes -= channel.unread_counted as u64;
        }
        if let (Some(attempt), false) = (attempt, open) {
            self.attempt_failed(now, attempt, DestroyReason::ConnectFailed, outbox);
        }
    }

    /// Takes what came, and counts what is left of it: the beginning of a cell.
    pub(super) fn received(&mut self, now: Now, id: ChannelId, bytes: &[u8], outbox: &mut Outbox) {
        let Some(&key) = self.channel_keys.get(&id) else { return };
        let came = bytes.len();
        self.take_cells(now, key, bytes, outbox);
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let (left, counted) = (channel.unread.len(), channel.unread_counted);
        if left != counted + came {
            channel.unread_since = now.steady;
        }
        channel.unread_counted = left;
        self.unread_bytes = self.unread_bytes + left as u64 - counted as u64;
    }

    /// Finds the cells in what came, and handles each where it lies.
    fn take_cells(&mut self, now: Now, key: Key, bytes: &[u8], outbox: &mut Outbox) {
        let mut rest = bytes;
        loop {
            // A cell may have closed the channel.
            let Some(channel) = self.channels.get_mut(key) else {
                return;
            };
            if channel.is_parked() {
                channel.unread.extend_from_slice(rest);
                if channel.unread.len() > HELD_BYTES_MAX {
                    let rule = Some("too much was sent before the link handshake was through");
                    self.carry_out(now, Verdict::CloseChannel { channel: key, rule }, outbox);
                }
                return;
            }
            if channel.unread.is_empty() {
                match frame(rest, channel.width) {
                    Framed::Whole(found) => {
                        let Some((cell, behind)) = rest.split_at_checked(found.ends) else {
                            return;
                        };
                        rest = behind;
                        // Nearly all cells are such: the channel is at hand already.
                        if found.is_relay() && channel.handshake.is_none() {
                            let seat = channel.seat(found.circ_id);
                            let verdict = match (seat, cell.last_chunk()) {
                                (Some(seat), Some(body)) => self.relay_cell(now, seat, found.command, body, outbox),
                                // Its circuit may have been destroyed a moment ago.
                                _ => continue,
                            };
                            self.carry_out(now, verdict, outbox);
                        } else {
                            self.cell(now, key, found, cell, outbox);
                        }
                    }
                    Framed::Short { .. } => {
                        channel.unread.extend_from_slice(rest);
                        return;
                    }
                }
                continue;
            }
            match frame(&channel.unread, channel.width) {
                Framed::Whole(found) => {
                    let mut kept = std::mem::take(&mut channel.unread);
                    if let Some(cell) = kept.get(..found.ends) {
                        self.cell(now, key, found, cell, outbox);
                    }
                    kept.drain(..found.ends);
                    // What a long cell took is given back.
                    if kept.is_empty() && kept.capacity() > KEPT_BYTES_MAX {
                        kept = Vec::new();
                    }
                    if let Some(channel) = self.channels.get_mut(key) {
                        channel.unread = kept;
                    }
                }
                Framed::Short { total_bytes } => {
                    let missing = (total_bytes - channel.unread.len()).min(rest.len());
                    let Some((more, behind)) = rest.split_at_checked(missing) else {
                        return;
                    };
                    if more.is_empty() {
                        return;
                    }
                    channel.unread.extend_from_slice(more);
                    rest = behind;
                }
            }
        }
    }

    /// One whole cell.
    #[inline]
    fn cell(&mut self, now: Now, key: Key, found: Frame, cell: &[u8], outbox: &mut Outbox) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        if channel.handshake.is_some() {
            self.handshake_cell(now, key, found, cell, outbox);
            return;
        }
        let Some(body) = cell.get(found.body_begins..found.ends) else {
            return;
        };
        let verdict = match found.command {
            Command::RELAY | Command::RELAY_EARLY => match (channel.seat(found.circ_id), body.try_into()) {
                (Some(seat), Ok(body)) => self.relay_cell(now, seat, found.command, body, outbox),
                // Its circuit may have been destroyed a moment ago.
                _ => Verdict::Go,
            },
            Command::CREATE_FAST | Command::CREATE2 | Command::CREATE => {
                self.create(now, key, found.circ_id, found.command, body, outbox)
            }
            Command::CREATED2 => self.created(key, found.circ_id, body, outbox),
            Command::CREATED | Command::CREATED_FAST => self.never_asked(key, found.circ_id),
            Command::DESTROY => self.destroyed(key, found.circ_id),
            Command::PADDING_NEGOTIATE => {
                self.negotiate_padding(key, body, now);
                Verdict::Go
            }
            // The handshake is over; C tor closes for these as well.
            Command::NETINFO | Command::CERTS | Command::AUTH_CHALLENGE | Command::AUTHENTICATE => {
                let rule = Some("a cell of the link handshake came after it");
                Verdict::CloseChannel { channel: key, rule }
            }
            // PADDING, VPADDING, VERSIONS, AUTHORIZE, and what nobody knows.
            _ => Verdict::Go,
        };
        self.carry_out(now, verdict, outbox);
    }

    fn handshake_cell(&mut self, now: Now, key: Key, found: Frame, raw: &[u8], outbox: &mut Outbox) {
        let body = raw.get(found.body_begins..found.ends).unwrap_or_default();
        let cell = Cell {
            command: found.command,
            body,
            raw,
        };
        self.handshake_step(now, key, outbox, |state, around| {
            if found.circ_id == 0 {
                state.on_cell(cell, around)
            } else {
                Err(LinkError::OutOfOrder)
            }
        });
    }

    pub(super) fn exported(&mut self, now: Now, id: ChannelId, material: [u8; 32], outbox: &mut Outbox) {
        let Some(&key) = self.channel_keys.get(&id) else { return };
        if !self.channels.get(key).is_some_and(Channel::is_parked) {
            return;
        }
        self.handshake_step(now, key, outbox, |state, around| state.on_exported(material, around));
        // What was held back meanwhile.
        self.received(now, id, &[], outbox);
    }

    fn handshake_step(
        &mut self,
        now: Now,
        key: Key,
        outbox: &mut Outbox,
        step: impl FnOnce(Handshake, &mut Surroundings<'_>) -> Result<Step, LinkError>,
    ) {
        let own: Vec<IpAddr> = self.advertised().iter().map(|address| address.ip()).collect();
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let Some(state) = channel.handshake.take() else { return };
        let mut around = Surroundings {
            wall: now.wall,
            dice: &mut self.dice,
            out: &mut channel.control,
            peer: channel.peer_address.ip(),
            own: &own,
        };
        let verdict = match step(*state, &mut around) {
            Ok(Step::Wait(state)) => {
                channel.wait_in(state);
                Verdict::Go
            }
            Ok(Step::Export(state, context)) => {
                channel.wait_in(state);
                outbox.effects.push(Effect::Export {
                    channel: channel.id,
                    context,
                });
                Verdict::Go
            }
            Ok(Step::Open(opened)) => {
                self.open(now, key, opened, outbox);
                Verdict::Go
            }
            Err(error) => {
                if let (LinkError::OtherIdentity, Some(attempt)) = (&error, channel.attempt) {
                    self.attempt_failed(now, attempt, DestroyReason::OrIdentity, outbox);
                }
                Verdict::CloseChannel {
                    channel: key,
                    rule: Some(error.rule()),
                }
            }
        };
        if let Some(channel) = self.channels.get_mut(key)
            && !channel.control.is_empty()
        {
            channel.wake(outbox);
        }
        self.carry_out(now, verdict, outbox);
    }

    /// The handshake is through: the channel may serve circuits.
    fn open(&mut self, now: Now, key: Key, opened: Opened, outbox: &mut Outbox) {
        let Opened { version, peer, netinfo } = opened;
        let idle_time_max = self.idle_time(peer.is_some());
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let at = channel.peer_address;
        let listed = peer.as_ref().and_then(|peer| self.network.relays.get(&peer.rsa()));
        let canonical = netinfo.own.contains(&at.ip())
            || listed.is_some_and(|relay| relay.addresses.iter().any(|address| address.ip() == at.ip()));
        let parameters = &self.network.parameters;
        let wanted = self
            .settings
            .as_ref()
            .and_then(|settings| settings.extras.connection_padding);
        let client = peer.is_none() && !channel.we_began();
        // param-spec `nf_pad_relays`.
        let all = parameters.clamped("nf_pad_relays", 0, 0, 1) == 1;
        let padded = (client || all && peer.is_some()) && version >= 5 && wanted != Some(false);
        let padding = match padded {
            true => Padding::of_consensus(&self.network.parameters, &mut self.dice),
            false => Padding::Off,
        };
        if let Some(peer) = &peer {
            self.relays.add(peer, key);
            // Where we create no circuits, others need not know of it.
            let home = self.directory.home_elsewhere(&peer.rsa()).filter(|_| version >= 4);
            if let Some(home) = home {
                let listing = Listing {
                    rsa: peer.rsa(),
                    ed25519: peer.ed25519(),
                    channel: channel.id,
                    canonical,
                    address: at.ip(),
                };
                outbox.carry.to(home).note(Note::ChannelOpened(Box::new(listing)));
            }
            self.tally.channels_relay_open += 1;
            let prompt = now.steady.saturating_sub(channel.began) < PROMPT_HANDSHAKE;
            let from_authority = listed.is_some_and(|relay| relay.is_authority);
            if let Some(seconds) = skew(&netinfo, now).filter(|_| prompt) {
                outbox.effects.push(Effect::Report(Report::ClockSkew {
                    seconds,
                    from_authority,
                }));
            }
        } else {
            self.tally.channels_client_open += 1;
        }
        channel.last_needed = now.steady;
        let relay = peer.as_ref().map(|peer| peer.rsa());
        channel.link = Some(Box::new(Link {
            version,
            peer,
            canonical,
            sees_us_at: netinfo.other,
            idle_time_max,
            padding,
            reachability_reported: false,
        }));
        let (attempt, id) = (channel.attempt, channel.id);
        outbox.effects.push(Effect::Opened { channel: id, relay });
        self.arm(key, now);
        if let Some(attempt) = attempt {
            self.attempt_succeeded(now, attempt, key, outbox);
        }
    }

    /// How long a channel without circuits lives: relays param-spec `nf_conntimeout_relays` and a quarter more or less,
    /// others 180 to 270 s (C tor `channelpadding_get_channel_idle_timeout`).
    fn idle_time(&mut self, relay: bool) -> Duration {
        if !relay {
            return Duration::from_secs(self.dice.random_range(180..=270));
        }
        let seconds = self
            .network
            .parameters
            .clamped("nf_conntimeout_relays", 3_600, 60, 604_800) as u64;
        Duration::from_millis(self.dice.random_range(seconds * 750..=seconds * 1_250))
    }

    /// Only a client may wish for padding, only from link version 5 on; whatever else comes is passed over.
    fn negotiate_padding(&mut self, key: Key, body: &[u8], now: Now) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let began = channel.we_began();
        let Some(link) = channel.link.as_mut() else { return };
        let off = self
            .settings
            .as_ref()
            .is_some_and(|settings| settings.extras.connection_padding == Some(false));
        if began || link.peer.is_some() || link.version < 5 || off {
            return;
        }
        if let Ok(wish) = PaddingNegotiate::read(body) {
            link.padding = Padding::negotiated(wish, &self.network.parameters, &mut self.dice);
            self.arm(key, now);
        }
    }

    pub(super) fn writable(&mut self, now: Now, id: ChannelId, room_bytes_max: usize, outbox: &mut Outbox) {
        outbox.written.clear();
        outbox.more = false;
        let Some(&key) = self.channel_keys.get(&id) else { return };
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let mut seated = Seated {
            circuits: &mut self.circuits,
            guests: &mut self.guests,
        };
        let worth = Worth::at(now.steady, self.priority_halflife);
        channel.write((now.steady, worth), room_bytes_max, &mut self.pool, &mut seated, outbox);
        self.tell_written(key, outbox);
        self.queues_shrank(now, key, outbox);
    }

    pub(super) fn timeout(&mut self, now: Now, outbox: &mut Outbox) {
        while let Some(alarm) = self.timers.pop(now.steady) {
            match alarm {
                Alarm::Channel(key) => self.channel_alarm(now, key, outbox),
                Alarm::Attempt(attempt) => {
                    self.attempt_failed(now, attempt, DestroyReason::ConnectFailed, outbox);
                }
                Alarm::OnionQueue => {
                    self.onion_alarm = None;
                    self.feed_workers(now, outbox);
                }
                Alarm::CircuitPadding(circuit) => self.circuit_padding_alarm(now, circuit, outbox),
                Alarm::Resting => self.resting_alarm(now.steady),
                Alarm::Stream(stream) => self.stream_alarm(now, stream, outbox),
            }
        }
    }

    /// Sets the channel's alarm, unless an earlier one is set: that one will set the next.
    fn arm(&mut self, key: Key, now: Now) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let at = channel.next_alarm().max(now.steady + Duration::from_millis(1));
        if channel.alarm_at.is_none_or(|set| at < set) {
            channel.alarm_at = Some(at);
            self.timers.set(at, Alarm::Channel(key));
        }
    }

    fn channel_alarm(&mut self, now: Now, key: Key, outbox: &mut Outbox) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        // An alarm that an earlier one has replaced.
        if channel.alarm_at.is_none_or(|set| set > now.steady) {
            return;
        }
        channel.alarm_at = None;
        if channel.next_alarm() <= now.steady {
            let Some(link) = channel.link.as_mut() else {
                self.carry_out(
                    now,
                    Verdict::CloseChannel {
                        channel: key,
                        rule: None,
                    },
                    outbox,
                );
                return;
            };
            let padding_due = link.padding.due(channel.last_sent).is_some_and(|due| due <= now.steady);
            link.padding = link.padding.redrawn(&mut self.dice);
            if channel.is_idle(now.steady) {
                self.carry_out(
                    now,
                    Verdict::CloseChannel {
                        channel: key,
                        rule: None,
                    },
                    outbox,
                );
                return;
            }
            if padding_due || channel.last_sent + KEEPALIVE_PERIOD <= now.steady {
                channel.pad(outbox);
                channel.last_sent = now.steady;
            }
        }
        self.arm(key, now);
    }
}

impl Channel {
    fn wait_in(&mut self, state: Handshake) {
        if let Some(version) = state.version() {
            self.width = CircIdWidth::of_version(version);
        }
        self.handshake = Some(Box::new(state));
    }
}

/// How far the peer's clock is off, if it tells and it is far.
fn skew(netinfo: &Netinfo, now: Now) -> Option<i64> {
    let ours = now.wall.duration_since(UNIX_EPOCH).ok()?.as_secs() as i64;
    let seconds = i64::from(netinfo.timestamp) - ours;
    (netinfo.timestamp != 0 && seconds.abs() >= CLOCK_SKEW_SECONDS).then_some(seconds)
}
