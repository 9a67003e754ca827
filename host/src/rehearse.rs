//! `pointsman rehearse`: plays a `.gitlab-ci.yml` through the driver's real stages, as GitLab Runner would.
//!
//! Each stage is a child process with the arguments, the environment and the files that GitLab Runner gives
//! it. Nothing here knows policies, SSH or backends: what a rehearsal shows is what the driver does.

mod cost;
mod driver;
mod interrupt;
mod log;
mod perform;
pub mod pipeline;
mod record;
mod report;
mod response;
mod runner;
mod schedule;
mod script;
mod server;
mod simulator;
mod sources;
mod variables;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::placement::size::Size;
use crate::placement::{Arch, Capacity};
use crate::settings::{ClusterBackend, LaunchKind, Settings};
use crate::spelling;
use log::Log;
use perform::Play;
use pipeline::{Pipeline, PipelineError};
use runner::Rehearsal;
use simulator::Simulator;

pub use cost::{BASIS as COST_BASIS, RECORDED_BASIS};
pub use interrupt::Interrupt;
pub use record::RecordedPlacement;
pub use report::{JobReport, Outcome, Report, Total, Try};
pub use runner::{Patience, Reason};
pub use server::ProjectVariable;
pub use simulator::{SimulatorError, Tasks};
pub use sources::SourcesError;

/// What to rehearse, and how.
pub struct Options<'a> {
    /// The `.gitlab-ci.yml`.
    pub pipeline: PathBuf,
    /// Handed to the driver.
    pub settings_path: PathBuf,
    /// The content of that file.
    pub settings: &'a Settings,
    /// The driver's executable; the simulator and the agent lie beside it.
    pub driver: PathBuf,
    /// The driver's, for this rehearsal.
    pub state_directory: PathBuf,
    /// How many jobs run side by side; 0 counts as 1. The command line's default is 4.
    pub concurrent: usize,
    /// Where tasks start.
    pub backend: Backend,
    /// For the simulator: how the run goes. Without one nothing goes wrong.
    pub scenario: Option<PathBuf>,
    /// Names of jobs; empty means all.
    pub only: Vec<String>,
    /// The repository that jobs check out; `None` is the pipeline file's directory.
    pub repository: Option<PathBuf>,
    /// As if set in the project's settings.
    pub variables: Vec<ProjectVariable>,
    /// The environment of the GitLab Runner process that the rehearsal stands for: the caller's own.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether `out` is a terminal.
    pub colour: bool,
    /// How long things may take.
    pub patience: Patience,
    /// Ends the rehearsal.
    pub interrupt: Arc<Interrupt>,
}

/// Where the tasks of a rehearsal start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// ECS clusters are simulated on this machine.
    Simulator,
    /// As the settings say, with the caller's credentials.
    AsConfigured,
}

/// A rehearsal that could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RehearseError {
    /// The pipeline file.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// `only` names no job.
    #[error("`{name}` is no job of the pipeline: {instead}")]
    UnknownJob {
        /// As given.
        name: String,
        /// The nearest one, or all.
        instead: String,
    },
    /// The sources.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// The simulator.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// The rehearsal's own files.
    #[error("cannot prepare {}", .path.display())]
    Files {
        /// Of the file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Rehearses; the jobs' logs go to `out` while they run. The report is not written there.
///
/// # Errors
///
/// Fails when there is nothing to play or nothing to play it with. Failing jobs are no error: see
/// [`Report::success`].
pub fn rehearse(
    options: &Options<'_>,
    out: &mut (dyn Write + Send),
) -> Result<Report, RehearseError> {
    let path = std::path::absolute(&options.pipeline)
        .map_err(|source| RehearseError::Files { path: options.pipeline.clone(), source })?;
    let directory = match &options.repository {
        Some(repository) => repository.as_path(),
        None => path.parent().unwrap_or(Path::new("/")),
    };
    let pipeline = pipeline::read(&path, directory)?;
    let wanted = wanted(&pipeline, &options.only)?;

    let files = |path: &Path| {
        let path = path.to_owned();
        move |source| RehearseError::Files { path, source }
    };
    let own = tempfile::Builder::new()
        .prefix("pointsman-rehearsal")
        .tempdir()
        .map_err(files(Path::new("a temporary directory")))?;
    let at = |name: &str| own.path().join(name);
    let (store, simulated) = (at("artifacts"), at("simulator"));
    for directory in [&store, &simulated, &options.state_directory] {
        std::fs::create_dir_all(directory).map_err(files(directory))?;
    }
    let state_directory =
        std::path::absolute(&options.state_directory).map_err(files(&options.state_directory))?;
    let settings_path =
        std::path::absolute(&options.settings_path).map_err(files(&options.settings_path))?;
    let ecs = options
        .settings
        .clusters
        .values()
        .any(|cluster| matches!(cluster.backend, ClusterBackend::Ecs(_)));
    let elsewhere = ecs && options.backend == Backend::AsConfigured;
    let sources = sources::take(directory, &at("repository.git"), elsewhere, &options.environment)?;
    let simulator = match options.backend {
        Backend::Simulator if ecs => Some(Simulator::start(
            &options.driver,
            &simulated,
            options.settings,
            options.scenario.as_deref(),
            &options.environment,
        )?),
        _ => None,
    };
    let environment = match (&simulator, options.backend) {
        (Some(simulator), _) => simulator.environment(&options.environment),
        (None, Backend::Simulator) => simulator::without_aws(&options.environment),
        (None, Backend::AsConfigured) => options.environment.clone(),
    };

    let log = Log::new(out, options.colour, pipeline.jobs.iter().map(|job| job.name.as_str()));
    introduce(&log, options, &pipeline, &sources.note, simulator.as_ref());
    let rehearsal = Rehearsal {
        driver: &options.driver,
        settings_path: &settings_path,
        state_directory: &state_directory,
        environment: &environment,
        patience: options.patience,
        interrupt: &options.interrupt,
        sources: &sources,
        store: &store,
        pipeline_id: pipeline_id(),
    };
    let started = Instant::now();
    let mut jobs = perform::perform(&Play {
        rehearsal: &rehearsal,
        pipeline: &pipeline,
        wanted,
        settings: options.settings,
        variables: &options.variables,
        concurrent: options.concurrent.max(1),
        log: &log,
    });
    let elapsed = started.elapsed();
    for one in jobs.iter_mut().flat_map(|job| &mut job.tries) {
        one.placement = record::placement_of(&state_directory, one.job_id);
        one.cost_usd = estimate(options.settings, one);
    }
    let tasks = simulator.as_ref().map(Simulator::tasks);
    Ok(Report::new(jobs, elapsed, options.interrupt.is_raised(), tasks))
}

/// By index, whether the job is played. A name without ` 1/3` means all of `parallel: 3`.
fn wanted(pipeline: &Pipeline, only: &[String]) -> Result<Vec<bool>, RehearseError> {
    let names = |job: &pipeline::Job, name: &str| {
        let base =
            job.node.and_then(|(index, total)| job.name.strip_suffix(&format!(" {index}/{total}")));
        job.name == name || base == Some(name)
    };
    for name in only {
        if !pipeline.jobs.iter().any(|job| names(job, name)) {
            let jobs: Vec<&str> = pipeline.jobs.iter().map(|job| job.name.as_str()).collect();
            let instead = spelling::instead(name, jobs);
            return Err(RehearseError::UnknownJob { name: name.clone(), instead });
        }
    }
    Ok(pipeline
        .jobs
        .iter()
        .map(|job| only.is_empty() || only.iter().any(|name| names(job, name)))
        .collect())
}

/// What somebody must know before scripts run.
fn introduce(
    log: &Log<'_>,
    options: &Options<'_>,
    pipeline: &Pipeline,
    sources: &str,
    simulator: Option<&Simulator>,
) {
    log.say(match options.backend {
        Backend::Simulator => {
            "A rehearsal: the scripts of these jobs run on this machine, as the user who started it."
        }
        Backend::AsConfigured => {
            "A rehearsal with the clusters of the settings: tasks start there, with your credentials, and cost money."
        }
    });
    if let Some(simulator) = simulator {
        log.say("ECS is simulated; no call leaves this machine for AWS.");
        if let Some(scenario) = simulator.scenario() {
            log.say(&format!("Scenario: {scenario}."));
        }
    } else if options.scenario.is_some() {
        log.say("The scenario has no effect: no cluster of the settings is on ECS.");
    }
    log.say(&format!("Sources: {sources}."));
    let mut images: Vec<&str> = pipeline
        .jobs
        .iter()
        .flat_map(|job| job.image.iter().chain(&job.services))
        .map(|image| image.name.as_str())
        .collect();
    images.sort_unstable();
    images.dedup();
    if !images.is_empty() {
        log.say(&format!(
            "Images and services are shown to policies but neither pulled nor started: {}.",
            images.join(", ")
        ));
    }
}

fn estimate(settings: &Settings, one: &Try) -> Option<f64> {
    let placement = one.placement.as_ref()?;
    let running = std::time::Duration::try_from_secs_f64(one.running_seconds).ok()?;
    let kind = (placement.arch, placement.capacity, placement.size);
    cost_of(settings, &placement.cluster, kind, running)
}

/// What a task on `cluster` would cost in USD, by [`COST_BASIS`]; `None` where no price is known.
pub fn cost_of(
    settings: &Settings,
    cluster: &str,
    (arch, capacity, size): (Arch, Capacity, Size),
    running: std::time::Duration,
) -> Option<f64> {
    let ClusterBackend::Ecs(cluster) = &settings.clusters.get(cluster)?.backend else {
        return None;
    };
    // Instances are paid for as instances, whoever runs on them.
    if cluster.launch != LaunchKind::Fargate {
        return None;
    }
    cost::estimate(&cluster.region, arch, capacity, size, running)
}

/// The profile whose runner would take the job: all the job's tags, and the fewest others.
///
/// # Errors
///
/// Says what the job is stuck with.
pub fn profile_for<'a>(settings: &'a Settings, job: &pipeline::Job) -> Result<&'a str, String> {
    server::profile(settings, job)
}

/// New for each rehearsal, since the driver's records outlive it: milliseconds of the clock.
fn pipeline_id() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The job ids below it, a thousand times this, stay exact in JSON until the year 2255.
    u64::try_from(since.as_millis()).unwrap_or(1)
}
