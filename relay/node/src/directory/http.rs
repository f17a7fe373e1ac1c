//! HTTP as directories speak it: one request per connection, answered by HTTP/1.0 (dir-spec, "Standards compliance").
//!
//! Whoever answers is not trusted: every size and every wait has its limit here; content is checked by the caller.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::inflate::{self, BadCompression};

/// The head of an answer, at most. C tor's `MAX_HEADERS_SIZE` is 50 000; no directory sends a tenth of it.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The whole exchange, connect to last byte.
const EXCHANGE_MAX: Duration = Duration::from_secs(90);

/// Silence within it, at most. An authority that hangs must not cost us a consensus that the next one has.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What to ask of a directory.
#[derive(Debug)]
pub struct Request<'a> {
    /// Path and query, beginning with `/`.
    pub path: &'a str,
    /// `None`: GET. A body: POST.
    pub body: Option<&'a [u8]>,
    /// More header lines: name and value.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body of the answer, at most, before and after decompression.
    pub answer_bytes_max: usize,
}

/// What a directory answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The text after it; the authority's reason when it refuses a descriptor. Printable ASCII only, so that it may be
    /// logged.
    pub reason: String,
    /// The decompressed body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The network said no.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Too slow.
    #[error("no complete answer within {} seconds", EXCHANGE_MAX.as_secs())]
    Timeout,
    /// Said nothing for a while.
    #[error("no word for {} seconds", SILENCE_MAX.as_secs())]
    Silent,
    /// Not HTTP.
    #[error("the answer is not HTTP/1")]
    NotHttp,
    /// Longer than asked for.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// Ended before its Content-Length.
    #[error("the answer ends early")]
    Truncated,
    /// Compressed in a way that we did not offer.
    #[error("the answer is encoded as `{0}`, which we did not ask for")]
    UnknownEncoding(String),
    /// Does not decompress.
    #[error("{0}")]
    Compression(#[from] BadCompression),
}

/// Asks `target` and waits for the whole answer. `bind` is our end of the connection: at most one address a family.
pub async fn exchange(target: SocketAddr, bind: &[IpAddr], request: &Request<'_>) -> Result<Response, HttpError> {
    tokio::time::timeout(EXCHANGE_MAX, async {
        let mut stream = unless_silent(connect(target, bind)).await?;
        stream.write_all(&encode(target, request)).await?;
        let raw = read_all(&mut stream, HEAD_BYTES_MAX + request.answer_bytes_max).await?;
        decode(&raw, request.answer_bytes_max)
    })
    .await
    .unwrap_or(Err(HttpError::Timeout))
}

async fn unless_silent<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T, HttpError> {
    match tokio::time::timeout(SILENCE_MAX, step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(HttpError::Silent),
    }
}

/// Connects from the configured address of `target`'s family. Like C tor we leave it out towards loopback, except where
/// it is a loopback address itself.
pub async fn connect(target: SocketAddr, bind: &[IpAddr]) -> std::io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let ours = bind
        .iter()
        .find(|ours| ours.is_ipv4() == target.is_ipv4() && (ours.is_loopback() || !target.ip().is_loopback()));
    if let Some(ours) = ours {
        socket.bind(SocketAddr::new(*ours, 0))?;
    }
    socket.connect(target).await
}

fn encode(target: SocketAddr, request: &Request<'_>) -> Vec<u8> {
    let method = if request.body.is_some() { "POST" } else { "GET" };
    let mut head = format!("{method} {} HTTP/1.0\r\nHost: {}\r\n", request.path, target.ip());
    match request.body {
        Some(body) => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
        None => head.push_str("Accept-Encoding: deflate, identity\r\n"),
    }
    for (name, value) in request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(request.body.unwrap_or_default());
    bytes
}

/// Reads to the end of the stream; HTTP/1.0 says no more than that about where an answer ends.
async fn read_all(stream: &mut TcpStream, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
    let mut raw = Vec::new();
    while unless_silent(stream.read_buf(&mut raw)).await? > 0 {
        if raw.len() > bytes_max {
            return Err(HttpError::TooLong(bytes_max));
        }
    }
    Ok(raw)
}

/// Takes a whole answer apart. Public for the fuzz target alone.
#[doc(hidden)]
pub fn decode(raw: &[u8], body_bytes_max: usize) -> Result<Response, HttpError> {
    let end = raw
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or(HttpError::NotHttp)?;
    let (head, rest) = raw.split_at(end);
    let wire_body = rest.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| HttpError::NotHttp)?;
    let mut lines = head.split("\r\n");
    let (status, reason) = status_line(lines.next().unwrap_or_default()).ok_or(HttpError::NotHttp)?;

    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |name: &str| {
        let of_that_name = |(theirs, _): &&(&str, &str)| theirs.eq_ignore_ascii_case(name);
        headers.iter().find(of_that_name).map(|(_, value)| value.trim())
    };
    let wire_body = match header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) => wire_body.get(..length).ok_or(HttpError::Truncated)?,
        Some(Err(_)) => return Err(HttpError::NotHttp),
        None => wire_body,
    };
    let body = match header("content-encoding").unwrap_or("identity") {
        "identity" if wire_body.len() > body_bytes_max => return Err(HttpError::TooLong(body_bytes_max)),
        "identity" => wire_body.to_vec(),
        "deflate" => inflate::inflate(wire_body, body_bytes_max)?,
        other => return Err(HttpError::UnknownEncoding(printable(other))),
    };
    Ok(Response { status, reason, body })
}

/// `HTTP/1.0 200 OK`.
fn status_line(line: &str) -> Option<(u16, String)> {
    let rest = line
        .strip_prefix("HTTP/1.0 ")
        .or_else(|| line.strip_prefix("HTTP/1.1 "))?;
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let code = (code.len() == 3).then(|| code.parse().ok()).flatten()?;
    Some((code, printable(reason)))
}

/// Text from a stranger that is to stand in a log line.
fn printable(text: &str) -> String {
    text.chars()
        .take(300)
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::test_server::TestServer;

    #[test]
    fn status_reason_and_body_come_apart() {
        let answer = decode(
            b"HTTP/1.0 400 Missing TAP key in descriptor.\r\nDate: now\r\n\r\nbody",
            100,
        )
        .unwrap();

        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (400, "Missing TAP key in descriptor.")
        );
        assert_eq!(answer.body, b"body");
    }

    #[test]
    fn an_answer_that_lies_about_its_length_or_encoding_is_refused() {
        let short = decode(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nbody", 100);
        assert!(matches!(short, Err(HttpError::Truncated)));
        let odd = decode(b"HTTP/1.0 200 OK\r\ncontent-encoding: x-zstd\r\n\r\nbody", 100);
        assert!(matches!(odd, Err(HttpError::UnknownEncoding(name)) if name == "x-zstd"));
        let long = decode(b"HTTP/1.0 200 OK\r\n\r\nbody", 3);
        assert!(matches!(long, Err(HttpError::TooLong(3))));
    }

    #[test]
    fn garbage_is_not_http() {
        for garbage in [
            &b""[..],
            b"\r\n\r\n",
            b"HTTP/1.0 20 OK\r\n\r\n",
            b"HTTP/9 200\r\n\r\n",
            b"\xff\xff\r\n\r\n",
        ] {
            assert!(matches!(decode(garbage, 100), Err(HttpError::NotHttp)), "{garbage:?}");
        }
    }

    #[test]
    fn a_reason_cannot_forge_log_lines() {
        let answer = decode("HTTP/1.0 400 bad\n[warn] é\r\n\r\n".as_bytes(), 100).unwrap();
        assert_eq!(answer.reason, "bad?[warn] ?");
    }

    #[tokio::test]
    async fn a_post_carries_its_body_and_headers_to_the_server() {
        let server = TestServer::start(|_| (200, Vec::new())).await;
        let request = Request {
            path: "/tor/",
            body: Some(b"router r2"),
            headers: &[("X-Desc-Gen-Reason", "first")],
            answer_bytes_max: 100,
        };

        let answer = exchange(server.address, &["127.0.0.1".parse().unwrap()], &request)
            .await
            .unwrap();

        assert_eq!(answer.status, 200);
        let seen = server.requests();
        assert_eq!(seen[0].line, "POST /tor/ HTTP/1.0");
        assert_eq!(seen[0].body, b"router r2");
        assert!(seen[0].head.contains("X-Desc-Gen-Reason: first\r\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_left_after_fifteen_seconds() {
        let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let request = Request {
            path: "/",
            body: None,
            headers: &[],
            answer_bytes_max: 1_000,
        };
        let begun = tokio::time::Instant::now();

        let answer = exchange(hangs.local_addr().unwrap(), &[], &request).await;

        assert!(matches!(answer, Err(HttpError::Silent)));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_flood_is_cut_off_at_its_limit() {
        let server = TestServer::start(|_| (200, vec![b'x'; 100_000])).await;
        let request = Request {
            path: "/",
            body: None,
            headers: &[],
            answer_bytes_max: 1_000,
        };
        let answer = exchange(server.address, &[], &request).await;
        assert!(matches!(answer, Err(HttpError::TooLong(_))));
    }
}
