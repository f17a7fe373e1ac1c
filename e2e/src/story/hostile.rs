//! A hostile peer among relays: every attack of the catalog against C tor and ours, at the same place of the same network
//! and in one run, and the answers side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use relay_hostile::dns::NameServer;
use relay_hostile::{Answer, Ours, Pace, Probe, Scene, Target, catalog};

use super::neighbours::{self, Program};
use crate::say;
use crate::tornet::{Network, Slot, Spec, spec};

/// C tor's place, and ours: both exits, so that every duty of a relay is asked of both.
const PLACES: [&str; 2] = ["e1", "e2"];
/// Honest relays before and behind it.
const AROUND: [&str; 2] = ["r1", "r2"];

/// Who is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Whom {
    /// Our relay alone.
    Ours,
    /// C tor alone.
    Tor,
    /// Both, and their answers compared.
    Both,
}

/// What is played.
#[derive(Debug, Clone, clap::Args)]
pub struct Hostility {
    /// The relay's program, started as PROGRAM -f TORRC
    #[arg(long, default_value = "target/debug/relay")]
    pub program: String,
    /// Who is attacked
    #[arg(long, value_enum, default_value_t = Whom::Both)]
    pub relay: Whom,
    /// Probes with this in their name
    #[arg(long)]
    pub only: Option<String>,
    /// Leave out what takes a minute
    #[arg(long)]
    pub quick: bool,
    /// Print the probes and play none
    #[arg(long)]
    pub list: bool,
}

/// Tells it. Logs stay if something was unexpected.
///
/// # Errors
/// An answer is not the expected one, or a relay did not survive.
pub fn tell(hostility: &Hostility) -> Result<()> {
    if hostility.list {
        catalog::lines().for_each(|line| say::plain(format!("| {line} |")));
        return Ok(());
    }
    let probes: Vec<&'static Probe> = catalog::catalog()
        .filter(|probe| {
            hostility
                .only
                .as_ref()
                .is_none_or(|only| probe.name.contains(only.as_str()))
        })
        .filter(|probe| !(hostility.quick && probe.pace == Pace::OursSlow))
        .collect();
    ensure!(!probes.is_empty(), "no probe has {:?} in its name", hostility.only);
    let folder = spec::folder().with_file_name("relayfleet-hostile");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&hostility.program)?;
    let stage = Stage::set()?;
    let network = Network::up(&folder, &stage.spec(&program))?;
    match played(&network, &stage, hostility, &probes) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

/// What must be there before the network: addresses, name servers, and the files that lead to them.
struct Stage {
    prefix: String,
    /// For each place the first address that probes come from; its name server has the one before.
    sources: [Ipv4Addr; 2],
    names: [NameServer; 2],
    folder: tempfile::TempDir,
}

impl Stage {
    fn set() -> Result<Self> {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        // Public in the eyes of both, so that what is refused is refused for its own sake, and routed nowhere (RFC 5737).
        let prefixes = ["198.51.100", "203.0.113"];
        let prefix = (*prefixes.get(usize::from(low) % 2).context("a prefix")?).to_owned();
        let sources = [64, 96].map(|second| Ipv4Addr::new(127, second + high % 32, low, 2));
        let server = |source: Ipv4Addr| NameServer::start(Ipv4Addr::from_bits(source.to_bits() - 1));
        let [first, second] = sources;
        let names = [server(first)?, server(second)?];
        let folder = tempfile::tempdir()?;
        for (place, source) in PLACES.iter().zip(sources) {
            let server = Ipv4Addr::from_bits(source.to_bits() - 1);
            fs::write(folder.path().join(place), format!("nameserver {server}\n"))?;
        }
        Ok(Self {
            prefix,
            sources,
            names,
            folder,
        })
    }

    fn spec(&self, program: &Program) -> Spec {
        let mut torrc = Vec::new();
        for place in PLACES {
            let names = self.folder.path().join(place);
            for line in [
                "ExitPolicyRejectPrivate 1",
                "ExtendAllowPrivateAddresses 0",
                "DoSCircuitCreationEnabled 1",
                "DoSConnectionEnabled 1",
                "DoSStreamCreationEnabled 1",
                &format!("ServerDNSResolvConfFile {}", names.display()),
            ] {
                torrc.push((place.to_owned(), line.to_owned()));
            }
        }
        let [_, ours] = PLACES;
        Spec {
            prefix: self.prefix.clone(),
            relays: 2,
            exits: 2,
            slots: vec![Slot {
                node: ours.into(),
                command: program.command(),
            }],
            torrc,
            // Queues of onionskins then are full before a machine's memory is (param-spec; 1,750 ms without it).
            parameters: vec!["MaxOnionQueueDelay=500".to_owned()],
            ..Spec::default()
        }
    }

    fn scene(&self, network: &Network, place: usize) -> Result<Scene> {
        let name = PLACES.get(place).context("a place")?;
        let [before, behind] = AROUND;
        let before = target(network, before)?;
        let IpAddr::V4(public) = before.address.ip() else {
            bail!("{} has no IPv4 address", before.name);
        };
        let mut scene = Scene::new(
            target(network, name)?,
            before,
            target(network, behind)?,
            public,
            *self.sources.get(place).context("a place")?,
        );
        scene.names = self.names.get(place).cloned();
        Ok(scene)
    }
}

/// A relay as its descriptor names it.
fn target(network: &Network, name: &str) -> Result<Target> {
    let descriptor = network.descriptor(name)?;
    let field = |keyword: &str| -> Result<String> {
        let lines = descriptor.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(keyword)?.strip_prefix(' '));
        Ok(values
            .next()
            .with_context(|| format!("{name} has no {keyword}"))?
            .to_owned())
    };
    let key = |keyword: &str| -> Result<[u8; 32]> {
        let text = field(keyword)?;
        let bytes = BASE64_STANDARD_NO_PAD.decode(text.trim_end_matches('='))?;
        bytes.try_into().ok().with_context(|| format!("{keyword} is no key"))
    };
    let fingerprint = hex::decode(field("fingerprint")?.replace(' ', ""))?;
    Ok(Target {
        name: name.to_owned(),
        address: network.or_port(name)?,
        rsa_id: fingerprint.try_into().ok().context("a fingerprint of 20 bytes")?,
        ed25519_id: key("master-key-ed25519")?,
        onion_key: key("ntor-onion-key")?,
    })
}

type Answers = BTreeMap<&'static str, Answer>;

fn played(network: &Network, stage: &Stage, hostility: &Hostility, probes: &[&'static Probe]) -> Result<()> {
    let [tor, ours] = [stage.scene(network, 0)?, stage.scene(network, 1)?];
    let (quick, slow): (Vec<&'static Probe>, Vec<&'static Probe>) =
        probes.iter().copied().partition(|probe| probe.pace != Pace::OursSlow);
    let of_both = quick.iter().filter(|probe| probe.pace == Pace::Both);
    let of_both: Vec<&'static Probe> = of_both.copied().collect();
    let (by_tor, by_ours) = thread::scope(|scope| {
        let waiting = scope.spawn(|| answers(&slow, &ours, hostility.relay == Whom::Tor));
        let by_tor = scope.spawn(|| answers(&of_both, &tor, hostility.relay == Whom::Ours));
        let mut by_ours = answers(&quick, &ours, hostility.relay == Whom::Tor);
        by_ours.extend(waiting.join().unwrap_or_default());
        (by_tor.join().unwrap_or_default(), by_ours)
    });
    let (table, wrong) = table(probes, &by_tor, &by_ours);
    say::plain(table);
    for place in PLACES {
        ensure!(network.process(place).is_some(), "{place} did not survive");
    }
    ensure!(wrong == 0, "{wrong} answers were not expected");
    Ok(())
}

fn answers(probes: &[&'static Probe], scene: &Scene, spared: bool) -> Answers {
    let played = probes.iter().filter(|_| !spared).map(|probe| {
        // What could not be set up, as an honest relay let go of a circuit, is played once more.
        let answer = (probe.play)(scene).or_else(|_| (probe.play)(scene));
        let answer = answer.unwrap_or_else(|error| format!("error: {error:#}").into());
        (probe.name, answer)
    });
    played.collect()
}

/// A line for each probe, and how many were not as expected.
fn table(probes: &[&Probe], by_tor: &Answers, by_ours: &Answers) -> (String, usize) {
    let mut text = String::from("row | probe | C tor | ours | expected of ours | verdict\n");
    let (mut wrong, mut differing) = (0, 0);
    for probe in probes {
        let said = |answers: &Answers| answers.get(probe.name).cloned();
        let (tor, ours) = (said(by_tor), said(by_ours));
        let strange = |answer: &Option<Answer>, expected: &str| {
            answer
                .as_ref()
                .is_some_and(|answer| !Probe::is_expected(&answer.said, expected))
        };
        let mut verdict = match probe.ours {
            Ours::Same => "ok".to_owned(),
            Ours::Differs { why, .. } => {
                differing += 1;
                format!("ok, differs: {why}")
            }
        };
        if strange(&tor, probe.c_tor) {
            verdict = format!("DIFFERS: C tor was recorded with: {}", probe.c_tor);
            wrong += 1;
        }
        if strange(&ours, probe.expected()) {
            verdict = "DIFFERS".to_owned();
            wrong += 1;
        }
        let row = probe.row.0;
        let (tor, ours) = (shown(tor), shown(ours));
        let _ = writeln!(
            text,
            "{row:>2} | {} | {tor} | {ours} | {} | {verdict}",
            probe.name,
            probe.expected()
        );
    }
    let rows: std::collections::BTreeSet<_> = probes.iter().map(|probe| probe.row).collect();
    let _ = write!(
        text,
        "{} probes of {} rows: {wrong} unexpected, {differing} stated differences",
        probes.len(),
        rows.len()
    );
    (text, wrong)
}

fn shown(answer: Option<Answer>) -> String {
    match answer {
        None => "not asked".to_owned(),
        Some(Answer { said, figures }) if figures.is_empty() => said,
        Some(Answer { said, figures }) => format!("{said} [{figures}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(c_tor: &'static str, ours: Ours) -> Probe {
        Probe {
            name: "p",
            row: relay_hostile::Row(1),
            play: |_| Ok("never played".into()),
            c_tor,
            ours,
            pace: Pace::Both,
        }
    }

    fn wrong(probe: &Probe, tor: Option<&str>, ours: Option<&str>) -> usize {
        let answers = |said: Option<&str>| said.map(|said| ("p", Answer::from(said))).into_iter().collect();
        table(&[probe], &answers(tor), &answers(ours)).1
    }

    #[test]
    fn an_answer_that_nobody_expects_is_counted() {
        let alike = probe("closed", Ours::Same);
        assert_eq!(wrong(&alike, Some("closed"), Some("closed")), 0);
        assert_eq!(wrong(&alike, Some("closed"), Some("ignored")), 1);
        assert_eq!(wrong(&alike, Some("ignored"), None), 1);
        assert_eq!(wrong(&alike, None, None), 0);
    }

    #[test]
    fn a_stated_difference_is_one_for_ours_alone() {
        let (answers, why) = ("closed or silent", "stricter");
        let differs = probe("ignored", Ours::Differs { answers, why });
        assert_eq!(wrong(&differs, Some("ignored"), Some("silent")), 0);
        assert_eq!(wrong(&differs, Some("closed"), Some("ignored")), 2);
    }
}
