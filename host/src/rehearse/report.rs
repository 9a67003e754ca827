//! What became of a rehearsal: for programs as JSON, for people as a table.

mod table;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::pipeline::Job;
use super::record::RecordedPlacement;
use super::runner::{JobFailure, Reason};
use super::simulator::Tasks;

/// The whole rehearsal.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the pipeline would have passed.
    pub success: bool,
    /// Ctrl-C ended it.
    pub interrupted: bool,
    /// In the file's order.
    pub jobs: Vec<JobReport>,
    /// Of all tries.
    pub total: Total,
    /// What the simulator's ledger says; `None` without a simulator.
    pub tasks: Option<Tasks>,
    /// What the costs rest on.
    pub cost_basis: &'static str,
}

/// Sums over all tries.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Total {
    /// Tries of jobs.
    pub tries: usize,
    /// From the first job's start to the last one's end.
    pub elapsed_seconds: f64,
    /// Sum.
    pub waiting_seconds: f64,
    /// Sum.
    pub running_seconds: f64,
    /// Sum of the known costs; `None` when none is known.
    pub cost_usd: Option<f64>,
}

/// One job.
#[derive(Debug, Serialize)]
pub struct JobReport {
    /// Of the job.
    pub name: String,
    /// Of the job.
    pub stage: String,
    /// Of the job.
    pub tags: Vec<String>,
    /// As written; not pulled.
    pub image: Option<String>,
    /// As written; not started.
    pub services: Vec<String>,
    /// After all tries.
    pub outcome: Outcome,
    /// Of everything but success.
    pub why: Option<String>,
    /// Empty when it did not run.
    pub tries: Vec<Try>,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It worked.
    Success,
    /// It failed, and the pipeline with it.
    Failed,
    /// It failed and was allowed to.
    AllowedFailure,
    /// Not run, by the pipeline's rules.
    Skipped,
    /// No profile takes it.
    Stuck,
    /// Ctrl-C.
    Canceled,
    /// Not asked for.
    LeftOut,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::AllowedFailure => "failed, allowed",
            Self::Skipped => "skipped",
            Self::Stuck => "stuck",
            Self::Canceled => "canceled",
            Self::LeftOut => "left out",
        })
    }
}

/// One run of a job.
#[derive(Debug, Serialize)]
pub struct Try {
    /// As the driver saw it.
    pub job_id: u64,
    /// The settings file's.
    pub profile: String,
    /// `None` is success.
    pub failure_reason: Option<Reason>,
    /// Of a failing script.
    pub exit_code: Option<i32>,
    /// Of a failure.
    pub message: Option<String>,
    /// From the first `config` to the end of `prepare`.
    pub waiting_seconds: f64,
    /// From there to the end of `cleanup`; 0 when nothing was prepared.
    pub running_seconds: f64,
    /// From the driver's record; `None` when it left none.
    pub placement: Option<RecordedPlacement>,
    /// `None` where there is no price: on this machine, or in a region whose price is not known.
    pub cost_usd: Option<f64>,
}

impl JobReport {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            name: job.name.clone(),
            stage: job.stage.clone(),
            tags: job.tags.clone(),
            image: job.image.as_ref().map(|image| image.name.clone()),
            services: job.services.iter().map(|service| service.name.clone()).collect(),
            outcome: Outcome::Skipped,
            why: None,
            tries: Vec::new(),
        }
    }
}

impl Try {
    pub(super) fn new(
        job_id: u64,
        profile: &str,
        failure: Option<&JobFailure>,
        waiting: Duration,
        running: Option<Duration>,
    ) -> Self {
        Self {
            job_id,
            profile: profile.to_owned(),
            failure_reason: failure.map(|failure| failure.reason),
            exit_code: failure.and_then(|failure| failure.exit_code),
            message: failure.map(|failure| failure.message.clone()),
            waiting_seconds: waiting.as_secs_f64(),
            running_seconds: running.unwrap_or_default().as_secs_f64(),
            placement: None,
            cost_usd: None,
        }
    }
}

impl Report {
    /// Of jobs whose tries have their placements and costs.
    pub(super) fn new(
        jobs: Vec<JobReport>,
        elapsed: Duration,
        interrupted: bool,
        tasks: Option<Tasks>,
    ) -> Self {
        let tries = || jobs.iter().flat_map(|job| &job.tries);
        let costs: Vec<_> = tries().filter_map(|one| one.cost_usd).collect();
        let total = Total {
            tries: tries().count(),
            elapsed_seconds: elapsed.as_secs_f64(),
            waiting_seconds: tries().map(|one| one.waiting_seconds).sum(),
            running_seconds: tries().map(|one| one.running_seconds).sum(),
            cost_usd: (!costs.is_empty()).then(|| costs.iter().sum()),
        };
        let bad = |job: &JobReport| {
            matches!(job.outcome, Outcome::Failed | Outcome::Stuck | Outcome::Canceled)
        };
        let leaked = tasks.as_ref().is_some_and(|tasks| !tasks.running.is_empty());
        Self {
            success: !interrupted && !leaked && !jobs.iter().any(bad),
            interrupted,
            jobs,
            total,
            tasks,
            cost_basis: super::cost::BASIS,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        table::write(self, formatter)
    }
}
