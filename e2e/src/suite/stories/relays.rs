//! Relays of ours among C tor's, each story in a network of its own.

use anyhow::Result;

use crate::demo::images;
use crate::story::{onion, scrape};

type Story = fn(String) -> Result<()>;

/// A name to choose it by, its moral, and how it goes.
pub(super) const ALL: [(&str, &str, Story); 2] = [
    (
        "onion",
        "an onion service of C tor's is reached while every relay that it needs is ours",
        among_ours,
    ),
    (
        "scrape",
        "every series of C tor's MetricsPort is in ours, or the reference says why not",
        side_by_side,
    ),
];

/// Tells one with our newest program.
pub(super) fn tell(story: Story) -> Result<()> {
    story(images::programs()?.relay.display().to_string())
}

fn among_ours(relay: String) -> Result<()> {
    onion::tell(&onion::Onions {
        relay,
        times: 3,
        bytes: 5 << 20,
    })
}

fn side_by_side(relay: String) -> Result<()> {
    let bytes = 20 << 20;
    scrape::tell(&scrape::Scraped { relay, bytes })
}
