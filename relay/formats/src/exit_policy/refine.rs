//! Redundant rules go, in three passes; what the policy allows stays the same (C tor's `exit_policy_remove_redundancies`,
//! whose result must be ours, as it is what descriptors print).

use super::IpFamily;
use super::rule::Rule;

/// The same policy with no rule that later or earlier ones make idle.
pub(super) fn without_redundancies(rules: Vec<Rule>) -> Vec<Rule> {
    without_covered_later(without_covered_earlier(without_unreachable(rules)))
}

/// Behind a rule for the whole family nothing of that family is ever asked.
fn without_unreachable(mut rules: Vec<Rule>) -> Vec<Rule> {
    for family in [IpFamily::V4, IpFamily::V6] {
        let is_of = |rule: &Rule| rule.network.family() == family;
        if let Some(last) = rules.iter().position(|rule| is_of(rule) && rule.is_catch_all()) {
            let mut place = 0..;
            rules.retain(|rule| place.next().is_some_and(|place| place <= last) || !is_of(rule));
        }
    }
    rules
}

/// A rule says nothing where an earlier one has decided all of it, whatever either says.
fn without_covered_earlier(rules: Vec<Rule>) -> Vec<Rule> {
    let mut kept: Vec<Rule> = Vec::with_capacity(rules.len());
    for rule in rules {
        if !kept.iter().any(|earlier| earlier.covers(&rule)) {
            kept.push(rule);
        }
    }
    kept
}

/// A rule says nothing where a later one says the same of more, and none between says otherwise of any part of it.
fn without_covered_later(rules: Vec<Rule>) -> Vec<Rule> {
    let mut kept = Vec::with_capacity(rules.len());
    let mut rest = rules.as_slice();
    while let [rule, later @ ..] = rest {
        if !is_said_again(rule, later) {
            kept.push(*rule);
        }
        rest = later;
    }
    kept
}

fn is_said_again(rule: &Rule, later: &[Rule]) -> bool {
    for other in later {
        if other.action != rule.action && other.intersects(rule) {
            return false;
        }
        if other.action == rule.action && other.covers(rule) {
            return true;
        }
    }
    false
}
