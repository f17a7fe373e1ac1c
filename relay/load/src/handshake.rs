//! The link's handshake in the three parts that we play (tor-spec, "Negotiating and initializing channels"). What the
//! relay under test proves is used where we need it and not checked: it is the one that we were sent to.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use ed25519_dalek::Signer;
use rand::RngExt;
use relay_formats::link_certs::{ProvenPeer, prove_responder};
use relay_node::link_keys::LinkKeys;
use relay_node::tls::Session;
use relay_wire::cell::{CircIdWidth, Command, write_fixed, write_variable};
use relay_wire::channel_cells::{
    AUTHENTICATE_FIXED_BYTES, AUTHENTICATE_SIGNED_BYTES, Authenticate, Netinfo, write_auth_challenge, write_versions,
};
use sha2::{Digest, Sha256};

/// Link versions that we speak: both have circuit ids of four bytes.
const SPOKEN: [u16; 2] = [4, 5];

/// Who we are on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// We began it and prove nothing.
    Client,
    /// We began it and prove who we are.
    Relay,
    /// The relay under test began it.
    Responder,
}

/// A handshake under way.
pub(crate) struct Handshake {
    part: Part,
    peer_address: SocketAddr,
    own_address: SocketAddr,
    heard_versions: bool,
    sent: Sha256,
    received: Sha256,
    peer: Option<ProvenPeer>,
}

impl Handshake {
    /// What we know, and what we say first.
    pub(crate) fn begin(
        part: Part,
        peer_address: SocketAddr,
        own_address: SocketAddr,
        out: &mut Vec<u8>,
    ) -> Result<Self> {
        let mut handshake = Self {
            part,
            peer_address,
            own_address,
            heard_versions: false,
            sent: Sha256::new(),
            received: Sha256::new(),
            peer: None,
        };
        if part != Part::Responder {
            handshake.variable(out, Command::VERSIONS, &write_versions(&SPOKEN))?;
        }
        Ok(handshake)
    }

    /// How wide circuit ids are just now.
    pub(crate) fn width(&self) -> CircIdWidth {
        if self.heard_versions {
            CircIdWidth::Four
        } else {
            CircIdWidth::Two
        }
    }

    /// Takes a cell, `raw` with its header. Tells whether the link is open now.
    pub(crate) fn on_cell(
        &mut self,
        command: Command,
        raw: &[u8],
        body: &[u8],
        session: &Session,
        keys: &LinkKeys,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        match command {
            Command::VERSIONS => {
                self.received.update(raw);
                if self.part == Part::Responder {
                    self.variable(out, Command::VERSIONS, &write_versions(&SPOKEN))?;
                }
                self.heard_versions = true;
                if self.part == Part::Responder {
                    self.variable(out, Command::CERTS, &keys.responder.certs_body)?;
                    let challenge: [u8; 32] = rand::rng().random();
                    self.variable(out, Command::AUTH_CHALLENGE, &write_auth_challenge(&challenge))?;
                    self.netinfo(out);
                }
            }
            Command::CERTS => {
                self.received.update(raw);
                if self.part == Part::Relay {
                    let shown = session
                        .peer_certificate_sha256()
                        .context("a server without certificate")?;
                    let proven = prove_responder(body, &shown, SystemTime::now());
                    self.peer = Some(proven.map_err(|error| anyhow!("the relay's CERTS: {error}"))?);
                }
            }
            Command::AUTH_CHALLENGE => {
                self.received.update(raw);
                if self.part == Part::Relay {
                    self.authenticate(session, keys, out)?;
                }
            }
            Command::NETINFO => {
                if self.part == Part::Client {
                    self.netinfo(out);
                }
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn authenticate(&mut self, session: &Session, keys: &LinkKeys, out: &mut Vec<u8>) -> Result<()> {
        let ours = &keys.initiator;
        self.variable(out, Command::CERTS, &ours.certs_body)?;
        let peer = self.peer.as_ref().context("AUTH_CHALLENGE before CERTS")?;
        let shown = session
            .peer_certificate_sha256()
            .context("a server without certificate")?;
        let keying = session
            .export(&ours.rsa_identity_sha256)
            .context("TLS exports nothing")?;
        let (responder_log, initiator_log) = (self.received.clone().finalize(), self.sent.clone().finalize());
        let (ours_ed25519, theirs_ed25519) = (ours.ed25519_identity, peer.ed25519());
        let fields: [&[u8]; 9] = [
            b"AUTH0003",
            &ours.rsa_identity_sha256,
            peer.rsa_sha256(),
            &ours_ed25519.0,
            &theirs_ed25519.0,
            &responder_log,
            &initiator_log,
            &shown,
            &keying,
        ];
        let mut signed = [0; AUTHENTICATE_SIGNED_BYTES];
        let (fixed, random) = signed.split_at_mut(AUTHENTICATE_FIXED_BYTES);
        fixed.copy_from_slice(&fields.concat());
        rand::rng().fill(random);
        let signature = ours.link_authentication.sign(&signed).to_bytes();
        self.variable(out, Command::AUTHENTICATE, &Authenticate::write(&signed, &signature))?;
        self.netinfo(out);
        Ok(())
    }

    fn netinfo(&self, out: &mut Vec<u8>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let netinfo = Netinfo {
            // A client keeps its clock to itself, as C tor's does.
            timestamp: if self.part == Part::Client {
                0
            } else {
                since.as_secs() as u32
            },
            other: Some(self.peer_address.ip()),
            own: if self.part == Part::Client {
                Vec::new()
            } else {
                vec![self.own_address.ip()]
            },
        };
        write_fixed(out, CircIdWidth::Four, 0, Command::NETINFO, &netinfo.write());
    }

    fn variable(&mut self, out: &mut Vec<u8>, command: Command, body: &[u8]) -> Result<()> {
        let before = out.len();
        write_variable(out, self.width(), command, body)?;
        self.sent.update(out.get(before..).unwrap_or_default());
        Ok(())
    }
}
