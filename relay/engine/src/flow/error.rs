//! What a peer can do wrong with flow control, and what follows.

use relay_wire::flow_control::BadSendme;
use relay_wire::relay_cells::DestroyReason;

/// Who broke which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The SENDME's body cannot be read.
    #[error(transparent)]
    BadSendme(#[from] BadSendme),
    /// A version below what this circuit accepts.
    #[error("SENDME of a version that proves nothing")]
    UnprovenSendme,
    /// Nothing was due to be acknowledged.
    #[error("SENDME where none is due")]
    UnexpectedSendme,
    /// It names another cell than the one whose turn it is: the peer has not seen that cell.
    #[error("SENDME with a wrong tag")]
    WrongTag,
    /// The peer has sent more than its window.
    #[error("more data than the window")]
    WindowOverrun,
    /// Streams of circuits with congestion control have no SENDMEs.
    #[error("stream SENDME on a circuit with congestion control")]
    StreamSendme,
    /// The peer goes on sending long after XOFF.
    #[error("XOFF ignored")]
    XoffIgnored,
    /// XOFF twice without an XON between.
    #[error("second XOFF")]
    SecondXoff,
    /// XON or XOFF on a circuit without congestion control.
    #[error("XON or XOFF without congestion control")]
    UnexpectedXon,
    /// We ourselves wanted to send beyond the window: a fault of ours.
    #[error("no room in the window")]
    NoRoom,
}

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowVerdict {
    /// The circuit ends, with this reason.
    CloseCircuit(DestroyReason),
    /// The message is dropped and counted as a protocol violation.
    Ignore,
}

impl FlowError {
    /// The only place where an error becomes a deed.
    pub fn verdict(&self) -> FlowVerdict {
        match self {
            Self::SecondXoff | Self::UnexpectedXon => FlowVerdict::Ignore,
            Self::NoRoom => FlowVerdict::CloseCircuit(DestroyReason::Internal),
            Self::XoffIgnored => FlowVerdict::CloseCircuit(DestroyReason::ResourceLimit),
            Self::BadSendme(_)
            | Self::UnprovenSendme
            | Self::UnexpectedSendme
            | Self::WrongTag
            | Self::WindowOverrun
            | Self::StreamSendme => FlowVerdict::CloseCircuit(DestroyReason::TorProtocol),
        }
    }
}
