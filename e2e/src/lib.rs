//! Real processes on this machine: what the demo and the tests are made of.
//!
//! `image` makes container images of our programs; `tornet` runs a private network of C tor.

pub mod image;
pub mod tornet;
