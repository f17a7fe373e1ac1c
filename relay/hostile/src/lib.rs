//! A hostile peer: links and cells made by hand, with no Tor library behind them, played against any relay to see what it
//! answers. It knows nothing of how our relay is built, so what both would misread alike shows.
//!
//! [`catalog`] has the probes, by the rows of docs/attacks.md: a name, how it is played, what C tor was seen to answer and
//! what ours must. `e2e story hostile` plays them against both in one run.
//!
//! `scene` who is attacked and from where → `link` TLS and cells → `talk` a circuit, by `onion`'s keys → `probes`.

pub mod catalog;
pub mod cells;
pub mod dns;
pub mod link;
pub mod onion;
pub mod probes;
pub mod scene;
pub mod talk;

pub use catalog::{Answer, Ours, Pace, Probe, Row};
pub use scene::{Scene, Target};
