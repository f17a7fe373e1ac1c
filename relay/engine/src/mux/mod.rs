//! Cells that wait for their turn to be sent: a pool of cells, queues in it, and a fair choice among circuits.
//!
//! All queues of a shard share one [`Pool`], so that steady work allocates nothing and an idle circuit costs
//! nothing; chunks of the pool that are all free are given back.
//!
//! ```text
//! Queue::push ─▶ Pool ─▶ Round::serve (the queue with the least Favour first) ─▶ Outbox::written
//! ```

mod favour;
mod pool;
mod queue;
mod round;
#[cfg(test)]
mod tests;

pub(crate) use favour::Worth;
pub(crate) use pool::{CELL_MEMORY_BYTES, CELLS_WAITING_MAX, Pool};
pub(crate) use queue::Queue;
pub(crate) use round::{Queues, Round};
