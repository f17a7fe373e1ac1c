//! Which nodes are ours, and which paths lead through them.

use std::fmt;

/// Nodes that are ours: two that are no exits and one that is.
pub(super) const OURS: [&str; 3] = ["r3", "r4", "e2"];

/// Each of ours beside a C tor of the same kind.
pub(super) const TWINS: [(&str, &str); 3] = [("r3", "r1"), ("r4", "r2"), ("e2", "e1")];

/// Where ours stand on a path of three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Position {
    /// First hop.
    Guard,
    /// Second hop.
    Middle,
    /// Third hop.
    Exit,
    /// All three.
    All,
}

impl Position {
    /// Every one, in order.
    pub const ALL: [Self; 4] = [Self::Guard, Self::Middle, Self::Exit, Self::All];

    /// Guard first.
    pub(super) fn path(self) -> [&'static str; 3] {
        match self {
            Self::Guard => ["r3", "r2", "e1"],
            Self::Middle => ["r1", "r3", "e1"],
            Self::Exit => ["r1", "r2", "e2"],
            Self::All => ["r3", "r4", "e2"],
        }
    }
}

/// Nodes that must be ours for these positions: where none needs our exit, C tor stands there.
pub(super) fn ours(positions: &[Position]) -> Vec<&'static str> {
    let needed = |name: &&str| positions.iter().any(|position| position.path().contains(name));
    OURS.into_iter().filter(needed).collect()
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guard => "guard",
            Self::Middle => "middle",
            Self::Exit => "exit",
            Self::All => "all",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_holds_ours_where_it_says_and_nowhere_else() {
        let ours = |position: Position| position.path().map(|name| OURS.contains(&name));
        assert_eq!(ours(Position::Guard), [true, false, false]);
        assert_eq!(ours(Position::Middle), [false, true, false]);
        assert_eq!(ours(Position::Exit), [false, false, true]);
        assert_eq!(ours(Position::All), [true, true, true]);
    }

    #[test]
    fn our_exit_is_there_only_where_it_is_needed() {
        assert_eq!(ours(&[Position::Guard, Position::Middle]), ["r3"]);
        assert_eq!(ours(&Position::ALL), OURS);
    }

    #[test]
    fn each_of_ours_has_a_twin_that_is_not_ours() {
        for (ours, twin) in TWINS {
            assert!(OURS.contains(&ours) && !OURS.contains(&twin));
            assert_eq!(ours.starts_with('e'), twin.starts_with('e'));
        }
    }
}
