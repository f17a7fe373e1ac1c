//! Whether the name servers tell the truth: some answer for names that do not exist, with the address of a page of their
//! own (torrc `ServerDNSDetectHijacking`; C tor, `dns_launch_correctness_checks`). Asks through a function that it is given.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use rand::{Rng, RngExt as _};

/// What made-up names end in. Whoever spares the names that are reserved for tests betrays himself with the others.
const ENDINGS: [&str; 6] = [".invalid", ".test", "", ".com", ".org", ".net"];
/// Made-up names with each ending.
const NAMES_OF_EACH: usize = 2;
/// An address that comes for more made-up names than these is a liar's.
const INNOCENT_MAX: usize = 5;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Addresses that stand for "no such name".
    pub(super) false_addresses: HashSet<IpAddr>,
    /// More than half of the names that do exist lead there too: such a DNS is of no use.
    pub(super) useless: bool,
}

/// Asks for names that nobody has, then for `known` ones, which everybody knows.
pub(super) async fn examine(ask: impl AsyncFn(&str) -> Vec<IpAddr>, known: &[String], dice: &mut impl Rng) -> Findings {
    let mut seen: HashMap<IpAddr, usize> = HashMap::new();
    for ending in ENDINGS {
        for _ in 0..NAMES_OF_EACH {
            let name = made_up(ending, dice);
            let answers: HashSet<IpAddr> = ask(&name).await.into_iter().collect();
            for address in answers {
                *seen.entry(address).or_default() += 1;
            }
        }
    }
    let often = seen.into_iter().filter(|(_, times)| *times > INNOCENT_MAX);
    let false_addresses: HashSet<IpAddr> = often.map(|(address, _)| address).collect();
    let mut redirected = 0;
    for name in known {
        // With nobody to lead them astray there is no need to ask.
        if !false_addresses.is_empty() && ask(name).await.iter().any(|address| false_addresses.contains(address)) {
            redirected += 1;
        }
    }
    Findings {
        useless: redirected > known.len() / 2,
        false_addresses,
    }
}

/// 8 to 16 letters and digits: none that could be somebody's by accident.
fn made_up(ending: &str, dice: &mut impl Rng) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    let length = dice.random_range(8..=16);
    let letter = |_| {
        LETTERS
            .get(dice.random_range(0..LETTERS.len()))
            .copied()
            .unwrap_or(b'a')
    };
    // A name that ends in a number would be no name.
    let mut name: String = (0..length).map(letter).map(char::from).collect();
    name.push('x');
    name + ending
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const PAGE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));
    const REAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    fn known() -> Vec<String> {
        ["a.example", "b.example", "c.example", "d.example"]
            .map(str::to_owned)
            .to_vec()
    }

    async fn examined(answer: impl Fn(&str) -> Vec<IpAddr>) -> Findings {
        examine(async |name: &str| answer(name), &known(), &mut StdRng::seed_from_u64(3)).await
    }

    #[tokio::test]
    async fn an_honest_server_is_believed() {
        let asked = RefCell::new(Vec::new());
        let findings = examined(|name| {
            asked.borrow_mut().push(name.to_owned());
            Vec::new()
        })
        .await;
        assert_eq!(findings, Findings::default());
        let names: HashSet<String> = asked.borrow().iter().cloned().collect();
        assert_eq!(
            (names.len(), asked.borrow().len()),
            (12, 12),
            "all of them made up, each once"
        );
    }

    #[tokio::test]
    async fn an_address_for_what_does_not_exist_is_known_from_then_on() {
        let findings = examined(|name| vec![if name.ends_with(".example") { REAL } else { PAGE }]).await;
        assert_eq!(findings.false_addresses, [PAGE].into());
        assert!(!findings.useless);
    }

    #[tokio::test]
    async fn who_spares_reserved_names_is_caught_by_the_others() {
        let findings = examined(|name| match name.ends_with(".invalid") || name.ends_with(".test") {
            true => Vec::new(),
            false => vec![PAGE],
        })
        .await;
        assert_eq!(findings.false_addresses, [PAGE].into());
    }

    #[tokio::test]
    async fn a_server_that_leads_everybody_astray_is_of_no_use() {
        assert!(examined(|_| vec![PAGE]).await.useless);
        let half = |name: &str| {
            vec![if name < "c" && name.ends_with(".example") {
                REAL
            } else {
                PAGE
            }]
        };
        assert!(!examined(half).await.useless, "two of four");
    }

    #[tokio::test]
    async fn names_that_do_exist_by_accident_prove_nothing() {
        let findings = examined(|name| match name.ends_with(".com") || name.ends_with(".org") {
            true => vec![REAL],
            false => Vec::new(),
        })
        .await;
        assert_eq!(findings, Findings::default());
    }
}
