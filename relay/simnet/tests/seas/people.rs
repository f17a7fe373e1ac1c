//! Clients: they build circuits, talk on streams within their windows, change their minds, leave.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use relay_simnet::client::{Client, Event, Wish};
use relay_simnet::net::Net;
use relay_wire::cell::Command;
use relay_wire::relay_cells::{EndReason, RelayCommand as Relay};

use super::world::{Fate, Plan, World};
use super::{Log, keys};

/// A circuit whose streams are through is kept for so long: a DESTROY that is on its way must have come by then.
const LINGER: Duration = Duration::from_secs(30);

/// How a stream ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The exit said so.
    Told(u8),
    /// The exit answered the question.
    Answered,
    /// The client did.
    Ours,
    /// The circuit was destroyed.
    Destroyed(u8),
    /// The client's link broke.
    Cut,
    /// The client destroyed the circuit, or hung up.
    Left,
}

/// A client's end of a stream.
struct Stream {
    plan: usize,
    began: bool,
    sent: usize,
    received: Vec<u8>,
    window: u32,
    held: bool,
    /// Talks before CONNECTED.
    hasty: bool,
    connected: bool,
    /// Ends the stream itself when so much has come.
    leaves_at: Option<usize>,
    end: Option<End>,
}

/// One circuit of a client.
pub(crate) struct Circuit {
    number: Option<u32>,
    path: Vec<usize>,
    wishes: Vec<Wish>,
    streams: BTreeMap<u16, Stream>,
    window: u32,
    open: bool,
    over: bool,
    /// When all its streams were through.
    through_since: Option<Duration>,
    /// It lived until then, and for a while.
    whole: bool,
}

/// One client.
pub(crate) struct Person {
    pub(crate) client: usize,
    circuits: Vec<Circuit>,
    gone: bool,
}

impl Person {
    /// A client that will build some circuits, through relays of its choice.
    pub(crate) fn new(net: &mut Net, dice: &mut StdRng, plans: &mut Vec<Plan>) -> Self {
        let first = dice.random_range(0..net.relays.len());
        let client = net.connect(Client::new(dice.random()), first);
        let circuits = (0..dice.random_range(1..=3))
            .map(|_| Circuit::plan(first, dice, plans))
            .collect();
        Self {
            client,
            circuits,
            gone: false,
        }
    }

    /// Does what follows from what it has heard.
    pub(crate) fn turn(&mut self, net: &mut Net, dice: &mut StdRng, plans: &[Plan], log: &mut Log) {
        let (client, now) = (self.client, net.now().steady);
        for event in std::mem::take(&mut net.clients[client].events) {
            log.tell(now, &event);
            match event {
                Event::LinkOpen(_) => {
                    for circuit in self.circuits.iter_mut().filter(|circuit| circuit.number.is_none()) {
                        circuit.create(&mut net.clients[self.client]);
                    }
                }
                Event::Extended { circuit, hops } => {
                    if let Some(found) = self.find(circuit) {
                        found.extended(&mut net.clients[client], hops, plans);
                    }
                }
                Event::Message {
                    circuit,
                    hop,
                    command,
                    stream_id,
                    data,
                } => {
                    if let Some(found) = self.find(circuit) {
                        assert_eq!(hop + 1, found.path.len(), "only the last hop has something to say");
                        found.heard(&mut net.clients[client], plans, command, stream_id, &data);
                    }
                }
                Event::Destroyed { circuit, reason } => {
                    // A client that keeps to the rules is never accused of breaking them.
                    assert!((2..=12).contains(&reason), "DESTROY with reason {reason}");
                    if let Some(found) = self.find(circuit) {
                        *log.destroys.entry(reason).or_default() += 1;
                        found.end(End::Destroyed(reason));
                    }
                }
                Event::Padding => {}
                Event::Nonsense(what) => panic!("{what}"),
            }
        }
        if !net.clients_up[self.client] {
            self.end_all(End::Cut);
        }
        for circuit in self.circuits.iter_mut().filter(|circuit| circuit.open && !circuit.over) {
            circuit.talk(&mut net.clients[self.client], dice, plans);
            if !circuit.is_through(plans) {
                continue;
            }
            let since = *circuit.through_since.get_or_insert(now);
            if now >= since + LINGER {
                circuit.whole = true;
                circuit.leave(&mut net.clients[self.client]);
            }
        }
    }

    fn find(&mut self, number: u32) -> Option<&mut Circuit> {
        self.circuits
            .iter_mut()
            .find(|circuit| circuit.number == Some(number) && !circuit.over)
    }

    fn end_all(&mut self, end: End) {
        self.gone = true;
        self.circuits.iter_mut().for_each(|circuit| circuit.end(end));
    }

    /// The link breaks, without a word, by the client's will or not.
    pub(crate) fn hang_up(&mut self, net: &mut Net, end: End) {
        net.hang_up(self.client);
        self.end_all(end);
    }

    /// Gives a circuit up, whatever is going on there.
    pub(crate) fn destroy_some(&mut self, net: &mut Net, dice: &mut StdRng) {
        let at = dice.random_range(0..self.circuits.len());
        if !self.gone {
            self.circuits[at].leave(&mut net.clients[self.client]);
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.circuits.iter().all(|circuit| circuit.over)
    }

    /// Why it is not, for whoever looks for a fault.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        let open = self.circuits.iter().filter(|circuit| !circuit.over);
        open.map(|circuit| {
            let streams: Vec<_> = circuit
                .streams
                .iter()
                .filter(|(_, stream)| stream.end.is_none())
                .map(|(number, stream)| {
                    format!(
                        "{number}: plan {} sent {} received {}",
                        stream.plan,
                        stream.sent,
                        stream.received.len()
                    )
                })
                .collect();
            format!(
                "{:?} through {:?}, open {}: {streams:?}",
                circuit.wishes, circuit.path, circuit.open
            )
        })
        .collect()
    }

    /// Holds what came against what was sent.
    pub(crate) fn check(&self, plans: &[Plan], log: &mut Log) {
        for circuit in &self.circuits {
            for stream in circuit.streams.values().filter(|stream| stream.began) {
                let plan = &plans[stream.plan];
                log.streams += 1;
                log.bytes_down += stream.received.len() as u64;
                log.bytes_up += plan.arrived.len() as u64;
                assert!(
                    plan.download.starts_with(&stream.received),
                    "the client got other bytes"
                );
                assert!(
                    plan.upload.starts_with(&plan.arrived),
                    "the destination got other bytes"
                );
                let complete = stream.received.len() == plan.download.len() && plan.arrived.len() == plan.upload.len();
                match stream.end.expect("all streams have ended") {
                    End::Told(reason) => {
                        *log.ends.entry(reason).or_default() += 1;
                        assert!((1..=14).contains(&reason), "END with reason {reason}");
                        assert!(
                            complete || reason != EndReason::Done as u8,
                            "done, but not all has come"
                        );
                        log.streams_complete += u64::from(complete);
                    }
                    End::Answered => log.streams_complete += 1,
                    End::Ours if stream.leaves_at.is_none() => {
                        assert_eq!(stream.received.len(), plan.download.len());
                        // The circuit went on after its END, in order: so all before it has arrived, unless the destination
                        // broke off meanwhile.
                        assert!(
                            complete || !circuit.whole || plan.fate != Fate::Serve,
                            "plan {}: the destination got {} of {} bytes",
                            stream.plan,
                            plan.arrived.len(),
                            plan.upload.len()
                        );
                        log.streams_complete += u64::from(complete);
                    }
                    End::Ours | End::Left => log.left += 1,
                    End::Cut => log.links_cut += 1,
                    End::Destroyed(_) => {}
                }
            }
        }
    }
}

impl Circuit {
    fn plan(first: usize, dice: &mut StdRng, plans: &mut Vec<Plan>) -> Self {
        let mut path = vec![first];
        if dice.random_ratio(3, 4) {
            while path.len() < 3 {
                let relay = dice.random_range(0..keys().len());
                if !path.contains(&relay) {
                    path.push(relay);
                }
            }
        }
        let wishes = [Wish::Ntor, Wish::NtorV3, Wish::CongestionControl, Wish::Cgo, Wish::Cgo];
        let wishes: Vec<_> = path
            .iter()
            .map(|_| wishes[dice.random_range(0..wishes.len())])
            .collect();
        let streams = (1..=dice.random_range(1..=4)).map(|number| {
            let plan = World::plan(dice, plans, path.len() > 1);
            let all = plans[plan].download.len();
            let stream = Stream {
                plan,
                began: false,
                sent: 0,
                received: Vec::new(),
                window: 500,
                held: false,
                hasty: dice.random(),
                connected: false,
                leaves_at: dice.random_ratio(1, 6).then(|| dice.random_range(0..=all)),
                end: None,
            };
            (number * 7, stream)
        });
        let streams = streams.collect();
        Self {
            number: None,
            path,
            wishes,
            streams,
            window: 0,
            open: false,
            over: false,
            through_since: None,
            whole: false,
        }
    }

    /// Whether all streams have ended, at their destinations too: a DESTROY overtakes what still waits on the way.
    fn is_through(&self, plans: &[Plan]) -> bool {
        self.streams.values().all(|stream| match stream.end {
            // A directory that has been told nothing cannot say which stream has ended.
            Some(End::Ours) => plans[stream.plan].closed || stream.sent == 0,
            end => end.is_some(),
        })
    }

    fn has_congestion_control(&self) -> bool {
        matches!(self.wishes.last(), Some(Wish::CongestionControl | Wish::Cgo))
    }

    fn create(&mut self, client: &mut Client) {
        let fast = self.path.len() == 1 && self.wishes == [Wish::Ntor];
        self.number = Some(match fast {
            true => client.create_fast(),
            false => client.create(&keys()[self.path[0]].hop, self.wishes[0]),
        });
    }

    fn extended(&mut self, client: &mut Client, hops: usize, plans: &[Plan]) {
        let number = self.number.expect("a circuit");
        if let Some(next) = self.path.get(hops) {
            client.extend(number, &keys()[*next].hop, self.wishes[hops]);
            return;
        }
        self.open = true;
        let congestion_control = self.has_congestion_control();
        // With congestion control a client may send more than the first window; it need not.
        self.window = if congestion_control { 124 } else { 1_000 };
        client.acknowledge(number, if congestion_control { 31 } else { 100 }, congestion_control);
        for (stream_id, stream) in &mut self.streams {
            stream.began = true;
            let name = format!("s{}.example", stream.plan);
            let (command, data) = match (hops, plans[stream.plan].question) {
                (1, _) => (Relay::BEGIN_DIR, String::new()),
                (_, true) => (Relay::RESOLVE, format!("{name}\0")),
                (_, false) => (Relay::BEGIN, format!("{name}:80\0")),
            };
            client.send(number, hops - 1, Command::RELAY, command, *stream_id, data.as_bytes());
        }
    }

    fn heard(&mut self, client: &mut Client, plans: &[Plan], command: Relay, stream_id: u16, data: &[u8]) {
        let increment = if self.has_congestion_control() { 31 } else { 100 };
        if stream_id == 0 {
            match command {
                Relay::SENDME => self.window += increment,
                other => panic!("{other:?} for the circuit"),
            }
            return;
        }
        let stream = self.streams.get_mut(&stream_id).expect("a stream of ours");
        if stream.end.is_some() {
            return;
        }
        match command {
            Relay::CONNECTED => assert!(!std::mem::replace(&mut stream.connected, true), "connected twice"),
            Relay::DATA => stream.received.extend(data),
            Relay::END => stream.end = Some(End::Told(data[0])),
            Relay::RESOLVED => stream.end = Some(End::Answered),
            Relay::SENDME => stream.window += 50,
            Relay::XOFF => stream.held = true,
            Relay::XON => stream.held = false,
            other => panic!("{other:?} on a stream"),
        }
        assert!(stream.received.len() <= plans[stream.plan].download.len());
        let leaves = stream.leaves_at.is_some_and(|at| stream.received.len() >= at);
        if stream.end.is_none() && stream.connected && leaves {
            self.end_stream(client, stream_id);
        }
    }

    fn end_stream(&mut self, client: &mut Client, stream_id: u16) {
        let (number, hop) = (self.number.expect("a circuit"), self.path.len() - 1);
        let reason = [EndReason::Done as u8];
        client.send(number, hop, Command::RELAY, Relay::END, stream_id, &reason);
        self.streams.get_mut(&stream_id).expect("a stream").end = Some(End::Ours);
    }

    /// Says what the windows allow.
    fn talk(&mut self, client: &mut Client, dice: &mut StdRng, plans: &[Plan]) {
        let (number, hop) = (self.number.expect("a circuit"), self.path.len() - 1);
        let windows = !self.has_congestion_control();
        let mut ended = Vec::new();
        for (stream_id, stream) in &mut self.streams {
            let plan = &plans[stream.plan];
            if stream.end.is_some() || plan.question {
                continue;
            }
            while (stream.connected || stream.hasty) && !stream.held && stream.sent < plan.upload.len() {
                if self.window == 0 || windows && stream.window == 0 {
                    break;
                }
                let end = plan
                    .upload
                    .len()
                    .min(stream.sent + if dice.random_ratio(1, 20) { 100 } else { 488 });
                let data = &plan.upload[stream.sent..end];
                client.send(number, hop, Command::RELAY, Relay::DATA, *stream_id, data);
                stream.sent = end;
                self.window -= 1;
                stream.window -= u32::from(windows);
            }
            let all = stream.sent == plan.upload.len() && stream.received.len() == plan.download.len();
            // Half of the streams are ended by their client, the others by their destination.
            if all && stream.connected && stream.plan % 2 == 0 {
                ended.push(*stream_id);
            }
        }
        for stream_id in ended {
            self.end_stream(client, stream_id);
        }
    }

    fn leave(&mut self, client: &mut Client) {
        if let Some(number) = self.number.filter(|_| !self.over) {
            client.destroy(number);
        }
        self.end(End::Left);
    }

    fn end(&mut self, end: End) {
        self.over = true;
        for stream in self.streams.values_mut() {
            stream.end.get_or_insert(end);
        }
    }
}
