//! Stories: what is shown on real processes, one each.

pub mod slot;
