//! Variants of a fixture that must not change what is decided.

use std::collections::BTreeSet;

use super::fixture::{Asked, Fixture, Variant};
use super::trial::Observed;

/// Predefined variables that read as if GitLab vouched for them; any pipeline can override each.
/// (GitLab's "Predefined CI/CD variables reference", those about ref, project, user, runner and source.)
const PREDEFINED: [&str; 36] = [
    "CI_COMMIT_BRANCH",
    "CI_COMMIT_REF_NAME",
    "CI_COMMIT_REF_PROTECTED",
    "CI_COMMIT_REF_SLUG",
    "CI_COMMIT_SHA",
    "CI_COMMIT_TAG",
    "CI_DEFAULT_BRANCH",
    "CI_DEPLOY_FREEZE",
    "CI_ENVIRONMENT_NAME",
    "CI_ENVIRONMENT_TIER",
    "CI_JOB_ID",
    "CI_JOB_IMAGE",
    "CI_JOB_MANUAL",
    "CI_JOB_NAME",
    "CI_JOB_STAGE",
    "CI_JOB_TIMEOUT",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
    "CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED",
    "CI_PIPELINE_ID",
    "CI_PIPELINE_SOURCE",
    "CI_PIPELINE_TRIGGERED",
    "CI_PROJECT_ID",
    "CI_PROJECT_NAME",
    "CI_PROJECT_NAMESPACE",
    "CI_PROJECT_NAMESPACE_ID",
    "CI_PROJECT_PATH",
    "CI_PROJECT_ROOT_NAMESPACE",
    "CI_PROJECT_VISIBILITY",
    "CI_RUNNER_DESCRIPTION",
    "CI_RUNNER_ID",
    "CI_RUNNER_TAGS",
    "CI_SERVER_HOST",
    "GITLAB_USER_EMAIL",
    "GITLAB_USER_ID",
    "GITLAB_USER_LOGIN",
    "GITLAB_USER_NAME",
];

/// What to ask instead, and what to compare it to.
pub(super) struct Varied {
    /// Instead of the fixture as it is.
    pub(super) base: Option<Asked>,
    /// Each with a word about what is different.
    pub(super) asked: Vec<(String, Asked)>,
}

/// `variant` of `fixture`, whose decision was `observed`.
pub(super) fn of(fixture: &Fixture, variant: Variant, observed: &Observed) -> Varied {
    match variant {
        Variant::ForgedClaims => {
            let names = names(fixture, observed);
            let asked = values(fixture)
                .into_iter()
                .map(|value| (format!("each is {value:?}"), forged(fixture, &names, &value)));
            Varied { base: None, asked: asked.collect() }
        }
        Variant::MissingProtected => {
            let with = |protected| {
                let mut changed = fixture.clone();
                changed.facts.git_ref.protected = protected;
                changed.asked()
            };
            // "Not told" must be the same as "not protected", whatever the fixture has.
            Varied {
                base: Some(with(Some(false))),
                asked: vec![("compared to a ref that is not protected".to_owned(), with(None))],
            }
        }
        Variant::RenamedProject => {
            let renamed = |path: &str| {
                let mut changed = fixture.clone();
                path.clone_into(&mut changed.facts.project.full_path);
                (format!("to `{path}`"), changed.asked())
            };
            let old = &fixture.facts.project.full_path;
            Varied {
                base: None,
                asked: vec![
                    renamed(&format!("{old}-renamed")),
                    renamed("another-group/another-name"),
                    renamed(""),
                ],
            }
        }
    }
}

/// The predefined variables, the fixture's own, and what the policy asked for.
fn names(fixture: &Fixture, observed: &Observed) -> BTreeSet<String> {
    let read = observed.claims.iter().filter_map(|claim| claim.strip_prefix("variable "));
    PREDEFINED
        .into_iter()
        .chain(fixture.claims.variables.keys().map(String::as_str))
        .chain(read)
        .map(str::to_owned)
        .collect()
}

/// What an author would write to get further than allowed: yes, what is offered, what is vouched for; and rubbish.
fn values(fixture: &Fixture) -> Vec<String> {
    let offer = &fixture.catalog;
    let mut values: Vec<String> = ["true", "1", "production", "main", "spot", "on-demand", "arm64"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    values.extend(offer.clusters.keys().take(8).cloned());
    values.extend(offer.task_definitions.keys().take(8).cloned());
    values.extend(offer.roles.keys().take(8).cloned());
    values.extend(fixture.facts.tags.iter().take(8).cloned());
    values.push(fixture.facts.project.id.to_string());
    values.push(fixture.facts.project.full_path.clone());
    values.extend(["", "\u{202e}$(id)`\n{\"role\":", "999999999999999999999"].map(str::to_owned));
    let mut seen = BTreeSet::new();
    values.retain(|value| seen.insert(value.clone()));
    values
}

fn forged(fixture: &Fixture, names: &BTreeSet<String>, value: &str) -> Asked {
    let mut changed = fixture.clone();
    changed.claims.variables = names.iter().map(|name| (name.clone(), value.to_owned())).collect();
    changed.claims.image = Some(value.to_owned()).filter(|value| !value.is_empty());
    changed.claims.services = vec![value.to_owned()];
    changed.asked()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authoring::fixture::Verdict;

    fn observed(claims: &[&str]) -> Observed {
        Observed {
            verdict: Verdict::Abstain,
            placements: Vec::new(),
            code: None,
            message: None,
            facts: BTreeSet::new(),
            claims: claims.iter().map(|&claim| claim.to_owned()).collect(),
            fuel: 0,
            elapsed_us: 0,
        }
    }

    #[test]
    fn forged_claims_say_all_that_could_help() {
        let mut fixture = Fixture::default();
        fixture.claims.variables.insert("OWN".to_owned(), "x".to_owned());
        fixture.catalog.roles.insert("deploy".to_owned(), Default::default());
        let varied = of(&fixture, Variant::ForgedClaims, &observed(&["variable WANTED", "image"]));
        assert!(varied.base.is_none());
        for (_, asked) in &varied.asked {
            for name in ["OWN", "WANTED", "CI_COMMIT_REF_PROTECTED", "CI_PROJECT_ID"] {
                assert!(asked.job.variables.iter().any(|variable| variable.key == name), "{name}");
            }
        }
        let first = |value: &str| {
            varied.asked.iter().any(|(_, asked)| asked.job.variables[0].value.reveal() == value)
        };
        assert!(first("true") && first("deploy") && first("1") && first(""));
    }

    #[test]
    fn a_missing_flag_is_compared_to_unprotected() {
        let mut fixture = Fixture::default();
        fixture.facts.git_ref.protected = Some(true);
        let varied = of(&fixture, Variant::MissingProtected, &observed(&[]));
        assert_eq!(varied.base.unwrap().job.git_ref.protected, Some(false));
        assert_eq!(varied.asked[0].1.job.git_ref.protected, None);
    }

    #[test]
    fn a_renamed_project_keeps_its_ids() {
        let varied = of(&Fixture::default(), Variant::RenamedProject, &observed(&[]));
        for (_, asked) in varied.asked {
            assert_eq!(asked.job.project.id, 1);
            assert_ne!(asked.job.project.full_path, "group/project");
        }
    }
}
