//! A private Tor network of C tor.

pub mod cli;
