//! A small client of C tor's control port (control-spec).
//!
//! One command at a time: it is sent, its reply awaited; events that come in between are kept in order.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How long a reply may take. A C tor at full load on a busy machine answers late, not never.
const REPLY_LIMIT: Duration = Duration::from_secs(30);

/// Longest line kept while waiting for its end: far beyond what a private network's consensus needs.
const LINE_BYTES_MAX: usize = 4 << 20;

/// A connection that has authenticated itself.
pub(crate) struct Control {
    stream: TcpStream,
    /// Bytes read and not yet cut into lines.
    waiting: Vec<u8>,
    /// First lines of asynchronous replies, without their code.
    events: VecDeque<String>,
}

/// A reply: its code and its lines without codes, data blocks as lines of their own.
struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Control {
    /// Connects and shows the cookie.
    pub(crate) fn connect(address: SocketAddr, cookie: &Path) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("no control port at {address}"))?;
        stream.set_nodelay(true)?;
        let mut control = Self {
            stream,
            waiting: Vec::new(),
            events: VecDeque::new(),
        };
        let cookie = std::fs::read(cookie).with_context(|| format!("cannot read {}", cookie.display()))?;
        control.command(&format!("AUTHENTICATE {}", hex::encode(cookie)))?;
        Ok(control)
    }

    /// Sends a command and gives the lines of its reply, which must be a success.
    pub(crate) fn command(&mut self, line: &str) -> anyhow::Result<Vec<String>> {
        let reply = self.ask(line)?;
        // Never the whole line: the first may hold the cookie.
        let name = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let name = if name.starts_with("AUTHENTICATE") {
            "AUTHENTICATE"
        } else {
            &name
        };
        ensure!(
            reply.code == 250,
            "control port: {name}: {} {}",
            reply.code,
            reply.lines.join(" ")
        );
        Ok(reply.lines)
    }

    /// The value of one GETINFO key; `None` where tor does not know it.
    pub(crate) fn info(&mut self, key: &str) -> anyhow::Result<Option<String>> {
        let reply = self.ask(&format!("GETINFO {key}"))?;
        if reply.code != 250 {
            return Ok(None);
        }
        let mut lines = reply.lines;
        lines.pop_if(|last| last == "OK");
        let text = lines.join("\n");
        Ok(text
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('='))
            .map(|value| value.trim().to_owned()))
    }

    /// The next event, waiting for it at most this long.
    pub(crate) fn event(&mut self, limit: Duration) -> anyhow::Result<Option<String>> {
        let end = Instant::now() + limit;
        while self.events.is_empty() {
            let Some(line) = self.line(end)? else { return Ok(None) };
            let reply = self.rest_of_reply(line)?;
            ensure!(
                reply.code == 650,
                "control port: a reply that nobody asked for: {}",
                reply.code
            );
            self.events.extend(reply.lines.into_iter().next());
        }
        Ok(self.events.pop_front())
    }

    fn ask(&mut self, line: &str) -> anyhow::Result<Reply> {
        self.stream
            .write_all(format!("{line}\r\n").as_bytes())
            .context("control port")?;
        let end = Instant::now() + REPLY_LIMIT;
        loop {
            let Some(first) = self.line(end)? else {
                let name = line.split_whitespace().next().unwrap_or_default();
                bail!("control port: no reply to {name} within {} s", REPLY_LIMIT.as_secs());
            };
            let reply = self.rest_of_reply(first)?;
            if reply.code != 650 {
                return Ok(reply);
            }
            self.events.extend(reply.lines.into_iter().next());
        }
    }

    /// A reply is `250-line` or `250+line` with a data block, any number of times, and `250 line` last.
    fn rest_of_reply(&mut self, first: String) -> anyhow::Result<Reply> {
        let end = Instant::now() + REPLY_LIMIT;
        let mut next = Some(first);
        let mut lines = Vec::new();
        loop {
            let line = next.take().context("control port: half a reply")?;
            let (code, text) = line.split_at_checked(3).context("control port: a reply without code")?;
            let (kind, text) = text.split_at_checked(1).unwrap_or((" ", ""));
            lines.push(text.to_owned());
            match kind {
                "+" => self.data_block(end, &mut lines)?,
                "-" => {}
                _ => {
                    return Ok(Reply {
                        code: code.parse().context("control port: an odd code")?,
                        lines,
                    });
                }
            }
            next = self.line(end)?;
        }
    }

    fn data_block(&mut self, end: Instant, lines: &mut Vec<String>) -> anyhow::Result<()> {
        loop {
            let line = self.line(end)?.context("control port: half a data block")?;
            match line.strip_prefix('.') {
                Some("") => return Ok(()),
                Some(rest) => lines.push(rest.to_owned()),
                None => lines.push(line),
            }
        }
    }

    /// One line without its end; `None` if it has not come by `end`.
    fn line(&mut self, end: Instant) -> anyhow::Result<Option<String>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.waiting.iter().skip(seen).position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=seen + at).collect();
                return Ok(Some(
                    String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned(),
                ));
            }
            seen = self.waiting.len();
            ensure!(seen < LINE_BYTES_MAX, "control port: a line without end");
            if !self.read_more(end)? {
                return Ok(None);
            }
        }
    }

    fn read_more(&mut self, end: Instant) -> anyhow::Result<bool> {
        // A timeout of zero would mean none.
        let limit = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(limit))?;
        let mut buffer = [0; 1 << 16];
        match self.stream.read(&mut buffer) {
            Ok(0) => bail!("control port: connection closed"),
            Ok(length) => {
                self.waiting.extend(buffer.iter().take(length));
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error).context("control port"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A port that answers each line it reads with the next of these texts.
    fn served(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut byte = [0];
                while byte != *b"\n" && stream.read(&mut byte).unwrap() == 1 {}
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    fn connected(answers: &'static [&'static str]) -> anyhow::Result<Control> {
        let cookie = tempfile::NamedTempFile::new().unwrap();
        Control::connect(served(answers), cookie.path())
    }

    #[test]
    fn a_data_block_is_the_value_of_its_key() {
        let mut control = connected(&[
            "250 OK\r\n",
            "250+ns/all=\r\nr one\r\n..dotted\r\n.\r\n250 OK\r\n",
            "552 Unrecognized key\r\n",
        ])
        .unwrap();

        assert_eq!(control.info("ns/all").unwrap().as_deref(), Some("r one\n.dotted"));
        assert_eq!(control.info("nonsense").unwrap(), None);
    }

    #[test]
    fn events_between_command_and_reply_are_kept_in_order() {
        let mut control = connected(&[
            "250 OK\r\n",
            "650 CIRC 1 LAUNCHED\r\n650 CIRC 1 BUILT\r\n250 EXTENDED 1\r\n",
        ])
        .unwrap();

        assert_eq!(control.command("EXTENDCIRCUIT 0").unwrap(), ["EXTENDED 1"]);
        let next = |control: &mut Control| control.event(Duration::from_secs(1)).unwrap();
        assert_eq!(next(&mut control).as_deref(), Some("CIRC 1 LAUNCHED"));
        assert_eq!(next(&mut control).as_deref(), Some("CIRC 1 BUILT"));
    }

    #[test]
    fn a_refused_cookie_is_not_repeated_in_the_error() {
        let cookie = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(cookie.path(), b"secret").unwrap();
        let error = Control::connect(served(&["515 Authentication failed\r\n"]), cookie.path())
            .err()
            .unwrap();
        assert!(error.to_string().contains("515"), "{error}");
        assert!(!error.to_string().contains(&hex::encode("secret")), "{error}");
    }
}
