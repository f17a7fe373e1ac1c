//! Exit policy: where this relay lets streams go.
//!
//! Takes the torrc lines of C tor's syntax and what the relay knows of its surroundings; gives an [`ExitPolicy`] that
//! answers [`ExitPolicy::allows`], and the lines that a descriptor says about it. First match decides.
//!
//! ```text
//! parse (torrc line → rules) ─→ assemble (IPv6, private, own, cluster, user, default) ─→ refine ─→ allows, summary
//! ```
//!
//! What is published is what is enforced: nothing refuses a stream that is not a rule of this list, as authorities call a
//! relay that filters in silence a bad exit.

mod assemble;
mod embedded;
mod parse;
mod refine;
mod rule;
mod summary;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use assemble::{Options, extra_private, private_networks};
pub use parse::{BadPolicy, ParsedLine, Problem, Warning};
pub use rule::{Action, BadNetwork, Network, PortRange, Rule, first_match};

/// A whole policy: for each address and port some rule matches. Only [`ExitPolicy::assemble`] and
/// [`ExitPolicy::reject_all`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitPolicy {
    rules: Vec<Rule>,
}

impl ExitPolicy {
    /// `reject *:*`: no exit.
    pub fn reject_all() -> Self {
        Self {
            rules: vec![Rule::all_v4(Action::Reject), Rule::all_v6(Action::Reject)],
        }
    }

    /// Reads the value of one `ExitPolicy` line: entries with commas between them (tor(1), "ExitPolicy"). An error names the
    /// column, counted in characters from 1, and spoils the line as a whole; a warning tells what has no effect.
    pub fn parse_line(text: &str) -> Result<ParsedLine, BadPolicy> {
        parse::line(text)
    }

    /// The policy in force, in C tor's order (`policies_parse_exit_policy_internal`), redundant rules removed.
    pub fn assemble(options: &Options) -> Self {
        Self {
            rules: assemble::rules(options),
        }
    }

    /// Whether a stream may go there. Ask for each address that a name resolved to, and again for the one that is
    /// connected to. An IPv6 address that carries an IPv4 address inside (mapped, NAT64, 6to4, Teredo) needs the
    /// permission for both, as the packets may come out at either.
    pub fn allows(&self, address: IpAddr, port: u16) -> bool {
        let allowed = |address| first_match(&self.rules, address, port) == Some(Action::Accept);
        port != 0 && allowed(address) && embedded::ipv4_inside(address).all(|inner| allowed(IpAddr::V4(inner)))
    }

    /// The rules, in the order in which they are asked.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether nothing is allowed anywhere: the relay is no exit.
    pub fn is_reject_all(&self) -> bool {
        [IpFamily::V4, IpFamily::V6]
            .into_iter()
            .all(|family| summary::is_reject_all(&self.rules, family))
    }

    /// The `accept` and `reject` lines of a server descriptor: the IPv4 policy, or `reject *:*` (dir-spec 2.1.1).
    pub fn descriptor_lines(&self) -> Vec<String> {
        let lines: Vec<_> = self
            .rules
            .iter()
            .filter(|rule| rule.network.is_v4())
            .map(Rule::descriptor_line)
            .collect();
        if lines.is_empty() {
            vec!["reject *:*".to_owned()]
        } else {
            lines
        }
    }

    /// What follows `ipv6-policy` in a server descriptor; `None` where the line is left out, because no port is open
    /// (dir-spec 2.1.1).
    pub fn ipv6_policy(&self) -> Option<String> {
        Some(self.summary(IpFamily::V6)).filter(|summary| summary != summary::NOTHING)
    }

    /// What follows `p` (IPv4) or `p6` (IPv6) in a microdescriptor: the ports that are open to nearly all addresses
    /// (dir-spec 3.8.2, C tor's `policy_summarize`).
    pub fn summary(&self, family: IpFamily) -> String {
        summary::summarize(&self.rules, family)
    }

    /// Whether authorities give the Exit flag: both port 80 and 443 open to one whole public /8 at least (dir-spec 3.4.2,
    /// C tor's `exit_policy_is_general_exit`).
    pub fn is_general_exit(&self) -> bool {
        [80, 443]
            .into_iter()
            .all(|port| summary::opens_a_slash_8(&self.rules, port))
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum IpFamily {
    V4,
    V6,
}
