//! The directory cache: what clients and relays fetch from us over BEGIN_DIR streams (dir-spec, "Directory cache operation").
//!
//! Pure: a stream's bytes, the documents we hold and the time go in, the answer's bytes come out. One HTTP/1.0 exchange
//! a stream; the stream itself is the engine's.
//!
//! ```text
//! stream ─▶ conversation ─▶ request ─▶ answer(&Store, …) ─▶ conversation ─▶ stream
//!                                         ▲ compress
//! ```
//!
//! All shards share one [`Service`]: the documents, and what all answers under way may cost together.

pub mod answer;
pub mod budget;
pub mod compress;
pub mod conversation;
pub mod onion_services;
pub mod recent;
pub mod request;
pub mod service;
pub mod store;

pub use answer::{Answer, Asker};
pub use conversation::Conversation;
pub use service::Service;
pub use store::Store;
