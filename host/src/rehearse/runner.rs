//! One job as GitLab Runner plays it: `Build.Run` and what it calls (common/build.go).

mod attempt;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

use super::driver::Failure;
use super::interrupt::{Ended, Interrupt, Limits};
use super::log::JobLog;
use super::pipeline::Job;
use super::response::Stored;
use super::script::{Archive, Download, Repository, Scripts, Upload};
use super::sources::Sources;
use super::variables::{self, BuildState, Entry, TASK_ROOT};
use attempt::{Attempt, Prepared};

/// `PreparationRetries` (common/consts.go).
const PREPARATIONS: u32 = 3;
/// `RUNNER_AFTER_SCRIPT_TIMEOUT`'s default.
const AFTER_SCRIPT_TIMEOUT: Duration = Duration::from_secs(300);
/// What GitLab's projects start with.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long things may take; the defaults are GitLab Runner's, `graceful_kill` excepted, which its
/// documentation for drivers wants under 5 min.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// `config_exec_timeout`. Default 1 h.
    pub config: Duration,
    /// `prepare_exec_timeout`. Default 1 h.
    pub prepare: Duration,
    /// `cleanup_exec_timeout`. Default 1 h.
    pub cleanup: Duration,
    /// `graceful_kill_timeout`: from SIGTERM to SIGKILL. Default 1 min, the runner's own is 10.
    pub graceful_kill: Duration,
    /// `force_kill_timeout`: from SIGKILL to giving up. Default 10 s.
    pub force_kill: Duration,
    /// Before the next `config` and `prepare`. Default 3 s.
    pub prepare_retry: Duration,
    /// Before the second try of `get_sources` or `download_artifacts`; doubled each time, at most 5 min.
    /// Default 5 s.
    pub stage_retry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            config: Duration::from_secs(3600),
            prepare: Duration::from_secs(3600),
            cleanup: Duration::from_secs(3600),
            graceful_kill: Duration::from_secs(60),
            force_kill: Duration::from_secs(10),
            prepare_retry: Duration::from_secs(3),
            stage_retry: Duration::from_secs(5),
        }
    }
}

/// What all jobs of a rehearsal share.
pub(super) struct Rehearsal<'a> {
    pub(super) driver: &'a Path,
    pub(super) settings_path: &'a Path,
    pub(super) state_directory: &'a Path,
    /// Of the GitLab Runner process.
    pub(super) environment: &'a [(OsString, OsString)],
    pub(super) patience: Patience,
    pub(super) interrupt: &'a Interrupt,
    pub(super) sources: &'a Sources,
    /// A directory: `<job id>.tar`.
    pub(super) store: &'a Path,
    pub(super) pipeline_id: u64,
}

/// One job to play.
pub(super) struct Assignment<'a> {
    pub(super) job: &'a Job,
    pub(super) id: u64,
    pub(super) token: String,
    pub(super) profile: &'a str,
    /// Of the server, not expanded.
    pub(super) variables: Vec<Entry>,
    pub(super) dependencies: Vec<Stored>,
    /// The lowest number that no other running job has.
    pub(super) slot: usize,
    pub(super) queued: Duration,
}

/// GitLab's reasons, as `retry:when` knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A command of the job failed.
    ScriptFailure,
    /// Something around the job failed.
    RunnerSystemFailure,
    /// The driver's answer cannot be used, whatever is tried again.
    RunnerConfigurationError,
    /// The job or its script took too long.
    JobExecutionTimeout,
    /// Ctrl-C.
    JobCanceled,
}

impl Reason {
    /// GitLab's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::ScriptFailure => "script_failure",
            Self::RunnerSystemFailure => "runner_system_failure",
            Self::RunnerConfigurationError => "runner_configuration_error",
            Self::JobExecutionTimeout => "job_execution_timeout",
            Self::JobCanceled => "job_canceled",
        }
    }
}

/// How a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobFailure {
    pub(super) reason: Reason,
    /// Of build failures.
    pub(super) exit_code: Option<i32>,
    pub(super) message: String,
}

impl JobFailure {
    fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Build { exit_code } => Self {
                reason: Reason::ScriptFailure,
                exit_code: Some(*exit_code),
                message: failure.message(),
            },
            Failure::System { .. } => Self {
                reason: Reason::RunnerSystemFailure,
                exit_code: None,
                message: failure.message(),
            },
        }
    }

    fn ended(ended: Ended, message: &str) -> Self {
        let reason = match ended {
            Ended::Interrupted => Reason::JobCanceled,
            Ended::TimedOut => Reason::JobExecutionTimeout,
        };
        Self { reason, exit_code: None, message: message.to_owned() }
    }
}

/// A job that was played.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) failure: Option<JobFailure>,
    /// From the first `config` to the end of the `prepare` that worked, or of the last one.
    pub(super) waiting: Duration,
    /// From there to the end of `cleanup`; `None` when nothing was prepared.
    pub(super) running: Option<Duration>,
    pub(super) stored: Option<Stored>,
}

/// Plays a job to its end, `cleanup` included.
pub(super) fn play(
    rehearsal: &Rehearsal<'_>,
    assignment: &Assignment<'_>,
    log: &mut JobLog<'_>,
) -> Played {
    let started = Instant::now();
    let timeout = assignment.job.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let limits = Limits::of_job(rehearsal.interrupt, started + timeout);
    let build = Build { rehearsal, assignment, limits, timeout };
    log.mask(&assignment.variables);
    let prepared = match build.prepare(log) {
        Ok(prepared) => prepared,
        Err(failure) => {
            verdict(Some(&failure), log);
            return Played {
                failure: Some(failure),
                waiting: started.elapsed(),
                running: None,
                stored: None,
            };
        }
    };
    let waiting = started.elapsed();
    let ready = Instant::now();
    let (failure, status) = build.run(&prepared, log);
    prepared.attempt.cleanup(&build.variables(&prepared.state(status)), log);
    verdict(failure.as_ref(), log);
    let file = build.archive();
    let stored = std::fs::metadata(&file).ok().map(|found| Stored {
        id: assignment.id,
        job: assignment.job.name.clone(),
        file,
        size: found.len(),
    });
    Played { failure, waiting, running: Some(ready.elapsed()), stored }
}

/// The last line of a job's log.
fn verdict(failure: Option<&JobFailure>, log: &JobLog<'_>) {
    match failure {
        None => log.say("\u{1b}[32;1mJob succeeded\u{1b}[0;m"),
        Some(JobFailure { reason: Reason::RunnerSystemFailure, message, .. }) => {
            log.error(&format!("ERROR: Job failed (system failure): {message}"));
        }
        Some(JobFailure { message, .. }) => log.error(&format!("ERROR: Job failed: {message}")),
    }
}

/// Artifacts that the rehearsal itself could not keep or give back.
fn lost(error: &std::io::Error) -> JobFailure {
    JobFailure {
        reason: Reason::RunnerSystemFailure,
        exit_code: None,
        message: format!("artifacts of the rehearsal: {error}"),
    }
}

struct Build<'a> {
    rehearsal: &'a Rehearsal<'a>,
    assignment: &'a Assignment<'a>,
    limits: Limits<'a>,
    timeout: Duration,
}

impl<'a> Build<'a> {
    /// Without what only `config` knows.
    fn bare_state(&self) -> BuildState {
        let list = &self.assignment.variables;
        BuildState {
            image: self
                .assignment
                .job
                .image
                .as_ref()
                .map(|image| variables::expand_text(&image.name, list)),
            short_token: "rehearsal".to_owned(),
            slot: self.assignment.slot,
            status: "running",
            timeout_seconds: self.timeout.as_secs(),
            ..BuildState::default()
        }
    }

    /// For `CUSTOM_ENV_*`, expanded.
    fn variables(&self, state: &BuildState) -> Vec<Entry> {
        variables::expanded(&variables::all(&self.assignment.variables, state, ""))
    }

    /// The artifacts' file.
    fn archive(&self) -> PathBuf {
        self.rehearsal.store.join(format!("{}.tar", self.assignment.id))
    }

    /// `config` and `prepare`, tried up to three times as one unit.
    fn prepare(&self, log: &JobLog<'_>) -> Result<Prepared<'a>, JobFailure> {
        let mut state = self.bare_state();
        let mut tried = 0;
        loop {
            tried += 1;
            let mut attempt = Attempt::new(self, &state).map_err(|error| JobFailure {
                reason: Reason::RunnerSystemFailure,
                exit_code: None,
                message: error.to_string(),
            })?;
            let failure = match attempt.prepare(self, &mut state, log) {
                Ok(hostname) => return Ok(Prepared { attempt, hostname, state }),
                Err(failure) => failure,
            };
            attempt.cleanup(&self.variables(&state), log);
            drop(attempt);
            // A build failure is not tried again, and is looked at before the context is.
            if failure.reason != Reason::RunnerSystemFailure {
                return Err(failure);
            }
            if let Some(ended) = self.limits.ended() {
                return Err(JobFailure::ended(ended, &self.ended_message(ended)));
            }
            log.error(&format!("ERROR: Preparation failed: {}", failure.message));
            log.say(&format!(
                "Will be retried in {}s ...",
                self.rehearsal.patience.prepare_retry.as_secs()
            ));
            self.limits.pause(self.rehearsal.patience.prepare_retry);
            if tried >= PREPARATIONS {
                return Err(failure);
            }
            if let Some(ended) = self.limits.ended() {
                return Err(JobFailure::ended(ended, &self.ended_message(ended)));
            }
        }
    }

    fn ended_message(&self, ended: Ended) -> String {
        match ended {
            Ended::Interrupted => "canceled".to_owned(),
            Ended::TimedOut => format!(
                "execution took longer than {}",
                humantime::format_duration(Duration::from_secs(self.timeout.as_secs()))
            ),
        }
    }

    /// All sub-stages. Gives also the value that `CI_JOB_STATUS` has from `after_script` on.
    fn run(&self, prepared: &Prepared<'_>, log: &JobLog<'_>) -> (Option<JobFailure>, &'static str) {
        let job = self.assignment.job;
        let mut run = Run { build: self, prepared, state: prepared.state.clone(), log };
        let mut failure = match run.before_the_scripts() {
            Ok(()) => None,
            Err(Before { failure, last: true }) => return (Some(failure), "running"),
            Err(Before { failure, last: false }) => Some(failure),
        };
        let mut status = "running";
        if failure.is_none() {
            failure = run.build_script(&job.script);
            status = match &failure {
                None => "success",
                Some(JobFailure { reason: Reason::JobExecutionTimeout, .. }) => "timedout",
                Some(JobFailure { reason: Reason::JobCanceled, .. }) => "canceled",
                Some(_) => "failed",
            };
            run.state.status = status;
            if let Some(ended) = self.limits.ended() {
                // As an abort: no further stages.
                return (Some(JobFailure::ended(ended, &self.ended_message(ended))), status);
            }
            run.after_script(&job.after_script);
        }
        if self.limits.ended().is_none() {
            let uploaded = run.upload_artifacts(failure.is_none());
            failure = failure.or(uploaded.err());
        }
        if self.limits.ended().is_none() {
            run.cleanup_file_variables();
        }
        if let Some(ended) = self.limits.ended() {
            failure = Some(JobFailure::ended(ended, &self.ended_message(ended)));
        }
        (failure, status)
    }
}

/// A failure of `prepare_script`, `get_sources` or `download_artifacts`.
struct Before {
    failure: JobFailure,
    /// No further sub-stage is called.
    last: bool,
}

struct Run<'a, 'l, 'o> {
    build: &'a Build<'a>,
    prepared: &'a Prepared<'a>,
    state: BuildState,
    log: &'l JobLog<'o>,
}

impl Run<'_, '_, '_> {
    fn scripts(&self) -> Scripts {
        let list = variables::all(&self.build.assignment.variables, &self.state, TASK_ROOT);
        Scripts { variables: variables::expanded(&list), hostname: self.prepared.hostname.clone() }
    }

    fn call(&self, sub_stage: &str, script: &str, limits: Limits<'_>) -> Result<(), Failure> {
        self.carry(sub_stage, script, limits).map(drop)
    }

    /// Like [`call`](Self::call), with what the script carries back.
    fn carry(&self, sub_stage: &str, script: &str, limits: Limits<'_>) -> Result<Vec<u8>, Failure> {
        let list = self.build.variables(&self.state);
        self.prepared.run(&list, sub_stage, script, limits, self.log)
    }

    fn number(&self, variable: &str) -> u32 {
        let list = self.build.variables(&self.state);
        variables::lookup(&list, variable)
            .and_then(|value| value.parse::<u32>().ok())
            .unwrap_or(1)
            .clamp(1, 10)
    }

    fn before_the_scripts(&mut self) -> Result<(), Before> {
        let scripts = self.scripts();
        let limits = self.build.limits;
        let assignment = self.build.assignment;
        self.call("prepare_script", &scripts.prepare(), limits).map_err(|failure| {
            let mut failure = self.failed(&failure);
            failure.message = format!("prepare environment: {}", failure.message);
            Before { failure, last: true }
        })?;

        let sources = self.build.rehearsal.sources;
        let get_sources = scripts.get_sources(&sources.repository, &sources.sha, &sources.git_ref);
        let clear = scripts.clear_worktree();
        self.attempts("GET_SOURCES_ATTEMPTS", |run, tried| {
            if tried == 2 {
                run.call("clear_worktree", &clear, limits)?;
            }
            run.call("get_sources", &get_sources, limits)
        })?;

        if !assignment.dependencies.is_empty() {
            let downloads = assignment
                .dependencies
                .iter()
                .map(|stored| {
                    let archive = match self.remote() {
                        true => Archive::Packed(BASE64.encode(std::fs::read(&stored.file)?)),
                        false => Archive::Here(stored.file.display().to_string()),
                    };
                    Ok(Download { id: stored.id, job: stored.job.clone(), archive })
                })
                .collect::<std::io::Result<Vec<_>>>()
                .map_err(|error| Before { failure: lost(&error), last: false })?;
            let script = scripts.download_artifacts(&downloads);
            self.attempts("ARTIFACT_DOWNLOAD_ATTEMPTS", |run, _| {
                run.call("download_artifacts", &script, limits)
            })?;
        }
        Ok(())
    }

    /// Tries as often as the variable says; any failure is tried again.
    fn attempts(
        &self,
        variable: &str,
        once: impl Fn(&Self, u32) -> Result<(), Failure>,
    ) -> Result<(), Before> {
        let attempts = self.number(variable);
        let mut pause = self.build.rehearsal.patience.stage_retry;
        let mut tried = 1;
        loop {
            let Err(failure) = once(self, tried) else { return Ok(()) };
            let ended = self.build.limits.ended().is_some();
            if ended || tried >= attempts {
                return Err(Before { failure: self.failed(&failure), last: ended });
            }
            self.log.say(&format!("Retrying in {}", humantime::format_duration(pause)));
            self.build.limits.pause(pause);
            pause = (pause * 2).min(Duration::from_secs(300));
            tried += 1;
        }
    }

    /// A dead context is the reason, whatever the driver said.
    fn failed(&self, failure: &Failure) -> JobFailure {
        match self.build.limits.ended() {
            Some(ended) => JobFailure::ended(ended, &self.build.ended_message(ended)),
            None => JobFailure::of(failure),
        }
    }

    /// A duration such as `10m`.
    fn duration(&self, variable: &str) -> Option<Duration> {
        let list = self.build.variables(&self.state);
        let value = variables::lookup(&list, variable)?;
        humantime::parse_duration(value).ok().filter(|duration| !duration.is_zero())
    }

    fn build_script(&mut self, lines: &[String]) -> Option<JobFailure> {
        let timeout = self.duration("RUNNER_SCRIPT_TIMEOUT");
        let limits = match timeout {
            Some(timeout) => self.build.limits.within(timeout),
            None => self.build.limits,
        };
        let script = self.scripts().user(lines);
        let failure = self.call("build_script", &script, limits).err();
        match (self.build.limits.ended(), limits.ended(), failure) {
            (Some(ended), _, _) => Some(JobFailure::ended(ended, &self.build.ended_message(ended))),
            (None, Some(ended), Some(_)) => Some(JobFailure::ended(ended, "script timeout")),
            (None, _, failure) => failure.as_ref().map(JobFailure::of),
        }
    }

    /// Its failure is a warning.
    fn after_script(&self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let timeout = self.duration("RUNNER_AFTER_SCRIPT_TIMEOUT").unwrap_or(AFTER_SCRIPT_TIMEOUT);
        self.log.say("\u{1b}[32;1mRunning after_script\u{1b}[0;m");
        let script = self.scripts().user(lines);
        if let Err(failure) = self.call("after_script", &script, self.build.limits.within(timeout))
        {
            self.log.say(&format!(
                "WARNING: after_script failed, but job will continue unaffected: {}",
                failure.message()
            ));
        }
    }

    fn upload_artifacts(&self, success: bool) -> Result<(), JobFailure> {
        let artifacts = match &self.build.assignment.job.artifacts {
            Some(artifacts) if artifacts.when.matches(success) => artifacts,
            _ => return Ok(()),
        };
        let scripts = self.scripts();
        let expand = |paths: &[String]| {
            paths.iter().map(|path| variables::expand_text(path, &scripts.variables)).collect()
        };
        let archive = self.build.archive();
        let upload = Upload {
            paths: expand(&artifacts.paths),
            exclude: expand(&artifacts.exclude),
            file: (!self.remote()).then(|| archive.display().to_string()),
        };
        let sub_stage = match success {
            true => "upload_artifacts_on_success",
            false => "upload_artifacts_on_failure",
        };
        let carried = self
            .carry(sub_stage, &scripts.upload_artifacts(&upload), self.build.limits)
            .map_err(|failure| self.failed(&failure))?;
        if !carried.is_empty() {
            BASE64
                .decode(carried)
                .map_err(std::io::Error::other)
                .and_then(|bytes| std::fs::write(&archive, bytes))
                .map_err(|error| lost(&error))?;
        }
        Ok(())
    }

    /// Whether tasks run elsewhere, so that files travel in scripts and logs.
    fn remote(&self) -> bool {
        matches!(self.build.rehearsal.sources.repository, Repository::Packed(_))
    }

    /// Its failure is a line in the runner's own log.
    fn cleanup_file_variables(&self) {
        let script = self.scripts().cleanup_file_variables();
        if let Err(failure) = self.call("cleanup_file_variables", &script, self.build.limits) {
            self.log.say(&format!("WARNING: cleanup_file_variables failed: {}", failure.message()));
        }
    }
}
