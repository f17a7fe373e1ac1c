//! The relay process.

fn main() {}
