//! Fixed windows (tor-spec, "Circuit-level flow control", "Stream-level flow control").

use super::error::FlowError;

/// Cells of a circuit without CC that may be under way (`circwindow` is no longer voted on; C tor `CIRCWINDOW_START`).
pub(super) const CIRCUIT_CELLS: u16 = 1_000;
/// Cells of a circuit without CC that one SENDME acknowledges.
pub(super) const CIRCUIT_INCREMENT_CELLS: u16 = 100;
/// Cells of a stream without CC that may be under way.
const STREAM_CELLS: u16 = 500;
/// Cells of a stream without CC that one SENDME acknowledges.
const STREAM_INCREMENT_CELLS: u16 = 50;

/// What we may still send: the package window.
#[derive(Debug, Clone, Copy)]
pub struct SendWindow {
    left: u16,
    start: u16,
    increment: u16,
}

impl SendWindow {
    pub(super) const fn circuit() -> Self {
        Self {
            left: CIRCUIT_CELLS,
            start: CIRCUIT_CELLS,
            increment: CIRCUIT_INCREMENT_CELLS,
        }
    }

    const fn stream() -> Self {
        Self {
            left: STREAM_CELLS,
            start: STREAM_CELLS,
            increment: STREAM_INCREMENT_CELLS,
        }
    }

    /// DATA cells that may go now.
    pub fn room_cells(&self) -> u16 {
        self.left
    }

    /// Notes a DATA cell that goes; true if it is one that a SENDME will answer.
    pub fn on_sent(&mut self) -> Result<bool, FlowError> {
        self.left = self.left.checked_sub(1).ok_or(FlowError::NoRoom)?;
        Ok((self.start - self.left).is_multiple_of(self.increment))
    }

    /// Takes a SENDME. One that nothing was sent for would open the window beyond its start.
    pub fn on_sendme(&mut self) -> Result<(), FlowError> {
        let opened = self.left.saturating_add(self.increment);
        if opened > self.start {
            return Err(FlowError::UnexpectedSendme);
        }
        self.left = opened;
        Ok(())
    }
}

/// What the peer may still send: the deliver window.
#[derive(Debug, Clone, Copy)]
pub struct ReceiveWindow {
    left: u16,
    start: u16,
    increment: u16,
}

impl ReceiveWindow {
    /// A circuit's: `increment_cells` is 100, or what the handshake said. 0 counts as 1.
    pub(super) fn circuit(increment_cells: u16) -> Self {
        let increment = increment_cells.clamp(1, CIRCUIT_CELLS);
        Self {
            left: CIRCUIT_CELLS,
            start: CIRCUIT_CELLS,
            increment,
        }
    }

    const fn stream() -> Self {
        Self {
            left: STREAM_CELLS,
            start: STREAM_CELLS,
            increment: STREAM_INCREMENT_CELLS,
        }
    }

    /// Notes a DATA cell that came.
    pub fn on_received(&mut self) -> Result<(), FlowError> {
        self.left = self.left.checked_sub(1).ok_or(FlowError::WindowOverrun)?;
        Ok(())
    }

    /// Whether a SENDME is due; then it must go, as the window is open again.
    pub fn take_sendme(&mut self) -> bool {
        let due = self.left <= self.start - self.increment;
        if due {
            self.left += self.increment;
        }
        due
    }
}

/// Both windows of a stream on a circuit without CC. Its SENDMEs are empty.
#[derive(Debug, Clone, Copy)]
pub struct StreamWindows {
    /// Towards the client.
    pub send: SendWindow,
    /// From the client. Acknowledge with [`ReceiveWindow::take_sendme`], in a loop, whenever the destination has taken
    /// what we held for it.
    pub receive: ReceiveWindow,
}

impl StreamWindows {
    /// Both full: 500 cells.
    pub const fn new() -> Self {
        Self {
            send: SendWindow::stream(),
            receive: ReceiveWindow::stream(),
        }
    }
}

impl Default for StreamWindows {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_that_gets_no_sendme_stops_after_500_cells() {
        let mut window = StreamWindows::new().send;
        let answered = (0..500).filter(|_| window.on_sent() == Ok(true)).count();
        assert_eq!(
            (answered, window.room_cells(), window.on_sent()),
            (10, 0, Err(FlowError::NoRoom))
        );
        window.on_sendme().unwrap();
        assert_eq!(window.room_cells(), 50);
    }

    #[test]
    fn a_sendme_for_nothing_closes_the_circuit() {
        let mut window = StreamWindows::new().send;
        for _ in 0..49 {
            window.on_sent().unwrap();
        }
        assert_eq!(window.on_sendme(), Err(FlowError::UnexpectedSendme));
        window.on_sent().unwrap();
        assert_eq!((window.on_sendme(), window.room_cells()), (Ok(()), 500));
    }

    #[test]
    fn a_client_that_overruns_its_stream_window_is_caught_at_cell_501() {
        let mut window = StreamWindows::new().receive;
        for _ in 0..500 {
            window.on_received().unwrap();
        }
        assert_eq!(window.on_received(), Err(FlowError::WindowOverrun));
        let sendmes = std::iter::from_fn(|| window.take_sendme().then_some(())).count();
        assert_eq!((sendmes, window.left), (10, 500));
    }

    proptest! {
        #[test]
        fn no_order_of_events_makes_a_window_leave_its_bounds(events in prop::collection::vec(0..4_u8, 0..3_000)) {
            let mut windows = StreamWindows::new();
            for event in events {
                match event {
                    0 => drop(windows.send.on_sent()),
                    1 => drop(windows.send.on_sendme()),
                    2 => drop(windows.receive.on_received()),
                    _ => drop(windows.receive.take_sendme()),
                }
                prop_assert!(windows.send.left <= 500 && windows.receive.left <= 500);
            }
        }
    }
}
