//! `prepare`: launch the placement's task and wait until its SSH server lets the driver in.

mod waiting;

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use super::{Context, Termination, launch, loss};
use crate::backend::{self, Stopped, TaskBackend, TaskId, TaskStatus};
use crate::failure::{Failure, Report};
use crate::output;
use crate::settings::ClusterBackend;
use crate::state::{Launch, Outcome, OutcomeKind};
use launch::short;
use waiting::Waiting;

/// A task on this machine has its address at once.
const LOCAL_START_TIMEOUT: Duration = Duration::from_secs(10);

/// Of stopping a task whose `prepare` failed; `cleanup` tries again.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the stage.
///
/// # Errors
///
/// Everything is a system failure: what the job may ask for was settled in `config`.
pub async fn prepare(context: &Context, termination: &Termination) -> Result<(), Failure> {
    let terminated = termination.listen()?;
    tokio::pin!(terminated);
    let state = context.state()?;
    let mut attempt = context.attempt(&state)?;
    let placement = attempt
        .placements
        .first()
        .cloned()
        .ok_or_else(|| Failure::system("the attempt has no placement"))?;
    let cluster = context.cluster(&placement.cluster)?;
    let definition = launch::definition_of(context, &placement)?;
    let request = launch::request(context, &attempt, &placement, definition)?;
    let facts = launch::session_facts(context, &attempt);
    let backend = backend::open_for(cluster, state.directory(), &facts).await;

    // Saved first: from here on `cleanup` knows that there may be a task.
    let launched = attempt.launch.get_or_insert_with(|| Launch {
        placement: 0,
        asked_at: Timestamp::now(),
        task: None,
        address: None,
        host_key: None,
        ready_at: None,
    });
    launched.placement = 0;
    state.save(&attempt)?;

    let began = Instant::now();
    output::note(&format!("Starting a task on cluster {}...", placement.cluster));
    // Not raced against SIGTERM: giving the call up would leave open whether there is a task.
    let task = match backend.launch(&request).await {
        Ok(task) => task,
        Err(error) => {
            let kind = if error.is_capacity() { OutcomeKind::Capacity } else { OutcomeKind::Other };
            attempt.outcome = Some(Outcome { kind, detail: error.to_string() });
            state.save(&attempt)?;
            return Err(error.into());
        }
    };
    if let Some(launch) = &mut attempt.launch {
        launch.task = Some(task.clone());
    }
    state.save(&attempt)?;
    output::note(&format!("Task {} is starting.", short(&task)));

    let start_timeout = match &cluster.backend {
        ClusterBackend::Ecs(ecs) => ecs.start_timeout,
        ClusterBackend::Local(_) => LOCAL_START_TIMEOUT,
    };
    let target =
        |address, status: &TaskStatus| launch::target(&attempt, definition, address, status);
    let waiting = Waiting {
        backend: backend.as_ref(),
        task: &task,
        start_timeout,
        times: context.settings.ssh,
    };
    let reached = tokio::select! {
        () = &mut terminated => Err(Lost::cancelled()),
        reached = waiting.until_ready(target) => reached,
    };
    match reached {
        Ok((session, address)) => {
            if let Some(launch) = &mut attempt.launch {
                launch.address = Some(address);
                launch.host_key = Some(session.host_key().to_owned());
                launch.ready_at = Some(Timestamp::now());
            }
            state.save(&attempt)?;
            session.close().await;
            output::note(&format!(
                "Task {} is ready at {address} after {:.1} s.",
                short(&task),
                began.elapsed().as_secs_f64()
            ));
            Ok(())
        }
        Err(lost) => {
            attempt.outcome = Some(lost.outcome);
            state.save(&attempt)?;
            give_up(backend.as_ref(), &task).await;
            Err(lost.failure)
        }
    }
}

/// Stops a task that will not be used, with a time limit of its own and whatever ended the waiting.
async fn give_up(backend: &dyn TaskBackend, task: &TaskId) {
    let stopping = backend.stop(task, "Pointsman: prepare did not succeed");
    match timeout(STOP_TIMEOUT, stopping).await {
        Ok(Ok(())) => output::note(&format!("Task {} was told to stop.", short(task))),
        Ok(Err(error)) => Report::of(&error).hint("cleanup will try again").print(),
        Err(_) => output::note("Stopping the task takes too long; cleanup will try again."),
    }
}

/// Why the task was not reached.
struct Lost {
    outcome: Outcome,
    failure: Failure,
}

impl Lost {
    fn cancelled() -> Self {
        let detail = "prepare was stopped by SIGTERM".to_owned();
        Self {
            failure: Failure::system(detail.clone()),
            outcome: Outcome { kind: OutcomeKind::Cancelled, detail },
        }
    }

    fn other(failure: Failure, detail: impl Into<String>) -> Self {
        Self { failure, outcome: Outcome { kind: OutcomeKind::Other, detail: detail.into() } }
    }

    fn stopped(stopped: &Stopped) -> Self {
        let report = loss::report("the task stopped before it was reached", stopped);
        Self { failure: Failure::System(report), outcome: loss::outcome(stopped) }
    }
}
