//! The rules of `by-tag`, as far as they can be judged without a job.
//!
//! GitLab gives a runner only jobs all of whose tags the runner has, and a profile's `tags` are its runner's. So a
//! rule matches some job of a profile exactly if all its tags are the profile's.
//!
//! Whether a rule is shadowed hangs on which tags jobs bring. Where GitLab's API is asked, a job may bring just the
//! tags of the rule, which then is the most specific one: it counts. Where it is not, every job has all tags of its
//! profile, so which rules match is known, and a rule counts only if it says something that no rule before it in
//! specificity says (plugins/by-tag/README.md).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Findings, Kind, policies};
use crate::settings::{JobTags, Policy, Settings};
use crate::spelling;

/// What a rule can name of the catalog.
const NAMES: [(&str, &str); 3] =
    [("cluster", "clusters"), ("task_definition", "task_definitions"), ("role", "roles")];

struct Rule<'r> {
    /// Counted from 1.
    number: usize,
    table: &'r Map<String, Value>,
    tags: BTreeSet<&'r str>,
}

pub(super) fn look(settings: &Settings, name: &str, policy: &Policy, findings: &mut Findings<'_>) {
    // What is no rule, the policy itself has refused.
    let Some(rules) = policy.settings.get("rules").and_then(Value::as_array) else { return };
    let rules: Vec<Rule<'_>> = rules
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| {
            let table = rule.as_object()?;
            let tags = table.get("tags")?.as_array()?.iter().filter_map(Value::as_str).collect();
            Some(Rule { number: index + 1, table, tags })
        })
        .collect();
    for rule in &rules {
        let place = format!(
            "policies.{name}.settings.rules, rule {} for {}",
            rule.number,
            show(&rule.tags)
        );
        if !asks_gitlab(settings) {
            shadowed(settings, name, rule, &rules, &place, findings);
        }
        reachable(settings, name, rule, &place, findings);
    }
}

/// Whether jobs may bring tags of their own.
fn asks_gitlab(settings: &Settings) -> bool {
    settings.gitlab.as_ref().is_some_and(|gitlab| gitlab.job_tags != JobTags::Off)
}

fn show(tags: &BTreeSet<&str>) -> String {
    format!("[{}]", tags.iter().copied().collect::<Vec<_>>().join(", "))
}

fn shadowed(
    settings: &Settings,
    policy: &str,
    rule: &Rule<'_>,
    rules: &[Rule<'_>],
    place: &str,
    findings: &mut Findings<'_>,
) {
    let mut shadows = BTreeSet::new();
    for (_, _, tags) in policies::asked_with(settings, policy) {
        let matches = |rule: &Rule<'_>| rule.tags.iter().all(|tag| tags.contains(*tag));
        if !matches(rule) {
            continue;
        }
        let before: Vec<&Rule<'_>> = rules
            .iter()
            .filter(|other| (other.tags.len(), other.number) > (rule.tags.len(), rule.number))
            .filter(|other| matches(other))
            .collect();
        for key in rule.table.keys().filter(|key| *key != "tags") {
            let said = before.iter().find(|other| match key.as_str() {
                // Joined key by key.
                "labels" => covers(other.table.get("labels"), rule.table.get("labels")),
                key => other.table.contains_key(key),
            });
            match said {
                Some(other) => shadows.insert(other.number),
                None => return,
            };
        }
    }
    if shadows.is_empty() {
        return;
    }
    let numbers: Vec<String> = shadows.iter().map(ToString::to_string).collect();
    findings.change(
        Kind::RuleShadowed,
        place,
        format!(
            "whatever it says, {} {} for more of the same profiles' tags",
            if numbers.len() == 1 { "rule" } else { "rules" },
            match numbers.as_slice() {
                [only] => format!("{only} says"),
                numbers => format!("{} say", numbers.join(" and ")),
            }
        ),
        "remove it, or set `[gitlab] url`, so that jobs bring their own tags",
    );
}

/// Whether every key of `inner` is in `outer` as well.
fn covers(outer: Option<&Value>, inner: Option<&Value>) -> bool {
    match (outer.and_then(Value::as_object), inner.and_then(Value::as_object)) {
        (Some(outer), Some(inner)) => inner.keys().all(|key| outer.contains_key(key)),
        _ => false,
    }
}

fn reachable(
    settings: &Settings,
    policy: &str,
    rule: &Rule<'_>,
    place: &str,
    findings: &mut Findings<'_>,
) {
    let profiles = policies::asked_with(settings, policy);
    let bringing: Vec<_> = profiles
        .iter()
        .filter(|(_, _, tags)| rule.tags.iter().all(|tag| tags.contains(*tag)))
        .collect();
    // Without a profile it is the policy that nobody uses.
    if bringing.is_empty() && !profiles.is_empty() {
        let known: BTreeSet<&str> =
            profiles.iter().flat_map(|(_, _, tags)| tags.iter().map(String::as_str)).collect();
        let unknown = rule.tags.iter().find(|tag| !known.contains(**tag));
        let (what, change) = match unknown {
            Some(tag) => (
                format!("no profile with this policy has the tag `{tag}`"),
                match spelling::nearest(tag, known.iter().copied()) {
                    Some(near) => format!(
                        "did you mean `{near}`? Otherwise add `{tag}` to `tags` of the profile whose runner has it, or remove the rule"
                    ),
                    None => format!(
                        "add `{tag}` to `tags` of the profile whose runner has it, or remove the rule"
                    ),
                },
            ),
            None => (
                "no profile with this policy has all of these tags".to_owned(),
                "add them to `tags` of one profile, or remove the rule".to_owned(),
            ),
        };
        findings.change(Kind::RuleUnreachable, place, what, change);
    }
    let alternatives = rule.table.get("alternatives").and_then(Value::as_array);
    let tables = alternatives.into_iter().flatten().filter_map(Value::as_object);
    let mut told = BTreeSet::new();
    for table in std::iter::once(rule.table).chain(tables) {
        for (key, of) in NAMES {
            let Some(wanted) = table.get(key).and_then(Value::as_str) else { continue };
            if !told.insert((key, wanted)) {
                continue;
            }
            let all = names(settings, of);
            if !all.contains(&wanted) {
                let change = format!("correct it: {}", spelling::instead(wanted, all));
                let what = format!("`{key} = \"{wanted}\"` names what [{of}] lacks");
                findings.change(Kind::RuleUnknownName, place, what, change);
                continue;
            }
            let allowing = bringing.iter().any(|(_, profile, _)| {
                let listed = match key {
                    "cluster" => &profile.bounds.clusters,
                    "task_definition" => &profile.bounds.task_definitions,
                    _ => &profile.bounds.roles,
                };
                listed.contains(wanted)
            });
            if !bringing.is_empty() && !allowing {
                let profiles = spelling::list(bringing.iter().map(|(name, ..)| *name));
                findings.change(
                    Kind::RuleOutOfBounds,
                    place,
                    format!("`{key} = \"{wanted}\"` is not within the bounds of {profiles}, whose tags it is for"),
                    format!("add \"{wanted}\" to `bounds.{of}` of the profile, or change the rule"),
                );
            }
        }
    }
}

fn names<'s>(settings: &'s Settings, table: &str) -> Vec<&'s str> {
    match table {
        "clusters" => settings.clusters.keys().map(String::as_str).collect(),
        "task_definitions" => settings.task_definitions.keys().map(String::as_str).collect(),
        _ => settings.roles.keys().map(String::as_str).collect(),
    }
}
