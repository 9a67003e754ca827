//! From a job's tags to placements: pure, so its tests are native.

use std::collections::BTreeSet;

use pointsman_policy_sdk::{Arch, Capacity, Context, Decision, Placement, Rejection};

use crate::settings::{Pieces, Rule, Settings, UnknownTags};

/// The decision for the job of `context`.
pub fn decide<C: Context>(context: &C, settings: &Settings) -> Decision {
    let tags: BTreeSet<String> = context.tags().into_inner().values.into_iter().collect();
    match candidates(context, settings, &tags) {
        Ok(candidates) => Decision::Place(candidates),
        Err(rejection) => Decision::Reject(rejection),
    }
}

fn candidates<C: Context>(
    context: &C,
    settings: &Settings,
    tags: &BTreeSet<String>,
) -> Result<Vec<Placement>, Rejection> {
    let known: BTreeSet<&String> = settings.rules.iter().flat_map(|rule| &rule.tags).collect();
    let unknown: BTreeSet<&String> = tags.iter().filter(|tag| !known.contains(tag)).collect();
    if settings.unknown_tags == UnknownTags::Reject && !unknown.is_empty() {
        return Err(Rejection {
            code: "unknown-tag".to_owned(),
            message: format!(
                "no rule knows {} {} of this job's tags {}",
                if unknown.len() == 1 { "the tag" } else { "the tags" },
                list(unknown),
                list(tags)
            ),
            hint: Some(format!(
                "rules know the tags {}; an operator can add a rule, or set `unknown_tags = \"ignore\"`",
                list(known)
            )),
        });
    }
    let matching = matching(settings, tags);
    if matching.is_empty() {
        return Err(Rejection {
            code: "no-rule".to_owned(),
            message: match tags.len() {
                0 => "no rule is for a job without tags".to_owned(),
                _ => format!("no rule is for a job with the tags {}", list(tags)),
            },
            hint: Some(format!("rules are for {}", rules(&settings.rules))),
        });
    }
    let mut base = Pieces::default();
    for rule in &matching {
        base.overlay(&rule.pieces);
    }
    let decided = rules(matching.iter().copied());
    let alternatives = matching.iter().rev().find(|rule| !rule.alternatives.is_empty());
    let Some(rule) = alternatives else {
        let place = format!("rules {decided}");
        return placement(context, base, tags, &place).map(|candidate| vec![candidate]);
    };
    let count = rule.alternatives.len();
    rule.alternatives
        .iter()
        .enumerate()
        .map(|(index, alternative)| {
            let mut pieces = base.clone();
            pieces.overlay(alternative);
            let place = format!("rules {decided}, alternative {} of {count}", index + 1);
            placement(context, pieces, tags, &place)
        })
        .collect()
}

/// Least specific first; the sort is stable, so at equal specificity the file's order stays.
fn matching<'a>(settings: &'a Settings, tags: &BTreeSet<String>) -> Vec<&'a Rule> {
    let mut matching: Vec<&Rule> =
        settings.rules.iter().filter(|rule| rule.tags.is_subset(tags)).collect();
    matching.sort_by_key(|rule| rule.tags.len());
    matching
}

fn placement<C: Context>(
    context: &C,
    pieces: Pieces,
    tags: &BTreeSet<String>,
    decided: &str,
) -> Result<Placement, Rejection> {
    let missing = |what: &str| Rejection {
        code: "no-rule".to_owned(),
        message: format!(
            "no rule names a {what} for a job with the tags {} ({decided})",
            list(tags)
        ),
        hint: Some(format!("an operator must add `{what}` to a rule that matches these tags")),
    };
    let cluster = pieces.cluster.ok_or_else(|| missing("cluster"))?;
    let task_definition = pieces.task_definition.ok_or_else(|| missing("task_definition"))?;
    Ok(Placement {
        arch: pieces.arch.unwrap_or_else(|| default_arch(context, &task_definition)),
        capacity: pieces.capacity.unwrap_or_else(|| default_capacity(context)),
        cluster,
        task_definition,
        cpu_units: pieces.cpu_units,
        memory_mib: pieces.memory_mib,
        ephemeral_storage_gib: pieces.ephemeral_storage_gib,
        role: pieces.role,
        labels: pieces.labels.into_iter().collect(),
        extra: Vec::new(),
        reason: match pieces.reason {
            Some(reason) => format!("{reason} ({decided})"),
            None => decided.to_owned(),
        },
    })
}

/// `x86_64`, unless the task definition is for ARM only.
fn default_arch<C: Context>(context: &C, task_definition: &str) -> Arch {
    let definitions = context.task_definitions();
    let archs = definitions.iter().find(|definition| definition.name == task_definition);
    match archs.map(|definition| definition.archs.as_slice()) {
        Some([only]) => *only,
        _ => Arch::X8664,
    }
}

/// On-demand, unless the profile allows Spot only.
fn default_capacity<C: Context>(context: &C) -> Capacity {
    match context.limits().capacities.as_slice() {
        [only] => *only,
        _ => Capacity::OnDemand,
    }
}

fn rules<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> String {
    rules.into_iter().map(|rule| list(&rule.tags)).collect::<Vec<_>>().join(", ")
}

fn list<'a>(tags: impl IntoIterator<Item = &'a String>) -> String {
    format!("[{}]", tags.into_iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;
    use pointsman_policy_sdk::TaskDefinition;
    use pointsman_policy_sdk::fixture::Fixture;
    use serde_json::{Value, json};

    fn example() -> Value {
        json!({"rules": [
            {"tags": ["dev"], "cluster": "dev", "task_definition": "node", "cpu": "1",
             "labels": {"env": "dev", "by": "dev"}},
            {"tags": ["big"], "cpu": "4", "memory": "16GiB"},
            {"tags": ["arm64"], "arch": "arm64", "labels": {"by": "arm64"}},
            {"tags": ["dev", "big"], "cpu": "2", "reason": "dev is small"},
            {"tags": ["cheap"], "alternatives": [
                {"arch": "arm64", "capacity": "spot"}, {"capacity": "spot"}, {"capacity": "on-demand"}]},
            {"tags": ["cheap", "arm64"], "alternatives": [{"capacity": "spot"}]},
            {"tags": ["deploy"], "role": "deploy", "cluster": "prod"},
        ]})
    }

    fn decided(job: &Fixture, settings: &Value) -> Decision {
        decide(job, &settings::read(settings).unwrap())
    }

    fn placed(tags: &[&str]) -> Vec<Placement> {
        match decided(&Fixture::with_tags(tags.iter().copied()), &example()) {
            Decision::Place(candidates) => candidates,
            other => panic!("{other:?}"),
        }
    }

    fn rejected(tags: &[&str], settings: &Value) -> Rejection {
        match decided(&Fixture::with_tags(tags.iter().copied()), settings) {
            Decision::Reject(rejection) => rejection,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_rule_makes_one_placement() {
        let [candidate] = &placed(&["dev"])[..] else { panic!("one candidate") };
        assert_eq!(candidate.cluster, "dev");
        assert_eq!(candidate.task_definition, "node");
        assert_eq!((candidate.arch, candidate.capacity), (Arch::X8664, Capacity::OnDemand));
        assert_eq!((candidate.cpu_units, candidate.memory_mib), (Some(1024), None));
        assert_eq!(candidate.role, None);
        assert_eq!(candidate.reason, "rules [dev]");
    }

    #[test]
    fn more_tags_win_then_the_later_rule() {
        // Specificity over order, order at equal specificity.
        for (tags, cpu, cluster, reason) in [
            (&["dev", "big"][..], 2048, "dev", "dev is small (rules [dev], [big], [big, dev])"),
            (&["dev", "arm64"], 1024, "dev", "rules [dev], [arm64]"),
            (&["dev", "deploy"], 1024, "prod", "rules [dev], [deploy]"),
        ] {
            let candidates = placed(tags);
            assert_eq!(candidates.len(), 1, "{tags:?}");
            assert_eq!(candidates[0].cpu_units, Some(cpu), "{tags:?}");
            assert_eq!(candidates[0].cluster, cluster, "{tags:?}");
            assert_eq!(candidates[0].reason, reason, "{tags:?}");
        }
        let big = &placed(&["dev", "big"])[0];
        assert_eq!(big.memory_mib, Some(16_384), "a piece that the winner does not name stays");
        let labels = &placed(&["dev", "arm64"])[0].labels;
        assert_eq!(
            labels,
            &[("by".to_owned(), "arm64".to_owned()), ("env".to_owned(), "dev".to_owned())],
            "labels are joined key by key"
        );
    }

    #[test]
    fn alternatives_come_from_the_most_specific_rule() {
        let ways = |tags: &[&str]| -> Vec<(Arch, Capacity)> {
            placed(tags).iter().map(|candidate| (candidate.arch, candidate.capacity)).collect()
        };
        assert_eq!(
            ways(&["dev", "cheap"]),
            [
                (Arch::Arm64, Capacity::Spot),
                (Arch::X8664, Capacity::Spot),
                (Arch::X8664, Capacity::OnDemand)
            ]
        );
        assert_eq!(ways(&["dev", "cheap", "arm64"]), [(Arch::Arm64, Capacity::Spot)]);
        assert_eq!(placed(&["dev", "cheap"])[1].reason, "rules [dev], [cheap], alternative 2 of 3");
    }

    #[test]
    fn a_job_that_no_rule_matches_is_rejected_with_both_lists() {
        let pair = json!({"rules": [{"tags": ["dev", "linux"], "cluster": "dev"}, {"tags": ["prod"], "cpu": "1"}]});
        let rejection = rejected(&["dev"], &pair);
        assert_eq!(rejection.code, "no-rule");
        assert_eq!(rejection.message, "no rule is for a job with the tags [dev]");
        assert_eq!(rejection.hint.as_deref(), Some("rules are for [dev, linux], [prod]"));
        assert_eq!(rejected(&[], &pair).message, "no rule is for a job without tags");
        let rejection = rejected(&["prod"], &pair);
        assert_eq!(rejection.code, "no-rule");
        assert_eq!(
            rejection.message,
            "no rule names a cluster for a job with the tags [prod] (rules [prod])"
        );
        let rejection = rejected(&["dev", "linux"], &pair);
        assert_eq!(
            rejection.message,
            "no rule names a task_definition for a job with the tags [dev, linux] (rules [dev, linux])"
        );
    }

    #[test]
    fn a_tag_that_no_rule_knows_is_rejected_unless_ignored() {
        let rejection = rejected(&["dev", "docker"], &example());
        assert_eq!(rejection.code, "unknown-tag");
        assert_eq!(
            rejection.message,
            "no rule knows the tag [docker] of this job's tags [dev, docker]"
        );
        assert_eq!(
            rejection.hint.as_deref(),
            Some(
                "rules know the tags [arm64, big, cheap, deploy, dev]; an operator can add a rule, or set \
                 `unknown_tags = \"ignore\"`"
            )
        );
        let mut ignoring = example();
        ignoring["unknown_tags"] = json!("ignore");
        let decision = decided(&Fixture::with_tags(["dev", "docker"]), &ignoring);
        assert!(matches!(decision, Decision::Place(candidates) if candidates[0].cluster == "dev"));
    }

    #[test]
    fn what_no_rule_says_follows_the_catalog() {
        let arm_only = TaskDefinition {
            name: "node".to_owned(),
            archs: vec![Arch::Arm64],
            cpu_units: 1024,
            memory_mib: 2048,
            labels: Vec::new(),
        };
        let mut job = Fixture::with_tags(["dev"]);
        job.task_definitions.push(arm_only);
        job.limits.capacities = vec![Capacity::Spot];
        let Decision::Place(candidates) = decided(&job, &example()) else { panic!("placed") };
        assert_eq!((candidates[0].arch, candidates[0].capacity), (Arch::Arm64, Capacity::Spot));
    }
}
