//! One attempt: a temporary directory, `config`, `prepare`, the `run` calls, `cleanup`
//! (executors/custom/custom.go).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use super::{Build, JobFailure, Reason, Rehearsal};
use crate::rehearse::driver::{ConfigReply, Driver, Failure, Stdout};
use crate::rehearse::interrupt::Limits;
use crate::rehearse::log::JobLog;
use crate::rehearse::pipeline::Job;
use crate::rehearse::response::{self, Facts};
use crate::rehearse::script::CARRIED;
use crate::rehearse::variables::{BuildState, Entry};

/// `builds_dir` and `cache_dir` of the `[[runners]]` that a rehearsal stands for.
const BUILDS_DIR: &str = "/builds";

/// An executor object of the runner.
pub(super) struct Attempt<'a> {
    rehearsal: &'a Rehearsal<'a>,
    job: &'a Job,
    driver: Driver<'a>,
    /// Removed with all content when the attempt is dropped.
    directory: tempfile::TempDir,
    /// What `config` answered; empty when it did not.
    job_env: BTreeMap<String, String>,
}

/// An attempt whose `prepare` worked.
pub(super) struct Prepared<'a> {
    pub(super) attempt: Attempt<'a>,
    pub(super) hostname: String,
    pub(super) state: BuildState,
}

impl<'a> Attempt<'a> {
    /// Makes the directory and writes the response file.
    pub(super) fn new(build: &Build<'a>, state: &BuildState) -> io::Result<Self> {
        let (rehearsal, assignment) = (build.rehearsal, build.assignment);
        let directory = tempfile::Builder::new().prefix("custom-executor").tempdir()?;
        // Of strings: it cannot fail.
        let tags = serde_json::to_string(&assignment.job.tags).unwrap_or_default();
        let arguments = [
            "--config".into(),
            rehearsal.settings_path.as_os_str().to_owned(),
            "--profile".into(),
            assignment.profile.into(),
            "--state-directory".into(),
            rehearsal.state_directory.as_os_str().to_owned(),
            "--rehearsed-tags".into(),
            tags.into(),
        ];
        let driver = Driver {
            program: rehearsal.driver,
            arguments: arguments.to_vec(),
            environment: rehearsal.environment,
            directory: directory.path().to_owned(),
            graceful_kill: rehearsal.patience.graceful_kill,
            force_kill: rehearsal.patience.force_kill,
        };
        let project_path = project_path(rehearsal);
        let facts = Facts {
            id: assignment.id,
            token: &assignment.token,
            pipeline_id: rehearsal.pipeline_id,
            project_name: &rehearsal.sources.name,
            project_path: &project_path,
            repo_url: &format!(
                "https://gitlab-ci-token:{}@gitlab.invalid/{project_path}.git",
                assignment.token
            ),
            sha: &rehearsal.sources.sha,
            git_ref: &rehearsal.sources.git_ref,
            timeout_seconds: build.timeout.as_secs(),
            queued_seconds: assignment.queued.as_secs_f64(),
            variables: &assignment.variables,
            expanded: &build.variables(state),
            dependencies: &assignment.dependencies,
        };
        write_private(&driver.response_file(), &response::text(assignment.job, &facts), 0o600)?;
        Ok(Self { rehearsal, job: assignment.job, driver, directory, job_env: BTreeMap::new() })
    }

    /// `config`, then `prepare`. Sets the directories of `state`; gives the host name for the log.
    ///
    /// Whatever comes out, the attempt wants a [`cleanup`](Self::cleanup).
    pub(super) fn prepare(
        &mut self,
        build: &Build<'a>,
        state: &mut BuildState,
        log: &JobLog<'_>,
    ) -> Result<String, JobFailure> {
        let patience = build.rehearsal.patience;
        let limits = build.limits.within(patience.config);
        let stdout = self
            .call(&["config".into()], &build.variables(state), Stdout::Collect, limits, log)
            .map_err(|failure| JobFailure::of(&failure))?;
        let reply = ConfigReply::parse(&stdout).map_err(|message| JobFailure {
            reason: Reason::RunnerSystemFailure,
            exit_code: None,
            message,
        })?;
        log.say(&reply.startup_line());
        let configuration = |message: String| JobFailure {
            reason: Reason::RunnerConfigurationError,
            exit_code: None,
            message,
        };
        for (name, directory) in [("builds", &reply.builds_dir), ("cache", &reply.cache_dir)] {
            if directory.as_ref().is_some_and(String::is_empty) {
                return Err(configuration(format!("the {name}_dir is not configured")));
            }
        }
        if let Some(shell) = reply.shell.as_deref().filter(|shell| *shell != "bash") {
            return Err(configuration(format!(
                "a rehearsal makes scripts for `bash` only, and the driver asked for `{shell}`"
            )));
        }
        let builds_dir = reply.builds_dir.unwrap_or_else(|| BUILDS_DIR.to_owned());
        let project_path = project_path(build.rehearsal);
        state.project_dir = match reply.builds_dir_is_shared {
            Some(true) => {
                format!("{builds_dir}/{}/{}/{project_path}", state.short_token, state.slot)
            }
            _ => format!("{builds_dir}/{project_path}"),
        };
        state.builds_dir = builds_dir;
        self.job_env = reply
            .job_env
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.unwrap_or_default()))
            .collect();

        let limits = build.limits.within(patience.prepare);
        self.call(&["prepare".into()], &build.variables(state), Stdout::Log, limits, log)
            .map_err(|failure| JobFailure::of(&failure))?;
        Ok(reply.hostname.unwrap_or_default())
    }

    fn call(
        &self,
        stage: &[OsString],
        variables: &[Entry],
        stdout: Stdout,
        limits: Limits<'_>,
        log: &JobLog<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let mut list: Vec<_> =
            variables.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        list.push(("CI_JOB_SERVICES".to_owned(), response::services(self.job, variables)));
        self.driver.call(stage, &self.job_env, &list, stdout, limits, log)
    }

    /// `cleanup`, under limits of its own. Its failure is a warning.
    pub(super) fn cleanup(&self, variables: &[Entry], log: &JobLog<'_>) {
        let deadline = Instant::now() + self.rehearsal.patience.cleanup;
        let limits = Limits::of_cleanup(self.rehearsal.interrupt, deadline);
        if let Err(failure) = self.call(&["cleanup".into()], variables, Stdout::Drop, limits, log) {
            log.say(&format!("WARNING: Cleanup script failed: {}", failure.message()));
        }
    }
}

impl Prepared<'_> {
    /// The directories, with another `CI_JOB_STATUS`.
    pub(super) fn state(&self, status: &'static str) -> BuildState {
        BuildState { status, ..self.state.clone() }
    }

    /// `run <script> <sub-stage>`. Gives the lines that the script carries back.
    pub(super) fn run(
        &self,
        variables: &[Entry],
        sub_stage: &str,
        script: &str,
        limits: Limits<'_>,
        log: &JobLog<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let system = |error: io::Error| Failure::System { message: error.to_string() };
        let directory = tempfile::Builder::new()
            .prefix("script")
            .tempdir_in(self.attempt.directory.path())
            .map_err(system)?
            .keep();
        let file = directory.join("script");
        write_private(&file, script, 0o700).map_err(system)?;
        let stage = ["run".into(), file.into_os_string(), sub_stage.into()];
        let stdout = match sub_stage.starts_with("upload_artifacts") {
            true => Stdout::Carry(CARRIED),
            false => Stdout::Log,
        };
        self.attempt.call(&stage, variables, stdout, limits, log)
    }
}

fn project_path(rehearsal: &Rehearsal<'_>) -> String {
    format!("rehearsal/{}", rehearsal.sources.name)
}

fn write_private(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}
