//! Links that are opened and then do nothing.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::handshake::Part;
use crate::net::Net;
use crate::target::Target;

/// How many.
#[derive(clap::Args)]
pub(crate) struct Idle {
    /// Further links each time
    #[arg(long, default_value_t = 1_000)]
    count: usize,
    /// Under way at the same time
    #[arg(long, default_value_t = 32)]
    window: usize,
    /// We come as clients; otherwise as a relay
    #[arg(long)]
    as_client: bool,
}

#[derive(Serialize)]
struct Ready {
    links: usize,
}

#[derive(Serialize)]
struct Done {
    links: usize,
    seconds: f64,
    /// From the first packet until the link is open, a link alone.
    one_link_milliseconds: f64,
}

pub(crate) fn run(mut net: Net, target: &Target, idle: &Idle) -> Result<()> {
    let part = if idle.as_client { Part::Client } else { Part::Relay };
    crate::serve(&Ready { links: 0 }, || {
        let began = Instant::now();
        open(&mut net, target, part, 1, 1)?;
        let one = began.elapsed();
        let began = Instant::now();
        open(&mut net, target, part, idle.count - 1, idle.window)?;
        Ok(Done {
            links: net.links.len(),
            seconds: began.elapsed().as_secs_f64(),
            one_link_milliseconds: one.as_secs_f64() * 1e3,
        })
    })
}

fn open(net: &mut Net, target: &Target, part: Part, count: usize, window: usize) -> Result<()> {
    let mut begun = 0;
    net.until("links", |net| {
        let mut under_way = net.links.iter().filter(|link| !link.is_open()).count();
        while begun < count && under_way < window {
            net.connect(target, part)?;
            begun += 1;
            under_way += 1;
        }
        Ok(under_way == 0)
    })
}
