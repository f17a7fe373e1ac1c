//! What the process tells the engine about itself.

use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::crypto::x25519::Secret;
use crate::dos::DosOptions;

/// The relay's own settings. Made anew by the process at each reload or key rotation.
pub struct Settings {
    /// SHA-1 of the DER of our RSA identity key.
    pub rsa_identity: RsaIdentity,
    /// Our Ed25519 master identity.
    pub ed25519_identity: Ed25519Identity,
    /// Our published addresses, at most one a family; NETINFO says them in this order.
    pub advertised: Vec<SocketAddr>,
    /// Onion keys, the newest first; older ones while their grace lasts (tor-spec, "onion-key-grace-period-days").
    pub onion_keys: Vec<OnionKey>,
    /// torrc `ExtendAllowPrivateAddresses`.
    pub extend_allow_private_addresses: bool,
    /// What we do for streams that end here.
    pub services: StreamServices,
    /// How we stand up to floods.
    pub defences: Defences,
    /// Conflux and padding.
    pub extras: Extras,
}

/// What torrc says of services that clients ask for besides streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extras {
    /// `ConfluxEnabled`; `None` leaves it to the consensus (`cfx_enabled`, default 1).
    pub conflux: Option<bool>,
    /// `CircuitPadding`: whether padding machines run on circuits.
    pub circuit_padding: bool,
    /// `ConnectionPadding`: whether idle links of clients are padded; `None` leaves it to the consensus, and to the client.
    pub connection_padding: Option<bool>,
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            conflux: None,
            circuit_padding: true,
            connection_padding: None,
        }
    }
}

/// What torrc says of floods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defences {
    /// `DoS*`.
    pub dos: DosOptions,
    /// Bytes that may wait in all queues of all shards: torrc `MaxMemInQueues`. Beyond it the circuits whose cells have
    /// waited longest end. `None`: no limit.
    pub queued_bytes_max: Option<u64>,
}

/// Which streams may end here. By default none. The exit policy itself and the refusal of re-entry into the network are the
/// process's: it knows what a name resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamServices {
    /// Whether BEGIN and RESOLVE go out to the process at all. If not, they are answered as a relay without exit does.
    pub exits: bool,
    /// Whether BEGIN_DIR does: our directory server runs.
    pub directory: bool,
    /// Whether BEGIN from a relay that the consensus does not list is refused: torrc `RefuseUnknownExits`; `None` leaves it to
    /// the consensus (`refuseunknownexits`, default 1).
    pub refuse_unknown_exits: Option<bool>,
    /// torrc `ServerDNSAllowNonRFC953Hostnames`: names may hold any printable character.
    pub any_printable_name: bool,
}

/// One medium-term key that clients make circuits with.
#[derive(Clone)]
pub struct OnionKey {
    /// What descriptors say.
    pub public: PublicKey,
    /// Never leaves the process. Wiped on drop by its own crate.
    pub secret: Secret,
}

impl From<&StaticSecret> for OnionKey {
    fn from(secret: &StaticSecret) -> Self {
        let secret = Secret::from(secret);
        Self {
            public: secret.public().into(),
            secret,
        }
    }
}

/// What we show when a peer has connected to us. Bound to one TLS certificate, so it changes with it.
pub struct ResponderCredentials {
    /// The whole body of our CERTS cell: types 1, 2, 4, 5 and 7.
    pub certs_body: Vec<u8>,
    /// SHA-256 of the DER of the TLS certificate.
    pub tls_certificate_sha256: [u8; 32],
    /// SHA-256 of the DER (PKCS#1) of our RSA identity key: SID.
    pub rsa_identity_sha256: [u8; 32],
    /// Our Ed25519 master identity: SID_ED.
    pub ed25519_identity: Ed25519Identity,
}

/// What we show when we have connected to a peer.
pub struct InitiatorCredentials {
    /// The whole body of our CERTS cell: types 2, 3, 4, 6 and 7.
    pub certs_body: Vec<u8>,
    /// The key that certificate 6 names. In memory only.
    pub link_authentication: SigningKey,
    /// SHA-256 of the DER (PKCS#1) of our RSA identity key: CID.
    pub rsa_identity_sha256: [u8; 32],
    /// Our Ed25519 master identity: CID_ED.
    pub ed25519_identity: Ed25519Identity,
}
