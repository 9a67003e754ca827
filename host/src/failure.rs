//! What ends a stage, how it is worded, and the exit code it gives: the only place for all three.
//!
//! GitLab Runner knows two codes, which it names in the environment (executors/custom/api/const.go). A
//! *build failure* is the job's own doing and is final; a *system failure* is not, and `prepare` is tried
//! again. Any other code reads as unknown.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;

use crate::backend::BackendError;
use crate::environment::RunnerEnvironment;
use crate::job::response::ResponseError;
use crate::output;
use crate::policy::{PolicyError, StoreError};
use crate::settings::SettingsError;
use crate::ssh::{NotReady, RunError};
use crate::state::StateError;

/// Why a stage did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The job's script ended with this status. Its own output has said why.
    Script(i32),
    /// The job asks for what it cannot have.
    Build(Report),
    /// Infrastructure, settings or the driver itself.
    System(Report),
}

/// What is printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub error: String,
    /// The chain behind it, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
}

impl Report {
    /// Words `error` with all its sources.
    pub fn of(error: &dyn Error) -> Self {
        let mut causes: Vec<String> = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text.
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            next = cause.source();
        }
        Self { error: error.to_string(), causes, hints: Vec::new() }
    }

    /// A report of plain words.
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), ..Self::default() }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Prints it to stderr, each line on its own.
    pub fn print(&self) {
        output::note(&format!("Error: {}", self.error));
        for cause in &self.causes {
            output::note(&format!("  caused by: {cause}"));
        }
        for hint in &self.hints {
            output::note(&format!("  hint: {hint}"));
        }
    }
}

impl Failure {
    /// A system failure of plain words.
    pub fn system(error: impl Into<String>) -> Self {
        Self::System(Report::new(error))
    }

    /// Adds what to do, where something is printed at all.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Script(status) => Self::Script(status),
            Self::Build(report) => Self::Build(report.hint(hint)),
            Self::System(report) => Self::System(report.hint(hint)),
        }
    }

    /// Prints the failure, tells the runner its number, and answers the exit code.
    pub fn end(&self, environment: &RunnerEnvironment) -> ExitCode {
        let (report, status) = match self {
            Self::Script(status) => (None, Some(*status)),
            Self::Build(report) => (Some(report), Some(1)),
            Self::System(report) => (Some(report), None),
        };
        if let Some(report) = report {
            report.print();
        }
        let Some(status) = status else {
            return ExitCode::from(environment.system_failure_exit_code);
        };
        // On every build failure: the runner never removes the file, so an old number would be reported.
        if let Some(path) = &environment.build_exit_code_file
            && let Err(error) = write_exit_code(path, status)
        {
            let report = Report::of(&error).hint("the job's exit code was not passed on");
            report.print();
            return ExitCode::from(environment.system_failure_exit_code);
        }
        ExitCode::from(environment.build_failure_exit_code)
    }
}

/// By rename: an empty or half-written file would turn the result into a system failure.
fn write_exit_code(path: &Path, status: i32) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "{status}")?;
    file.persist(path)?;
    Ok(())
}

/// Runs `stage`; a panic in it is a system failure like any other, with a message.
pub fn guard(stage: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    panic::set_hook(Box::new(|panic| {
        let mut line = String::from("Error: this is a bug in Pointsman, not in the job: ");
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        line.push_str(message.unwrap_or("no message"));
        if let Some(location) = panic.location() {
            let _ = write!(line, " ({}:{})", location.file(), location.line());
        }
        output::note(&line);
    }));
    panic::catch_unwind(AssertUnwindSafe(stage)).unwrap_or_else(|_| {
        let report = Report::new("the stage ended by a panic")
            .hint("please report it with the lines above and `pointsman --version`");
        Err(Failure::System(report))
    })
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let mut report = Report::of(&error);
        match &error {
            SettingsError::Read { .. } => {
                report = report.hint("name the file with --config FILE");
            }
            SettingsError::Flag { .. } => {
                report = report.hint("take it out of the stage's arguments in config.toml, and set the value in the file");
            }
            SettingsError::Mistakes { problems, .. } => {
                report.causes = problems.iter().map(ToString::to_string).collect();
            }
        }
        Self::System(report)
    }
}

impl From<ResponseError> for Failure {
    fn from(error: ResponseError) -> Self {
        let mut report = Report::new("the job response file of GitLab Runner cannot be used");
        report.causes = vec![error.to_string()];
        Self::System(
            report.hint("GitLab Runner writes it before `config`; look at the runner's own log"),
        )
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let report = Report::of(&error);
        Self::System(match error {
            StateError::Unknown(_) | StateError::Foreign { .. } => report.hint(
                "`[state] directory` (in a file of GitLab's Fargate driver `[TaskMetadata] Directory`) must be the same for all stages and live as long as the jobs",
            ),
            StateError::Io { .. } => {
                report.hint("look at `[state] directory` (in a file of GitLab's Fargate driver `[TaskMetadata] Directory`): its owner, its mode and its free space")
            }
            StateError::BadId(_) => report,
        })
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let report = Report::of(&error);
        Self::System(match error.hint {
            Some(hint) => report.hint(hint),
            None => report,
        })
    }
}

impl From<NotReady> for Failure {
    fn from(error: NotReady) -> Self {
        Self::System(Report::of(&error).hint(error.last.hint()))
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        let mut report = Report::of(&error);
        match error {
            // What the job asks for is not to be had: trying again would not help.
            PolicyError::Rejected { reasons } => {
                report = Report::new("no placement is allowed for this job");
                for reason in reasons {
                    let (policy, code) = (reason.policy, reason.code);
                    report.causes.push(format!("policy {policy}: {} ({code})", reason.message));
                    report.hints.extend(reason.hint);
                }
                Self::Build(report)
            }
            PolicyError::NobodyAnswered { profile, .. } => {
                let hint = format!("end `policies` of [profiles.{profile}] with one that always answers");
                Self::System(report.hint(hint))
            }
            PolicyError::Broken { policy, .. } => {
                let hint = format!("this is the policy's fault, not the job's: tell whoever maintains `{policy}`");
                Self::System(report.hint(hint))
            }
            PolicyError::Settings { policy, problems } => {
                report = Report::new(format!("the settings of policy `{policy}` are wrong"));
                report.causes = problems;
                Self::System(report.hint(format!("correct [policies.{policy}.settings]")))
            }
            PolicyError::Store { policy, source } => Self::System(match &source {
                StoreError::Digest { .. } => report.hint(format!(
                    "if the component is meant to be another one, set `sha256` of [policies.{policy}]"
                )),
                StoreError::Component { .. } => {
                    report.hint(format!("look at `component` of [policies.{policy}]"))
                }
                StoreError::NotInstalled { .. } => report.hint(
                    "an operator has to run `pointsman policy sync`: jobs fetch nothing from a registry",
                ),
                StoreError::Unsafe { .. } | StoreError::Io { .. } | StoreError::Runtime(_) => report,
            }),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::System(Report::of(&error))
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let report = Report::of(&error);
        Self::System(match &error {
            RunError::NotResumed { last, .. } => report.hint(last.hint()),
            RunError::Forgotten => report.hint("the script was not run a second time; retry the job"),
            RunError::Protocol(_) => {
                report.hint("driver and agent must be of the same version: put the driver's agent into the image")
            }
            RunError::ConnectionLost
            | RunError::Refused
            | RunError::Agent(_)
            | RunError::Script(_) => report,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(directory: &Path) -> RunnerEnvironment {
        RunnerEnvironment {
            build_failure_exit_code: 21,
            system_failure_exit_code: 22,
            build_exit_code_file: Some(directory.join("build_exit_code")),
            job_response_file: None,
            attempt: None,
        }
    }

    #[test]
    fn a_build_failure_writes_its_number_over_an_older_one() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(directory.path());
        let written = || std::fs::read_to_string(directory.path().join("build_exit_code")).unwrap();
        assert_eq!(Failure::Script(137).end(&environment), ExitCode::from(21));
        assert_eq!(written(), "137\n");
        assert_eq!(Failure::Build(Report::new("no")).end(&environment), ExitCode::from(21));
        assert_eq!(written(), "1\n");
    }

    #[test]
    fn a_system_failure_leaves_the_number_alone() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(directory.path());
        assert_eq!(Failure::system("no").end(&environment), ExitCode::from(22));
        assert!(!directory.path().join("build_exit_code").exists());
    }

    #[test]
    fn a_number_that_cannot_be_passed_on_is_a_system_failure() {
        let environment = environment(Path::new("/nonexistent"));
        assert_eq!(Failure::Script(3).end(&environment), ExitCode::from(22));
    }

    #[test]
    fn a_panic_is_a_system_failure() {
        assert!(matches!(guard(|| panic!("boom")), Err(Failure::System(_))));
    }
}
