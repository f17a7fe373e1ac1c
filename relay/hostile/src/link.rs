//! A link: TCP, TLS, cells. Every step may be left out, repeated or come in the wrong place.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use crate::cells::{Cell, command, fixed, netinfo, versions};
use crate::scene::Scene;

/// Link versions that we speak unless a probe says otherwise.
const SPOKEN: [u16; 3] = [3, 4, 5];

/// What came next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A cell.
    Cell(Cell),
    /// The end: of TCP or of TLS.
    Closed,
    /// Nothing for as long as was waited.
    Silence,
}

/// A link whose TLS is up.
#[derive(Debug)]
pub struct Link {
    tls: ClientConnection,
    socket: TcpStream,
    inbox: Vec<u8>,
    /// Bytes at the inbox's beginning that were taken: they go when they are half of it, so that a flood of answers costs no more
    /// a cell than a few do.
    taken: usize,
    /// Whether circuit ids are read with four bytes.
    pub wide: bool,
    closed: bool,
    next_circuit: u32,
}

impl Link {
    /// TLS and nothing more.
    ///
    /// # Errors
    /// The relay does not shake hands.
    pub fn tls(scene: &Scene, source: Ipv4Addr) -> Result<Self> {
        let mut socket = scene.connect(source)?;
        let name = ServerName::try_from("www.example.com").context("a name")?;
        let mut tls = ClientConnection::new(settings()?, name)?;
        tls.set_buffer_limit(None);
        socket.set_read_timeout(Some(scene.patience))?;
        socket.set_write_timeout(Some(scene.patience))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).context("TLS")?;
        }
        Ok(Self {
            tls,
            socket,
            inbox: Vec::new(),
            taken: 0,
            wide: false,
            closed: false,
            next_circuit: 0x8000_0001,
        })
    }

    /// TLS and VERSIONS, with all that the relay says up to its NETINFO.
    ///
    /// # Errors
    /// It does not get that far.
    pub fn versions(scene: &Scene, source: Ipv4Addr) -> Result<Self> {
        let mut link = Self::tls(scene, source)?;
        link.send(&versions(&SPOKEN));
        let end = Instant::now() + scene.patience;
        loop {
            match link.next(end.saturating_duration_since(Instant::now())) {
                Heard::Cell(cell) if cell.command == command::NETINFO => return Ok(link),
                Heard::Cell(_) => {}
                other => bail!("{other:?} where the relay's NETINFO should come"),
            }
        }
    }

    /// An open link, as a client has it.
    ///
    /// # Errors
    /// It does not get that far.
    pub fn open(scene: &Scene, source: Ipv4Addr) -> Result<Self> {
        let mut link = Self::versions(scene, source)?;
        link.send(&netinfo());
        ensure!(!link.closed, "the relay closed the link after NETINFO");
        Ok(link)
    }

    /// An id for a circuit, of the half that is ours.
    pub fn fresh_circuit(&mut self) -> u32 {
        self.next_circuit += 1;
        self.next_circuit - 1
    }

    /// Sends bytes. That the peer has gone is heard with [`next`](Self::next).
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.tls.writer().write_all(bytes).and_then(|()| {
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.socket)?;
            }
            Ok(())
        });
        if sent.is_err() {
            self.drain();
            self.closed = true;
        }
    }

    /// Sends much, and reads what comes meanwhile, so that neither side waits for the other.
    pub fn send_much(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(16 * 1024) {
            if self.closed {
                return;
            }
            self.send(part);
            self.drain();
        }
    }

    /// Takes what is there, without waiting.
    fn drain(&mut self) {
        if self.socket.set_nonblocking(true).is_err() {
            return;
        }
        while !self.closed && self.read() {}
        let _ = self.socket.set_nonblocking(false);
    }

    /// Reads once. Tells whether anything came.
    fn read(&mut self) -> bool {
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => self.closed = true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.closed = true,
        }
        if self.tls.process_new_packets().is_err() {
            self.closed = true;
        }
        let mut plain = [0; 16 * 1024];
        loop {
            match self.tls.reader().read(&mut plain) {
                Ok(0) => {
                    self.closed = true;
                    break;
                }
                Ok(length) => self.inbox.extend_from_slice(plain.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.closed = true;
                    break;
                }
            }
        }
        true
    }

    /// The next cell, or why there is none.
    pub fn next(&mut self, patience: Duration) -> Heard {
        let end = Instant::now() + patience;
        loop {
            if let Some(cell) = self.take() {
                return Heard::Cell(cell);
            }
            if self.closed {
                return Heard::Closed;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            let _ = self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))));
            self.read();
        }
    }

    fn take(&mut self) -> Option<Cell> {
        let width = if self.wide { 4 } else { 2 };
        let waiting = self.inbox.get(self.taken..)?;
        let (id, rest) = waiting.split_at_checked(width)?;
        let circuit = id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        let (command, rest) = rest.split_first()?;
        let command = *command;
        let (length, header) = if command == command::VERSIONS || command >= 128 {
            let (length, _) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), width + 3)
        } else {
            (crate::cells::BODY_BYTES, width + 1)
        };
        let body = waiting.get(header..header + length)?.to_vec();
        self.taken += header + length;
        if self.taken * 2 >= self.inbox.len() {
            self.inbox.drain(..self.taken);
            self.taken = 0;
        }
        if command == command::VERSIONS {
            self.wide = true;
        }
        Some(Cell { circuit, command, body })
    }

    /// Whether the link still makes circuits, asked by a CREATE_FAST; what else comes meanwhile is passed over.
    pub fn is_alive(&mut self, patience: Duration) -> bool {
        let circuit = self.fresh_circuit();
        self.send(&fixed(circuit, command::CREATE_FAST, &[7; 20]));
        let end = Instant::now() + patience;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Heard::Cell(cell) if cell.circuit == circuit => return cell.command == command::CREATED_FAST,
                Heard::Cell(_) => {}
                Heard::Closed | Heard::Silence => return false,
            }
        }
    }
}

fn settings() -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let settings = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(settings))
}

/// We attack whoever answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
