//! What an exit remembers of the DNS, and for how long. `resolver` asks, `cache` remembers, `honesty`
//! looks whether the servers tell the truth.
//!
//! A name is nobody's business: nothing in here has a `Debug` that tells one.

mod cache;
mod honesty;
mod lifetime;
pub mod resolver;

pub use cache::{Asked, Cache, Found, Key, Outcome};
pub use lifetime::{LIFETIME_MAX, client_ttl_seconds};
