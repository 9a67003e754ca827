//! The wait between asking for a task and the first SSH session with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Lost;
use super::watch::{News, Watch};
use crate::backend::{Cause, Phase, Step, TaskStatus};
use crate::failure::Failure;
use crate::output;
use crate::settings::SshTimes;
use crate::ssh::{self, Session, Target};

/// The runner notices a cancelled job by the replies to new output, so silence delays it.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// DescribeTasks may not know a new task for a while (ECS API reference, RunTask: eventual consistency).
const MISSING_GRACE: Duration = Duration::from_secs(60);

/// Looks that may fail one after the other: throttling and outages pass.
const FAILED_LOOKS: u32 = 8;

/// The wait between the launch and the first session.
pub(super) struct Waiting<'w> {
    pub(super) watch: &'w mut Watch,
    pub(super) start_timeout: Duration,
    pub(super) times: SshTimes,
}

/// A connection that was tried for longer before the task ran is begun anew when it does.
const LATE_CONNECTION: Duration = Duration::from_secs(1);

/// What is known of the task so far.
#[derive(Default)]
struct Progress {
    phase: Option<Phase>,
    address: Option<SocketAddr>,
    target: Option<Target>,
    connecting_since: Option<Instant>,
    missing_since: Option<Instant>,
    failed_looks: u32,
    /// The last status.
    seen: Option<TaskStatus>,
}

impl Progress {
    fn is_running(&self) -> bool {
        self.phase >= Some(Phase::Running)
    }
}

impl Waiting<'_> {
    /// Hears of the task until it has an address, then connects to it, and goes on hearing meanwhile: a
    /// task that has stopped will not answer any more.
    pub(super) async fn until_ready(
        &mut self,
        target: impl Fn(IpAddr, &TaskStatus) -> Result<Target, Failure>,
    ) -> Result<(Session, SocketAddr, Option<TaskStatus>), Box<Lost>> {
        let began = Instant::now();
        let mut heartbeat = began + HEARTBEAT;
        let mut progress = Progress::default();
        let times = self.times;
        let connect = |target: Target| async move {
            let mut told = String::new();
            ssh::connect_until_ready(&target, &times, |error| {
                let text = error.to_string();
                if text != told {
                    output::note(&format!("Not yet reachable: {text}"));
                    told = text;
                }
            })
            .await
        };
        let mut connecting = std::pin::pin!(None);
        loop {
            let patience = match (progress.address, progress.missing_since) {
                // From here on it is the connection that has a deadline.
                _ if progress.is_running() => began + Duration::from_secs(86_400),
                (None, Some(since)) => since + MISSING_GRACE.min(self.start_timeout),
                _ => began + self.start_timeout,
            };
            tokio::select! {
                session = async {
                    match connecting.as_mut().as_pin_mut() {
                        Some(connecting) => connecting.await,
                        None => std::future::pending::<Result<Session, ssh::NotReady>>().await,
                    }
                } => {
                    let session = match (session, &progress.target) {
                        (Ok(session), _) => session,
                        // An image may take longer to pull than a server that runs may take to answer.
                        (Err(error), Some(target))
                            if !progress.is_running() && error.last.is_worth_retrying() =>
                        {
                            progress.connecting_since = Some(Instant::now());
                            connecting.set(Some(connect(target.clone())));
                            continue;
                        }
                        (Err(error), _) => {
                            let detail = error.to_string();
                            return Err(Lost::of(Cause::Other, detail, error.into(), progress.seen));
                        }
                    };
                    let address = progress.address.ok_or_else(|| {
                        let failure = Failure::system("a session without an address");
                        Lost::of(Cause::Other, "", failure, None)
                    })?;
                    return Ok((session, address, progress.seen));
                }
                () = sleep_until(heartbeat) => {
                    let waited = began.elapsed().as_secs();
                    let phase = progress.phase.map_or_else(|| "unknown".into(), |phase| phase.to_string());
                    output::note(&format!("Still waiting for the task ({phase}, {waited} s)..."));
                    heartbeat = Instant::now() + HEARTBEAT;
                }
                () = sleep_until(patience) => return Err(too_late(&progress, self.start_timeout)),
                news = self.watch.next() => {
                    let status = match news {
                        News::Status(status) => *status,
                        News::Missing => {
                            progress.missing_since.get_or_insert_with(Instant::now);
                            continue;
                        }
                        News::Failed { cause, detail, hint, .. } => {
                            failed_look(&mut progress, cause, detail, hint)?;
                            continue;
                        }
                    };
                    progress.failed_looks = 0;
                    progress.missing_since = None;
                    progress.seen = Some(status.clone());
                    if status.stopped.is_some() {
                        return Err(Lost::stopped(status));
                    }
                    if progress.phase != Some(status.phase) {
                        progress.phase = Some(status.phase);
                        heartbeat = Instant::now() + HEARTBEAT;
                        announce(&status, began);
                        // `ready_timeout` counts from here; a connection just begun is left alone.
                        let is_late = progress
                            .connecting_since
                            .is_some_and(|since| since.elapsed() > LATE_CONNECTION);
                        if let (true, true, Some(target)) =
                            (progress.is_running(), is_late, &progress.target)
                        {
                            connecting.set(Some(connect(target.clone())));
                        }
                    }
                    if let (None, Some(ip)) = (progress.address, status.address) {
                        let target = target(ip, &status)
                            .map_err(|failure| Lost::of(Cause::Other, "no target", failure, None))?;
                        progress.address = Some(target.address);
                        progress.connecting_since = Some(Instant::now());
                        progress.target = Some(target.clone());
                        connecting.set(Some(connect(target)));
                    }
                }
            }
        }
    }
}

fn too_late(progress: &Progress, start_timeout: Duration) -> Box<Lost> {
    let (cause, detail) = match progress.missing_since {
        Some(_) => (Cause::Missing, "the backend does not know the task".to_owned()),
        None => {
            let seconds = start_timeout.as_secs();
            (Cause::TooSlow, format!("the task does not run after {seconds} s"))
        }
    };
    Lost::of(cause, detail.clone(), Failure::system(detail), progress.seen.clone())
}

/// Fails when looking again is not worth it.
fn failed_look(
    progress: &mut Progress,
    cause: Cause,
    detail: String,
    hint: Option<String>,
) -> Result<(), Box<Lost>> {
    progress.failed_looks += 1;
    let is_final = matches!(cause.step(), Step::Final(_)) && cause != Cause::Other;
    if is_final || progress.failed_looks >= FAILED_LOOKS {
        let failure = Failure::system(format!("cannot look at the task: {detail}"));
        let failure = hint.into_iter().fold(failure, Failure::hint);
        // The task itself may be well, but without looks nobody can tell.
        let cause = if is_final { cause } else { Cause::Other };
        return Err(Lost::of(cause, detail, failure, progress.seen.clone()));
    }
    output::note(&format!("Cannot look at the task: {detail}"));
    Ok(())
}

fn announce(status: &TaskStatus, began: Instant) {
    let address = status.address.map(|address| format!(" at {address}")).unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();
    output::note(&format!("The task is {}{address} ({seconds:.1} s).", status.phase));
}
