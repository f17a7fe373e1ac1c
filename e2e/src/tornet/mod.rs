//! A private Tor network of C tor: authorities, relays, exits and a client, in which any relay may be somebody else's.
//!
//! Nodes stand on addresses of their own that pods can reach (198.18.200.N on the loopback device, taken away again at
//! the end), or on 127.x.y.N, for which nobody need be root. Everything known about a network lies in its folder, so
//! that separate commands (`up`, `fetch`, `down`) work on the same one, and so that a run that was killed can be
//! cleared away by the next.
//!
//! A relay joins as a *slot* (a command run as one of the nodes) or from outside (a pod): it needs the lines of
//! [`Network::torrc_for_strangers`] and is named by its nickname or fingerprint from then on.
//!
//! `spec` what is asked for → `layout` folders, keys (`keys`), torrcs (`torrc`) → `network` start, wait, stop →
//! `fetch` bytes over a chosen path (`circuits` through `control`, from `source`) → `observe` what it cost and what
//! anybody complained about.

mod address;
mod circuits;
pub mod cli;
pub mod conflux;
pub mod consensus;
mod control;
pub mod descriptor;
pub mod fetch;
mod keys;
mod network;
pub mod newcomer;
pub mod observe;
pub mod onion;
pub mod padding;
pub mod quota;
mod source;
pub mod spec;
mod start;
mod state;
mod torrc;

pub use cli::size;
pub use consensus::Listed;
pub use descriptor::Descriptor;
pub use fetch::{Direction, Fetch, Fetched, Pin};
pub use network::{Network, NodeStatus, Status};
pub use spec::{Slot, Spec};
pub use state::Role;

/// Where relays listen for other relays.
pub const OR_PORT: u16 = 9001;
/// Where authorities listen for uploads and questions.
pub const DIR_PORT: u16 = 9030;
/// Where a node takes control commands.
pub const CONTROL_PORT: u16 = 9051;
/// Where the client takes streams.
pub const SOCKS_PORT: u16 = 9050;
/// Where a relay shows its metrics.
pub const METRICS_PORT: u16 = 9035;
