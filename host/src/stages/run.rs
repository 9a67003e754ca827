//! `run`: one script of GitLab Runner's, in the attempt's task.

use std::path::Path;
use std::time::Duration;

use tokio::fs::File;
use tokio::io;
use tokio::time::timeout;

use super::{Context, Termination, launch, loss};
use crate::backend::{self, TaskStatus};
use crate::failure::Failure;
use crate::settings::Shell;
use crate::settings::SshTimes;
use crate::ssh::{self, Exit};
use crate::state::{Attempt, State};

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
    let script = File::open(script).await.map_err(|error| {
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
    let mut session = match connected {
        Ok(session) => session,
        Err(error) => {
            let failure = Failure::from(error);
            return Err(loss::diagnose(context, &state, &mut attempt, failure).await);
        }
    };
    let exit = session
        .run(command(shell), script, io::stdout(), io::stderr(), terminated, times.stop_grace)
        .await;
    match exit {
        Ok(Exit::Status(0)) => {
            session.close().await;
            Ok(())
        }
        Ok(Exit::Status(status)) => {
            session.close().await;
            Err(Failure::Script(i32::try_from(status).unwrap_or(i32::MAX)))
        }
        Ok(Exit::Signal(name)) => Err(signalled(context, &state, &mut attempt, &name).await),
        Ok(Exit::Stopped) => Err(stopped_by_signal(sub_stage)),
        Err(error) => Err(loss::diagnose(context, &state, &mut attempt, error.into()).await),
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
    // As a shell words it: 128 + the signal's number.
    let number = match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "KILL" => 9,
        "SEGV" => 11,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => 0,
    };
    Failure::Script(128 + number)
}

async fn status(context: &Context, state: &State, attempt: &Attempt) -> Option<TaskStatus> {
    let task = attempt.launch.as_ref()?.task.as_ref()?;
    let cluster = context.cluster(&attempt.launched_placement()?.cluster).ok()?;
    let facts = launch::session_facts(context, attempt);
    let looking =
        async { backend::open_for(cluster, state.directory(), &facts).await.describe(task).await };
    timeout(DIAGNOSIS_TIMEOUT, looking).await.ok()?.ok()?
}
