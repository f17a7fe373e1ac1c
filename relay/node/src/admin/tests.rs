use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use relay_formats::facts::Facts;
use relay_formats::torrc::Torrc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::rate::Limits;

const TOKEN: &str = "0123456789abcdef-token";

/// A relay without shards, whose ports are served for as long as this lives.
struct Room {
    metrics: SocketAddr,
    status: SocketAddr,
    board: Arc<Board>,
    config: watch::Sender<Arc<Config>>,
    stop: watch::Sender<bool>,
    traffic: Arc<Traffic>,
    folder: TempDir,
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

fn open(shards: Vec<Mailbox>, more: &str) -> Room {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let torrc = include_str!("../../testdata/torrc");
    let torrc = format!(
        "{torrc}DataDirectory {path}\nStatusTokenFile {path}/token\nStatusPort 127.0.0.1:auto\n\
         MetricsPort 127.0.0.1:auto\n{more}\n"
    );
    let config = Config::new(&Torrc::parse(&torrc).unwrap(), &[]).unwrap();
    let keys = crate::keys::load_or_create(&config.key_plan(), SystemTime::now()).unwrap();
    let (traffic, board) = (Arc::<Traffic>::default(), Arc::new(Board::new(SystemTime::now())));
    let limits = Limits {
        bandwidth: config.bandwidth,
        count_private: true,
    };
    let ports = listen(&config, &traffic.connections).unwrap();
    let at = |wanted| ports.addresses().find(|(port, _)| *port == wanted).unwrap().1;
    let (metrics, status) = (at(Port::Metrics), at(Port::Status));
    let (config, stop) = (watch::Sender::new(Arc::new(config)), watch::Sender::new(false));
    let admin = Admin {
        config: config.subscribe(),
        keys: watch::Sender::new(Arc::new(keys)).subscribe(),
        shards,
        traffic: Arc::clone(&traffic),
        rates: Arc::new(RateLimits::new(Instant::now(), limits)),
        board: Arc::clone(&board),
        sockets_max: 100,
        shutdown: stop.subscribe(),
    };
    start(ports, admin).unwrap();
    Room {
        metrics,
        status,
        board,
        config,
        stop,
        traffic,
        folder,
    }
}

/// The whole answer; empty if the connection ends without one.
async fn ask_with(place: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(place).await.unwrap();
    let request = format!("{head}\r\nHost: r\r\n\r\n");
    // Who is not welcome may be gone before we have asked.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(place: SocketAddr, path: &str) -> String {
    ask_with(place, &format!("GET {path} HTTP/1.1")).await
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn who_is_in_the_policy_reads_the_metrics() {
    let room = open(Vec::new(), "MetricsPortPolicy accept 127.0.0.1");
    let answer = get(room.metrics, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    let opened = "tor_relay_connections{type=\"Metrics\",direction=\"received\",state=\"opened\",family=\"ipv4\"} 1\n";
    assert!(answer.contains(opened), "{answer}");
    assert_eq!(code(&get(room.metrics, "/status").await), "404");
    assert_eq!(code(&get(room.metrics, "/").await), "404");
    assert_eq!(code(&ask_with(room.metrics, "POST /metrics HTTP/1.1").await), "405");
}

#[tokio::test]
async fn who_is_not_gets_no_word_until_a_reload_lets_him_in() {
    for policy in [
        "",
        "MetricsPortPolicy accept 127.0.0.2",
        "MetricsPortPolicy reject 127.0.0.2",
    ] {
        let room = open(Vec::new(), policy);
        assert_eq!(get(room.metrics, "/metrics").await, "", "{policy}");
        let seen = room.traffic.connections.seen(
            crate::metrics::counters::Kind::Metrics,
            crate::metrics::counters::Began::Peer,
            false,
        );
        assert_eq!((seen.rejected, seen.created), (1, 0));
        let mut config = Config::clone(&room.config.borrow());
        let open_policy = Torrc::parse("ORPort 9001\nMetricsPortPolicy accept 127.0.0.0/8").unwrap();
        config.metrics_policy = open_policy.metrics_policy;
        room.config.send_replace(Arc::new(config));
        assert_eq!(code(&get(room.metrics, "/metrics").await), "200");
    }
}

#[tokio::test]
async fn the_status_is_for_who_has_the_token() {
    let room = open(Vec::new(), "");
    room.board.note_listening(vec!["127.0.0.1:9001".parse().unwrap()]);
    assert_eq!(code(&get(room.status, "/status").await), "401");
    let wrong = "GET /status HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef-other";
    assert_eq!(code(&ask_with(room.status, wrong).await), "401");
    let right = format!("GET /status HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
    let answer = ask_with(room.status, &right).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json"), "{head}");
    let facts: Facts = serde_json::from_str(body).unwrap();
    assert_eq!((facts.identity.nickname.as_str(), facts.is_listening()), ("r9", true));
    assert!(facts.consensus.is_none() && !facts.is_published());

    std::fs::write(room.folder.path().join("token"), "another-token-0123456789").unwrap();
    assert_eq!(
        code(&ask_with(room.status, &right).await),
        "401",
        "the file counts as it is now"
    );
    std::fs::remove_file(room.folder.path().join("token")).unwrap();
    assert_eq!(code(&ask_with(room.status, &right).await), "403");
}

#[tokio::test]
async fn a_probe_is_told_yes_or_no_and_nothing_else() {
    let room = open(Vec::new(), "");
    let live = get(room.status, "/livez").await;
    assert!(
        live.starts_with("HTTP/1.1 200 OK") && live.ends_with("\r\n\r\nok\n"),
        "{live}"
    );
    assert_eq!(code(&get(room.status, "/readyz").await), "503", "nothing listens yet");
    room.board.note_listening(vec!["127.0.0.1:9001".parse().unwrap()]);
    assert_eq!(code(&get(room.status, "/readyz").await), "200");
    room.board.note_retiring();
    assert!(get(room.status, "/readyz").await.ends_with("\r\n\r\nno\n"));
    assert_eq!(
        code(&get(room.status, "/livez").await),
        "200",
        "who retires still lives"
    );
    assert_eq!(code(&get(room.status, "/metrics").await), "404");
}

#[tokio::test]
async fn a_shard_that_is_gone_is_not_alive() {
    let poll = mio::Poll::new().unwrap();
    let (mailbox, inbox) = Mailbox::new(&poll, mio::Token(0), relay_engine::dos::Commons::new([0; 32]).post()).unwrap();
    drop(inbox);
    let room = open(vec![mailbox], "MetricsPortPolicy accept *");
    assert_eq!(code(&get(room.status, "/livez").await), "503");
    let metrics = get(room.metrics, "/metrics").await;
    assert!(metrics.contains("tor_relay_traffic_bytes") && !metrics.contains("tor_relay_circuits_total"));
}

#[tokio::test]
async fn connections_beyond_the_sixteenth_are_closed_at_once() {
    let room = open(Vec::new(), "");
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(TcpStream::connect(room.status).await.unwrap());
    }
    // The server takes connections in their order, so the last one shows when it has them all.
    assert_eq!(get(room.status, "/livez").await, "");
    drop(idle);
    while get(room.status, "/livez").await.is_empty() {
        tokio::task::yield_now().await;
    }
}
