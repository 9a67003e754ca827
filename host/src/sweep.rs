//! The sweep: find what this manager started, in every cluster of the settings, and stop what leaked.
//!
//! A task leaks when GitLab Runner dies and never calls `cleanup`, when `cleanup` may not stop it, or when
//! the machine of the manager is lost. What is stopped is decided by [`judge`], a pure function: a task is
//! left alone unless its tags say that it is this manager's, and unless it is either past its deadline or
//! belongs to an attempt of this very state directory that is over.

mod leftovers;
mod records;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::backend::{self, BackendError, OwnedTask, Phase, SessionFacts};
use crate::environment::checkpoint;
use crate::failure::{Failure, Report};
use crate::settings::{SessionFact, Settings};
use crate::stages::launch::{
    ATTEMPT_TAG, DEADLINE_TAG, MANAGER_TAG, STATE_TAG, facts_of, started_by,
};
use crate::state::{self, AttemptId, State, StateError};

/// A task this young may belong to an attempt that is just being released, or listed late.
pub const GRACE: Duration = Duration::from_secs(60);

/// Between two sweeps that `prepare` makes.
const EVERY: Duration = Duration::from_secs(300);

/// What becomes of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// Its attempt lives, or it is too young to say.
    Lives,
    /// Its tags are not those of this manager's tasks.
    NotOurs,
    /// Of this manager, and of a state directory that is not this one: only its deadline counts.
    Elsewhere,
    /// Its deadline is over.
    Overdue,
    /// Its attempt has ended.
    Orphaned,
    /// Whoever asks may not look at it, and no attempt of this state directory has it.
    Hidden,
}

impl Finding {
    /// Whether the task is stopped.
    pub fn is_leak(self) -> bool {
        matches!(self, Self::Overdue | Self::Orphaned)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Lives => "its job runs",
            Self::NotOurs => "not this manager's",
            Self::Elsewhere => "of another state directory",
            Self::Overdue => "past its deadline",
            Self::Orphaned => "its job has ended",
            Self::Hidden => "not for this session to see",
        }
    }
}

/// A task that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The catalog's name of the cluster.
    pub cluster: String,
    /// The backend's name of it.
    pub task: String,
    /// How far it has come.
    pub phase: Phase,
    /// From its tags.
    pub attempt: Option<String>,
    /// From its tags.
    pub job: Option<String>,
    /// From its tags.
    pub project: Option<String>,
    /// From its tags.
    pub pipeline: Option<String>,
    /// From its tags.
    pub profile: Option<String>,
    /// When it was asked for.
    pub created_at: Option<Timestamp>,
    /// When it has to be gone.
    pub deadline: Option<Timestamp>,
    /// What becomes of it.
    pub finding: Finding,
    /// Why it could not be stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the judgement of a task rests on, beside the task.
#[derive(Debug)]
struct Bench<'b> {
    manager: &'b str,
    /// [`State::identity`]
    identity: &'b str,
    now: Timestamp,
    grace: SignedDuration,
}

/// Whether an attempt of this state directory is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Living,
    /// Its file is gone.
    Released,
    /// `cleanup` began and did not end, then.
    ReleasingSince(Timestamp),
}

/// What becomes of `task`; `attempt_of` looks the attempt up.
fn judge(task: &OwnedTask, bench: &Bench<'_>, attempt_of: impl Fn(&str) -> Attempt) -> Finding {
    let tag = |key: &str| task.tags.get(key).map(String::as_str);
    if task.is_hidden {
        return Finding::Hidden;
    }
    // `startedBy` cannot hold all that a name can; the tag has the whole of it.
    let (Some(manager), Some(attempt)) = (tag(MANAGER_TAG), tag(ATTEMPT_TAG)) else {
        return Finding::NotOurs;
    };
    if manager != bench.manager {
        return Finding::NotOurs;
    }
    let deadline = tag(DEADLINE_TAG).and_then(|text| text.parse::<Timestamp>().ok());
    if deadline.is_some_and(|deadline| deadline < bench.now) {
        return Finding::Overdue;
    }
    // Two machines may run managers of one name; each knows its own attempts only.
    if tag(STATE_TAG) != Some(bench.identity) {
        return Finding::Elsewhere;
    }
    let is_old = |since: Timestamp| bench.now.duration_since(since) >= bench.grace;
    if !task.created_at.is_some_and(is_old) {
        return Finding::Lives;
    }
    match attempt_of(attempt) {
        Attempt::Living => Finding::Lives,
        Attempt::ReleasingSince(since) if !is_old(since) => Finding::Lives,
        Attempt::Released | Attempt::ReleasingSince(_) => Finding::Orphaned,
    }
}

/// How a sweep goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only tell.
    pub dry_run: bool,
    /// [`GRACE`], or what was asked for.
    pub grace: Duration,
}

/// What a sweep saw.
#[derive(Debug, Default)]
pub struct Swept {
    /// In the order of the settings' clusters.
    pub found: Vec<Found>,
    /// Why a cluster could not be listed; the others were all the same.
    pub unlisted: Vec<Report>,
}

/// Finds the tasks of this manager, and stops those that leaked unless it is a dry run. A task that cannot be
/// stopped is told of in [`Found::error`].
///
/// # Errors
///
/// Fails when the state directory does.
pub async fn sweep(settings: &Settings, state: &State, options: Options) -> Result<Swept, Failure> {
    let identity = state.identity()?;
    let grace = SignedDuration::try_from(options.grace)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let facts = SessionFacts::from([(SessionFact::Manager, settings.manager.clone())]);
    let mut swept = Swept::default();
    let mut seen = BTreeSet::new();
    for (name, cluster) in &settings.clusters {
        // Catalog clusters may differ in subnets only.
        if !seen.insert(backend::sight(cluster, &facts)) {
            continue;
        }
        let session = backend::open_for(cluster, state.directory(), &facts).await;
        let owned = match session.list(&started_by(settings)).await {
            Ok(owned) => owned,
            Err(error) => {
                swept.unlisted.push(at(name, error));
                continue;
            }
        };
        let bench =
            Bench { manager: &settings.manager, identity: &identity, now: Timestamp::now(), grace };
        // Not read unless they are needed: there may be a thousand.
        let attempts =
            if owned.iter().any(|task| task.is_hidden) { state.living() } else { Vec::new() };
        for task in owned {
            let keeper = attempts.iter().find(|attempt| attempt.has(&task.id));
            let (mut found, backend) = match keeper {
                Some(attempt) if task.is_hidden => {
                    // What the manager's own session may not see, the attempt's may.
                    let facts = facts_of(settings, attempt);
                    let own = backend::open_for(cluster, state.directory(), &facts).await;
                    (found_in(name, &task, attempt, &bench), Some(own))
                }
                _ => {
                    let finding = judge(&task, &bench, |attempt| attempt_in(state, attempt));
                    (found(name, &task, finding), None)
                }
            };
            if found.finding.is_leak() && !options.dry_run {
                let reason = format!("Pointsman: swept, {}", found.finding.words());
                checkpoint("before-stop-task");
                let stopped = backend.as_ref().unwrap_or(&session).stop(&task.id, &reason).await;
                checkpoint("after-stop-task");
                found.error = stopped.err().map(|error| error.to_string());
            }
            swept.found.push(found);
        }
    }
    if !options.dry_run {
        records::complete(settings, state).await;
        leftovers::remove(state.directory());
    }
    Ok(swept)
}

fn at(cluster: &str, error: BackendError) -> Report {
    let hint = error.hint.clone();
    let mut report = Report::of(&error);
    report.error = format!("cluster {cluster}: {}", report.error);
    report.hints.extend(hint);
    report
}

fn found(cluster: &str, task: &OwnedTask, finding: Finding) -> Found {
    let tag = |key: &str| task.tags.get(key).cloned();
    Found {
        cluster: cluster.to_owned(),
        task: task.id.0.clone(),
        phase: task.phase,
        attempt: tag(ATTEMPT_TAG),
        job: tag("pointsman:job"),
        project: tag("pointsman:project"),
        pipeline: tag("pointsman:pipeline"),
        profile: tag("pointsman:profile"),
        created_at: task.created_at,
        deadline: tag(DEADLINE_TAG).and_then(|text| text.parse().ok()),
        finding,
        error: None,
    }
}

/// The same of a task that is known by its attempt's file alone.
fn found_in(cluster: &str, task: &OwnedTask, attempt: &state::Attempt, bench: &Bench<'_>) -> Found {
    let is_over = |since: Timestamp| bench.now.duration_since(since) >= bench.grace;
    let finding = match attempt.releasing_at {
        _ if attempt.deadline < bench.now => Finding::Overdue,
        Some(since) if is_over(since) => Finding::Orphaned,
        _ => Finding::Lives,
    };
    Found {
        attempt: Some(attempt.id.to_string()),
        job: Some(attempt.job.id.to_string()),
        project: Some(attempt.job.project_id.to_string()),
        pipeline: Some(attempt.job.pipeline_id.to_string()),
        profile: Some(attempt.profile.clone()),
        deadline: Some(attempt.deadline),
        ..found(cluster, task, finding)
    }
}

fn attempt_in(state: &State, id: &str) -> Attempt {
    // What is no id of ours cannot have been tagged by us; what cannot be read may be alive.
    let Ok(id) = AttemptId::parse(id) else { return Attempt::Living };
    match state.load(&id) {
        Ok(attempt) => attempt.releasing_at.map_or(Attempt::Living, Attempt::ReleasingSince),
        Err(StateError::Unknown(_)) => Attempt::Released,
        Err(_) => Attempt::Living,
    }
}

/// A sweep beside a job's `prepare`: at most one in five minutes for the whole manager, and silent, since
/// the job log is the job's.
pub async fn now_and_then(settings: &Settings, state: &State) {
    if !settings.automatic_sweep {
        return;
    }
    let Some(stamp) = turn(state) else { return };
    match sweep(settings, state, Options { dry_run: false, grace: GRACE }).await {
        Ok(swept) => {
            for report in swept.unlisted {
                tracing::info!(?report, "a cluster was not swept");
            }
            for leak in swept.found.iter().filter(|found| found.finding.is_leak()) {
                tracing::info!(
                    task = leak.task,
                    error = leak.error,
                    "swept: {}",
                    leak.finding.words()
                );
            }
        }
        Err(failure) => tracing::info!(?failure, "the sweep failed"),
    }
    // Also after a failure, which the next would share. A sweep that was cut short is made up for.
    let _ = stamp.set_modified(SystemTime::now());
}

/// The stamp file, locked, when a sweep is due and nobody else makes one.
fn turn(state: &State) -> Option<File> {
    let path = state.directory().join("sweep.stamp");
    let is_new = !path.exists();
    let stamp = File::options().create(true).append(true).mode(0o600).open(path).ok()?;
    stamp.try_lock().ok()?;
    let last = stamp.metadata().and_then(|metadata| metadata.modified()).ok()?;
    let is_due = SystemTime::now().duration_since(last).is_ok_and(|since| since >= EVERY);
    (is_new || is_due).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::TaskId;

    fn task(manager: &str, state: &str, deadline: i64, created: Option<i64>) -> OwnedTask {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        OwnedTask {
            id: TaskId("task".to_owned()),
            tags: [
                (MANAGER_TAG, manager.to_owned()),
                (STATE_TAG, state.to_owned()),
                (ATTEMPT_TAG, "7-0123456789abcdef".to_owned()),
                (DEADLINE_TAG, at(deadline).to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
            created_at: created.map(at),
            phase: Phase::Running,
            is_hidden: false,
        }
    }

    #[test]
    fn only_leaks_of_this_manager_are_stopped() {
        let now = Timestamp::from_second(10_000).unwrap();
        let grace = SignedDuration::from_secs(60);
        let bench = Bench { manager: "me", identity: "here", now, grace };
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let (living, released) = (Attempt::Living, Attempt::Released);
        for (task, attempt, expected) in [
            (task("me", "here", 20_000, Some(5_000)), living, Finding::Lives),
            (task("me", "here", 20_000, Some(5_000)), released, Finding::Orphaned),
            (task("me", "here", 20_000, Some(9_950)), released, Finding::Lives),
            (task("me", "here", 20_000, None), released, Finding::Lives),
            (task("me", "here", 9_000, Some(5_000)), living, Finding::Overdue),
            (task("me", "there", 9_000, Some(5_000)), released, Finding::Overdue),
            (task("me", "there", 20_000, Some(5_000)), released, Finding::Elsewhere),
            (task("you", "here", 9_000, Some(5_000)), released, Finding::NotOurs),
            (
                task("me", "here", 20_000, Some(5_000)),
                Attempt::ReleasingSince(at(9_000)),
                Finding::Orphaned,
            ),
            (
                task("me", "here", 20_000, Some(5_000)),
                Attempt::ReleasingSince(at(9_990)),
                Finding::Lives,
            ),
        ] {
            assert_eq!(judge(&task, &bench, |_| attempt), expected, "{task:?} {attempt:?}");
        }
        let mut hidden = task("me", "here", 9_000, Some(5_000));
        hidden.is_hidden = true;
        assert_eq!(judge(&hidden, &bench, |_| released), Finding::Hidden);
        let mut untagged = task("me", "here", 9_000, Some(5_000));
        untagged.tags.clear();
        assert_eq!(judge(&untagged, &bench, |_| released), Finding::NotOurs);
    }
}
