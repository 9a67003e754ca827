//! `config`: decide where the job runs, once per attempt, and say so to GitLab Runner.
//!
//! No cloud credential is needed here, and while policies run none is present: the command line has dropped
//! them before this stage began. There is no asynchronous
//! runtime either: a decision takes less time than starting one would.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Context, facts, journal};
use crate::backend::local::task_directory;
use crate::environment::ATTEMPT;
use crate::failure::{Failure, Report};
use crate::job::response;
use crate::output;
use crate::placement::Placement;
use crate::placement::text::one_line;
use crate::policy::{
    self, Assurance, DecidedBy, EarlierFailure, FailureKind, PolicyError, Question,
    RecordedQuestion, Refusal, Step, Trace,
};
use crate::settings::{ClusterBackend, Shell};
use crate::ssh::KeyPair;
use crate::state::{Attempt, AttemptId, JobIdentity, Keys, Outcome, OutcomeKind, State};

/// A task outlives its job's timeout by this much at most: time for `cleanup` to come.
const SLACK: Duration = Duration::from_secs(600);

/// What GitLab Runner parses (executors/custom/api/config.go, `ConfigExecOutput`).
#[derive(Debug, Serialize)]
struct Reply {
    driver: Driver,
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    builds_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<String>,
    builds_dir_is_shared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<&'static str>,
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
    let bytes = context.job_response()?;
    let job = response::parse(&bytes)?;
    let (name, profile) = context.profile()?;
    let state = context.state()?;
    let id = AttemptId::new(job.id).map_err(|error| Failure::System(Report::of(&error)))?;
    journal::is_of(&id);
    let identity = JobIdentity::from(&job);
    let earlier = earlier_attempts(&state, &identity);
    let store = policy::Store::open(&state.directory().join("policies"))?.telling(output::note);
    let chain = context.settings.chain(profile);
    let chain: Vec<_> = chain.iter().map(|(name, policy)| (*name, policy)).collect();
    let facts = facts::gather(context, profile, &bytes, job.id)?;
    let question = Question {
        job: &job,
        profile: name,
        tags: &facts.tags,
        tags_assurance: facts.assurance,
        attempt: number_after(&earlier),
        earlier_failures: &earlier_failures(&earlier),
        facts: &facts.more,
        catalog: &context.settings.catalog(&profile.bounds),
        bounds: &profile.bounds,
        claims_taint: profile.claims_taint,
    };
    let lifetime = SignedDuration::try_from(job.timeout + SLACK)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let deadline = Timestamp::now()
        .checked_add(lifetime)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let attempt = |placements, steps: &[Step]| -> Result<Attempt, Failure> {
        let system = |error: serde_json::Error| Failure::System(Report::of(&error));
        let attempt = Attempt::new(
            id.clone(),
            question.attempt,
            name.to_owned(),
            identity.clone(),
            deadline,
            placements,
            serde_json::to_value(steps).map_err(system)?,
            Keys { client: new_key()?.seed_base64(), host: new_key()?.seed_base64() },
        );
        let asked = RecordedQuestion::of(&question);
        Ok(attempt.with_question(serde_json::to_value(asked).map_err(system)?))
    };
    let mut trace = Trace::default();
    let decided = policy::decide_traced(&question, &chain, &store, &mut trace);
    for notice in &trace.notices {
        output::note(notice);
    }
    let placements = match decided {
        Ok(placements) => placements,
        Err(PolicyError::Rejected { reasons }) => {
            let mut rejected = attempt(Vec::new(), &trace.steps)?;
            rejected.outcome = Some(Outcome {
                kind: OutcomeKind::Rejected,
                detail: reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            });
            // The job's author is to read why there is no place, whatever becomes of the record.
            if let Err(error) = state.release(rejected) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the rejection is not recorded"
                );
            }
            return Err(refused(&question, reasons));
        }
        Err(error) => return Err(error.into()),
    };
    let (environment, placements) = one_environment(context, &state, &id, placements)?;
    announce(name, &placements);
    let attempt = attempt(placements, &trace.steps)?;
    // `prepare` saves it for good before it starts anything: what dies with the machine until then, GitLab Runner
    // included, has left nothing behind.
    state.note(&attempt)?;
    output::config_reply(&Reply {
        driver: Driver { name: "Pointsman", version: env!("CARGO_PKG_VERSION") },
        // GitLab Runner pastes it into a shell script between double quotes: never text of a job's.
        hostname: format!("pointsman profile {name}"),
        builds_dir: environment.builds_dir,
        cache_dir: environment.cache_dir,
        builds_dir_is_shared: false,
        shell: match environment.shell {
            Shell::Bash => Some("bash"),
            Shell::Sh => Some("sh"),
            Shell::Login => None,
        },
        job_env: BTreeMap::from([(ATTEMPT, attempt.id.to_string())]),
    })
    .map_err(|error| Failure::System(Report::of(&error)))
}

fn new_key() -> Result<KeyPair, Failure> {
    KeyPair::generate().map_err(|error| Failure::System(Report::of(&error)))
}

/// A rejected job was no attempt: nothing was started and nothing was lost.
fn earlier_attempts(state: &State, identity: &JobIdentity) -> Vec<Attempt> {
    let mut earlier = state.earlier_attempts(identity);
    earlier.retain(|attempt| {
        attempt.outcome.as_ref().is_none_or(|outcome| outcome.kind != OutcomeKind::Rejected)
    });
    earlier
}

/// What the job's author reads: what was asked, what is allowed, and who decides.
fn refused(question: &Question<'_>, reasons: Vec<Refusal>) -> Failure {
    let job = question.job;
    let mut report =
        Report::new(format!("no placement is allowed for the job `{}`", one_line(&job.name, 64)));
    let tags: Vec<String> = question.tags.iter().map(|tag| one_line(tag, 64)).collect();
    let whose = match question.tags_assurance {
        Assurance::Server => "the job's tags",
        Assurance::Runner => "the profile's tags",
    };
    let protected = match job.git_ref.protected {
        Some(true) => "protected",
        Some(false) => "not protected",
        None => "not known to be protected",
    };
    report.causes.push(format!(
        "asked for {whose} [{}], ref `{}` ({protected}), project {} (`{}`)",
        tags.join(", "),
        one_line(&job.git_ref.name, 64),
        job.project.id,
        one_line(&job.project.full_path, 128),
    ));
    let mut deciders = BTreeSet::new();
    for reason in reasons {
        let Refusal { policy, code, message, hint, decided_by } = reason;
        report.causes.push(format!("policy {policy}: {message} ({code})"));
        report.hints.extend(hint);
        deciders.insert(match decided_by {
            DecidedBy::Policy => format!("the policy `{policy}` and its settings"),
            DecidedBy::Bounds => format!("the bounds of the profile `{}`", question.profile),
            DecidedBy::ClaimsTaint => {
                format!("`claims_taint` of the profile `{}`", question.profile)
            }
        });
    }
    let deciders: Vec<String> = deciders.into_iter().collect();
    Failure::Build(report.hint(format!(
        "{} decided this; whoever operates this runner can change it",
        deciders.join(" and ")
    )))
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
                OutcomeKind::Released | OutcomeKind::Cancelled | OutcomeKind::Rejected => {
                    return None;
                }
                OutcomeKind::Capacity => FailureKind::Capacity,
                OutcomeKind::SpotInterruption => FailureKind::SpotInterruption,
                OutcomeKind::OutOfMemory => FailureKind::OutOfMemory,
                OutcomeKind::Other => FailureKind::Other,
            };
            let placement = attempt.launched_placement().or(attempt.placements.first());
            Some(EarlierFailure {
                attempt: attempt.number,
                kind,
                detail: outcome.detail.clone(),
                placement: placement.cloned(),
            })
        })
        .collect()
}

/// What the scripts of GitLab Runner will assume of the task.
#[derive(Debug, PartialEq, Eq)]
struct ScriptEnvironment {
    builds_dir: Option<String>,
    cache_dir: Option<String>,
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
                let inside = |name| Some(directory.join(name).display().to_string());
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
