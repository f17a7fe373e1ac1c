//! Connections: few at once, none for long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::listen::Listener;
use super::{Admin, Port, answer};
use crate::metrics::counters::{Began, Kind};

/// Connections of one port at once. Prometheus and the kubelet come one at a time.
const CONNECTIONS_MAX: usize = 16;
/// A whole connection, from its first byte to the last of the answer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// The head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// hyper's least; no head of a request that makes sense here is longer.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// After an accept that failed for want of descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(listeners: Vec<Arc<Listener>>, admin: Arc<Admin>) {
    let mut shutdown = admin.shutdown.clone();
    for listener in listeners {
        tokio::spawn(accept_all(listener, Arc::clone(&admin)));
    }
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accept_all(listener: Arc<Listener>, admin: Arc<Admin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, peer) = match listener.socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("Couldn't accept a connection on a port for the owner: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = Arc::clone(&places).try_acquire_owned().ok();
        let Some(place) = place.filter(|_| is_welcome(listener.port, peer, &admin)) else {
            // As C tor does: the connection ends without a word.
            if listener.port == Port::Metrics {
                admin.traffic.connections.reject(Kind::Metrics, peer.ip());
            }
            continue;
        };
        let (port, admin) = (listener.port, Arc::clone(&admin));
        tokio::spawn(async move {
            answer_one(port, stream, peer, admin).await;
            drop(place);
        });
    }
}

fn is_welcome(port: Port, peer: SocketAddr, admin: &Admin) -> bool {
    match port {
        Port::Metrics => admin.config.borrow().may_read_metrics(peer.ip()),
        Port::Status => true,
    }
}

async fn answer_one(port: Port, stream: TcpStream, peer: SocketAddr, admin: Arc<Admin>) {
    let _counted = (port == Port::Metrics).then(|| {
        let connections = &admin.traffic.connections;
        connections.open(Kind::Metrics, Began::Peer, peer.ip())
    });
    let service = service_fn(|request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(answer::answer(port, &request, &admin).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("A connection on a port for the owner ended early: {error}"),
        Err(_) => tracing::debug!("A connection on a port for the owner took too long."),
    }
}
