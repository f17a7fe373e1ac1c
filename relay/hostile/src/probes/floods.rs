//! Rows 2 to 6 and 33: too much of what is allowed. Only answers are counted here; memory and honest clients' share are judged by
//! the stories of floods.

use std::collections::HashMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{command, destroy_reason, fixed, relay};
use crate::link::{Heard, Link};
use crate::scene::Scene;
use crate::talk::{How, Said, Talk, create2};

/// CREATE_FAST and DESTROY in turn.
const CHURN: u32 = 20_000;
/// Onionskins at once, few enough for every queue.
const ONIONSKINS: u32 = 3_000;
/// More onionskins than most machines answer in the time that the network of the story allows (`MaxOnionQueueDelay`). One that
/// is faster has nothing to refuse.
const ONIONSKIN_FLOOD: u32 = 30_000;
/// Circuits that are open at once, for ids that are chosen: as many as differ in their upper half alone.
const CHOSEN: u32 = 30_000;
/// How much longer chosen ids may take than others: what collides costs a hundred times as much, what a busy machine does
/// to a second's work is less than this.
const CHOSEN_SLOWER_MAX: f64 = 3.0;

pub(super) const PROBES: &[Probe] = &[
    same(2, "create-and-destroy-in-turn", churn, "alive"),
    differs(
        3,
        "circuits-over-5-connections",
        |scene| circuits(scene, 5, 80),
        "about 89 made, not all others answered or about 89 made, the others refused with RESOURCELIMIT",
        "about 89 made, the others refused with RESOURCELIMIT",
        "C tor holds some DESTROYs back until the link has other cells",
    ),
    same(
        3,
        "circuits-over-2-connections",
        |scene| circuits(scene, 2, 200),
        "all made",
    ),
    same(4, "connections-from-one-address", connections, "about 40 kept"),
    same(
        5,
        "directory-streams-on-one-circuit",
        directory_streams,
        "all CONNECTED",
    ),
    same(
        5,
        "begins-on-one-circuit",
        begins,
        "about 300 END(EXITPOLICY), the others END(MISC)",
    ),
    same(
        5,
        "resolves-on-one-circuit",
        resolves,
        "about 300 RESOLVED, the others RESOLVED(error)",
    ),
    same(6, "onionskins-on-one-link", onionskins, "every one answered"),
    differs(
        6,
        "onionskins-beyond-the-queue",
        onionskin_flood,
        "every one answered; a stranger meanwhile: made or every one answered; a stranger meanwhile: refused or \
         not every one answered; a stranger meanwhile: made or not every one answered; a stranger meanwhile: refused",
        "every one answered; a stranger meanwhile: made",
        "links take turns, so a flood waits for itself; C tor has one line for all, and holds some DESTROYs back until the link has \
         other cells",
    ),
    same(33, "circuit-ids-chosen-to-collide", chosen_ids, "no slower than others"),
];

fn churn(scene: &Scene) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    let began = Instant::now();
    let mut bytes = Vec::new();
    for number in 0..CHURN {
        let circuit = 0x9000_0000 + number;
        bytes.extend(fixed(circuit, command::CREATE_FAST, &[3; 20]));
        bytes.extend(fixed(circuit, command::DESTROY, &[0]));
    }
    link.send_much(&bytes);
    let alive = link.is_alive(4 * scene.patience);
    let figures = format!("{CHURN} in {:.1} s", began.elapsed().as_secs_f64());
    Ok(Answer::with(if alive { "alive" } else { "dead" }, figures))
}

/// Answers to circuits, by their words, until there are so many.
fn count(link: &mut Link, wanted: u32, patience: Duration) -> HashMap<String, u32> {
    let mut answers: HashMap<String, u32> = HashMap::new();
    let end = Instant::now() + patience;
    let mut heard = 0;
    while heard < wanted {
        let words = match link.next(end.saturating_duration_since(Instant::now())) {
            Heard::Cell(cell) if cell.circuit == 0 => continue,
            Heard::Cell(cell) => match cell.command {
                command::CREATED_FAST => "CREATED_FAST".to_owned(),
                command::CREATED2 => "CREATED2".to_owned(),
                command::DESTROY => destroy_reason(cell.body.first().copied().unwrap_or_default()),
                other => format!("cell {other}"),
            },
            Heard::Closed | Heard::Silence => break,
        };
        *answers.entry(words).or_default() += 1;
        heard += 1;
    }
    answers
}

fn circuits(scene: &Scene, links: usize, each: u32) -> Result<Answer> {
    let source = scene.fresh_source();
    let mut open = Vec::new();
    for _ in 0..links {
        open.push(Link::open(scene, source)?);
    }
    let mut answers: HashMap<String, u32> = HashMap::new();
    for link in &mut open {
        let bytes: Vec<u8> = (0..each)
            .flat_map(|number| fixed(0x9000_0000 + number, command::CREATE_FAST, &[3; 20]))
            .collect();
        link.send_much(&bytes);
        for (words, times) in count(link, each, scene.patience / 5) {
            *answers.entry(words).or_default() += times;
        }
    }
    let all = u32::try_from(links)? * each;
    let created = answers.remove("CREATED_FAST").unwrap_or_default();
    let refused = answers.remove("RESOURCELIMIT").unwrap_or_default();
    let figures = format!("{created} made, {refused} refused of {all}");
    let said = match created {
        _ if !answers.is_empty() => format!("{answers:?}"),
        _ if created == all => "all made".to_owned(),
        // One address has 90 at once and 3 a second more.
        86..=120 if created + refused == all => "about 89 made, the others refused with RESOURCELIMIT".to_owned(),
        86..=120 => "about 89 made, not all others answered".to_owned(),
        _ => format!("{created} made, {refused} refused"),
    };
    Ok(Answer::with(said, figures))
}

fn connections(scene: &Scene) -> Result<Answer> {
    let source = scene.fresh_source();
    let sockets: Vec<TcpStream> = (0..130).filter_map(|_| scene.connect(source).ok()).collect();
    std::thread::sleep(Duration::from_millis(1_500));
    let kept = sockets.iter().filter(|socket| is_open(socket)).count();
    let honest = Link::open(scene, scene.fresh_source())?.is_alive(scene.patience);
    let said = match kept {
        _ if !honest => "others are not served".to_owned(),
        // 40 at once and 20 a second more.
        36..=70 => "about 40 kept".to_owned(),
        _ => format!("{kept} kept"),
    };
    Ok(Answer::with(said, format!("{kept} of 130 kept")))
}

fn is_open(socket: &TcpStream) -> bool {
    let mut byte = [0];
    socket.set_nonblocking(true).is_ok()
        && matches!(socket.peek(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn directory_streams(scene: &Scene) -> Result<Answer> {
    let mut talk = Talk::begin(scene, How::Ntor)?;
    let cells: Vec<u8> = (1..=400)
        .flat_map(|stream| talk.sealed(command::RELAY, relay::BEGIN_DIR, stream, &[]))
        .collect();
    talk.link.send_much(&cells);
    let mut connected = 0;
    for _ in 0..400 {
        match talk.hear(scene.patience) {
            Some(Said::Message {
                command: relay::CONNECTED,
                ..
            }) => connected += 1,
            Some(_) => {}
            None => break,
        }
    }
    Ok(Answer::with(
        if connected == 400 {
            "all CONNECTED"
        } else {
            "not all CONNECTED"
        },
        format!("{connected} of 400"),
    ))
}

/// BEGINs to where nobody may go, which costs nobody a connection.
fn begins(scene: &Scene) -> Result<Answer> {
    streams(scene, relay::BEGIN, b"10.0.0.1:80\0", ["END(EXITPOLICY)", "END(MISC)"])
}

/// RESOLVEs of one name, which costs a single question.
fn resolves(scene: &Scene) -> Result<Answer> {
    let name = b"flood.198-51-100-5.hostile.test\0";
    streams(scene, relay::RESOLVE, name, ["RESOLVED", "RESOLVED(error)"])
}

/// So many streams of one kind at once; counts these two answers.
fn streams(scene: &Scene, kind: u8, data: &[u8], [served, declined]: [&str; 2]) -> Result<Answer> {
    let mut talk = Talk::behind(scene, How::Ntor)?;
    let cells: Vec<u8> = (1..=400)
        .flat_map(|stream| talk.sealed(command::RELAY, kind, stream, data))
        .collect();
    talk.link.send_much(&cells);
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < 400 {
        match talk.hear(scene.patience).map(|said| said.words()) {
            Some(said) if said == served => answered += 1,
            Some(said) if said == declined => refused += 1,
            Some(said) => return Ok(Answer::with(said, format!("after {answered} and {refused}"))),
            None => bail!("silence after {answered} and {refused} answers"),
        }
    }
    let said = match answered {
        // 300 at once and 100 a second more.
        300..=390 => format!("about 300 {served}, the others {declined}"),
        _ => "another count".to_owned(),
    };
    Ok(Answer::with(said, format!("{answered} answered, {refused} refused")))
}

fn onionskins(scene: &Scene) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    let (_, body) = create2(&scene.target, How::Ntor)?;
    let bytes: Vec<u8> = (0..ONIONSKINS)
        .flat_map(|number| fixed(0x9000_0000 + number, command::CREATE2, &body))
        .collect();
    let began = Instant::now();
    link.send_much(&bytes);
    let mut answers = count(&mut link, ONIONSKINS, 2 * scene.patience);
    let created = answers.remove("CREATED2").unwrap_or_default();
    let refused = answers.remove("RESOURCELIMIT").unwrap_or_default();
    let figures = format!(
        "{created} made, {refused} refused in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    // CREATED2, or DESTROY(RESOURCELIMIT) where the queue was too long.
    let said = if created + refused == ONIONSKINS && created > 50 {
        "every one answered".to_owned()
    } else {
        format!("{created} made, {refused} refused, {answers:?}")
    };
    Ok(Answer::with(said, figures))
}

/// A queue that is bounded by time: what would wait too long is refused at once, and whoever has asked for little is served. How
/// many are made is the machine's affair; that none is forgotten, and that the relay serves both links afterwards, is not.
fn onionskin_flood(scene: &Scene) -> Result<Answer> {
    let mut stranger = Link::open(scene, scene.fresh_source())?;
    let mut link = Link::open(scene, scene.fresh_source())?;
    let (_, body) = create2(&scene.target, How::Ntor)?;
    let bytes: Vec<u8> = (0..ONIONSKIN_FLOOD)
        .flat_map(|number| fixed(0x9000_0000 + number, command::CREATE2, &body))
        .collect();
    let began = Instant::now();
    link.send_much(&bytes);
    stranger.send(&fixed(0x9000_0000, command::CREATE2, &body));
    let answers = count(&mut stranger, 1, scene.patience);
    // C tor, asked for more than it can do, has said both RESOURCELIMIT and FINISHED.
    let answer = answers.into_keys().next().unwrap_or_else(|| "nothing".to_owned());
    let served = match answer.as_str() {
        "CREATED2" => "made",
        "nothing" => "silent",
        _ => "refused",
    };
    let waited = began.elapsed().as_secs_f64();
    let answers = count(&mut link, ONIONSKIN_FLOOD, scene.patience / 2);
    let figures = format!("{answers:?} of {ONIONSKIN_FLOOD}; the stranger's answer after {waited:.1} s: {answer}");
    let alive = stranger.is_alive(scene.patience) && link.is_alive(scene.patience);
    let said = match alive {
        true => format!("{}; a stranger meanwhile: {served}", fate(&answers, ONIONSKIN_FLOOD)),
        false => "not all links are served afterwards".to_owned(),
    };
    Ok(Answer::with(said, figures))
}

/// What became of so many onionskins: each is made, or refused for want of time. A relay that refuses all serves nobody.
fn fate(answers: &HashMap<String, u32>, sent: u32) -> String {
    let of = |words: &str| answers.get(words).copied().unwrap_or_default();
    let (created, refused) = (of("CREATED2"), of("RESOURCELIMIT"));
    let answered: u32 = answers.values().sum();
    match created {
        _ if created + refused != answered => format!("{answers:?}"),
        0 => "none made".to_owned(),
        _ if answered == sent => "every one answered".to_owned(),
        _ => "not every one answered".to_owned(),
    }
}

/// Circuits whose ids have the lower 16 bits in common, and such whose ids are one after the other, both ways three times in turn:
/// the quickest of each counts. With a table that takes its places from an id's lower bits, each of the first looks through
/// all before it.
fn chosen_ids(scene: &Scene) -> Result<Answer> {
    let one_after_the_other = |number: u32| 0xa000_0000 + number;
    let alike_below = |number: u32| 0x8000_0000 | (number << 16) | 0x5a5a;
    let (mut plain, mut chosen) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        plain = plain.min(open_and_close(scene, one_after_the_other)?);
        chosen = chosen.min(open_and_close(scene, alike_below)?);
        if chosen <= plain * CHOSEN_SLOWER_MAX {
            break;
        }
    }
    let figures = format!("{CHOSEN} circuits in {chosen:.1} s, others in {plain:.1} s");
    let said = match chosen <= plain * CHOSEN_SLOWER_MAX {
        true => "no slower than others",
        false => "slower than others",
    };
    Ok(Answer::with(said, figures))
}

/// Seconds that it takes until so many circuits are open and closed again.
fn open_and_close(scene: &Scene, id: impl Fn(u32) -> u32) -> Result<f64> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    let cells = |command: u8, body: &[u8]| -> Vec<u8> {
        (0..CHOSEN)
            .flat_map(|number| fixed(id(number), command, body))
            .collect()
    };
    let (create, destroy) = (cells(command::CREATE_FAST, &[3; 20]), cells(command::DESTROY, &[0]));
    let began = Instant::now();
    link.send_much(&create);
    let created = count(&mut link, CHOSEN, 4 * scene.patience)
        .remove("CREATED_FAST")
        .unwrap_or_default();
    if created != CHOSEN {
        bail!("{created} of {CHOSEN} circuits were made");
    }
    link.send_much(&destroy);
    if !link.is_alive(4 * scene.patience) {
        bail!("the link did not survive");
    }
    Ok(began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate_of(answers: &[(&str, u32)]) -> String {
        let answers = answers.iter().map(|(words, times)| ((*words).to_owned(), *times));
        fate(&answers.collect(), 100)
    }

    #[test]
    fn a_fast_relay_that_makes_all_and_a_slow_one_that_refuses_most_are_both_right() {
        assert_eq!(fate_of(&[("CREATED2", 100)]), "every one answered");
        assert_eq!(fate_of(&[("CREATED2", 1), ("RESOURCELIMIT", 99)]), "every one answered");
    }

    #[test]
    fn who_is_silent_or_gives_another_reason_or_serves_nobody_is_not() {
        assert_eq!(
            fate_of(&[("CREATED2", 60), ("RESOURCELIMIT", 39)]),
            "not every one answered"
        );
        assert_eq!(fate_of(&[("RESOURCELIMIT", 100)]), "none made");
        assert_eq!(fate_of(&[]), "none made");
        assert!(fate_of(&[("CREATED2", 60), ("INTERNAL", 40)]).contains("INTERNAL"));
    }
}
