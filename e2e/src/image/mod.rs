//! Container images without a registry: our static programs as OCI archives, the same bytes from the same input.
//!
//! `build` makes the programs, `catalog` says what each image holds, `layer` and `archive` turn that into bytes, which
//! containerd (`ctr images import`), `kind load image-archive`, `podman load` and `docker load` take.
//!
//! Everything that could differ between two runs is fixed: times are 0, owners are root, entries are sorted, nothing is
//! compressed, no path of this machine is in a program.

pub mod archive;
pub mod build;
pub mod catalog;
pub mod cli;
mod elf;
pub mod layer;
mod reproduce;
mod shared;

pub use archive::{Image, Made};
pub use build::{BenchPrograms, Programs, build_bench, build_load, build_pause, build_static};
pub use catalog::{Kind, make, make_all, make_pause_and_busybox};
pub use reproduce::{build_elsewhere, reproduce};

/// The images that hold programs of ours.
pub const OURS: [Kind; 3] = [Kind::Relay, Kind::Operator, Kind::Pause];

/// The version that our own images carry as their tag.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
