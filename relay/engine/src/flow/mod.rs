//! Flow control: how much may be under way on a circuit and on a stream, and in which order it is acknowledged.
//!
//! Knows no circuit, no stream, no clock: time, tags and queue lengths are told. Only circuits that end here have any of
//! this; what passes through to another hop is none of its business.
//!
//! ```text
//!                    circuit without CC          circuit with CC (proposal 324)
//! circuit, sending   SendWindow 1000/100         Vegas: cwnd, SENDME every sendme_inc cells
//! circuit, receiving ReceiveWindow 1000/100      ReceiveWindow 1000/sendme_inc
//! stream             windows 500/50, SENDME      XOFF and XON, token bucket; no SENDME
//! ```
//!
//! [`CircuitFlow`] is the two circuit rows, [`StreamWindows`] and [`StreamFlow`] the two halves of the stream row. Whether
//! cells may be queued at all is [`Watermarks`]'.

mod bucket;
mod circuit;
mod error;
mod lesson;
mod parameters;
mod stream_rate;
mod tags;
mod vegas;
mod watermarks;
mod window;

pub use bucket::TokenBucket;
pub use circuit::{Backlog, CircuitFlow, SendmeRules};
pub use error::{FlowError, FlowVerdict};
pub use lesson::{CongestionTally, Leave, Lesson, Mean, SteadySignal, Step};
pub use parameters::{FlowParameters, Path, VegasParameters, congestion_control_enabled, sendme_increment_cells};
pub use stream_rate::{Signal, StreamFlow};
pub use tags::Tag;
pub use vegas::Vegas;
pub use watermarks::Watermarks;
pub use window::{ReceiveWindow, SendWindow, StreamWindows};
