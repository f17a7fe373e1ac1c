//! Bytes to messages and back. Remembers nothing, allocates nothing on the way of a cell, never panics.
//!
//! [`cell`] finds cells in a buffer; the other modules read and write the bodies. Whatever comes in goes
//! through the bounds-checked [`reader::Reader`].

pub mod cell;
pub mod channel_cells;
pub mod circuit_padding;
pub mod conflux;
pub mod create;
pub mod destination;
pub mod extend;
pub mod flow_control;
pub mod onion_service;
pub mod reader;
pub mod relay_cells;
pub mod stream;
