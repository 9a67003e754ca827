//! `run`: one script of GitLab Runner's, in the attempt's task.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::{Context, Termination, launch, loss};
use crate::backend::{self, TaskStatus};
use crate::failure::{Failure, Report};
use crate::output::{self, Outlet};
use crate::settings::{Shell, SshTimes};
use crate::ssh::{self, ConnectError, Exit, Link, RunError, Usage};
use crate::state::{Attempt, ScriptRun, State};

/// Of asking the backend why a task is gone.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(20);

/// The task answered in `prepare`, so a task that does not answer within this is gone.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the stage. All sub-stages are run alike, the unknown ones of a later GitLab Runner as well.
///
/// # Errors
///
/// A script that fails is a build failure with its status; everything else is a system failure.
pub async fn run(
    context: &Context,
    termination: &Termination,
    script: &Path,
    sub_stage: &str,
) -> Result<(), Failure> {
    let terminated = termination.listen()?;
    let state = context.state()?;
    let mut attempt = context.attempt(&state)?;
    // The runner still calls for after_script, uploads and so on: answer fast.
    if let Some(outcome) = &attempt.outcome {
        return Err(Failure::system(format!("the task is lost: {}", outcome.detail)));
    }
    let script = File::open(script).map_err(|error| {
        Failure::system(format!("cannot read the script {}: {error}", script.display()))
    })?;
    let target = launch::known_target(context, &attempt)?;
    let shell = shell_of(context, &attempt);
    let times = SshTimes { ready_timeout: RECONNECT_TIMEOUT, ..context.settings.ssh };
    tokio::pin!(terminated);
    let connected = tokio::select! {
        () = &mut terminated => return Err(stopped_by_signal(sub_stage)),
        connected = ssh::connect_until_ready(&target, &times, |_| {}) => connected,
    };
    let session = match connected {
        Ok(session) => session,
        Err(error) => {
            let is_impostor = matches!(error.last, ConnectError::HostKeyChanged { .. });
            let failure = Failure::from(error);
            return Err(explained(context, &state, &mut attempt, failure, is_impostor).await);
        }
    };
    let outlets = Outlet::stdout().and_then(|stdout| Ok((stdout, Outlet::stderr()?)));
    let (stdout, stderr) = outlets.map_err(|error| Failure::System(Report::of(&error)))?;
    let began = Instant::now();
    let ran = ssh::run_script(
        session,
        &target,
        &times,
        command(shell),
        &script,
        stdout,
        stderr,
        terminated,
        |link| tell(link, times.resume_timeout),
        async || is_there(context, &state, &attempt).await,
    )
    .await;
    record(&state, &attempt, sub_stage, began.elapsed(), &ran);
    match ran.map(|(exit, _)| exit) {
        Ok(Exit::Status(0)) => Ok(()),
        Ok(Exit::Status(status)) => Err(Failure::Script(i32::try_from(status).unwrap_or(i32::MAX))),
        Ok(Exit::Signal(name)) => Err(signalled(context, &state, &mut attempt, &name).await),
        Ok(Exit::Stopped) => Err(stopped_by_signal(sub_stage)),
        Err(error) => {
            let is_impostor = matches!(
                error,
                RunError::NotResumed { last: ConnectError::HostKeyChanged { .. }, .. }
            );
            Err(explained(context, &state, &mut attempt, error.into(), is_impostor).await)
        }
    }
}

fn stopped_by_signal(sub_stage: &str) -> Failure {
    Failure::system(format!("{sub_stage} was stopped by SIGTERM"))
}

/// The command for the login shell of the task's user. The script comes over stdin, at any size and out of
/// sight of `ps`.
fn command(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => {
            "command -v bash >/dev/null 2>&1 || { echo 'Pointsman: this image has no bash. Install it, or set shell = \"sh\" for this task definition.' >&2; exit 127; }; exec bash"
        }
        Shell::Sh => "exec sh",
        // Which sshd names in the environment.
        Shell::Login => "exec \"${SHELL:-/bin/sh}\"",
    }
}

fn shell_of(context: &Context, attempt: &Attempt) -> Shell {
    attempt
        .launched_placement()
        .and_then(|placement| context.settings.task_definitions.get(&placement.task_definition))
        .map_or(Shell::Bash, |definition| definition.shell)
}

/// A script ended by a signal: the task's end if the task is ending, else the script's own affair.
async fn signalled(context: &Context, state: &State, attempt: &mut Attempt, name: &str) -> Failure {
    if let Some(status) = status(context, state, attempt).await
        && status.stopped.is_some()
    {
        let failure = Failure::system(format!("the script was ended by SIG{name}"));
        return loss::diagnose(context, state, attempt, failure).await;
    }
    Failure::Script(as_a_shell_words_it(name))
}

/// 128 and the signal's number.
fn as_a_shell_words_it(name: &str) -> i32 {
    let number = match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        other => other.parse().unwrap_or(0),
    };
    128 + number
}

/// The job log's line about the connection.
fn tell(link: Link, patience: Duration) {
    output::note(&match link {
        Link::Lost => format!(
            "Pointsman: the connection to the task was lost. The script goes on there; trying to reach it again for up to {} s.",
            patience.as_secs()
        ),
        Link::Resumed { after } => format!(
            "Pointsman: connected again after {:.1} s. Nothing of the output is lost.",
            after.as_secs_f64()
        ),
    });
}

/// Notes the script for the attempt's record.
fn record(
    state: &State,
    attempt: &Attempt,
    sub_stage: &str,
    took: Duration,
    ran: &Result<(Exit, Option<Usage>), RunError>,
) {
    let (exit, usage) = match ran {
        Ok((Exit::Status(status), usage)) => (i32::try_from(*status).ok(), *usage),
        Ok((Exit::Signal(name), usage)) => (Some(as_a_shell_words_it(name)), *usage),
        Ok((Exit::Stopped, usage)) => (None, *usage),
        Err(_) => (None, None),
    };
    let run = ScriptRun {
        sub_stage: sub_stage.to_owned(),
        exit,
        seconds: rounded(took),
        peak_memory_mib: usage
            .and_then(|usage| usage.peak_memory)
            .map(|bytes| bytes.div_ceil(1 << 20)),
        cpu_seconds: usage.map(|usage| rounded(usage.cpu)),
    };
    // A report: the script's own result matters more.
    if let Err(error) = state.add_script(&attempt.id, &run) {
        tracing::warn!(%error, "a script is missing in the attempt's record");
    }
}

/// In seconds, to the millisecond.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Whether there is a task to come back to. A backend that cannot be asked right now says nothing about that.
async fn is_there(context: &Context, state: &State, attempt: &Attempt) -> bool {
    match look(context, state, attempt).await {
        Some(Some(status)) => status.stopped.is_none(),
        Some(None) => false,
        None => true,
    }
}

async fn status(context: &Context, state: &State, attempt: &Attempt) -> Option<TaskStatus> {
    look(context, state, attempt).await?
}

/// What the backend says; `None` where it could not be asked.
async fn look(context: &Context, state: &State, attempt: &Attempt) -> Option<Option<TaskStatus>> {
    let task = attempt.launch.as_ref()?.task.as_ref()?;
    let cluster = context.cluster(&attempt.launched_placement()?.cluster).ok()?;
    let facts = launch::session_facts(context, attempt);
    let looking =
        async { backend::open_for(cluster, state.directory(), &facts).await.describe(task).await };
    timeout(DIAGNOSIS_TIMEOUT, looking).await.ok()?.ok()
}

/// Why the task no longer answers. Of an impostor both stories are told: the task is gone, most likely, and
/// somebody else has its address.
async fn explained(
    context: &Context,
    state: &State,
    attempt: &mut Attempt,
    failure: Failure,
    is_impostor: bool,
) -> Failure {
    if !is_impostor {
        return loss::diagnose(context, state, attempt, failure).await;
    }
    let unknown = Failure::system("the backend does not tell of the task's end");
    match (failure, loss::diagnose(context, state, attempt, unknown).await) {
        (Failure::System(mut report), Failure::System(lost) | Failure::Build(lost)) => {
            report.causes.push(lost.error);
            report.causes.extend(lost.causes);
            Failure::System(report)
        }
        (failure, _) => failure,
    }
}
