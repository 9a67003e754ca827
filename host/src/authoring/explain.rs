//! `explain`: where a job would go, and why, policy by policy.
//!
//! A chain answers with one text a step. What each step changed is found by asking again with the chain cut off
//! after it: decisions are deterministic, so the shorter chain's answer is what the longer one had at that point.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::provenance::{self, Reading};
use super::trial::{FIELDS, fields};
use crate::job::{GitRef, Job, Project, RefKind, Variable};
use crate::placement::Placement;
use crate::policy::{self, Assurance, Kind, Question, Step, Store, Trace};
use crate::rehearse::pipeline;
use crate::settings::{self, JobTags, Settings};
use crate::spelling;

/// One job, explained.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// Of the job.
    pub job: String,
    /// Of the job.
    pub stage: String,
    /// The profile that decides; `None` when no runner would take the job.
    pub profile: Option<String>,
    /// Best first; empty when there is none.
    pub placements: Vec<Placement>,
    /// Why there is none.
    pub error: Option<String>,
    /// In the order in which they were asked.
    pub steps: Vec<ExplainedStep>,
    /// What the job log says.
    pub notices: Vec<String>,
}

/// One policy.
#[derive(Debug, Serialize)]
pub struct ExplainedStep {
    /// In the settings file.
    pub policy: String,
    /// What it was asked for.
    pub kind: Kind,
    /// Whether nothing hung on its answer.
    pub monitored: bool,
    /// One line.
    pub outcome: String,
    /// Of all its calls.
    pub fuel: u64,
    /// Microseconds of all its calls.
    pub elapsed_us: u64,
    /// With values and sources.
    pub facts: Vec<Reading>,
    /// With values and sources.
    pub claims: Vec<Reading>,
    /// What is different after it.
    pub changes: Vec<String>,
}

/// What a pipeline file does not say of the jobs that will run.
#[derive(Debug, Clone)]
pub struct Assumed {
    /// The ref's name.
    pub git_ref: String,
    /// Whether it is protected; `None` as from an old GitLab.
    pub protected: Option<bool>,
    /// The project's id.
    pub project_id: u64,
    /// The project's path.
    pub project_path: String,
}

/// Explains `job` for `profile`; `own_tags` are the job's, where they are known and the settings ask GitLab for them.
pub fn job(
    settings: &Settings,
    profile: &str,
    job: &Job,
    own_tags: Option<&BTreeSet<String>>,
    store: &Store,
) -> Explained {
    let mut explained = Explained {
        job: job.name.clone(),
        stage: job.stage.clone(),
        profile: Some(profile.to_owned()),
        placements: Vec::new(),
        error: None,
        steps: Vec::new(),
        notices: Vec::new(),
    };
    let Some(own) = settings.profiles.get(profile) else {
        let names: Vec<&str> = settings.profiles.keys().map(String::as_str).collect();
        let instead = spelling::instead(profile, names);
        explained.error = Some(format!("there is no profile `{profile}`: {instead}"));
        return explained;
    };
    let chain = settings.chain(own);
    let chain: Vec<_> = chain.iter().map(|(name, policy)| (*name, policy)).collect();
    let catalog = settings.catalog(&own.bounds);
    let question = Question {
        job,
        profile,
        tags: own_tags.unwrap_or(&own.tags),
        tags_assurance: if own_tags.is_some() { Assurance::Server } else { Assurance::Runner },
        attempt: 1,
        earlier_failures: &[],
        facts: &BTreeMap::new(),
        catalog: &catalog,
        bounds: &own.bounds,
        claims_taint: own.claims_taint,
    };
    let mut trace = Trace::default();
    match policy::decide_traced(&question, &chain, store, &mut trace) {
        Ok(placements) => explained.placements = placements,
        Err(error) => explained.error = Some(words(&error)),
    }
    explained.notices = trace.notices;
    explained.steps = steps(&question, &chain, store, &trace.steps);
    explained
}

/// An error with what is behind it, in one line.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        next = cause.source();
    }
    words
}

fn steps(
    question: &Question<'_>,
    chain: &[(&str, &settings::Policy)],
    store: &Store,
    taken: &[Step],
) -> Vec<ExplainedStep> {
    let mut before: Vec<Placement> = Vec::new();
    let mut explained = Vec::new();
    for (index, step) in taken.iter().enumerate() {
        let done: Vec<&str> = taken[..=index].iter().map(|step| step.policy.as_str()).collect();
        let short: Vec<(&str, &settings::Policy)> =
            chain.iter().filter(|(name, _)| done.contains(name)).copied().collect();
        let after = policy::decide_traced(question, &short, store, &mut Trace::default());
        let after = after.unwrap_or_default();
        explained.push(ExplainedStep {
            policy: step.policy.clone(),
            kind: step.kind,
            monitored: step.monitored,
            outcome: step.outcome.clone(),
            fuel: step.fuel,
            elapsed_us: step.elapsed_us,
            facts: step.facts_read.iter().map(|name| provenance::fact(question, name)).collect(),
            claims: step.claims_read.iter().map(|name| provenance::claim(question, name)).collect(),
            changes: changes(&before, &after),
        });
        before = after;
    }
    explained
}

/// What became of the candidates, in lines.
fn changes(before: &[Placement], after: &[Placement]) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let line = |number: usize, placement: &Placement| format!("{number}. {placement}");
    let numbered = |placements: &[Placement]| -> Vec<String> {
        (1..).zip(placements).map(|(number, placement)| line(number, placement)).collect()
    };
    if before.is_empty() {
        return numbered(after);
    }
    // The same places in the ranking: only what is different in each.
    if before.len() == after.len() {
        let mut told = Vec::new();
        for (number, (before, after)) in (1..).zip(before.iter().zip(after)) {
            let (old, new) = (fields(before), fields(after));
            for field in FIELDS {
                let (old, new) = (old.get(field), new.get(field));
                if old != new {
                    let shown = |value: Option<&serde_json::Value>| match value {
                        None | Some(serde_json::Value::Null) => "none".to_owned(),
                        Some(serde_json::Value::String(text)) => text.clone(),
                        Some(value) => value.to_string(),
                    };
                    told.push(format!("{number}. {field}: {} becomes {}", shown(old), shown(new)));
                }
            }
        }
        return told;
    }
    let mut told = vec![format!("{} candidates become {}:", before.len(), after.len())];
    told.extend(numbered(after));
    told
}

/// Explains each job of a pipeline.
pub fn pipeline(
    settings: &Settings,
    pipeline: &pipeline::Pipeline,
    profile: Option<&str>,
    assumed: &Assumed,
    store: &Store,
) -> Vec<Explained> {
    let explain = |(index, written): (u64, &pipeline::Job)| {
        let chosen = match profile {
            Some(profile) => Ok(profile),
            None => crate::rehearse::profile_for(settings, written),
        };
        match chosen {
            Ok(profile) => {
                let asks = settings.gitlab.as_ref().is_some_and(|own| own.job_tags != JobTags::Off);
                let tags = asks.then(|| written.tags.iter().cloned().collect());
                let sent = as_sent(written, index, assumed);
                job(settings, profile, &sent, tags.as_ref(), store)
            }
            Err(stuck) => Explained {
                job: written.name.clone(),
                stage: written.stage.clone(),
                profile: None,
                placements: Vec::new(),
                error: Some(stuck),
                steps: Vec::new(),
                notices: Vec::new(),
            },
        }
    };
    (1..).zip(&pipeline.jobs).map(explain).collect()
}

/// The job as GitLab would send it, as far as policies can see.
fn as_sent(written: &pipeline::Job, id: u64, assumed: &Assumed) -> Job {
    let predefined = [
        ("CI_COMMIT_REF_NAME", assumed.git_ref.clone()),
        ("CI_COMMIT_REF_PROTECTED", (assumed.protected == Some(true)).to_string()),
        ("CI_JOB_NAME", written.name.clone()),
        ("CI_JOB_STAGE", written.stage.clone()),
        ("CI_PROJECT_ID", assumed.project_id.to_string()),
        ("CI_PROJECT_PATH", assumed.project_path.clone()),
        ("CI_RUNNER_TAGS", serde_json::json!(written.tags).to_string()),
    ];
    Job {
        id,
        name: written.name.clone(),
        stage: written.stage.clone(),
        project: Project {
            id: assumed.project_id,
            full_path: assumed.project_path.clone(),
            namespace_id: 1,
            root_namespace_id: 1,
        },
        pipeline_id: 1,
        user_id: 1,
        git_ref: GitRef {
            name: assumed.git_ref.clone(),
            kind: RefKind::Branch,
            sha: "0".repeat(40),
            protected: assumed.protected,
        },
        timeout: written.timeout.unwrap_or(Duration::from_secs(3600)),
        queued: Duration::ZERO,
        image: written.image.as_ref().map(|image| image.name.clone()),
        services: written.services.iter().map(|service| service.name.clone()).collect(),
        variables: predefined
            .into_iter()
            .map(|(key, value)| Variable::plain(key.to_owned(), value))
            .chain(
                written
                    .variables
                    .iter()
                    .map(|own| Variable::plain(own.key.clone(), own.value.clone())),
            )
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::size::Size;
    use crate::placement::{Arch, Capacity};

    fn placement(capacity: Capacity) -> Placement {
        Placement {
            cluster: "ci".to_owned(),
            task_definition: "node".to_owned(),
            arch: Arch::X86_64,
            capacity,
            size: Size::DEFAULT,
            ephemeral_storage_gib: None,
            role: None,
            labels: BTreeMap::new(),
            reason: String::new(),
        }
    }

    #[test]
    fn changes_are_told_by_field_or_by_candidate() {
        let (spot, on_demand) = (placement(Capacity::Spot), placement(Capacity::OnDemand));
        let lines = |before: &[Placement], after: &[Placement]| changes(before, after);
        assert_eq!(lines(&[], std::slice::from_ref(&spot)).len(), 1);
        assert_eq!(
            lines(std::slice::from_ref(&spot), std::slice::from_ref(&on_demand)),
            ["1. capacity: spot becomes on-demand"]
        );
        assert_eq!(
            lines(std::slice::from_ref(&spot), std::slice::from_ref(&spot)),
            Vec::<String>::new()
        );
        let more = lines(std::slice::from_ref(&on_demand), &[spot, on_demand.clone()]);
        assert_eq!((more.len(), more[0].as_str()), (3, "1 candidates become 2:"));
    }
}
