//! Rows 29 and 30: introductions and rendezvous.

use anyhow::{Result, ensure};
use ed25519_dalek::{Signer, SigningKey};
use sha3::{Digest, Sha3_256};

use super::{one_hop, two_hops};
use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::relay;
use crate::scene::Scene;
use crate::talk::{How, Talk};

pub(super) const PROBES: &[Probe] = &[
    same(29, "introduce-to-nobody", to_nobody, "INTRODUCE_ACK(1)"),
    same(
        29,
        "introduce-twice-on-a-circuit",
        introduce_twice,
        "DESTROY(DESTROYED)",
    ),
    same(
        29,
        "introduce-of-a-client-one-hop-away",
        |scene| {
            one_hop(scene, How::Ntor, |talk| {
                talk.say(relay::INTRODUCE1, 0, &introduction(&[9; 32]))
            })
        },
        "DESTROY(PROTOCOL)",
    ),
    same(
        29,
        "introduce-cut-short",
        |scene| two_hops(scene, How::Ntor, |talk| talk.say(relay::INTRODUCE1, 0, &[0; 19])),
        "DESTROY(DESTROYED)",
    ),
    same(
        29,
        "introduce-with-a-legacy-key",
        |scene| introduced(scene, &legacy()),
        "INTRODUCE_ACK(2)",
    ),
    same(
        29,
        "introduce-with-nothing-inside",
        |scene| introduced(scene, &head(&[9; 32])),
        "INTRODUCE_ACK(2)",
    ),
    differs(
        29,
        "introduce-more-often-than-the-service-allows",
        flood,
        "2 passed on, 4 refused with INTRODUCE_ACK(1)",
        "3 passed on, 3 refused with INTRODUCE_ACK(1)",
        "a burst of 3 is 3; C tor stops at the last token",
    ),
    same(
        29,
        "establish-intro-of-random-bytes",
        |scene| two_hops(scene, How::Ntor, |talk| talk.say(relay::ESTABLISH_INTRO, 0, &[2; 200])),
        "DESTROY(DESTROYED)",
    ),
    same(
        29,
        "establish-intro-with-a-forged-signature",
        forged,
        "DESTROY(DESTROYED)",
    ),
    same(29, "establish-intro-twice", intro_twice, "DESTROY(DESTROYED)"),
    same(30, "establish-rendezvous-twice", rendezvous_twice, "DESTROY(DESTROYED)"),
    same(
        30,
        "establish-rendezvous-of-19-bytes",
        |scene| {
            two_hops(scene, How::Ntor, |talk| {
                talk.say(relay::ESTABLISH_RENDEZVOUS, 0, &[7; 19])
            })
        },
        "DESTROY(DESTROYED)",
    ),
    same(
        30,
        "establish-rendezvous-of-a-cookie-in-use",
        cookie_in_use,
        "DESTROY(DESTROYED)",
    ),
    same(
        30,
        "rendezvous-with-an-unknown-cookie",
        unknown_cookie,
        "DESTROY(DESTROYED)",
    ),
    same(
        30,
        "rendezvous-cut-short",
        |scene| two_hops(scene, How::Ntor, |talk| talk.say(relay::RENDEZVOUS1, 0, &[1; 5])),
        "DESTROY(DESTROYED)",
    ),
];

/// Legacy key id of zeros, key type 2, the key, no extensions.
fn head(key: &[u8; 32]) -> Vec<u8> {
    [&[0; 20][..], &[2, 0, 32], key, &[0]].concat()
}

fn introduction(key: &[u8; 32]) -> Vec<u8> {
    [&head(key)[..], &[5; 100]].concat()
}

fn legacy() -> Vec<u8> {
    let mut body = introduction(&[9; 32]);
    if let Some(first) = body.first_mut() {
        *first = 1;
    }
    body
}

fn introduced(scene: &Scene, body: &[u8]) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    talk.say(relay::INTRODUCE1, 0, body);
    Ok(talk.answer(0).into())
}

fn to_nobody(scene: &Scene) -> Result<Answer> {
    introduced(scene, &introduction(&rand::random()))
}

fn introduce_twice(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    talk.say(relay::INTRODUCE1, 0, &introduction(&[9; 32]));
    ensure!(talk.answer(0) == "INTRODUCE_ACK(1)", "the first was not answered so");
    talk.say(relay::INTRODUCE1, 0, &introduction(&[9; 32]));
    Ok(talk.answer(0).into())
}

/// ESTABLISH_INTRO with this rate and burst, rightly made for the circuit's last hop.
fn establish(talk: &Talk, key: &SigningKey, limits: Option<(u64, u64)>) -> Vec<u8> {
    let extensions = match limits {
        None => vec![0],
        Some((rate, burst)) => {
            let parameters = [&[2, 1][..], &rate.to_be_bytes(), &[2], &burst.to_be_bytes()].concat();
            [&[1, 1, 19][..], &parameters].concat()
        }
    };
    let mut body = [&[2, 0, 32][..], key.verifying_key().as_bytes(), &extensions].concat();
    let nonce = talk.hops.last().map_or([0; 20], |hop| hop.nonce);
    let mac = Sha3_256::new()
        .chain_update(20_u64.to_be_bytes())
        .chain_update(nonce)
        .chain_update(&body)
        .finalize();
    body.extend_from_slice(&mac);
    let signed = [&b"Tor establish-intro cell v1"[..], &body].concat();
    let signature = key.sign(&signed).to_bytes();
    body.extend_from_slice(&64_u16.to_be_bytes());
    body.extend_from_slice(&signature);
    body
}

fn service(scene: &Scene, limits: Option<(u64, u64)>) -> Result<(Talk, SigningKey)> {
    let key = SigningKey::from_bytes(&rand::random());
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let body = establish(&talk, &key, limits);
    talk.say(relay::ESTABLISH_INTRO, 0, &body);
    let answer = talk.answer(0);
    ensure!(answer == "INTRO_ESTABLISHED", "{answer} to ESTABLISH_INTRO");
    Ok((talk, key))
}

/// A service that takes one introduction a second, three at once.
fn flood(scene: &Scene) -> Result<Answer> {
    let (mut talk, key) = service(scene, Some((1, 3)))?;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Talk::behind(scene, How::Ntor)?);
    }
    let mut answers = Vec::new();
    for client in &mut clients {
        client.say(relay::INTRODUCE1, 0, &introduction(key.verifying_key().as_bytes()));
    }
    for client in &mut clients {
        answers.push(client.answer(0));
    }
    let passed = answers.iter().filter(|answer| *answer == "INTRODUCE_ACK(0)").count();
    let refused = answers.iter().filter(|answer| *answer == "INTRODUCE_ACK(1)").count();
    let mut heard = 0;
    while heard < passed && talk.answer(0) == "INTRODUCE2" {
        heard += 1;
    }
    let said = format!("{passed} passed on, {refused} refused with INTRODUCE_ACK(1)");
    Ok(Answer::with(said, format!("the service heard {heard}")))
}

fn forged(scene: &Scene) -> Result<Answer> {
    let key = SigningKey::from_bytes(&rand::random());
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let mut body = establish(&talk, &key, None);
    if let Some(last) = body.last_mut() {
        *last ^= 1;
    }
    talk.say(relay::ESTABLISH_INTRO, 0, &body);
    Ok(talk.answer(0).into())
}

fn intro_twice(scene: &Scene) -> Result<Answer> {
    let (mut talk, key) = service(scene, None)?;
    let body = establish(&talk, &key, None);
    talk.say(relay::ESTABLISH_INTRO, 0, &body);
    Ok(talk.answer(0).into())
}

fn waiting(scene: &Scene, cookie: &[u8; 20]) -> Result<Talk> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    talk.say(relay::ESTABLISH_RENDEZVOUS, 0, cookie);
    let answer = talk.answer(0);
    ensure!(answer == "RENDEZVOUS_ESTABLISHED", "{answer} to ESTABLISH_RENDEZVOUS");
    Ok(talk)
}

fn rendezvous_twice(scene: &Scene) -> Result<Answer> {
    let mut talk = waiting(scene, &rand::random())?;
    talk.say(relay::ESTABLISH_RENDEZVOUS, 0, &rand::random::<[u8; 20]>());
    Ok(talk.answer(0).into())
}

fn unknown_cookie(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    talk.say(relay::RENDEZVOUS1, 0, &rand::random::<[u8; 60]>());
    // As below.
    Ok(talk.answer(0).into())
}

fn cookie_in_use(scene: &Scene) -> Result<Answer> {
    let cookie = rand::random();
    let _first = waiting(scene, &cookie)?;
    let mut talk = Talk::behind(scene, How::Ntor)?;
    talk.say(relay::ESTABLISH_RENDEZVOUS, 0, &cookie);
    // Whoever keeps the cookies may be asked meanwhile: a sign of life would come first.
    Ok(talk.answer(0).into())
}
