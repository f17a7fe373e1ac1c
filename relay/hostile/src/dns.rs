//! A name server of ours: it answers what the attack needs and counts what it was asked.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// Answers on a thread of its own until the process ends.
#[derive(Debug, Clone)]
pub struct NameServer {
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

/// Longest question that is read.
const QUESTION_BYTES_MAX: usize = 1_500;

impl NameServer {
    /// Listens on port 53 of this address.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn start(address: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::from((address, 53))).with_context(|| format!("{address}:53"))?;
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let server = Self { asked };
        let counting = server.clone();
        std::thread::spawn(move || {
            let mut question = [0; QUESTION_BYTES_MAX];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = question.get(..length).and_then(|question| counting.answer(question)) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(server)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was asked for this name, in any case of letters, for A and AAAA together.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.lock().get(&name.to_ascii_lowercase()).copied().unwrap_or_default()
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = question.split_first_chunk::<2>()?;
        let (name, after_name) = read_name(rest.get(10..)?)?;
        let (kind, _) = after_name.split_first_chunk::<2>()?;
        let asked_bytes = question.len() - after_name.len() + 4;
        *self.lock().entry(name.clone()).or_default() += 1;
        if name.starts_with("mute.") {
            return None;
        }
        if name.starts_with("slow.") {
            std::thread::sleep(Duration::from_millis(300));
        }
        let found = if *kind == [0, 1] { address_of(&name) } else { None };
        let exists = name.ends_with(".hostile.test");
        // Response, recursion desired and available; NXDOMAIN for what is not ours.
        let mut answer = [
            &id[..],
            &[
                0x81,
                if exists { 0x80 } else { 0x83 },
                0,
                1,
                0,
                u8::from(found.is_some()),
                0,
                0,
                0,
                0,
            ],
        ]
        .concat();
        answer.extend_from_slice(question.get(12..asked_bytes)?);
        if let Some(address) = found {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        Some(answer)
    }
}

/// `a-b-c-d.hostile.test` and `LABEL.a-b-c-d.hostile.test` are a.b.c.d.
fn address_of(name: &str) -> Option<Ipv4Addr> {
    let label = name.strip_suffix(".hostile.test")?.rsplit('.').next()?;
    label.replace('-', ".").parse().ok()
}

fn read_name(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut labels = Vec::new();
    loop {
        let (length, rest) = bytes.split_first()?;
        if *length == 0 {
            return Some((labels.join("."), rest));
        }
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_own_address() {
        assert_eq!(address_of("x.10-0-0-1.hostile.test"), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(address_of("10-0-0.hostile.test"), None);
    }

    #[test]
    fn a_question_is_answered_and_counted() {
        let server = NameServer { asked: Arc::default() };
        let mut question = vec![9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["10-0-0-1", "HOSTILE", "test"] {
            question.push(label.len() as u8);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        let answer = server.answer(&question).unwrap();
        assert_eq!(answer.last_chunk::<4>(), Some(&[10, 0, 0, 1]));
        assert_eq!(server.asked("10-0-0-1.hostile.TEST"), 1);
    }
}
