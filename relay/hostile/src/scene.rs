//! Who is attacked, from where, and who stands around.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::TcpStream;

/// A relay as its descriptor names it.
#[derive(Debug, Clone)]
pub struct Target {
    /// For reading.
    pub name: String,
    /// Where it takes links.
    pub address: SocketAddr,
    /// SHA-1 of its RSA identity.
    pub rsa_id: [u8; 20],
    /// Its Ed25519 identity.
    pub ed25519_id: [u8; 32],
    /// Its ntor onion key.
    pub onion_key: [u8; 32],
}

/// One relay under attack and its surroundings.
#[derive(Debug)]
pub struct Scene {
    /// The one under attack.
    pub target: Target,
    /// Stands before it where a probe needs two hops; honest.
    pub before: Target,
    /// Stands behind it where a probe extends; honest.
    pub behind: Target,
    /// An address of this machine that is public in Tor's eyes, for destinations of our own.
    pub public: Ipv4Addr,
    /// The name server that the target asks, if it is ours.
    pub names: Option<crate::dns::NameServer>,
    /// How long an answer may take on this machine.
    pub patience: Duration,
    sources: AtomicU32,
}

impl Scene {
    /// `first_source` is the first of the addresses, in 127/8, from which probes come: each has its own, as relays count
    /// by address.
    #[must_use]
    pub fn new(target: Target, before: Target, behind: Target, public: Ipv4Addr, first_source: Ipv4Addr) -> Self {
        Self {
            target,
            before,
            behind,
            public,
            names: None,
            patience: Duration::from_secs(15),
            sources: AtomicU32::new(first_source.to_bits()),
        }
    }

    /// An address that nobody came from yet.
    pub fn fresh_source(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.sources.fetch_add(1, Ordering::Relaxed))
    }

    /// A connection to the target.
    ///
    /// # Errors
    /// It takes none.
    pub fn connect(&self, source: Ipv4Addr) -> Result<TcpStream> {
        connect(source, self.target.address)
    }
}

/// A connection from this address.
///
/// # Errors
/// Nobody takes it within 10 s.
pub fn connect(source: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    socket
        .connect_timeout(&to.into(), Duration::from_secs(10))
        .with_context(|| format!("no connection to {to}"))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
