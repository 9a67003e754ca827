//! The four stages of GitLab Runner's custom executor, which join parts that do not know each other.
//!
//! Each stage is a process of its own. What they share is the attempt in the state directory.

pub mod cleanup;
pub mod config;
mod facts;
mod journal;
pub(crate) mod launch;
mod loss;
pub mod prepare;
pub mod run;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::backend;
use crate::environment::RunnerEnvironment;
use crate::failure::{Failure, Report};
use crate::settings::{Cluster, Profile, Settings, SshTimes};
use crate::spelling;
use crate::state::{Attempt, AttemptId, State};

/// What every stage starts from.
#[derive(Debug)]
pub struct Context {
    /// The checked settings file.
    pub settings: Settings,
    /// `--profile`
    pub profile: Option<String>,
    /// `--rehearsed-tags`: what GitLab would answer, where there is none to ask.
    pub rehearsed_tags: Option<BTreeSet<String>>,
    /// What GitLab Runner said.
    pub environment: RunnerEnvironment,
}

impl Context {
    /// The bytes of the job response file.
    fn job_response(&self) -> Result<Vec<u8>, Failure> {
        let Some(path) = &self.environment.job_response_file else {
            let report = Report::new("JOB_RESPONSE_FILE is not set")
                .hint("the stages are called by GitLab Runner; try `pointsman rehearse` by hand");
            return Err(Failure::System(report));
        };
        std::fs::read(path).map_err(|error| {
            let mut report = Report::new("the job response file of GitLab Runner cannot be read");
            report.causes = vec![format!("{}: {error}", path.display())];
            Failure::System(report)
        })
    }

    /// The profile that `--profile` names; without it, the file's only one.
    fn profile(&self) -> Result<(&str, &Profile), Failure> {
        let profiles = &self.settings.profiles;
        let names = || profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match &self.profile {
            Some(name) => profiles
                .get_key_value(name)
                .map(|(name, profile)| (name.as_str(), profile))
                .ok_or_else(|| {
                    let mut report =
                        Report::new(format!("the settings file has no profile `{name}`"));
                    let near = spelling::nearest(name, profiles.keys().map(String::as_str));
                    report.hints.extend(near.map(|near| format!("did you mean `{near}`?")));
                    Failure::System(report.hint(format!("it has: {}", names())))
                }),
            None if profiles.len() == 1 => Ok(profiles
                .iter()
                .next()
                .map(|(name, profile)| (name.as_str(), profile))
                .ok_or_else(|| Failure::system("the settings file has no profile"))?),
            None => {
                let report = Report::new("which profile decides is not said");
                Err(Failure::System(report.hint(format!(
                    "add `--profile NAME` to the stage's arguments in config.toml; the file has: {}",
                    names()
                ))))
            }
        }
    }

    fn state(&self) -> Result<State, Failure> {
        Ok(State::open(&self.settings.state_directory)?)
    }

    /// The attempt that `config` handed over in `job_env`.
    fn attempt_id(&self) -> Result<Option<AttemptId>, Failure> {
        Ok(self.environment.attempt.as_deref().map(AttemptId::parse).transpose()?)
    }

    /// The same, where the stage is senseless without one.
    fn attempt(&self, state: &State) -> Result<Attempt, Failure> {
        let Some(id) = self.attempt_id()? else {
            let report = Report::new("no attempt was handed over by the `config` stage")
                .hint("set config_exec and config_args in config.toml: the driver decides there");
            return Err(Failure::System(report));
        };
        Ok(state.load(&id)?)
    }

    fn cluster(&self, name: &str) -> Result<&Cluster, Failure> {
        self.settings.clusters.get(name).ok_or_else(|| {
            let report = Report::new(format!("the cluster `{name}` is no longer in the settings"));
            Failure::System(report.hint("keep a cluster in the file until its jobs have ended"))
        })
    }
}

/// SIGTERM, which GitLab Runner sends to end any stage.
///
/// Until somebody listens, it ends the process with the system-failure code: dying of the signal would
/// read as an unknown failure, exit code 0 as a successful stage.
#[derive(Debug)]
pub struct Termination {
    exits: Arc<AtomicBool>,
}

impl Termination {
    /// Takes SIGTERM over for the whole process.
    pub fn install(environment: &RunnerEnvironment) -> Self {
        let exits = Arc::new(AtomicBool::new(true));
        let code = i32::from(environment.system_failure_exit_code);
        // It can only fail for signals that cannot be caught.
        let _ = signal_hook::flag::register_conditional_shutdown(
            signal_hook::consts::SIGTERM,
            code,
            Arc::clone(&exits),
        );
        Self { exits }
    }

    /// From now on the future that this gives is told, and nothing exits by itself.
    fn listen(&self) -> Result<impl Future<Output = ()> + use<>, Failure> {
        let mut stream =
            signal(SignalKind::terminate()).map_err(|error| Failure::System(Report::of(&error)))?;
        self.exits.store(false, Ordering::SeqCst);
        Ok(async move {
            stream.recv().await;
        })
    }
}

/// How long a stage goes on after SIGTERM at most.
pub fn after_sigterm(ssh: &SshTimes) -> Duration {
    // A request that is under way is not given up: it would stay open whether there is a task.
    let prepare = backend::ecs::CALL_TIMEOUT + prepare::STOP_TIMEOUT;
    // From SIGTERM to SIGKILL in the task, and what is left to say on both sides.
    let run = ssh.stop_grace + Duration::from_secs(10);
    prepare.max(run).max(cleanup::AFTER_SIGTERM)
}

/// What a stage is asked to run.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Decide.
    Config,
    /// Launch.
    Prepare,
    /// Execute one script.
    Run {
        /// A file on this machine.
        script: PathBuf,
        /// GitLab Runner's name of it, such as `build_script`. All are run alike.
        sub_stage: String,
    },
    /// Release.
    Cleanup,
}

impl Stage {
    /// As GitLab Runner calls it.
    const fn name(&self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Prepare => "prepare",
            Self::Run { .. } => "run",
            Self::Cleanup => "cleanup",
        }
    }
}

/// Runs `stage`.
///
/// # Errors
///
/// Returns what ended it.
pub fn run_stage(
    stage: &Stage,
    context: &Context,
    termination: &Termination,
) -> Result<(), Failure> {
    journal::kept(stage, context, || carry_out(stage, context, termination))
}

fn carry_out(stage: &Stage, context: &Context, termination: &Termination) -> Result<(), Failure> {
    match stage {
        Stage::Config => config::config(context),
        Stage::Prepare => block_on(prepare::prepare(context, termination)),
        Stage::Run { script, sub_stage } => {
            block_on(run::run(context, termination, script, sub_stage))
        }
        Stage::Cleanup => block_on(cleanup::cleanup(context, termination)),
    }
}

/// In one thread: a stage waits for one task or moves one script's bytes.
fn block_on(stage: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::System(Report::of(&error)))?;
    runtime.block_on(stage)
}
