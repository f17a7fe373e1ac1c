//! `/metrics` and `/healthz`, and the signals that ask to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{debug, info};

use crate::telemetry::Telemetry;

/// Becomes true at the first SIGTERM or SIGINT. A SIGINT after that ends the process at once; another SIGTERM does not,
/// for some that send one send it twice.
pub(crate) fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, asked) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let impatient = tokio::select! {
                _ = term.recv() => false,
                _ = int.recv() => true,
            };
            if stop.send_replace(true) && impatient {
                std::process::exit(130);
            }
            info!("asked to stop: rounds under way are finished");
        }
    });
    Ok(asked)
}

/// Starts to serve; the address is the one that was really bound.
pub(crate) async fn serve(address: SocketAddr, telemetry: Arc<Telemetry>) -> anyhow::Result<SocketAddr> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.with_context(|| format!("--listen {address}: cannot listen there; choose another port"))?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(answer_all(TokioIo::new(stream), Arc::clone(&telemetry)))),
                // Out of file descriptors, say: do not spin.
                Err(error) => {
                    debug!(%error, "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(address)
}

async fn answer_all(stream: TokioIo<tokio::net::TcpStream>, telemetry: Arc<Telemetry>) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &telemetry);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(stream, service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection for metrics ended early");
    }
}

fn answer(request: &Request<Incoming>, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, b"ok\n".to_vec()),
        "/metrics" => match telemetry.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n").into_bytes()),
        },
        _ => (StatusCode::NOT_FOUND, b"/metrics and /healthz are here\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
