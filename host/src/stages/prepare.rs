//! `prepare`: launch the ranked placements one after the other until one has a task that lets the driver in.
//!
//! Never two at a time: a placement is left by stopping its task, and each task that is asked for is in the
//! attempt's file before. What comes after which failure is [`course`]'s; the wait for a task is
//! [`waiting`]'s; that many processes wait together is [`watch`]'s.

mod course;
mod waiting;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::{Context, Termination, launch, loss};
use crate::backend::{self, Cause, Fault, FullSubnets, TaskBackend, TaskId, TaskStatus};
use crate::environment::checkpoint;
use crate::failure::{Failure, Report};
use crate::output::{self, Section};
use crate::placement::Placement;
use crate::settings::{Cluster, ClusterBackend};
use crate::state::{Attempt, Launch, LaunchFailure, Outcome, OutcomeKind, State};
use crate::sweep;
use course::{Next, Standing, Turn};
use launch::short;
use waiting::Waiting;
use watch::Watch;

/// A task on this machine has its address at once.
pub(crate) const LOCAL_START_TIMEOUT: Duration = Duration::from_secs(10);

/// Of stopping a task that will not be used; `cleanup` tries again.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A shorter wait for this process's turn is not worth a line.
const LONG_TURN: Duration = Duration::from_secs(2);

/// The job's own launch comes first: on Fargate, there is time enough after it.
const SWEEP_AFTER: Duration = Duration::from_secs(1);

/// Runs the stage.
///
/// # Errors
///
/// What the job's author chose and cannot be had is a build failure, everything else a system failure.
pub async fn prepare(context: &Context, termination: &Termination) -> Result<(), Failure> {
    let terminated = termination.listen()?;
    let state = context.state()?;
    let mut attempt = context.attempt(&state)?;
    let mut work = Work {
        context,
        identity: state.identity()?,
        state: &state,
        attempt: &mut attempt,
        calls: 0,
    };
    // While the task starts there is nothing else to do; when it has started, nobody waits for the sweep.
    let sweeping = async {
        sleep(SWEEP_AFTER).await;
        sweep::now_and_then(&context.settings, &state).await;
        std::future::pending::<()>().await;
    };
    tokio::pin!(terminated);
    tokio::select! {
        biased;
        done = work.until_done(&mut terminated) => done,
        () = sweeping => Ok(()),
    }
}

/// Why there is no session.
struct Lost {
    cause: Cause,
    detail: String,
    failure: Failure,
    /// What was last seen of the task.
    seen: Option<TaskStatus>,
}

impl Lost {
    fn of(
        cause: Cause,
        detail: impl Into<String>,
        failure: Failure,
        seen: Option<TaskStatus>,
    ) -> Box<Self> {
        Box::new(Self { cause, detail: detail.into(), failure, seen })
    }

    fn stopped(seen: TaskStatus) -> Box<Self> {
        let stopped = seen.stopped.clone().unwrap_or_default();
        let mut report = loss::report("the task stopped before it was reached", &stopped);
        report.hints.extend(stopped.cause.remedy().map(str::to_owned));
        let detail = match stopped.containers.iter().find(|it| !it.reason.is_empty()) {
            Some(container) if container.reason != stopped.reason => {
                format!("{}; {}", stopped.reason, container.reason)
            }
            _ => stopped.reason,
        };
        Self::of(stopped.cause, detail, Failure::System(report), Some(seen))
    }
}

impl From<backend::BackendError> for Box<Lost> {
    fn from(error: backend::BackendError) -> Self {
        let detail = format!("{}: {}", error.code, error.message);
        Lost::of(error.cause, detail, error.into(), None)
    }
}

/// How one round of asking and waiting ended.
enum Ended {
    Ready,
    Cancelled,
    Lost(Box<Lost>),
}

/// One `prepare`.
struct Work<'w> {
    context: &'w Context,
    /// Of the state directory.
    identity: String,
    state: &'w State,
    attempt: &'w mut Attempt,
    /// How often RunTask was sent for the present launch.
    calls: u32,
}

impl Work<'_> {
    async fn until_done(
        &mut self,
        terminated: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<(), Failure> {
        if self.attempt.launch.is_none() {
            self.begin(Launch::new(0, 0, Vec::new()))?;
        }
        loop {
            let placement = self.placement()?;
            let cluster = self.context.cluster(&placement.cluster)?;
            let backend: Arc<dyn TaskBackend> = Arc::from(
                backend::open_for(
                    cluster,
                    self.state.directory(),
                    &launch::session_facts(self.context, self.attempt),
                )
                .await,
            );
            let ended = match self.launch()?.failed.clone() {
                // A `prepare` before this one was killed between two launches.
                Some(failed) => {
                    let failure = Failure::system(failed.detail.clone());
                    Ended::Lost(Lost::of(failed.cause, failed.detail, failure, None))
                }
                None => self.one_round(&backend, cluster, &placement, terminated).await?,
            };
            let lost = match ended {
                Ended::Ready => return Ok(()),
                Ended::Cancelled => return Err(self.cancelled(&backend).await?),
                Ended::Lost(lost) => *lost,
            };
            let (turn, failure) = self.leave(&backend, cluster, &placement, lost).await?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            if let Some(pause) = self.turn_to(turn)? {
                tokio::select! {
                    () = &mut *terminated => return Err(self.cancelled(&backend).await?),
                    () = sleep(pause) => {}
                }
            }
        }
    }

    fn launch(&mut self) -> Result<&mut Launch, Failure> {
        self.attempt.launch.as_mut().ok_or_else(|| Failure::system("the attempt has no launch"))
    }

    fn placement(&self) -> Result<Placement, Failure> {
        let none = || Failure::system("the attempt has no placement");
        self.attempt.launched_placement().cloned().ok_or_else(none)
    }

    fn note(&self, step: &str) -> Result<(), Failure> {
        checkpoint(&format!("before-saving-{step}"));
        self.state.note(self.attempt)?;
        checkpoint(&format!("after-saving-{step}"));
        Ok(())
    }

    /// Saved before anything is asked for: from here on `cleanup` knows that there may be a task.
    fn begin(&mut self, mut launch: Launch) -> Result<(), Failure> {
        launch.full_elsewhere = self.full_elsewhere(&launch)?;
        if let Some(left) = self.attempt.launch.replace(launch) {
            self.attempt.earlier.push(left);
        }
        self.calls = 0;
        checkpoint("before-saving-launch");
        self.state.save(self.attempt)?;
        checkpoint("after-saving-launch");
        Ok(())
    }

    /// The subnets that others found full, unless `launch` then had none to try.
    fn full_elsewhere(&self, launch: &Launch) -> Result<Vec<String>, Failure> {
        let Some(placement) = self.attempt.placements.get(launch.placement) else {
            return Ok(Vec::new());
        };
        let subnets = subnets_of(self.context.cluster(&placement.cluster)?);
        let full = FullSubnets::open(self.state.directory()).among(subnets);
        let is_left =
            |subnet: &String| !launch.avoid_subnets.contains(subnet) && !full.contains(subnet);
        Ok(if subnets.iter().any(is_left) { full } else { Vec::new() })
    }

    /// Asks for the present launch's task and waits for it.
    async fn one_round(
        &mut self,
        backend: &Arc<dyn TaskBackend>,
        cluster: &Cluster,
        placement: &Placement,
        terminated: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<Ended, Failure> {
        let began = Instant::now();
        let definition = launch::definition_of(self.context, placement)?;
        let launch = self.launch()?.clone();
        let request = launch::request(
            self.context,
            self.attempt,
            &launch,
            placement,
            definition,
            &self.identity,
        )?;
        if self.calls == 0 {
            output::note(&format!("Starting a task on cluster {}...", placement.cluster));
            if !launch.full_elsewhere.is_empty() {
                output::note(&format!(
                    "Other jobs have just found no free addresses in {}: trying the other subnets first.",
                    launch.full_elsewhere.join(", ")
                ));
            }
        }
        let turn = backend.launch_turn();
        if turn > LONG_TURN {
            output::note(&format!(
                "Many jobs start at once: this one's turn is in {:.0} s.",
                turn.as_secs_f64()
            ));
        }
        tokio::select! {
            () = &mut *terminated => return Ok(Ended::Cancelled),
            () = sleep(turn) => {}
        }
        self.calls += 1;
        checkpoint("before-run-task");
        // Not raced against SIGTERM: giving the call up would leave open whether there is a task.
        let asked = backend.launch(&request).await;
        checkpoint("after-run-task");
        let task = match asked {
            Ok(task) => task,
            Err(error) => return Ok(Ended::Lost(error.into())),
        };
        self.launch()?.task = Some(task.clone());
        self.note("task")?;
        output::note(&format!("Task {} is starting.", short(&task)));

        let sight = backend::sight(cluster, &launch::session_facts(self.context, self.attempt));
        let directory = self.state.directory().join("watch").join(sight);
        let name = format!("{}-{}-{}", self.attempt.id, launch.placement, launch.number);
        let mut watch = Watch::start(Arc::clone(backend), directory, &name, task.clone())
            .map_err(|error| Failure::System(Report::of(&error)))?;
        let mut waiting = Waiting {
            watch: &mut watch,
            start_timeout: match &cluster.backend {
                ClusterBackend::Ecs(ecs) => ecs.start_timeout,
                ClusterBackend::Local(_) => LOCAL_START_TIMEOUT,
            },
            times: self.context.settings.ssh,
        };
        let target = |address, status: &TaskStatus| {
            launch::target(self.attempt, definition, address, status)
        };
        let section = Section::open(
            "wait",
            [self.attempt.number as usize, self.attempt.earlier.len() + 1],
            &format!("Waiting for task {}...", short(&task)),
        );
        let reached = tokio::select! {
            () = &mut *terminated => return Ok(Ended::Cancelled),
            reached = waiting.until_ready(target) => reached,
        };
        // What follows is not to be overlooked in a collapsed section.
        drop(section);
        let (session, address, seen) = match reached {
            Ok(reached) => reached,
            Err(lost) => return Ok(Ended::Lost(lost)),
        };
        let launch = self.launch()?;
        launch.address = Some(address);
        launch.host_key = Some(session.host_key().to_owned());
        launch.ready_at = Some(Timestamp::now());
        let subnet = seen.as_ref().and_then(|seen| seen.subnet.clone());
        launch.last_seen = seen;
        self.note("ready")?;
        if let Some(subnet) = subnet {
            FullSubnets::open(self.state.directory()).forget(&subnet);
        }
        session.close().await;
        output::note(&format!(
            "Task {} is ready at {address} after {:.1} s.",
            short(&task),
            began.elapsed().as_secs_f64()
        ));
        Ok(Ended::Ready)
    }

    /// Leaves the present launch: notes why, stops its task, and decides what comes next. Answers the stage's
    /// failure as well when nothing does.
    async fn leave(
        &mut self,
        backend: &Arc<dyn TaskBackend>,
        cluster: &Cluster,
        placement: &Placement,
        lost: Lost,
    ) -> Result<(Turn, Option<Failure>), Failure> {
        let launch = self.launch()?.clone();
        let subnet = lost.seen.as_ref().or(launch.last_seen.as_ref());
        let standing = Standing {
            placements: &self.attempt.placements,
            subnets: subnets_of(cluster),
            subnet: subnet.and_then(|seen| seen.subnet.as_deref()),
            launch: &launch,
            earlier: self.attempt.earlier.len(),
            calls: self.calls,
            has_task: launch.task.is_some(),
        };
        if let (Cause::SubnetFull, Some(subnet)) = (lost.cause, standing.full_subnet()) {
            FullSubnets::open(self.state.directory()).note(&subnet);
        }
        let turn = course::after(lost.cause, &standing, rand::random_range(0.5..=1.0));
        if let Turn::Repeat(pause) = &turn {
            output::note(&format!(
                "The task could not be asked for, since {} ({}). Asking again in {:.1} s.",
                lost.cause.words(),
                lost.detail,
                pause.as_secs_f64()
            ));
            return Ok((turn, None));
        }
        let is_stopping = lost.seen.as_ref().is_some_and(|seen| seen.stopped.is_some());
        let noted = self.launch()?;
        noted.failed = Some(LaunchFailure { cause: lost.cause, detail: lost.detail.clone() });
        if let Some(seen) = lost.seen.clone() {
            noted.last_seen = Some(seen);
        }
        if turn == Turn::End {
            self.attempt.outcome =
                Some(Outcome { kind: outcome_of(lost.cause), detail: lost.detail.clone() });
        }
        self.note("failure")?;
        if turn != Turn::End {
            let (rank, of) = (launch.placement + 1, self.attempt.placements.len());
            output::note(&format!(
                "Placement {rank} of {of} ({placement}) has no task: {} ({}).",
                lost.cause.words(),
                lost.detail
            ));
        }
        let is_stopped = is_stopping || self.give_up(backend).await?;
        if turn == Turn::End {
            return Ok((turn, Some(self.verdict(lost))));
        }
        if !is_stopped {
            let failure =
                Failure::system("the task of the placement that is left cannot be stopped")
                    .hint("no other placement is tried, since two tasks would run for one job");
            return Ok((Turn::End, Some(failure)));
        }
        Ok((turn, None))
    }

    /// Makes `turn` the present launch, with a line for the job log; answers the pause before it.
    fn turn_to(&mut self, turn: Turn) -> Result<Option<Duration>, Failure> {
        let next = |work: &mut Self, next: Next| work.begin(next.launch());
        match turn {
            Turn::Repeat(pause) => Ok(Some(pause)),
            Turn::Again(again, pause) => {
                output::note(&format!(
                    "Trying the same placement again in {:.1} s (task {}).",
                    pause.as_secs_f64(),
                    again.number + 1
                ));
                next(self, again)?;
                Ok(Some(pause))
            }
            Turn::OtherSubnet(other) => {
                output::note(&format!(
                    "Trying the same placement without subnet {}.",
                    other.avoid_subnets.join(", ")
                ));
                next(self, other)?;
                Ok(None)
            }
            Turn::OtherPlacement(other) => {
                let (rank, of) = (other.placement + 1, self.attempt.placements.len());
                next(self, other)?;
                output::note(&format!(
                    "Going on with placement {rank} of {of}: {}.",
                    self.placement()?
                ));
                Ok(None)
            }
            Turn::End => Err(Failure::system("nothing is left to try")),
        }
    }

    /// Stops the present launch's task, with a time limit of its own; whether there is none any more.
    async fn give_up(&mut self, backend: &Arc<dyn TaskBackend>) -> Result<bool, Failure> {
        let launch = self.launch()?;
        let Some(task) = launch.task.clone() else { return Ok(true) };
        if launch.told_to_stop_at.is_some() {
            return Ok(true);
        }
        checkpoint("before-stop-task");
        let Some(seen) = stop(backend.as_ref(), &task).await else { return Ok(false) };
        checkpoint("after-stop-task");
        let launch = self.launch()?;
        launch.told_to_stop_at = Some(Timestamp::now());
        if seen.is_some() {
            launch.last_seen = seen;
        }
        self.note("stop")?;
        Ok(true)
    }

    async fn cancelled(&mut self, backend: &Arc<dyn TaskBackend>) -> Result<Failure, Failure> {
        let detail = "prepare was stopped by SIGTERM";
        self.attempt.outcome =
            Some(Outcome { kind: OutcomeKind::Cancelled, detail: detail.to_owned() });
        self.note("outcome")?;
        let _ = self.give_up(backend).await?;
        Ok(Failure::system(detail))
    }

    /// The stage's failure, of the last launch, with what came before.
    fn verdict(&self, lost: Lost) -> Failure {
        let mut report = match lost.failure {
            Failure::Build(report) | Failure::System(report) => report,
            script @ Failure::Script(_) => return script,
        };
        let of = self.attempt.placements.len();
        for earlier in &self.attempt.earlier {
            if let Some(failed) = &earlier.failed {
                let rank = earlier.placement + 1;
                let words = failed.cause.words();
                report.causes.push(format!("before that, placement {rank} of {of}: {words}"));
            }
        }
        if report.hints.is_empty() {
            report.hints.extend(lost.cause.remedy().map(str::to_owned));
        }
        match lost.cause.fault() {
            Fault::Author => Failure::Build(report),
            Fault::Operator => Failure::System(report),
        }
    }
}

/// Empty where there is no such thing.
fn subnets_of(cluster: &Cluster) -> &[String] {
    match &cluster.backend {
        ClusterBackend::Ecs(ecs) => &ecs.subnets,
        ClusterBackend::Local(_) => &[],
    }
}

fn outcome_of(cause: Cause) -> OutcomeKind {
    match cause {
        Cause::NoCapacity | Cause::SubnetFull | Cause::TooSlow => OutcomeKind::Capacity,
        Cause::SpotGone => OutcomeKind::SpotInterruption,
        Cause::OutOfMemory => OutcomeKind::OutOfMemory,
        _ => OutcomeKind::Other,
    }
}

/// Stops a task that will not be used; answers what the backend says of it, and `None` when the backend did not
/// take the order.
async fn stop(backend: &dyn TaskBackend, task: &TaskId) -> Option<Option<TaskStatus>> {
    let stopping = backend.stop(task, "Pointsman: prepare does not use this task");
    match timeout(STOP_TIMEOUT, stopping).await {
        Ok(Ok(seen)) => {
            output::note(&format!("Task {} was told to stop.", short(task)));
            Some(seen)
        }
        Ok(Err(error)) => {
            let mut report = Report::of(&error).hint("cleanup will try again");
            report.hints.extend(error.hint);
            report.print();
            None
        }
        Err(_) => {
            output::note("Stopping the task takes too long; cleanup will try again.");
            None
        }
    }
}
