//! Two metrics pages beside each other, and beside what the reference says of their differences.

use std::collections::{BTreeMap, BTreeSet};

/// A page: its families' HELP and TYPE, and its series with their values.
#[derive(Debug, Default, Clone)]
pub(super) struct Page {
    help: BTreeMap<String, String>,
    kind: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
}

impl Page {
    /// Takes in what one relay shows; values of the same series add up.
    pub(super) fn take_in(&mut self, text: &str) {
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                self.help.insert(name.to_owned(), help.to_owned());
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                self.kind.insert(name.to_owned(), kind.to_owned());
            } else if let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
                *self.series.entry(series.to_owned()).or_default() += value.parse().unwrap_or(0.0);
            }
        }
    }

    /// The sum of a series, if the page has it.
    pub(super) fn value(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// How many of them are of this family.
    pub(super) fn of_family(&self, family: &str) -> usize {
        self.series.keys().filter(|series| name(series) == family).count()
    }
}

/// What the reference says that we lack, for good or until something happens.
pub(super) struct Reference {
    not_here: Vec<String>,
    not_yet: Vec<String>,
}

impl Reference {
    pub(super) fn read(text: &str) -> Self {
        Self {
            not_here: rows(text, "## Not here"),
            not_yet: rows(text, "## Not before the first event"),
        }
    }

    /// How many rows excuse something.
    pub(super) fn rows(&self) -> usize {
        self.not_here.len()
    }
}

/// What is wrong with ours beside theirs: series that lack without a reason, other words or kinds.
pub(super) fn differences(theirs: &Page, ours: &Page, reference: &Reference) -> Vec<String> {
    let excused = |series: &str| {
        let mut rows = reference.not_here.iter().chain(&reference.not_yet);
        rows.any(|row| covers(row, series))
    };
    let lacking = theirs.series.keys().filter(|series| !ours.series.contains_key(*series));
    let mut found: Vec<String> = lacking
        .filter(|series| !excused(series))
        .map(|series| format!("ours lacks {series}, and the reference does not say why"))
        .collect();
    for (what, theirs, ours) in [("HELP", &theirs.help, &ours.help), ("TYPE", &theirs.kind, &ours.kind)] {
        for (family, wanted) in theirs {
            if let Some(text) = ours.get(family).filter(|text| *text != wanted) {
                found.push(format!("{what} of {family}: C tor says {wanted:?}, ours {text:?}"));
            }
        }
    }
    let stale = reference
        .not_here
        .iter()
        .filter(|row| ours.series.keys().any(|series| covers(row, series)));
    found.extend(stale.map(|row| format!("the reference says that {row} is not here, and it is")));
    found
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or_default()
}

/// A series, or a family of them by some of their labels: `name{type="Socks"}`.
fn covers(row: &str, series: &str) -> bool {
    let labels = |text: &str| -> BTreeSet<String> {
        let inside = text
            .split_once('{')
            .map_or("", |(_, labels)| labels.trim_end_matches('}'));
        let labels = inside.split("\",").filter(|label| !label.is_empty());
        labels.map(|label| label.trim_end_matches('"').to_owned()).collect()
    };
    name(row) == name(series) && labels(row).is_subset(&labels(series))
}

/// The first cells of a table of the reference: what stands between backquotes.
fn rows(text: &str, heading: &str) -> Vec<String> {
    let section = text.split(heading).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `"));
    cells
        .filter_map(|rest| rest.split('`').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "## Not here\n\n| series | why |\n|---|---|\n| `a{type=\"Socks\"}` | no |\n\n\
                             ## Not before the first event\n\n| `m` | later |\n\n## Only here\n\n| `b` | ours |\n";

    fn page(text: &str) -> Page {
        let mut page = Page::default();
        page.take_in(text);
        page
    }

    #[test]
    fn what_lacks_must_have_its_reason_and_what_is_there_its_words() {
        let theirs = page(
            "# HELP a Total\n# TYPE a counter\na{type=\"OR\",family=\"ipv4\"} 3\na{type=\"Socks\",family=\"ipv4\"} 0\nm{x=\"y\"} 0\n",
        );
        let reference = Reference::read(REFERENCE);
        assert_eq!(reference.rows(), 1);
        let same = page("# HELP a Total\n# TYPE a counter\na{type=\"OR\",family=\"ipv4\"} 1\n");
        assert_eq!(differences(&theirs, &same, &reference), Vec::<String>::new());
        let other = page("# HELP a Sum\n# TYPE a gauge\na{type=\"Socks\",family=\"ipv4\"} 1\n");
        assert_eq!(differences(&theirs, &other, &reference).len(), 4);
    }

    #[test]
    fn the_pages_of_several_relays_add_up() {
        let mut both = page("a{x=\"1\"} 2\n");
        both.take_in("a{x=\"1\"} 3\na{x=\"2\"} 1\n");
        assert_eq!(
            (both.value("a{x=\"1\"}"), both.len(), both.of_family("a")),
            (Some(5.0), 2, 2)
        );
    }
}
