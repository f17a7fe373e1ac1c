//! What the relay counts, and how Prometheus reads it.
//!
//! `counters` are raised by whoever does the work; `exposition` writes Prometheus' text form; `collect` asks all that
//! count and writes C tor's series, as `docs/reference/metrics.md` lists them. What is not known is left out: a 0 says
//! that nothing happened. No label has a value that came over the network.

pub mod collect;
pub mod counters;
pub mod exposition;
