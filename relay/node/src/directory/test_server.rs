//! A little HTTP server for tests: answers on an ephemeral port of loopback and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The request line.
    pub(crate) line: String,
    /// All header lines.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// Lives until the test's runtime ends.
pub(crate) struct TestServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TestServer {
    /// `answer` gives status and body for the path of a request.
    pub(crate) async fn start(answer: impl Fn(&str) -> (u16, Vec<u8>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let diary = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                let path = request.line.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = answer(&path);
                diary.lock().unwrap().push(request);
                let head = format!("HTTP/1.0 {status} Reason of the test\r\n\r\n");
                // The client may have hung up because of a limit; that is its right.
                let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, seen }
    }

    /// What has been asked so far, oldest first.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Seen {
    let mut raw = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&raw).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.map_or(0, |value| value.parse().unwrap());
            if body.len() >= length {
                let line = head.lines().next().unwrap_or_default().to_owned();
                return Seen {
                    line,
                    head: format!("{head}\r\n"),
                    body: body.as_bytes().to_vec(),
                };
            }
        }
        if stream.read_buf(&mut raw).await.unwrap() == 0 {
            return Seen {
                line: String::new(),
                head: String::new(),
                body: raw,
            };
        }
    }
}
