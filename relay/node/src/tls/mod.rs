//! TLS as Tor uses it: a pipe with an exporter. Identities are proven inside it, not by it (tor-spec, "Channels").
//!
//! [`Session`] is one connection without its socket: ciphertext in, plain bytes out, and the other way round.
//! It begins on rustls's unbuffered door, which costs half of the buffered one (64 KiB reads, one write per
//! batch); that door has no exporter, so [`exporter`] computes it from the secrets that rustls shows to a key log.
//! When a handshake of TLS 1.3 has ended, [`records`] take over with rustls's keys; TLS 1.2 stays with rustls.

mod exporter;
mod profile;
mod records;
mod room;
mod session;
#[cfg(test)]
mod tests;
mod unbuffered;

pub use profile::{LinkCertificate, TlsProfile, client_name};
pub use records::RecordError;
pub use room::Room;
pub use session::{Progress, Session, TlsError};
