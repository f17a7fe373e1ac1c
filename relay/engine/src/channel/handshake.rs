//! The link handshake as states that eat each other (tor-spec, "Negotiating and initializing channels").
//!
//! A cell that comes at the wrong time finds no method to call (TROVE-2026-006 was a CERTS out of order).
//!
//! ```text
//! responder:  AwaitVersions -> AwaitIntention --CERTS--> AwaitKeying -> AwaitAuthenticate -> AwaitNetinfo -> open
//!                                    \--NETINFO--------------------------------------------------------> open, a client
//! initiator:  AwaitVersions -> AwaitCerts -> AwaitChallenge -> AwaitKeying -> AwaitNetinfo -> open
//! ```
//!
//! AwaitKeying waits for the driver's [`Input::Exported`](crate::Input::Exported), not for the peer: bytes that come
//! meanwhile are held back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::Signer;
use rand::{RngExt, rngs::StdRng};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::link_certs::{LinkCertError, ProvenInitiator, ProvenPeer, prove_initiator, prove_responder};
use relay_wire::cell::{CircIdWidth, Command, write_fixed, write_variable};
use relay_wire::channel_cells::{
    AUTHENTICATE_FIXED_BYTES, AUTHENTICATE_SIGNED_BYTES, Authenticate, BadLinkCell, Netinfo, challenge_offers_ed25519,
    versions, write_auth_challenge, write_versions,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::settings::{InitiatorCredentials, ResponderCredentials};

/// Link versions that we speak.
const SPOKEN: [u16; 3] = [3, 4, 5];

/// Who broke the handshake, and how. Whatever it is, the channel closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkError {
    OutOfOrder,
    NoCommonVersion,
    Malformed(BadLinkCell),
    Certs(LinkCertError),
    OtherIdentity,
    NoAuthentication,
    OtherSession,
}

impl LinkError {
    /// The rule that was broken, for the log.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::OutOfOrder => "a cell came at the wrong time in the link handshake",
            Self::NoCommonVersion => "no common link version",
            Self::Malformed(_) => "a cell of the link handshake is malformed",
            Self::Certs(_) => "CERTS proves nothing",
            Self::OtherIdentity => "the relay is not the one that was wanted",
            Self::NoAuthentication => "AUTH_CHALLENGE offers no way to authenticate that we know",
            Self::OtherSession => "AUTHENTICATE is not about this session",
        }
    }
}

impl From<BadLinkCell> for LinkError {
    fn from(error: BadLinkCell) -> Self {
        Self::Malformed(error)
    }
}

impl From<LinkCertError> for LinkError {
    fn from(error: LinkCertError) -> Self {
        Self::Certs(error)
    }
}

/// Whom we expect at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Expected {
    pub(crate) rsa_identity: RsaIdentity,
    pub(crate) ed25519_identity: Option<Ed25519Identity>,
}

impl Expected {
    /// The identity decision: RSA must be the same, Ed25519 too where it was named (tor-spec, tor#40563).
    pub(crate) fn is(&self, peer: &ProvenPeer) -> bool {
        self.rsa_identity == peer.rsa() && self.ed25519_identity.is_none_or(|expected| expected == peer.ed25519())
    }
}

/// What a step may use.
pub(crate) struct Surroundings<'a> {
    pub(crate) wall: SystemTime,
    pub(crate) dice: &'a mut StdRng,
    /// Bytes for the peer are appended here.
    pub(crate) out: &'a mut Vec<u8>,
    /// Where we see the peer.
    pub(crate) peer: IpAddr,
    /// What we say of ourselves in NETINFO.
    pub(crate) own: &'a [IpAddr],
}

/// One cell of the handshake.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) command: Command,
    pub(crate) body: &'a [u8],
    /// With its header, as it was on the wire.
    pub(crate) raw: &'a [u8],
}

/// An open link.
pub(crate) struct Opened {
    pub(crate) version: u16,
    /// `None` for clients and bridges.
    pub(crate) peer: Option<ProvenPeer>,
    pub(crate) netinfo: Netinfo,
}

/// What a step leads to.
pub(crate) enum Step {
    Wait(Handshake),
    /// As `Wait`, and keying material is to be exported for this context.
    Export(Handshake, [u8; 32]),
    Open(Opened),
}

/// All states, for the one who keeps them.
pub(crate) enum Handshake {
    ResponderVersions(AwaitVersions<Responder>),
    Intention(AwaitIntention),
    ResponderKeying(AwaitKeying<Claim>),
    Authenticate(AwaitAuthenticate),
    InitiatorVersions(AwaitVersions<Initiator>),
    Certs(AwaitCerts),
    Challenge(AwaitChallenge),
    InitiatorKeying(AwaitKeying<Acceptance>),
    Netinfo(AwaitNetinfo),
}

impl Handshake {
    /// We were connected to.
    pub(crate) fn respond(credentials: Arc<ResponderCredentials>) -> Self {
        Self::ResponderVersions(AwaitVersions {
            role: Responder { credentials },
            log: Log::default(),
        })
    }

    /// We connected, and speak first.
    pub(crate) fn initiate(
        credentials: Arc<InitiatorCredentials>,
        expected: Expected,
        tls_certificate_sha256: [u8; 32],
        out: &mut Vec<u8>,
    ) -> Self {
        let mut log = Log::default();
        log.send(out, |out| {
            variable(out, CircIdWidth::Two, Command::VERSIONS, &write_versions(&SPOKEN))
        });
        let role = Initiator {
            credentials,
            expected,
            tls_certificate_sha256,
        };
        Self::InitiatorVersions(AwaitVersions { role, log })
    }

    /// Whether the next step is the driver's and not the peer's.
    pub(crate) fn is_parked(&self) -> bool {
        matches!(self, Self::ResponderKeying(_) | Self::InitiatorKeying(_))
    }

    /// The width of circuit ids in the next cell.
    pub(crate) fn version(&self) -> Option<u16> {
        match self {
            Self::ResponderVersions(_) | Self::InitiatorVersions(_) => None,
            Self::Intention(state) => Some(state.version),
            Self::ResponderKeying(state) => Some(state.version),
            Self::Authenticate(state) => Some(state.version),
            Self::Certs(state) => Some(state.version),
            Self::Challenge(state) => Some(state.version),
            Self::InitiatorKeying(state) => Some(state.version),
            Self::Netinfo(state) => Some(state.version),
        }
    }

    /// One cell of the peer's.
    pub(crate) fn on_cell(self, cell: Cell<'_>, around: &mut Surroundings<'_>) -> Result<Step, LinkError> {
        match (self, cell.command) {
            (mut state, Command::VPADDING | Command::AUTHORIZE) => {
                state.note_padding(cell.raw);
                Ok(Step::Wait(state))
            }
            (Self::ResponderVersions(state), Command::VERSIONS) => state.on_versions(cell, around),
            (Self::Intention(state), Command::CERTS) => state.on_certs(cell, around),
            (Self::Intention(state), Command::NETINFO) => open(cell, None, state.version),
            (Self::Authenticate(state), Command::AUTHENTICATE) => state.on_authenticate(cell),
            // Who shows certificates but no proof stays a client.
            (Self::Authenticate(state), Command::NETINFO) => open(cell, None, state.version),
            (Self::InitiatorVersions(state), Command::VERSIONS) => state.on_versions(cell),
            (Self::Certs(state), Command::CERTS) => state.on_certs(cell, around),
            (Self::Challenge(state), Command::AUTH_CHALLENGE) => state.on_challenge(cell, around),
            (Self::Netinfo(state), Command::NETINFO) => open(cell, state.peer, state.version),
            _ => Err(LinkError::OutOfOrder),
        }
    }

    /// The keying material that an [`Step::Export`] asked for.
    pub(crate) fn on_exported(self, material: [u8; 32], around: &mut Surroundings<'_>) -> Result<Step, LinkError> {
        match self {
            Self::ResponderKeying(state) => Ok(state.on_exported(material)),
            Self::InitiatorKeying(state) => Ok(state.on_exported(material, around)),
            _ => Err(LinkError::OutOfOrder),
        }
    }

    /// Padding counts as bytes of the handshake as long as those are hashed.
    fn note_padding(&mut self, raw: &[u8]) {
        match self {
            Self::ResponderVersions(state) => state.log.received.update(raw),
            Self::Intention(state) => state.log.received.update(raw),
            Self::Authenticate(state) => state.claim.log.received.update(raw),
            Self::InitiatorVersions(state) => state.log.received.update(raw),
            Self::Certs(state) => state.log.received.update(raw),
            Self::Challenge(state) => state.log.received.update(raw),
            Self::ResponderKeying(_) | Self::InitiatorKeying(_) | Self::Netinfo(_) => {}
        }
    }
}

fn open(cell: Cell<'_>, peer: Option<ProvenPeer>, version: u16) -> Result<Step, LinkError> {
    Ok(Step::Open(Opened {
        version,
        peer,
        netinfo: Netinfo::read(cell.body)?,
    }))
}

/// Digests over what went each way.
#[derive(Default, Clone)]
pub(crate) struct Log {
    sent: Sha256,
    received: Sha256,
}

impl Log {
    fn send(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let before = out.len();
        write(out);
        self.sent.update(out.get(before..).unwrap_or_default());
    }
}

/// The bodies written here are far below a variable cell's limit, save certificates, which the process made itself.
fn variable(out: &mut Vec<u8>, width: CircIdWidth, command: Command, body: &[u8]) {
    let _fits = write_variable(out, width, command, body);
    debug_assert!(_fits.is_ok(), "our own certificates fit into a cell");
}

/// Both sides speak the highest version that they share.
fn common_version(body: &[u8]) -> Result<u16, LinkError> {
    let shared = versions(body)?.filter(|theirs| SPOKEN.contains(theirs)).max();
    shared.ok_or(LinkError::NoCommonVersion)
}

fn write_netinfo(around: &mut Surroundings<'_>, version: u16) {
    // After 2106 this must become a wider field in the specification too.
    let seconds = around
        .wall
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as u32);
    let netinfo = Netinfo {
        timestamp: seconds,
        other: Some(around.peer),
        own: around.own.to_vec(),
    };
    write_fixed(
        around.out,
        CircIdWidth::of_version(version),
        0,
        Command::NETINFO,
        &netinfo.write(),
    );
}

/// Waits for the peer's VERSIONS.
pub(crate) struct AwaitVersions<R> {
    role: R,
    log: Log,
}

pub(crate) struct Responder {
    credentials: Arc<ResponderCredentials>,
}

impl AwaitVersions<Responder> {
    fn on_versions(mut self, cell: Cell<'_>, around: &mut Surroundings<'_>) -> Result<Step, LinkError> {
        let version = common_version(cell.body)?;
        let width = CircIdWidth::of_version(version);
        self.log.received.update(cell.raw);
        let challenge = write_auth_challenge(&around.dice.random());
        let certs = &self.role.credentials.certs_body;
        self.log.send(around.out, |out| {
            variable(out, CircIdWidth::Two, Command::VERSIONS, &write_versions(&SPOKEN));
            variable(out, width, Command::CERTS, certs);
            variable(out, width, Command::AUTH_CHALLENGE, &challenge);
        });
        write_netinfo(around, version);
        let credentials = self.role.credentials;
        Ok(Step::Wait(Handshake::Intention(AwaitIntention {
            version,
            credentials,
            log: self.log,
        })))
    }
}

/// A responder that has said everything: does the peer want to be a relay (CERTS) or a client (NETINFO)?
pub(crate) struct AwaitIntention {
    version: u16,
    credentials: Arc<ResponderCredentials>,
    log: Log,
}

impl AwaitIntention {
    fn on_certs(mut self, cell: Cell<'_>, around: &Surroundings<'_>) -> Result<Step, LinkError> {
        let initiator = prove_initiator(cell.body, around.wall)?;
        self.log.received.update(cell.raw);
        let context = *initiator.claimed_rsa_sha256();
        let purpose = Claim {
            initiator,
            credentials: self.credentials,
            log: self.log,
        };
        Ok(Step::Export(
            Handshake::ResponderKeying(AwaitKeying {
                version: self.version,
                purpose,
            }),
            context,
        ))
    }
}

/// Waits for the driver to export keying material.
pub(crate) struct AwaitKeying<P> {
    version: u16,
    purpose: P,
}

/// A peer has shown certificates; whether they are its own it has yet to prove.
pub(crate) struct Claim {
    initiator: ProvenInitiator,
    credentials: Arc<ResponderCredentials>,
    log: Log,
}

impl AwaitKeying<Claim> {
    fn on_exported(self, material: [u8; 32]) -> Step {
        let state = AwaitAuthenticate {
            version: self.version,
            claim: self.purpose,
            material,
        };
        Step::Wait(Handshake::Authenticate(state))
    }
}

/// Waits for the proof.
pub(crate) struct AwaitAuthenticate {
    version: u16,
    claim: Claim,
    material: [u8; 32],
}

impl AwaitAuthenticate {
    fn on_authenticate(self, cell: Cell<'_>) -> Result<Step, LinkError> {
        let Claim {
            initiator,
            credentials,
            log,
        } = self.claim;
        let shown = Authenticate::read(cell.body)?;
        let expected = SessionFacts {
            initiator_rsa: initiator.claimed_rsa_sha256(),
            responder_rsa: &credentials.rsa_identity_sha256,
            initiator_ed25519: initiator.claimed_ed25519(),
            responder_ed25519: credentials.ed25519_identity,
            responder_log: log.sent,
            initiator_log: log.received,
            tls_certificate: &credentials.tls_certificate_sha256,
            keying: &self.material,
        };
        if !bool::from(expected.write().ct_eq(shown.fixed)) {
            return Err(LinkError::OtherSession);
        }
        let peer = initiator.prove(shown.signed, &shown.signature)?;
        let state = AwaitNetinfo {
            version: self.version,
            peer: Some(peer),
        };
        Ok(Step::Wait(Handshake::Netinfo(state)))
    }
}

/// What AUTHENTICATE says of a session up to its random bytes; both sides compute it.
struct SessionFacts<'a> {
    initiator_rsa: &'a [u8; 32],
    responder_rsa: &'a [u8; 32],
    initiator_ed25519: Ed25519Identity,
    responder_ed25519: Ed25519Identity,
    responder_log: Sha256,
    initiator_log: Sha256,
    tls_certificate: &'a [u8; 32],
    keying: &'a [u8; 32],
}

impl SessionFacts<'_> {
    fn write(self) -> [u8; AUTHENTICATE_FIXED_BYTES] {
        let (responder_log, initiator_log) = (self.responder_log.finalize(), self.initiator_log.finalize());
        let fields: [&[u8]; 9] = [
            b"AUTH0003",
            self.initiator_rsa,
            self.responder_rsa,
            &self.initiator_ed25519.0,
            &self.responder_ed25519.0,
            &responder_log,
            &initiator_log,
            self.tls_certificate,
            self.keying,
        ];
        let mut fixed = [0; AUTHENTICATE_FIXED_BYTES];
        let bytes = fields.iter().flat_map(|field| field.iter());
        fixed.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        fixed
    }
}

pub(crate) struct Initiator {
    credentials: Arc<InitiatorCredentials>,
    expected: Expected,
    tls_certificate_sha256: [u8; 32],
}

impl AwaitVersions<Initiator> {
    fn on_versions(mut self, cell: Cell<'_>) -> Result<Step, LinkError> {
        let version = common_version(cell.body)?;
        self.log.received.update(cell.raw);
        Ok(Step::Wait(Handshake::Certs(AwaitCerts {
            version,
            role: self.role,
            log: self.log,
        })))
    }
}

/// An initiator that waits to learn whom it reached.
pub(crate) struct AwaitCerts {
    version: u16,
    role: Initiator,
    log: Log,
}

impl AwaitCerts {
    fn on_certs(mut self, cell: Cell<'_>, around: &Surroundings<'_>) -> Result<Step, LinkError> {
        let peer = prove_responder(cell.body, &self.role.tls_certificate_sha256, around.wall)?;
        if !self.role.expected.is(&peer) {
            return Err(LinkError::OtherIdentity);
        }
        self.log.received.update(cell.raw);
        let state = AwaitChallenge {
            version: self.version,
            role: self.role,
            log: self.log,
            peer,
        };
        Ok(Step::Wait(Handshake::Challenge(state)))
    }
}

/// An initiator that knows whom it reached and waits for the challenge.
pub(crate) struct AwaitChallenge {
    version: u16,
    role: Initiator,
    log: Log,
    peer: ProvenPeer,
}

impl AwaitChallenge {
    fn on_challenge(mut self, cell: Cell<'_>, around: &mut Surroundings<'_>) -> Result<Step, LinkError> {
        if !challenge_offers_ed25519(cell.body)? {
            return Err(LinkError::NoAuthentication);
        }
        self.log.received.update(cell.raw);
        let certs = &self.role.credentials.certs_body;
        let width = CircIdWidth::of_version(self.version);
        self.log
            .send(around.out, |out| variable(out, width, Command::CERTS, certs));
        let context = self.role.credentials.rsa_identity_sha256;
        let purpose = Acceptance {
            role: self.role,
            log: self.log,
            peer: self.peer,
        };
        Ok(Step::Export(
            Handshake::InitiatorKeying(AwaitKeying {
                version: self.version,
                purpose,
            }),
            context,
        ))
    }
}

/// The peer is the right one and wants to know who we are.
pub(crate) struct Acceptance {
    role: Initiator,
    log: Log,
    peer: ProvenPeer,
}

impl AwaitKeying<Acceptance> {
    fn on_exported(self, material: [u8; 32], around: &mut Surroundings<'_>) -> Step {
        let Acceptance { role, log, peer } = self.purpose;
        let facts = SessionFacts {
            initiator_rsa: &role.credentials.rsa_identity_sha256,
            responder_rsa: peer.rsa_sha256(),
            initiator_ed25519: role.credentials.ed25519_identity,
            responder_ed25519: peer.ed25519(),
            responder_log: log.received,
            initiator_log: log.sent,
            tls_certificate: &role.tls_certificate_sha256,
            keying: &material,
        };
        let mut signed = [0; AUTHENTICATE_SIGNED_BYTES];
        let (fixed, random) = signed.split_at_mut(AUTHENTICATE_FIXED_BYTES);
        fixed.copy_from_slice(&facts.write());
        around.dice.fill(random);
        let signature = role.credentials.link_authentication.sign(&signed).to_bytes();
        let width = CircIdWidth::of_version(self.version);
        variable(
            around.out,
            width,
            Command::AUTHENTICATE,
            &Authenticate::write(&signed, &signature),
        );
        write_netinfo(around, self.version);
        Step::Wait(Handshake::Netinfo(AwaitNetinfo {
            version: self.version,
            peer: Some(peer),
        }))
    }
}

/// Everything is proven; the peer's NETINFO opens the link.
pub(crate) struct AwaitNetinfo {
    version: u16,
    peer: Option<ProvenPeer>,
}
