//! Flow control of one circuit that ends here: what may go, what comes back for it, what we owe.
//!
//! Joins a window, fixed or Vegas, with the tags that SENDMEs must name. The circuit tells each DATA cell with its tag, both
//! ways; nothing here is asked for other relay messages.

use std::time::Duration;

use relay_wire::flow_control::{Sendme, SendmeBody};

use super::error::FlowError;
use super::parameters::VegasParameters;
use super::tags::{PendingTags, Tag};
use super::vegas::Vegas;
use super::window::{CIRCUIT_INCREMENT_CELLS, ReceiveWindow, SendWindow};
use crate::network::Parameters;

/// Our own queue towards the client, on this circuit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Whether it is over `cellq_high` and not yet down at `cellq_low`: a sign of congestion next door.
    pub blocked: bool,
    /// Cells in it.
    pub cells: u64,
}

/// Which SENDMEs a circuit takes and sends (proposal 289).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendmeRules {
    accept_v0: bool,
    emit_v0: bool,
}

impl SendmeRules {
    /// From the consensus, and whether the circuit was made with CREATE_FAST: obsolete clients fetch their consensus by such,
    /// and would hammer the caches if it failed (C tor bug 41191).
    pub fn read(parameters: &Parameters, made_by_create_fast: bool) -> Self {
        Self {
            accept_v0: made_by_create_fast || parameters.clamped("sendme_accept_min_version", 1, 0, 255) == 0,
            emit_v0: parameters.clamped("sendme_emit_min_version", 1, 0, 255) == 0,
        }
    }
}

/// How much may go.
enum Window {
    Fixed(SendWindow),
    Vegas(Box<Vegas>),
}

/// One circuit's flow control, both directions.
pub struct CircuitFlow {
    rules: SendmeRules,
    send: Window,
    pending: PendingTags,
    receive: ReceiveWindow,
}

impl CircuitFlow {
    /// Without congestion control: 1,000 cells, a SENDME for each 100.
    pub fn fixed(rules: SendmeRules) -> Self {
        Self {
            rules,
            send: Window::Fixed(SendWindow::circuit()),
            pending: PendingTags::new(10),
            receive: ReceiveWindow::circuit(CIRCUIT_INCREMENT_CELLS),
        }
    }

    /// With congestion control, as the handshake agreed.
    pub fn vegas(rules: SendmeRules, parameters: VegasParameters) -> Self {
        let expected = parameters.cwnd_init / parameters.sendme_inc.max(1) + 1;
        Self {
            rules,
            send: Window::Vegas(Box::new(Vegas::new(parameters))),
            pending: PendingTags::new(usize::try_from(expected).unwrap_or(usize::MAX)),
            receive: ReceiveWindow::circuit(u16::try_from(parameters.sendme_inc).unwrap_or(u16::MAX)),
        }
    }

    /// The congestion window, where there is one: streams of this circuit then use XON and XOFF.
    pub fn congestion_control(&self) -> Option<&Vegas> {
        match &self.send {
            Window::Fixed(_) => None,
            Window::Vegas(vegas) => Some(vegas),
        }
    }

    /// DATA cells that may go to the client now: by the window, and by the tags of theirs that there is place for.
    pub fn room_cells(&self) -> u64 {
        match &self.send {
            Window::Fixed(window) => u64::from(window.room_cells()),
            Window::Vegas(vegas) => vegas.room_cells().min(vegas.cells_of_sendmes(self.pending.room())),
        }
    }

    /// Notes a DATA cell that goes, with the tag that it left with. An error is our own fault: ask [`Self::room_cells`] first.
    pub fn on_data_sent(&mut self, now: Duration, tag: Tag) -> Result<(), FlowError> {
        if self.pending.room() == 0 {
            return Err(FlowError::NoRoom);
        }
        let answered = match &mut self.send {
            Window::Fixed(window) => window.on_sent()?,
            Window::Vegas(vegas) => vegas.on_sent(),
        };
        if answered { self.pending.push(tag, now) } else { Ok(()) }
    }

    /// Takes a SENDME of the circuit. Every error closes the circuit.
    pub fn on_sendme(&mut self, now: Duration, body: &[u8], backlog: Backlog) -> Result<(), FlowError> {
        let sendme = Sendme::read(body)?;
        if sendme == Sendme::V0 && !self.rules.accept_v0 {
            return Err(FlowError::UnprovenSendme);
        }
        let pending = self.pending.pop()?;
        if let Sendme::V1 { tag } = sendme {
            pending.check(tag)?;
        }
        match &mut self.send {
            Window::Fixed(window) => window.on_sendme(),
            Window::Vegas(vegas) => vegas.on_sendme(now.saturating_sub(pending.sent_at), backlog),
        }
    }

    /// Notes a DATA cell that came, with its tag; gives the SENDME that must go back at once, if one is due.
    pub fn on_data_received(&mut self, tag: &Tag) -> Result<Option<SendmeBody>, FlowError> {
        self.receive.on_received()?;
        if !self.receive.take_sendme() {
            return Ok(None);
        }
        Ok(if self.rules.emit_v0 {
            Some(SendmeBody::V0)
        } else {
            SendmeBody::v1(tag.as_bytes())
        })
    }
}

#[cfg(test)]
mod tests;
