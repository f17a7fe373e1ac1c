//! Load for one relay. A process of its own, so that what it costs and what the relay costs can be told apart.
//!
//! It plays everybody around the relay under test: the clients or the relay before it, the relay behind it, and the
//! destination of streams. What a real client does for its other hops, it leaves out: one core can outrun a relay.
//!
//! It says `{"ready":…}` when links and circuits stand, does its work once for every line on standard input, says what
//! it did as one JSON object a time, and ends with standard input.

#![allow(
    clippy::print_stdout,
    reason = "a program whose answers are lines on standard output"
)]

mod carry;
mod exit;
mod flood;
mod handshake;
mod hop;
mod idle;
mod link;
mod net;
mod onion;
mod source;
mod target;

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::net::Net;
use crate::target::Target;

#[derive(Parser)]
#[command(name = "relay-load", version, about)]
struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Cells through the relay to a relay behind it, which we play too
    Carry(carry::Carry),
    /// Streams that end at the relay
    Exit(exit::Exit),
    /// Circuit handshakes
    Onion(onion::Onion),
    /// Links that do nothing
    Idle(idle::Idle),
    /// More of something than the relay can be glad of, from many addresses
    Flood(flood::Flood),
}

fn main() -> Result<()> {
    let Arguments { target, what } = Arguments::parse();
    match what {
        What::Carry(carry) => carry::run(Net::new(&target)?, &target, &carry),
        What::Exit(exit) => exit::run(Net::new(&target)?, &target, &exit),
        What::Onion(onion) => onion::run(Net::new(&target)?, &target, &onion),
        What::Idle(idle) => idle::run(Net::new(&target)?, &target, &idle),
        What::Flood(flood) => flood::run(&target, &flood),
    }
}

/// Says that all stands, then does `work` for every line that comes, and tells what it returned.
fn serve<R: Serialize>(ready: &impl Serialize, mut work: impl FnMut() -> Result<R>) -> Result<()> {
    #[derive(Serialize)]
    struct Ready<'a, T> {
        ready: &'a T,
    }
    tell(&Ready { ready })?;
    for line in std::io::stdin().lock().lines() {
        line.context("standard input")?;
        tell(&work()?)?;
    }
    Ok(())
}

fn tell(what: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    out.flush().context("standard output")
}
