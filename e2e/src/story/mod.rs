//! Stories: what is shown on real processes, one each.

pub mod carry;
pub(crate) mod neighbours;
pub mod slot;
