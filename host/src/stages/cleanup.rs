//! `cleanup`: stop the attempt's tasks and write its record.
//!
//! Works whatever came before: after a failed `config` there is no attempt, after a killed `prepare` there
//! may be tasks that nobody knows the names of, and the stage may be called twice. Nothing goes to stdout,
//! and to stderr (a warning in GitLab Runner's own log) only what somebody should look at.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use super::{Context, Termination, launch};
use crate::backend::{self, Phase, TaskBackend, TaskId};
use crate::environment::checkpoint;
use crate::failure::Failure;
use crate::state::{Attempt, Launch, Outcome, OutcomeKind, State, StateError};

/// Of the whole stage.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// What is begun is brought to its end for so long after SIGTERM: a task that is not stopped costs money.
pub(crate) const AFTER_SIGTERM: Duration = Duration::from_secs(10);

/// ListTasks may not know a task this young.
const YOUNG: SignedDuration = SignedDuration::from_secs(60);

/// Looks for a task that may be too young, and the time between them.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Runs the stage.
///
/// # Errors
///
/// Fails when a task could not be stopped; the attempt then stays, for a later sweep.
pub async fn cleanup(context: &Context, termination: &Termination) -> Result<(), Failure> {
    let Some(id) = context.attempt_id()? else { return Ok(()) };
    let state = context.state()?;
    let attempt = match state.load(&id) {
        Ok(attempt) => attempt,
        Err(StateError::Unknown(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let terminated = termination.listen()?;
    let hint = "`pointsman sweep` stops what is left";
    tokio::select! {
        released = release(context, &state, attempt) => released,
        () = async { terminated.await; sleep(AFTER_SIGTERM).await } => {
            Err(Failure::system("cleanup was stopped by SIGTERM").hint(hint))
        }
        () = sleep(LIMIT) => {
            Err(Failure::system(format!("cleanup took more than {} s", LIMIT.as_secs())).hint(hint))
        }
    }
}

/// Stops the attempt's tasks and writes its record.
///
/// # Errors
///
/// Fails when a task could not be stopped; the attempt then stays, for a later sweep.
pub(crate) async fn release(
    context: &Context,
    state: &State,
    mut attempt: Attempt,
) -> Result<(), Failure> {
    checkpoint("before-saving-release");
    attempt.releasing_at.get_or_insert_with(Timestamp::now);
    state.note(&attempt)?;
    checkpoint("after-saving-release");
    let reason = format!("Pointsman: job {} has ended", attempt.job.id);
    let mut launches: Vec<Launch> = attempt.launches_mut().map(|launch| launch.clone()).collect();
    let mut failure = None;
    for launch in &mut launches {
        // One that cannot be stopped keeps no other from being stopped.
        if let Err(error) = stop(context, state, &attempt, launch, &reason).await {
            failure.get_or_insert(error);
        }
    }
    for (saved, stopped) in attempt.launches_mut().zip(launches) {
        *saved = stopped;
    }
    if let Some(failure) = failure {
        state.note(&attempt)?;
        return Err(failure);
    }
    attempt.outcome.get_or_insert_with(|| {
        let was_ready = attempt.launch.as_ref().is_some_and(|launch| launch.ready_at.is_some());
        if was_ready {
            Outcome { kind: OutcomeKind::Released, detail: String::new() }
        } else {
            Outcome { kind: OutcomeKind::Other, detail: "prepare did not finish".to_owned() }
        }
    });
    checkpoint("before-record");
    state.release(attempt)?;
    checkpoint("after-record");
    Ok(())
}

/// Stops the tasks of `launch`, and notes it there.
async fn stop(
    context: &Context,
    state: &State,
    attempt: &Attempt,
    launch: &mut Launch,
    reason: &str,
) -> Result<(), Failure> {
    if launch.told_to_stop_at.is_some() || !has_task(launch) {
        return Ok(());
    }
    let Some(placement) = attempt.placements.get(launch.placement) else { return Ok(()) };
    let cluster = context.cluster(&placement.cluster)?;
    let facts = launch::session_facts(context, attempt);
    let backend = backend::open_for(cluster, state.directory(), &facts).await;
    let tasks = match &launch.task {
        Some(task) => vec![task.clone()],
        None => unnamed_tasks(context, attempt, launch, backend.as_ref()).await?,
    };
    for task in &tasks {
        checkpoint("before-stop-task");
        // Its answer is the last that is heard of the task for now: times, exit codes, reasons.
        if let Some(seen) = backend.stop(task, reason).await? {
            launch.last_seen = Some(seen);
        }
        checkpoint("after-stop-task");
    }
    if let Some(first) = tasks.into_iter().next() {
        launch.task.get_or_insert(first);
        launch.told_to_stop_at = Some(Timestamp::now());
    }
    Ok(())
}

fn has_task(launch: &Launch) -> bool {
    let is_gone = launch.last_seen.as_ref().is_some_and(|seen| seen.phase == Phase::Stopped);
    launch.task.is_some() && !is_gone || launch.may_have_unnamed_task()
}

/// The tasks of a `prepare` that was killed between asking for a task and noting its name.
async fn unnamed_tasks(
    context: &Context,
    attempt: &Attempt,
    launch: &Launch,
    backend: &dyn TaskBackend,
) -> Result<Vec<TaskId>, Failure> {
    let is_ours = |value: Option<&String>| value.is_some_and(|tag| tag == attempt.id.as_str());
    let is_named =
        |task: &TaskId| attempt.earlier.iter().any(|launch| launch.task.as_ref() == Some(task));
    for look in 1.. {
        let owned = backend.list(&launch::started_by(&context.settings)).await?;
        let found: Vec<TaskId> = owned
            .into_iter()
            .filter(|task| is_ours(task.tags.get(launch::ATTEMPT_TAG)) && !is_named(&task.id))
            .map(|task| task.id)
            .collect();
        let is_young = Timestamp::now().duration_since(launch.asked_at) < YOUNG;
        if !found.is_empty() || look >= LOOKS || !is_young {
            return Ok(found);
        }
        sleep(BETWEEN_LOOKS).await;
    }
    Ok(Vec::new())
}
