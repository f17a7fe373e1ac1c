//! Those who stand in the door: connections without end, and handshakes that stop.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::crowd::Crowd;
use super::{Flood, Kind};
use crate::handshake::Part;
use crate::link::Hold;
use crate::target::Target;

/// Every place where a handshake can stop, in turn.
const HOLDS: [Hold; 4] = [Hold::Tcp, Hold::Byte, Hold::Tls, Hold::Versions];

#[derive(Serialize)]
struct Ready {
    sources: u32,
}

pub(super) fn run(crowd: &mut Crowd, target: &Target, flood: &Flood) -> Result<()> {
    crate::serve(&Ready { sources: flood.sources }, || {
        let pace = flood.pace();
        let mut wanted: Vec<_> = if crowd.done.attempts == 0 {
            flood.places().collect()
        } else {
            Vec::new()
        };
        // From the end on; all addresses are to have their turn from the beginning.
        let count = wanted.len();
        for at in 0..count {
            wanted.swap(at, (at * 7_919) % count);
        }
        let again = flood.kind == Kind::Connections;
        let before = crowd.done.attempts;
        while !pace.over() {
            let mut more = pace.leaves(crowd.done.attempts - before).min(64);
            while more > 0
                && let Some(from) = wanted.pop()
            {
                let hold = match flood.kind {
                    Kind::Connections => Hold::Tcp,
                    _ => HOLDS
                        .get(crowd.done.attempts as usize % HOLDS.len())
                        .copied()
                        .unwrap_or(Hold::Tcp),
                };
                crowd.done.attempts += 1;
                crowd.connect(target, from, Part::Client, hold)?;
                more -= 1;
            }
            crowd.turn(Duration::from_millis(5))?;
            let gone = std::mem::take(&mut crowd.gone);
            if again {
                wanted.extend(gone.into_iter().map(|(_, from)| from));
            }
        }
        crowd.done.granted = crowd.open() as u64;
        Ok(crowd.sum(&pace))
    })
}
