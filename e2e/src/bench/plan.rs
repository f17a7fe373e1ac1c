//! Which nodes there are and which path leads through the one under test.

use std::fmt;

use serde::Serialize;

use crate::tornet::Direction;

/// Where the relay under test stands on a path of three; the other two are C tor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// First hop.
    Guard,
    /// Second hop.
    Middle,
    /// Third hop.
    Exit,
}

impl Place {
    /// Every one, in order.
    pub const ALL: [Self; 3] = [Self::Guard, Self::Middle, Self::Exit];
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Guard => "guard",
            Self::Middle => "middle",
            Self::Exit => "exit",
        })
    }
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// To the client.
    Down,
    /// From the client.
    Up,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Down, Self::Up];

    pub(super) fn direction(self) -> Direction {
        match self {
            Self::Down => Direction::Download,
            Self::Up => Direction::Upload,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Down => "down",
            Self::Up => "up",
        })
    }
}

/// Who stands under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Subject {
    /// C tor, with which ours is compared.
    CTor,
    /// Ours.
    Ours,
    /// C tor once more, compared with the first: what the bench resolves.
    Control,
    /// Ours with symbols; not measured.
    Profiled,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CTor => "C tor",
            Self::Ours => "ours",
            Self::Control => "C tor 2",
            Self::Profiled => "ours with symbols",
        })
    }
}

/// Bytes of the stream in a full DATA cell of the V1 format, which C tor 0.4.9's client asks of every exit that speaks
/// Relay=6.
const DATA_BYTES_A_CELL: u64 = 488;

/// One thing to be measured for every subject in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Case {
    pub(super) place: Place,
    pub(super) way: Way,
    pub(super) streams: usize,
    pub(super) bytes: u64,
}

impl Case {
    /// Cells of DATA that so many bytes need.
    pub(super) fn cells(self) -> u64 {
        self.bytes.div_ceil(DATA_BYTES_A_CELL)
    }

    /// As in the baseline: no more circuits than that, and no more than streams.
    pub(super) fn circuits(self) -> usize {
        self.streams.min(32)
    }
}

/// The nodes: r1, r2 and e1 are neighbours; then a relay and an exit for each subject; then two relays that are listed
/// and do not run, whose parts the lean load plays.
pub(super) struct Layout {
    subjects: Vec<Subject>,
}

const NEIGHBOUR_RELAYS: u8 = 2;
const NEIGHBOUR_EXITS: u8 = 1;
const PLAYED_RELAYS: u8 = 2;

impl Layout {
    pub(super) fn new(control: bool, profiled: bool) -> Self {
        let mut subjects = vec![Subject::CTor, Subject::Ours];
        subjects.extend(control.then_some(Subject::Control));
        subjects.extend(profiled.then_some(Subject::Profiled));
        Self { subjects }
    }

    pub(super) fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// Those that take turns.
    pub(super) fn measured(&self) -> Vec<Subject> {
        let measured = |subject: &Subject| *subject != Subject::Profiled;
        self.subjects.iter().copied().filter(measured).collect()
    }

    pub(super) fn relays(&self) -> u8 {
        NEIGHBOUR_RELAYS + self.count() + PLAYED_RELAYS
    }

    /// Whose parts the lean load plays: the relay before the one under test, and the one behind it.
    pub(super) fn played(&self) -> [String; 2] {
        let first = NEIGHBOUR_RELAYS + self.count() + 1;
        [format!("r{first}"), format!("r{}", first + 1)]
    }

    pub(super) fn exits(&self, needed: bool) -> u8 {
        NEIGHBOUR_EXITS + if needed { self.count() } else { 0 }
    }

    fn count(&self) -> u8 {
        u8::try_from(self.subjects.len()).unwrap_or(u8::MAX)
    }

    /// The node of this subject at this position.
    pub(super) fn node(&self, place: Place, subject: Subject) -> Option<String> {
        let at = u8::try_from(self.subjects.iter().position(|one| *one == subject)?).ok()?;
        Some(match place {
            Place::Guard | Place::Middle => format!("r{}", NEIGHBOUR_RELAYS + 1 + at),
            Place::Exit => format!("e{}", NEIGHBOUR_EXITS + 1 + at),
        })
    }

    /// Guard first.
    pub(super) fn path(&self, place: Place, subject: Subject) -> Option<[String; 3]> {
        let node = self.node(place, subject)?;
        let [r1, r2, e1] = ["r1", "r2", "e1"].map(str::to_owned);
        Some(match place {
            Place::Guard => [node, r2, e1],
            Place::Middle => [r1, node, e1],
            Place::Exit => [r1, r2, node],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_has_a_node_of_its_own_among_neighbours() {
        let layout = Layout::new(true, true);
        assert_eq!((layout.relays(), layout.exits(true)), (8, 5));
        assert_eq!(layout.played(), ["r7", "r8"]);
        assert_eq!(layout.exits(false), 1);
        let path = |place, subject| layout.path(place, subject).unwrap().join(",");
        assert_eq!(path(Place::Guard, Subject::CTor), "r3,r2,e1");
        assert_eq!(path(Place::Middle, Subject::Ours), "r1,r4,e1");
        assert_eq!(path(Place::Exit, Subject::Control), "r1,r2,e4");
        assert_eq!(path(Place::Middle, Subject::Profiled), "r1,r6,e1");
    }

    #[test]
    fn what_is_not_there_has_no_path() {
        let layout = Layout::new(false, false);
        assert_eq!(layout.path(Place::Guard, Subject::Control), None);
        assert_eq!(layout.measured(), [Subject::CTor, Subject::Ours]);
    }
}
