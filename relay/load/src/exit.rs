//! Streams that end at the relay under test: we are the relay before it, the client behind that, and the destination.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use relay_simnet::client::{Client, Event, Wish};
use relay_wire::cell::Command;
use relay_wire::relay_cells::RelayCommand;
use serde::Serialize;

use crate::handshake::Part;
use crate::net::Net;
use crate::source::{Pattern, Totals, listen};
use crate::target::Target;

/// Cells for one SENDME (param-spec, `cc_sendme_inc`).
const CELLS_PER_SENDME: u16 = 31;

/// Cells under way on a circuit when we send: the relay enforces none.
const WINDOW_CELLS: u64 = 31 * 16;

/// Bytes of a stream in a DATA cell of the V1 format.
const DATA_BYTES: usize = 488;

/// No byte for so long is a failure.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What goes through.
#[derive(clap::Args)]
pub(crate) struct Exit {
    /// Bytes in total, each time
    #[arg(long, default_value_t = 200 << 20)]
    bytes: u64,
    #[arg(long, default_value_t = 32)]
    streams: usize,
    /// Over which the streams are spread
    #[arg(long, default_value_t = 32)]
    circuits: usize,
    /// From the destination to the client; otherwise from the client
    #[arg(long)]
    down: bool,
}

#[derive(Serialize)]
struct Ready {
    circuits: usize,
    streams: usize,
}

#[derive(Serialize)]
struct Carried {
    bytes: u64,
    /// Of DATA.
    cells: u64,
    seconds: f64,
}

struct Stream {
    circuit: usize,
    id: u16,
    connected: bool,
    offset: u64,
}

struct Circuit {
    id: u32,
    under_way: u64,
}

struct Load {
    client: Client,
    circuits: Vec<Circuit>,
    streams: Vec<Stream>,
    pattern: Pattern,
    totals: Arc<Totals>,
    received: u64,
    cells: u64,
    acknowledged: u64,
}

pub(crate) fn run(mut net: Net, target: &Target, exit: &Exit) -> Result<()> {
    ensure!(
        exit.circuits > 0 && exit.streams >= exit.circuits,
        "a circuit without a stream"
    );
    net.connect(target, Part::Relay)?;
    net.until("a link", |net| Ok(net.links.iter().all(|link| link.is_open())))?;
    let totals = Arc::new(Totals::default());
    let destination = listen(net.before().address.ip(), exit.down, Arc::clone(&totals))?;
    let mut load = Load::new(totals)?;
    load.build(&mut net, target, exit)?;
    load.open_streams(&mut net, exit, destination)?;
    let ready = Ready {
        circuits: exit.circuits,
        streams: exit.streams,
    };
    crate::serve(&ready, || {
        if exit.down {
            load.down(&mut net, exit)
        } else {
            load.up(&mut net, exit)
        }
    })
}

impl Load {
    fn new(totals: Arc<Totals>) -> Result<Self> {
        Ok(Self {
            client: crate::onion::client()?,
            circuits: Vec::new(),
            streams: Vec::new(),
            pattern: Pattern::new(),
            totals,
            received: 0,
            cells: 0,
            acknowledged: 0,
        })
    }

    fn build(&mut self, net: &mut Net, target: &Target, exit: &Exit) -> Result<()> {
        for _ in 0..exit.circuits {
            let id = self.client.create(&target.hop(), Wish::Cgo);
            self.circuits.push(Circuit { id, under_way: 0 });
        }
        net.until("circuits", |net| {
            self.turn(net)?;
            Ok(self.circuits.iter().all(|circuit| self.client.hops(circuit.id) == 1))
        })?;
        for circuit in &self.circuits {
            self.client.acknowledge(circuit.id, CELLS_PER_SENDME, true);
        }
        Ok(())
    }

    fn open_streams(&mut self, net: &mut Net, exit: &Exit, destination: SocketAddr) -> Result<()> {
        let mut begin = destination.to_string().into_bytes();
        begin.extend([0; 5]);
        for number in 0..exit.streams {
            let circuit = number % exit.circuits;
            let id = u16::try_from(number + 1)?;
            let on = self.circuits.get(circuit).context("no such circuit")?.id;
            self.client.send(on, 0, Command::RELAY, RelayCommand::BEGIN, id, &begin);
            self.streams.push(Stream {
                circuit,
                id,
                connected: false,
                offset: 0,
            });
        }
        net.until("streams", |net| {
            self.turn(net)?;
            Ok(self.streams.iter().all(|stream| stream.connected))
        })
    }

    /// What the relay said goes to the client, what the client says to the relay.
    fn turn(&mut self, net: &mut Net) -> Result<()> {
        let link = net.links.first_mut().context("no link")?;
        let bytes = link.take_plain();
        if !bytes.is_empty() {
            self.client.receive(&bytes);
        }
        for event in std::mem::take(&mut self.client.events) {
            match event {
                Event::Message {
                    circuit,
                    command,
                    stream_id,
                    data,
                    ..
                } => self.on_message(circuit, command, stream_id, &data)?,
                Event::Destroyed { reason, .. } => bail!("the relay destroyed a circuit, reason {reason}"),
                Event::Nonsense(what) => bail!("the relay said something odd: {what}"),
                Event::LinkOpen(_) | Event::Extended { .. } | Event::Padding => {}
            }
        }
        link.out.append(&mut self.client.output);
        Ok(())
    }

    fn on_message(&mut self, circuit: u32, command: RelayCommand, stream_id: u16, data: &[u8]) -> Result<()> {
        let stream = self.streams.get_mut(usize::from(stream_id).wrapping_sub(1));
        match (command, stream) {
            (RelayCommand::CONNECTED, Some(stream)) => stream.connected = true,
            (RelayCommand::DATA, Some(stream)) => {
                ensure!(
                    data == self.pattern.at(stream.offset, data.len()),
                    "stream {stream_id} changed under way at byte {}",
                    stream.offset
                );
                stream.offset += data.len() as u64;
                self.received += data.len() as u64;
                self.cells += 1;
            }
            (RelayCommand::END, _) => bail!("stream {stream_id} ended, reason {:?}", data.first()),
            (RelayCommand::SENDME, _) if stream_id == 0 => {
                let found = self.circuits.iter_mut().find(|found| found.id == circuit);
                let found = found.context("a SENDME for no circuit")?;
                found.under_way = found.under_way.saturating_sub(u64::from(CELLS_PER_SENDME));
                self.acknowledged += u64::from(CELLS_PER_SENDME);
            }
            _ => {}
        }
        Ok(())
    }

    /// The destination gives without end; what comes beyond the bytes asked for counts for the next time.
    fn down(&mut self, net: &mut Net, exit: &Exit) -> Result<Carried> {
        let (cells, until) = (self.cells, self.received + exit.bytes);
        let before = self.received;
        let began = Instant::now();
        let mut last = (before, began);
        while self.received < until {
            net.flush()?;
            net.turn(Duration::from_millis(100))?;
            self.turn(net)?;
            last = check(self.received, last)?;
        }
        Ok(Carried {
            bytes: self.received - before,
            cells: self.cells - cells,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    fn up(&mut self, net: &mut Net, exit: &Exit) -> Result<Carried> {
        let taken = || self.totals.taken.load(Ordering::Relaxed);
        let before = taken();
        let (mut left, mut cells) = (exit.bytes, 0);
        let began = Instant::now();
        let mut last = (before, began);
        loop {
            let done = self.totals.taken.load(Ordering::Relaxed);
            if done >= before + exit.bytes {
                break;
            }
            ensure!(
                !self.totals.wrong.load(Ordering::Relaxed),
                "the destination got other bytes than were sent"
            );
            while left > 0 && net.links.first().is_some_and(|link| link.takes_more()) {
                let sent = self.give_round(&mut left);
                cells += sent;
                let link = net.links.first_mut().context("no link")?;
                link.out.append(&mut self.client.output);
                if sent == 0 {
                    break;
                }
                if !link.has_room() {
                    net.flush()?;
                }
            }
            net.flush()?;
            // The destination is not among what is polled for.
            net.turn(Duration::from_millis(if left == 0 { 1 } else { 20 }))?;
            self.turn(net)?;
            last = check(done, last)?;
        }
        Ok(Carried {
            bytes: exit.bytes,
            cells,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// One cell for each stream whose circuit has room; how many.
    fn give_round(&mut self, left: &mut u64) -> u64 {
        let mut sent = 0;
        for stream in &mut self.streams {
            let Some(circuit) = self.circuits.get_mut(stream.circuit) else {
                continue;
            };
            if *left == 0 || circuit.under_way >= WINDOW_CELLS {
                continue;
            }
            let length = (DATA_BYTES as u64).min(*left) as usize;
            let data = self.pattern.at(stream.offset, length);
            self.client
                .send(circuit.id, 0, Command::RELAY, RelayCommand::DATA, stream.id, data);
            circuit.under_way += 1;
            stream.offset += length as u64;
            *left -= length as u64;
            sent += 1;
        }
        sent
    }
}

fn check(now: u64, (then, at): (u64, Instant)) -> Result<(u64, Instant)> {
    if now != then {
        return Ok((now, Instant::now()));
    }
    if at.elapsed() > SILENCE_MAX {
        bail!("no byte for {} s, after {now}", SILENCE_MAX.as_secs());
    }
    Ok((then, at))
}
