//! Opening the ports.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use relay_formats::torrc::ServicePort;
use tokio::net::TcpListener;

use crate::config::Config;
use crate::metrics::counters::{Began, Connections, Kind, OpenConnection};

/// What a port serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// `MetricsPort`.
    Metrics,
    /// `StatusPort`.
    Status,
}

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("Could not bind to {address}: {error}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// What the system says.
    pub error: std::io::Error,
}

/// Open ports that nobody serves yet.
#[derive(Debug, Default)]
pub struct Ports {
    open: Vec<(Port, StdListener, Option<OpenConnection>)>,
}

/// One port that is served.
pub(super) struct Listener {
    pub(super) port: Port,
    pub(super) socket: TcpListener,
    /// Counts it among the open ones. The status port is no kind of C tor's.
    pub(super) _counted: Option<OpenConnection>,
}

impl Ports {
    /// Whether torrc asks for none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Where each listens.
    pub fn addresses(&self) -> impl Iterator<Item = (Port, SocketAddr)> {
        self.open
            .iter()
            .filter_map(|(port, socket, _)| Some((*port, socket.local_addr().ok()?)))
    }

    pub(super) fn into_listeners(self) -> std::io::Result<Vec<Arc<Listener>>> {
        let ready = |(port, socket, counted): (Port, StdListener, _)| {
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket)?;
            Ok(Arc::new(Listener {
                port,
                socket,
                _counted: counted,
            }))
        };
        self.open.into_iter().map(ready).collect()
    }
}

/// Opens what `config` wants.
///
/// # Errors
/// The first port that cannot be had.
pub fn listen(config: &Config, connections: &Connections) -> Result<Ports, BindError> {
    let mut ports = Ports::default();
    for (port, name, wanted) in [
        (Port::Metrics, "Metrics", &config.metrics_ports),
        (Port::Status, "Status", &config.status_ports),
    ] {
        for ServicePort { address, port: number } in wanted {
            let address = SocketAddr::new(*address, number.unwrap_or(0));
            let opened = StdListener::bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
            let (bound, socket) = opened.map_err(|error| BindError { address, error })?;
            tracing::info!("Opened {name} listener connection (ready) on {bound}");
            let counted =
                (port == Port::Metrics).then(|| connections.open(Kind::MetricsListener, Began::Us, bound.ip()));
            ports.open.push((port, socket, counted));
        }
    }
    if !ports.is_empty() && !config.metrics_ports.is_empty() && config.metrics_policy.is_empty() {
        tracing::warn!("MetricsPort without MetricsPortPolicy: nobody may read the metrics.");
    }
    Ok(ports)
}
