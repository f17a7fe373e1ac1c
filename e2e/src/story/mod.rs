//! Stories: what is shown on real processes, one each.

pub mod accounting;
pub mod bootstrap;
pub mod carry;
pub mod conflux;
pub mod endure;
pub mod floods;
pub mod hostile;
pub(crate) mod neighbours;
pub mod onion;
pub mod scrape;
pub mod slot;
