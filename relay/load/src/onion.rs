//! Circuit handshakes, as many as the relay answers, a window of them under way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use relay_simnet::client::{Client, Event, Wish};
use relay_wire::cell::{CircIdWidth, Command, write_variable};
use relay_wire::channel_cells::write_versions;
use serde::Serialize;

use crate::handshake::Part;
use crate::net::Net;
use crate::target::Target;

/// DESTROY's reason RESOURCELIMIT.
const RESOURCE_LIMIT: u8 = 5;

/// Which handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Type 2.
    Ntor,
    /// Type 3.
    NtorV3,
    /// Type 3 with congestion control and CGO.
    Cgo,
}

/// How many.
#[derive(clap::Args)]
pub(crate) struct Onion {
    #[arg(long, value_enum, default_value_t = Kind::NtorV3)]
    handshake: Kind,
    /// Handshakes each time
    #[arg(long, default_value_t = 3_000)]
    count: usize,
    /// Under way at the same time
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Try again when the relay refuses one for want of resources
    #[arg(long)]
    patient: bool,
    /// Leave the circuits open until the next time or the end
    #[arg(long)]
    keep: bool,
}

#[derive(Serialize)]
struct Ready {
    links: usize,
}

#[derive(Serialize)]
struct Done {
    handshakes: usize,
    seconds: f64,
    open: usize,
    refused: usize,
}

pub(crate) fn run(mut net: Net, target: &Target, onion: &Onion) -> Result<()> {
    ensure!(onion.window > 0, "a window of nothing");
    net.connect(target, Part::Client)?;
    net.until("a link", |net| Ok(net.links.iter().all(|link| link.is_open())))?;
    let mut client = client()?;
    let mut kept: Vec<u32> = Vec::new();
    crate::serve(&Ready { links: 1 }, || {
        for circuit in kept.drain(..) {
            client.destroy(circuit);
        }
        let began = Instant::now();
        let (done, refused) = shake(&mut net, target, onion, &mut client, &mut kept)?;
        Ok(Done {
            handshakes: done,
            refused,
            seconds: began.elapsed().as_secs_f64(),
            open: kept.len(),
        })
    })
}

/// A client on a link that is open already: only the version is new to it.
pub(crate) fn client() -> Result<Client> {
    let mut client = Client::speaking(rand::random(), &[5]);
    client.shakes_hands = false;
    client.output.clear();
    let mut said = Vec::new();
    write_variable(&mut said, CircIdWidth::Two, Command::VERSIONS, &write_versions(&[5]))?;
    client.receive(&said);
    Ok(client)
}

/// How many were made, and how many were refused before.
fn shake(
    net: &mut Net,
    target: &Target,
    onion: &Onion,
    client: &mut Client,
    kept: &mut Vec<u32>,
) -> Result<(usize, usize)> {
    let wish = match onion.handshake {
        Kind::Ntor => Wish::Ntor,
        Kind::NtorV3 => Wish::NtorV3,
        Kind::Cgo => Wish::Cgo,
    };
    let (mut begun, mut done, mut refused) = (0, 0, 0);
    let mut last = Instant::now();
    while done < onion.count {
        while begun < onion.count && begun - done < onion.window {
            client.create(&target.hop(), wish);
            begun += 1;
        }
        let link = net.links.first_mut().context("no link")?;
        link.out.append(&mut client.output);
        net.flush()?;
        net.turn(Duration::from_millis(100))?;
        let bytes = net.links.first_mut().context("no link")?.take_plain();
        client.receive(&bytes);
        for event in std::mem::take(&mut client.events) {
            match event {
                Event::Extended { circuit, .. } => {
                    done += 1;
                    last = Instant::now();
                    if onion.keep {
                        kept.push(circuit);
                    } else {
                        client.destroy(circuit);
                    }
                }
                Event::Destroyed {
                    reason: RESOURCE_LIMIT, ..
                } if onion.patient => {
                    begun -= 1;
                    refused += 1;
                    last = Instant::now();
                }
                Event::Destroyed { reason, .. } => bail!("the relay refused a circuit, reason {reason}"),
                Event::Nonsense(what) => bail!("the relay said something odd: {what}"),
                Event::LinkOpen(_) | Event::Message { .. } | Event::Padding => {}
            }
        }
        ensure!(
            last.elapsed() < Duration::from_secs(20),
            "no handshake for 20 s, after {done}"
        );
    }
    let link = net.links.first_mut().context("no link")?;
    link.out.append(&mut client.output);
    net.flush()?;
    Ok((done, refused))
}
