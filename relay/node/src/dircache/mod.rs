//! The directory cache: what clients and relays fetch from us over BEGIN_DIR streams (dir-spec, "Directory cache operation").
//!
//! Pure: a request's bytes, the documents we hold and the time go in, the answer's bytes come out. One HTTP/1.0 exchange
//! a stream; the stream itself is the engine's.
//!
//! ```text
//! bytes ─▶ request ─▶ answer(&Store, …) ─▶ bytes
//!                        ▲ compress
//! ```

pub mod answer;
pub mod compress;
pub mod request;
pub mod store;

pub use answer::{Asker, answer};
pub use store::Store;
