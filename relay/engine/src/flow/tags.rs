//! Tags of the cells that a SENDME will have to name, in the order in which they went.

use std::collections::VecDeque;
use std::time::Duration;

use relay_wire::flow_control::{CGO_TAG_BYTES, TOR1_TAG_BYTES};
use subtle::ConstantTimeEq;

use super::error::FlowError;

/// What proves that the peer has seen a cell.
#[derive(Clone, Copy)]
pub enum Tag {
    /// tor1: the running SHA-1 at that cell.
    Tor1([u8; TOR1_TAG_BYTES]),
    /// CGO: the tag that the cell travelled with.
    Cgo([u8; CGO_TAG_BYTES]),
}

impl Tag {
    /// Its bytes, as a SENDME has them.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Tor1(bytes) => bytes,
            Self::Cgo(bytes) => bytes,
        }
    }
}

impl From<[u8; TOR1_TAG_BYTES]> for Tag {
    fn from(bytes: [u8; TOR1_TAG_BYTES]) -> Self {
        Self::Tor1(bytes)
    }
}

impl From<[u8; CGO_TAG_BYTES]> for Tag {
    fn from(bytes: [u8; CGO_TAG_BYTES]) -> Self {
        Self::Cgo(bytes)
    }
}

/// A cell that went and whose SENDME has not come.
pub(super) struct Pending {
    tag: Tag,
    pub(super) sent_at: Duration,
}

impl Pending {
    /// In constant time: an attacker must not learn how much of a guess was right.
    pub(super) fn check(&self, named: &[u8]) -> Result<(), FlowError> {
        if bool::from(self.tag.as_bytes().ct_eq(named)) {
            Ok(())
        } else {
            Err(FlowError::WrongTag)
        }
    }
}

/// SENDMEs that may be outstanding at once. With `sendme_inc` 31 that is 31,744 cells or 15 MB under way on one circuit,
/// six times `cc_ss_max`; C tor has no limit but `cc_cwnd_max`. Full means that no more data goes until a SENDME comes.
pub(super) const PENDING_MAX: usize = 1_024;

/// First in, first out, [`PENDING_MAX`] at most. Grows by doubling while the window grows, never shrinks.
pub(super) struct PendingTags(VecDeque<Pending>);

impl PendingTags {
    /// With room for the window at birth.
    pub(super) fn new(expected: usize) -> Self {
        Self(VecDeque::with_capacity(expected.min(PENDING_MAX)))
    }

    pub(super) fn room(&self) -> usize {
        PENDING_MAX.saturating_sub(self.0.len())
    }

    pub(super) fn push(&mut self, tag: Tag, sent_at: Duration) -> Result<(), FlowError> {
        if self.room() == 0 {
            return Err(FlowError::NoRoom);
        }
        self.0.push_back(Pending { tag, sent_at });
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Pending, FlowError> {
        self.0.pop_front().ok_or(FlowError::UnexpectedSendme)
    }
}
