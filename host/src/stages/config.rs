//! `config`: decide where the job runs, once per attempt, and say so to GitLab Runner.
//!
//! No cloud credential is needed here, and while policies run none is present: the command line has dropped
//! them before this stage began. There is no asynchronous
//! runtime either: a decision takes less time than starting one would.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Context;
use crate::backend::local::task_directory;
use crate::environment::ATTEMPT;
use crate::failure::{Failure, Report};
use crate::output;
use crate::placement::Placement;
use crate::policy::{self, Assurance, EarlierFailure, FailureKind, Question};
use crate::settings::{ClusterBackend, Shell};
use crate::ssh::KeyPair;
use crate::state::{Attempt, AttemptId, JobIdentity, Keys, OutcomeKind, State};

/// A task outlives its job's timeout by this much at most: time for `cleanup` to come.
const SLACK: Duration = Duration::from_secs(600);

/// What GitLab Runner parses (executors/custom/api/config.go, `ConfigExecOutput`).
#[derive(Debug, Serialize)]
struct Reply {
    driver: Driver,
    hostname: String,
    builds_dir: String,
    cache_dir: String,
    builds_dir_is_shared: bool,
    shell: Shell,
    job_env: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
}

/// Runs the stage.
///
/// # Errors
///
/// A job that no policy places is a build failure; everything else is a system failure.
pub fn config(context: &Context) -> Result<(), Failure> {
    let job = context.job()?;
    let (name, profile) = context.profile()?;
    let state = context.state()?;
    let identity = JobIdentity::from(&job);
    let earlier = state.earlier_attempts(&identity);
    let store = policy::Store::open(&state.directory().join("policies"))?;
    let mut chain = Vec::new();
    for policy in &profile.policies {
        let settings = context.settings.policies.get(policy).ok_or_else(|| {
            Failure::system(format!("the policy `{policy}` is not in the settings file"))
        })?;
        chain.push((policy.as_str(), settings));
    }
    let decision = policy::decide(
        &Question {
            job: &job,
            profile: name,
            // GitLab does not send a job's tags; a runner only gets jobs whose tags it has.
            tags: &profile.tags,
            tags_assurance: Assurance::Runner,
            attempt: number_after(&earlier),
            earlier_failures: &earlier_failures(&earlier),
            facts: &BTreeMap::new(),
            catalog: &context.settings.catalog(&profile.bounds),
            bounds: &profile.bounds,
            claims_taint: profile.claims_taint,
        },
        &chain,
        &store,
    )?;
    for notice in &decision.notices {
        output::note(notice);
    }
    let id = AttemptId::new(job.id).map_err(|error| Failure::System(Report::of(&error)))?;
    let (environment, placements) = one_environment(context, &state, &id, decision.placements)?;
    announce(name, &placements);
    let lifetime = SignedDuration::try_from(job.timeout + SLACK)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let deadline = Timestamp::now()
        .checked_add(lifetime)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let attempt = Attempt::new(
        id,
        number_after(&earlier),
        name.to_owned(),
        identity,
        deadline,
        placements,
        serde_json::to_value(&decision.steps)
            .map_err(|error| Failure::System(Report::of(&error)))?,
        Keys { client: new_key()?.seed_base64(), host: new_key()?.seed_base64() },
    );
    state.save(&attempt)?;
    output::config_reply(&Reply {
        driver: Driver { name: "Pointsman", version: env!("CARGO_PKG_VERSION") },
        // GitLab Runner pastes it into a shell script between double quotes: never text of a job's.
        hostname: format!("pointsman profile {name}"),
        builds_dir: environment.builds_dir,
        cache_dir: environment.cache_dir,
        builds_dir_is_shared: false,
        shell: environment.shell,
        job_env: BTreeMap::from([(ATTEMPT, attempt.id.to_string())]),
    })
    .map_err(|error| Failure::System(Report::of(&error)))
}

fn new_key() -> Result<KeyPair, Failure> {
    KeyPair::generate().map_err(|error| Failure::System(Report::of(&error)))
}

fn number_after(earlier: &[Attempt]) -> u32 {
    u32::try_from(earlier.len()).unwrap_or(u32::MAX).saturating_add(1)
}

fn earlier_failures(earlier: &[Attempt]) -> Vec<EarlierFailure> {
    earlier
        .iter()
        .filter_map(|attempt| {
            let outcome = attempt.outcome.as_ref()?;
            let kind = match outcome.kind {
                OutcomeKind::Released | OutcomeKind::Cancelled => return None,
                OutcomeKind::Capacity => FailureKind::Capacity,
                OutcomeKind::SpotInterruption => FailureKind::SpotInterruption,
                OutcomeKind::OutOfMemory => FailureKind::OutOfMemory,
                OutcomeKind::Other => FailureKind::Other,
            };
            Some(EarlierFailure { attempt: attempt.number, kind, detail: outcome.detail.clone() })
        })
        .collect()
}

/// What the scripts of GitLab Runner will assume of the task.
#[derive(Debug, PartialEq, Eq)]
struct ScriptEnvironment {
    builds_dir: String,
    cache_dir: String,
    shell: Shell,
}

/// The best placement's script environment, and the placements that share it.
///
/// The runner asks for it once, before it is known which placement gets a task, so an alternative with other
/// directories or another shell cannot stand in.
fn one_environment(
    context: &Context,
    state: &State,
    id: &AttemptId,
    placements: Vec<Placement>,
) -> Result<(ScriptEnvironment, Vec<Placement>), Failure> {
    let environment_of = |placement: &Placement| {
        let definition =
            context.settings.task_definitions.get(&placement.task_definition).ok_or_else(|| {
                Failure::system(format!("no task definition `{}`", placement.task_definition))
            })?;
        let (builds_dir, cache_dir) = match &context.cluster(&placement.cluster)?.backend {
            ClusterBackend::Ecs(_) => (definition.builds_dir.clone(), definition.cache_dir.clone()),
            ClusterBackend::Local(_) => {
                let directory = task_directory(state.directory(), id.as_str());
                let inside = |name| directory.join(name).display().to_string();
                (inside("builds"), inside("cache"))
            }
        };
        Ok::<_, Failure>(ScriptEnvironment { builds_dir, cache_dir, shell: definition.shell })
    };
    let first = placements.first().ok_or_else(|| Failure::system("no placement was decided"))?;
    let environment = environment_of(first)?;
    let mut kept = Vec::new();
    for placement in placements {
        if environment_of(&placement)? == environment {
            kept.push(placement);
        } else {
            output::note(&format!(
                "Left out as an alternative, since its directories or its shell differ: {placement}"
            ));
        }
    }
    Ok((environment, kept))
}

fn announce(profile: &str, placements: &[Placement]) {
    for (index, placement) in placements.iter().enumerate() {
        let label = if index == 0 { "Placed on" } else { "Otherwise on" };
        output::note(&format!("{label} {placement}"));
        if index == 0 {
            output::note(&format!("  decided by profile {profile}: {}", placement.reason));
        }
    }
}
