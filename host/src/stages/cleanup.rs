//! `cleanup`: stop the task and write the attempt's record.
//!
//! Works whatever came before: after a failed `config` there is no attempt, after a killed `prepare` there
//! may be a task that nobody knows the name of, and the stage may be called twice. Nothing goes to stdout,
//! and to stderr (a warning in GitLab Runner's own log) only what somebody should look at.

use super::{Context, launch};
use crate::backend::{self, TaskBackend, TaskId};
use crate::failure::Failure;
use crate::state::{Attempt, Outcome, OutcomeKind, StateError};

/// Runs the stage.
///
/// # Errors
///
/// Fails when a task could not be stopped; the attempt then stays, for a later sweep.
pub async fn cleanup(context: &Context) -> Result<(), Failure> {
    let Some(id) = context.attempt_id()? else { return Ok(()) };
    let state = context.state()?;
    let mut attempt = match state.load(&id) {
        Ok(attempt) => attempt,
        Err(StateError::Unknown(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if let (Some(launched), Some(placement)) = (&attempt.launch, attempt.launched_placement()) {
        let cluster = context.cluster(&placement.cluster)?;
        let facts = launch::session_facts(context, &attempt);
        let backend = backend::open_for(cluster, state.directory(), &facts).await;
        let tasks = match &launched.task {
            Some(task) => vec![task.clone()],
            None => unnamed_tasks(context, &attempt, backend.as_ref()).await?,
        };
        for task in &tasks {
            backend.stop(task, &format!("Pointsman: job {} has ended", attempt.job.id)).await?;
        }
    }
    attempt.outcome.get_or_insert_with(|| {
        let was_ready = attempt.launch.as_ref().is_some_and(|launch| launch.ready_at.is_some());
        if was_ready {
            Outcome { kind: OutcomeKind::Released, detail: String::new() }
        } else {
            Outcome { kind: OutcomeKind::Other, detail: "prepare did not finish".to_owned() }
        }
    });
    Ok(state.release(attempt)?)
}

/// The tasks of a `prepare` that was killed between asking for a task and noting its name.
async fn unnamed_tasks(
    context: &Context,
    attempt: &Attempt,
    backend: &dyn TaskBackend,
) -> Result<Vec<TaskId>, Failure> {
    let owned = backend.list(&launch::started_by(context)).await?;
    let is_ours = |value: Option<&String>| value.is_some_and(|tag| tag == attempt.id.as_str());
    Ok(owned
        .into_iter()
        .filter(|task| is_ours(task.tags.get(launch::ATTEMPT_TAG)))
        .map(|task| task.id)
        .collect())
}
