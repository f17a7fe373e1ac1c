//! End to end: real processes on this machine.
//!
//! A real Kubernetes in network namespaces of its own, a private Tor network of C tor beside it, the images that
//! both need, and the stories told on them. Everything here needs root and works on this machine only; nothing
//! leaves loopback and the addresses of RFC 2544 (198.18.0.0/15) and RFC 5737 (203.0.113.0/24), which are routed nowhere.

pub mod bench;
pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod fuzz;
pub mod image;
pub mod interrupt;
pub mod machine;
pub mod process;
pub mod programs;
pub mod say;
pub mod scale;
pub mod snapshot;
pub mod state;
pub mod story;
pub mod suite;
pub mod tornet;
