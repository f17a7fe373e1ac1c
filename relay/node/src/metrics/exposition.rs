//! Prometheus' text form (version 0.0.4).
//!
//! Names and labels are `'static`: nothing that came over the network can become one.

use std::fmt::{Display, Write as _};

/// How a family of series behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// May go down.
    Gauge,
}

/// A label and its value.
pub type Label = (&'static str, &'static str);

/// The text as far as it is written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // A String takes everything.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family {
            name,
            text: &mut self.text,
        }
    }

    /// What was written.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A family that takes samples.
pub struct Family<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Family<'_> {
    /// One series.
    pub fn sample(&mut self, labels: &[Label], value: impl Display) -> &mut Self {
        self.text.push_str(self.name);
        for (at, (label, content)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{content}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_c_tor_writes() {
        let mut text = Exposition::default();
        text.family("tor_relay_traffic_bytes", Kind::Counter, "Traffic related counters")
            .sample(&[("direction", "read")], 7_u64)
            .sample(&[("direction", "written"), ("x", "y")], 8_u64);
        text.family("tor_relay_destroy_cell_total", Kind::Gauge, "Total")
            .sample(&[], 0_u64);
        assert_eq!(
            text.into_text(),
            "# HELP tor_relay_traffic_bytes Traffic related counters\n# TYPE tor_relay_traffic_bytes counter\n\
             tor_relay_traffic_bytes{direction=\"read\"} 7\ntor_relay_traffic_bytes{direction=\"written\",x=\"y\"} 8\n\
             # HELP tor_relay_destroy_cell_total Total\n# TYPE tor_relay_destroy_cell_total gauge\n\
             tor_relay_destroy_cell_total 0\n"
        );
    }
}
