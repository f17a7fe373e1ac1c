//! What each path gives to whom.

use std::time::SystemTime;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use relay_formats::facts::Facts;

use super::token::{self, Verdict};
use super::{Admin, Port};
use crate::metrics::collect::{self, Sources};

/// Prometheus' text form.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON_TYPE: &str = "application/json";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

pub(super) async fn answer<B>(port: Port, request: &Request<B>, admin: &Admin) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match (port, request.uri().path()) {
        (Port::Metrics, "/metrics") => metrics(admin).await,
        (Port::Status, "/livez") => yes_or_no(admin.tally().await.is_some()),
        (Port::Status, "/readyz") => yes_or_no(admin.board.is_ready() && admin.tally().await.is_some()),
        (Port::Status, "/status") => status(request, admin),
        _ => text(StatusCode::NOT_FOUND, "nothing here\n"),
    }
}

async fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    let tally = admin.tally().await;
    let sources = Sources {
        tally: tally.as_ref(),
        traffic: &admin.traffic,
        rate_limits_reached: &|way| admin.rates.times_reached(way),
        facts: &facts(admin),
        sockets_max: u64::try_from(admin.sockets_max).unwrap_or(u64::MAX),
    };
    response(StatusCode::OK, METRICS_TYPE, collect::write(&sources))
}

fn status<B>(request: &Request<B>, admin: &Admin) -> Response<Full<Bytes>> {
    let file = admin.config.borrow().status_token_file.clone();
    let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    match token::judge(file.as_deref(), shown) {
        Verdict::Right => match serde_json::to_string(&facts(admin)) {
            Ok(json) => response(StatusCode::OK, JSON_TYPE, json + "\n"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        },
        Verdict::Wrong => {
            let mut response = text(StatusCode::UNAUTHORIZED, "a bearer token is needed\n");
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            response
        }
        Verdict::NoToken => text(StatusCode::FORBIDDEN, "StatusTokenFile has no token: nobody may ask\n"),
    }
}

fn facts(admin: &Admin) -> Facts {
    let (config, keys) = (admin.config.borrow().clone(), admin.keys.borrow().clone());
    admin.board.facts(&config, &keys, SystemTime::now())
}

fn yes_or_no(yes: bool) -> Response<Full<Bytes>> {
    match yes {
        true => text(StatusCode::OK, "ok\n"),
        false => text(StatusCode::SERVICE_UNAVAILABLE, "no\n"),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, TEXT_TYPE, text.to_owned())
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
