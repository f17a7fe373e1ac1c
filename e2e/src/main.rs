//! End to end: real processes on this machine.

fn main() {}
