//! The wait between asking for a task and the first SSH session with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Lost;
use crate::backend::{Phase, TaskBackend, TaskId, TaskStatus};
use crate::failure::Failure;
use crate::output;
use crate::settings::SshTimes;
use crate::ssh::{self, Session, Target};

/// The runner notices a cancelled job by the replies to new output, so silence delays it.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Between two looks at the task, at first; an ECS task needs seconds for each step.
const FIRST_POLL: Duration = Duration::from_millis(100);

/// At most. DescribeTasks allows 20 calls a second to a whole account and Region.
const SLOWEST_POLL: Duration = Duration::from_secs(3);

/// DescribeTasks may not know a new task for a while (ECS API reference, RunTask: eventual consistency).
const MISSING_GRACE: Duration = Duration::from_secs(60);

/// The wait between the launch and the first session.
pub(super) struct Waiting<'w> {
    pub(super) backend: &'w dyn TaskBackend,
    pub(super) task: &'w TaskId,
    pub(super) start_timeout: Duration,
    pub(super) times: SshTimes,
}

impl Waiting<'_> {
    /// Looks at the task until it has an address, then connects to it, and goes on looking meanwhile: a
    /// task that has stopped will not answer any more.
    pub(super) async fn until_ready(
        &self,
        target: impl Fn(IpAddr, &TaskStatus) -> Result<Target, Failure>,
    ) -> Result<(Session, SocketAddr), Lost> {
        let began = Instant::now();
        let mut heartbeat = began + HEARTBEAT;
        let mut poll = FIRST_POLL;
        let mut next_look = began;
        let mut last_phase = None;
        let mut failed_looks = 0_u32;
        let mut connecting = std::pin::pin!(None);
        let mut address = None;
        loop {
            tokio::select! {
                session = async {
                    match connecting.as_mut().as_pin_mut() {
                        Some(connecting) => connecting.await,
                        None => std::future::pending::<Result<Session, ssh::NotReady>>().await,
                    }
                } => {
                    let session = session.map_err(|error| {
                        let detail = error.to_string();
                        Lost::other(error.into(), detail)
                    })?;
                    let address = address.ok_or_else(|| {
                        Lost::other(Failure::system("a session without an address"), "")
                    })?;
                    return Ok((session, address));
                }
                () = sleep_until(heartbeat) => {
                    let waited = began.elapsed().as_secs();
                    let phase = last_phase.map_or_else(|| "unknown".into(), |phase: Phase| phase.to_string());
                    output::note(&format!("Still waiting for the task ({phase}, {waited} s)..."));
                    heartbeat = Instant::now() + HEARTBEAT;
                }
                () = sleep_until(next_look) => {
                    match self.backend.describe(self.task).await {
                        Ok(Some(status)) => {
                            failed_looks = 0;
                            if let Some(stopped) = &status.stopped {
                                return Err(Lost::stopped(stopped));
                            }
                            if last_phase != Some(status.phase) {
                                last_phase = Some(status.phase);
                                poll = FIRST_POLL;
                                heartbeat = Instant::now() + HEARTBEAT;
                                announce(&status, began);
                            }
                            if let (None, Some(ip)) = (address, status.address) {
                                let target = target(ip, &status)
                                    .map_err(|failure| Lost::other(failure, "no target"))?;
                                address = Some(target.address);
                                let times = self.times;
                                connecting.set(Some(async move {
                                    let mut told = String::new();
                                    ssh::connect_until_ready(&target, &times, |error| {
                                        let text = error.to_string();
                                        if text != told {
                                            output::note(&format!("Not yet reachable: {text}"));
                                            told = text;
                                        }
                                    })
                                    .await
                                }));
                            }
                        }
                        Ok(None) if began.elapsed() < MISSING_GRACE => {}
                        Ok(None) => {
                            let detail = "the backend does not know the task";
                            return Err(Lost::other(Failure::system(detail), detail));
                        }
                        // Throttling and outages pass; the SDK has retried several times by now.
                        Err(error) if failed_looks < 5 => {
                            failed_looks += 1;
                            output::note(&format!("Cannot look at the task: {error}"));
                        }
                        Err(error) => {
                            let detail = error.to_string();
                            return Err(Lost::other(error.into(), detail));
                        }
                    }
                    if address.is_none() && began.elapsed() > self.start_timeout {
                        let seconds = self.start_timeout.as_secs();
                        let detail = format!("the task has no address after {seconds} s");
                        let failure = Failure::system(detail.clone())
                            .hint("raise `start_timeout` of the cluster, or look at the task's events in the ECS console");
                        return Err(Lost::other(failure, detail));
                    }
                    next_look = Instant::now() + poll.mul_f64(0.75 + jitter() / 2.0);
                    poll = poll.mul_f64(1.3).min(SLOWEST_POLL);
                }
            }
        }
    }
}

fn announce(status: &TaskStatus, began: Instant) {
    let address = status.address.map(|address| format!(" at {address}")).unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();
    output::note(&format!("The task is {}{address} ({seconds:.1} s).", status.phase));
}

/// 0 to 1, so that many waiting jobs do not ask at the same moments.
fn jitter() -> f64 {
    let mut byte = [0_u8; 1];
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
