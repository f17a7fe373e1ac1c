//! TLS as Tor uses it: a pipe with an exporter. Identities are proven inside it, not by it (tor-spec, "Channels").
//!
//! [`Session`] is one connection without its socket: ciphertext in, plain bytes out, and the other way round.
//! It is built on rustls's unbuffered door, which costs half of the buffered one (64 KiB reads, one write per
//! batch); that door has no exporter, so [`exporter`] computes it from the secrets that rustls shows to a key log.

mod exporter;
mod profile;
mod session;
#[cfg(test)]
mod tests;

pub use profile::{LinkCertificate, TlsProfile, client_name};
pub use session::{Progress, Session, TlsError};
