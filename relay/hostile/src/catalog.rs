//! Every probe, by the row of the attack table that it plays.

use anyhow::Result;

use crate::probes;
use crate::scene::Scene;

/// A row of docs/attacks.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row(pub u8);

/// What a relay did, in words that are compared, and figures that are only shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Compared.
    pub said: String,
    /// Shown: counts, times.
    pub figures: String,
}

impl<T: Into<String>> From<T> for Answer {
    fn from(said: T) -> Self {
        Self {
            said: said.into(),
            figures: String::new(),
        }
    }
}

impl Answer {
    /// With figures.
    #[must_use]
    pub fn with(said: impl Into<String>, figures: impl Into<String>) -> Self {
        Self {
            said: said.into(),
            figures: figures.into(),
        }
    }
}

/// What ours must answer.
#[derive(Debug, Clone, Copy)]
pub enum Ours {
    /// As C tor.
    Same,
    /// One of these, separated by ` or `, and why it may differ from C tor's.
    Differs {
        /// The answers.
        answers: &'static str,
        /// Why.
        why: &'static str,
    },
}

/// How a probe is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Against both relays.
    Both,
    /// Against ours alone: C tor would reach for somebody off this machine.
    OursAlone,
    /// The same, as C tor takes minutes; ours takes one, and is waited for beside the others.
    OursSlow,
}

/// One attack and its answers.
#[derive(Clone, Copy)]
pub struct Probe {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// The row that it plays.
    pub row: Row,
    /// Plays it.
    pub play: fn(&Scene) -> Result<Answer>,
    /// What C tor 0.4.9 was seen to answer, alternatives separated by ` or `.
    pub c_tor: &'static str,
    /// What ours must.
    pub ours: Ours,
    /// How it is played.
    pub pace: Pace,
}

impl Probe {
    /// What ours may answer.
    #[must_use]
    pub fn expected(&self) -> &'static str {
        match self.ours {
            Ours::Same => self.c_tor,
            Ours::Differs { answers, .. } => answers,
        }
    }

    /// Whether an answer is among those.
    #[must_use]
    pub fn is_expected(said: &str, expected: &str) -> bool {
        expected.split(" or ").any(|one| one == said)
    }
}

/// A probe whose answer must be C tor's.
pub(crate) const fn same(
    row: u8,
    name: &'static str,
    play: fn(&Scene) -> Result<Answer>,
    c_tor: &'static str,
) -> Probe {
    Probe {
        name,
        row: Row(row),
        play,
        c_tor,
        ours: Ours::Same,
        pace: Pace::Both,
    }
}

/// A probe that ours answers in another way, and why.
pub(crate) const fn differs(
    row: u8,
    name: &'static str,
    play: fn(&Scene) -> Result<Answer>,
    c_tor: &'static str,
    answers: &'static str,
    why: &'static str,
) -> Probe {
    Probe {
        name,
        row: Row(row),
        play,
        c_tor,
        ours: Ours::Differs { answers, why },
        pace: Pace::Both,
    }
}

/// Every probe, in the order of the table.
pub fn catalog() -> impl Iterator<Item = &'static Probe> {
    probes::ALL.iter().flat_map(|probes| probes.iter())
}

/// The catalog as lines of a table: row, probe, C tor's answer, ours and why it may differ.
pub fn lines() -> impl Iterator<Item = String> {
    catalog().map(|probe| {
        let ours = match probe.ours {
            Ours::Same => "the same".to_owned(),
            Ours::Differs { answers, why } => format!("{answers}: {why}"),
        };
        format!("{} | {} | {} | {ours}", probe.row.0, probe.name, probe.c_tor)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_probe_has_a_name_of_its_own() {
        let mut names = HashSet::new();
        for probe in catalog() {
            assert!(names.insert(probe.name), "{} stands twice", probe.name);
        }
    }

    #[test]
    fn one_of_several_answers_is_enough() {
        assert!(Probe::is_expected("closed", "closed or silent"));
        assert!(!Probe::is_expected("clos", "closed or silent"));
    }
}
