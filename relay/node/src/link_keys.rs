//! What our links show: the TLS certificate and the CERTS cells that vouch for it. Lives in memory only; renewed
//! every two hours, as C tor does (`MAX_SSL_KEY_LIFETIME_INTERNAL`).

use std::sync::Arc;
use std::time::Duration;

use relay_engine::settings::{InitiatorCredentials, ResponderCredentials};

use crate::tls::TlsProfile;

/// New links get new keys after this.
pub const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// One generation of link keys. Links that are up keep the generation that they began with.
pub struct LinkKeys {
    /// TLS of both roles.
    pub tls: TlsProfile,
    /// For links that peers begin; bound to the certificate in `tls`.
    pub responder: Arc<ResponderCredentials>,
    /// For links that we begin.
    pub initiator: Arc<InitiatorCredentials>,
}
