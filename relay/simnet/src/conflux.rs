//! The client's side of conflux: several circuits to one exit that carry one set of streams (proposal 329).

use std::collections::BTreeMap;

use relay_wire::cell::Command;
use relay_wire::conflux::{DesiredUx, Link, NONCE_BYTES, read_switch, write_switch};
use relay_wire::relay_cells::RelayCommand;

use crate::client::{Client, Event};

/// Command, stream, data.
pub type Said = (RelayCommand, u16, Vec<u8>);

/// One circuit of a set.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Which client's: one person may have several links.
    pub client: usize,
    /// Which circuit.
    pub circuit: u32,
    /// Its last hop.
    pub hop: usize,
    /// Whether LINKED has come.
    pub linked: bool,
    /// DATA that came over it.
    pub data_cells: u64,
    /// SWITCHes that came over it.
    pub switches: u64,
    last_sent: u64,
    last_received: u64,
}

/// A set, as its client has it.
#[derive(Clone, Debug)]
pub struct Legs {
    /// Its name.
    pub nonce: [u8; NONCE_BYTES],
    /// Its circuits.
    pub legs: Vec<Leg>,
    current: Option<usize>,
    delivered: u64,
    waiting: BTreeMap<u64, Said>,
    /// What the exit did against the rules.
    pub faults: Vec<&'static str>,
}

impl Legs {
    /// A set without circuits.
    pub fn new(nonce: [u8; NONCE_BYTES]) -> Self {
        Self {
            nonce,
            legs: Vec::new(),
            current: None,
            delivered: 0,
            waiting: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    /// Asks the exit to take one more circuit into the set; tells the leg's number.
    pub fn link(&mut self, clients: &mut [Client], client: usize, circuit: u32, desired_ux: DesiredUx) -> usize {
        let hop = clients
            .get(client)
            .map_or(0, |client| client.hops(circuit).saturating_sub(1));
        let link = Link {
            nonce: self.nonce,
            last_seqno_sent: self.legs.iter().map(|leg| leg.last_sent).max().unwrap_or(0),
            last_seqno_received: self.delivered,
            desired_ux,
        };
        self.legs.push(Leg {
            client,
            circuit,
            hop,
            linked: false,
            data_cells: 0,
            switches: 0,
            last_sent: 0,
            last_received: 0,
        });
        let leg = self.legs.len() - 1;
        self.raw(clients, leg, RelayCommand::CONFLUX_LINK, 0, &link.write());
        leg
    }

    /// A message on one leg, whatever its number.
    pub fn raw(&self, clients: &mut [Client], leg: usize, command: RelayCommand, stream_id: u16, data: &[u8]) {
        let Some(leg) = self.legs.get(leg) else { return };
        if let Some(client) = clients.get_mut(leg.client) {
            client.send(leg.circuit, leg.hop, Command::RELAY, command, stream_id, data);
        }
    }

    /// A message of a stream over a leg, behind SWITCH if the last one went over another.
    pub fn say(&mut self, clients: &mut [Client], leg: usize, command: RelayCommand, stream_id: u16, data: &[u8]) {
        let reached = self
            .current
            .and_then(|current| self.legs.get(current))
            .map(|leg| leg.last_sent);
        let reached = reached.unwrap_or(0);
        let Some(state) = self.legs.get_mut(leg) else { return };
        let behind = reached.saturating_sub(state.last_sent);
        state.last_sent = reached + 1;
        self.current = Some(leg);
        if behind > 0 {
            let by = write_switch(u32::try_from(behind).unwrap_or(u32::MAX));
            self.raw(clients, leg, RelayCommand::CONFLUX_SWITCH, 0, &by);
        }
        self.raw(clients, leg, command, stream_id, data);
    }

    /// Takes what a client learnt. LINKED is answered. Gives back what is about none of the set's streams.
    pub fn hear(&mut self, clients: &mut [Client], client: usize, event: Event) -> Option<Event> {
        let found = match &event {
            Event::Message { circuit, .. } => {
                let mut legs = self.legs.iter();
                legs.position(|leg| leg.client == client && leg.circuit == *circuit)
            }
            _ => None,
        };
        let (
            Some(at),
            Event::Message {
                command,
                stream_id,
                data,
                ..
            },
        ) = (found, &event)
        else {
            return Some(event);
        };
        let Some(leg) = self.legs.get_mut(at) else {
            return Some(event);
        };
        match *command {
            RelayCommand::CONFLUX_LINKED => {
                match Link::read(data) {
                    Ok(told) if told.nonce == self.nonce && told.desired_ux == DesiredUx::MinLatency => {
                        leg.linked = true;
                        (leg.last_received, leg.last_sent) = (told.last_seqno_sent, told.last_seqno_received);
                    }
                    _ => self.faults.push("LINKED of another set"),
                }
                self.raw(clients, at, RelayCommand::CONFLUX_LINKED_ACK, 0, &[]);
                None
            }
            RelayCommand::CONFLUX_SWITCH => {
                leg.switches += 1;
                match read_switch(data) {
                    Ok(0) | Err(_) => self.faults.push("SWITCH by nothing"),
                    Ok(by) => leg.last_received += u64::from(by),
                }
                None
            }
            RelayCommand::DATA
            | RelayCommand::END
            | RelayCommand::CONNECTED
            | RelayCommand::RESOLVED
            | RelayCommand::XON
            | RelayCommand::XOFF => {
                leg.last_received += 1;
                leg.data_cells += u64::from(*command == RelayCommand::DATA);
                let number = leg.last_received;
                if number <= self.delivered || self.waiting.contains_key(&number) {
                    self.faults.push("a number twice");
                }
                self.waiting.insert(number, (*command, *stream_id, data.clone()));
                None
            }
            _ => Some(event),
        }
    }

    /// What the exit said of streams, in its order; what still waits for something before it stays.
    pub fn delivered(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(next) = self.waiting.remove(&(self.delivered + 1)) {
            self.delivered += 1;
            said.push(next);
        }
        said
    }

    /// Messages that wait for something before them.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
