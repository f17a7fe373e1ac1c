//! XON and XOFF: a stream tells the other end to stop, to go on, and how fast its destination drinks (proposal 324 4;
//! C tor `congestion_control_flow.c`).
//!
//! Owns one stream's flow control on a circuit with congestion control. Takes what came, what the destination took, and
//! what waits for it; gives the message to send. For the other way it takes XOFF and XON, and says how much may be read.
//!
//! ```text
//! Quiet --backlog over xoff_bytes--> Grace --5 ms later still over--> Stopped (XOFF sent) --backlog empty--> Quiet (XON sent)
//! ```

use std::time::Duration;

use super::bucket::TokenBucket;
use super::error::FlowError;
use super::parameters::FlowParameters;
use super::vegas::smooth;
use relay_wire::flow_control::Xon;

/// A backlog must last so long before XOFF goes: one turn of the loop may bring a burst that the next one drains (C tor
/// 0.4.8.19, `XOFF_GRACE_PERIOD_USEC`).
const XOFF_GRACE: Duration = Duration::from_millis(5);
/// What may come in one burst before anyone has tried to write it: 32 cells (C tor `MAX_EXPECTED_CELL_BURST`).
const BURST_BYTES: u64 = 32 * 488;
/// A rate in 1,000 bytes a second cannot be told beyond this.
const RATE_MAX: u64 = 0x7fff_ffff;

/// What must go to the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Send nothing more on this stream.
    Xoff,
    /// Go on, at about this rate.
    Xon(Xon),
}

/// Flow control of one stream.
pub struct StreamFlow {
    parameters: FlowParameters,
    outgoing: Outgoing,
    incoming: Incoming,
}

/// Cells from the circuit, on their way to the destination.
#[derive(Default)]
struct Outgoing {
    xoff_sent: bool,
    over_since: Option<Duration>,
    draining_since: Option<Duration>,
    drained_bytes: u64,
    /// In 1,000 bytes a second; 0 is unknown.
    rate: u64,
    rate_told: u64,
}

/// Bytes from the destination, on their way into the circuit.
#[derive(Default)]
struct Incoming {
    xoff_received: bool,
    bucket: Option<TokenBucket>,
}

impl StreamFlow {
    /// A new stream: nothing waits, nobody has said anything.
    pub fn new(parameters: FlowParameters) -> Self {
        Self {
            parameters,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
        }
    }

    /// Data came from the circuit; `backlog_bytes` now waits for the destination.
    pub fn on_data_received(&mut self, now: Duration, backlog_bytes: u64) -> Result<Option<Signal>, FlowError> {
        if backlog_bytes > self.parameters.backlog_bytes_max {
            return Err(FlowError::XoffIgnored);
        }
        if self.must_stop(now, backlog_bytes) {
            self.outgoing.xoff_sent = true;
            // Whatever rate we knew was wrong, or it would not have come to this.
            self.outgoing.rate = 0;
            return Ok(Some(Signal::Xoff));
        }
        // A destination that takes nothing at all never calls `on_drained`; its rate is looked at here.
        let waiting = backlog_bytes > BURST_BYTES;
        Ok(if waiting {
            self.on_drained(now, 0, backlog_bytes)
        } else {
            None
        })
    }

    fn must_stop(&mut self, now: Duration, backlog_bytes: u64) -> bool {
        if backlog_bytes <= self.parameters.xoff_bytes {
            self.outgoing.over_since = None;
            return false;
        }
        if self.outgoing.xoff_sent {
            return false;
        }
        let since = *self.outgoing.over_since.get_or_insert(now);
        let stop = now.saturating_sub(since) > XOFF_GRACE;
        if stop {
            self.outgoing.over_since = None;
        }
        stop
    }

    /// The destination took `written_bytes`; `backlog_bytes` still waits.
    pub fn on_drained(&mut self, now: Duration, written_bytes: u64, backlog_bytes: u64) -> Option<Signal> {
        if backlog_bytes <= self.parameters.xoff_bytes {
            self.outgoing.over_since = None;
        }
        self.measure(now, written_bytes, backlog_bytes);
        let tell = if self.outgoing.xoff_sent {
            backlog_bytes == 0
        } else {
            self.rate_has_moved()
        };
        let signal = tell.then(|| self.xon());
        if backlog_bytes == 0 {
            self.note_empty();
        }
        signal
    }

    fn xon(&mut self) -> Signal {
        self.outgoing.xoff_sent = false;
        self.outgoing.rate_told = self.outgoing.rate;
        Signal::Xon(Xon {
            kilobytes_per_second: u32::try_from(self.outgoing.rate).unwrap_or(u32::MAX),
        })
    }

    /// The rate is taken while something waits, over `xon_rate_bytes` at least; so no two XONs come closer than that.
    fn measure(&mut self, now: Duration, written_bytes: u64, backlog_bytes: u64) {
        let out = &mut self.outgoing;
        out.drained_bytes = out.drained_bytes.saturating_add(written_bytes);
        let Some(since) = out.draining_since else {
            if backlog_bytes > 0 {
                out.draining_since = Some(now);
                out.drained_bytes = 0;
            }
            return;
        };
        let micros = now.saturating_sub(since).as_micros();
        if out.drained_bytes <= self.parameters.xon_rate_bytes || micros == 0 {
            return;
        }
        let rate = u128::from(out.drained_bytes) * 1_000 / micros;
        let rate = u64::try_from(rate).unwrap_or(RATE_MAX).clamp(1, RATE_MAX);
        out.rate = smooth(rate, out.rate, self.parameters.xon_ewma_count);
        out.drained_bytes = 0;
        out.draining_since = None;
    }

    fn rate_has_moved(&self) -> bool {
        let (now, told, percent) = (
            self.outgoing.rate,
            self.outgoing.rate_told,
            self.parameters.xon_change_pct,
        );
        told > 0 && (now > (100 + percent) * told / 100 || now < 100_u64.saturating_sub(percent) * told / 100)
    }

    /// While nothing waits the destination could take more than it gets: double what we told, so that the other end tries.
    fn note_empty(&mut self) {
        let out = &mut self.outgoing;
        out.draining_since = None;
        if out.drained_bytes >= self.parameters.xon_rate_bytes && out.rate_told > 0 {
            out.rate = (2 * out.rate).min(RATE_MAX);
            out.drained_bytes = 0;
        }
    }

    /// The client asks us to stop.
    pub fn on_xoff(&mut self) -> Result<(), FlowError> {
        if self.incoming.xoff_received {
            return Err(FlowError::SecondXoff);
        }
        self.incoming.xoff_received = true;
        Ok(())
    }

    /// The client lets us go on. A rate of 0, or one beyond what a bucket holds, is none.
    pub fn on_xon(&mut self, now: Duration, xon: Xon) {
        let rate = u64::from(xon.kilobytes_per_second) * 1_000;
        self.incoming.xoff_received = false;
        self.incoming.bucket = match (rate, self.incoming.bucket) {
            (0, _) => None,
            (rate, _) if rate > RATE_MAX => None,
            (rate, None) => Some(TokenBucket::new(now, rate, rate)),
            (rate, Some(mut bucket)) => {
                bucket.adjust(now, rate, rate);
                Some(bucket)
            }
        };
    }

    /// Bytes that may be read from the destination now; 0 after XOFF.
    pub fn read_allowance_bytes(&mut self, now: Duration) -> u64 {
        match (&mut self.incoming.bucket, self.incoming.xoff_received) {
            (_, true) => 0,
            (None, false) => u64::MAX,
            (Some(bucket), false) => bucket.available(now),
        }
    }

    /// Notes what has been read.
    pub fn on_read(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.incoming.bucket {
            bucket.take(bytes);
        }
    }

    /// When a full cell's worth may be read again; `None` if no clock decides that, but an XON, or nothing at all.
    pub fn readable_at(&self) -> Option<Duration> {
        let bucket = self.incoming.bucket.as_ref().filter(|_| !self.incoming.xoff_received)?;
        bucket.ready_at(488)
    }
}

#[cfg(test)]
mod tests;
