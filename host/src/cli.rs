//! The command line: what there is to say, and who does it.

mod check;
mod doctor;
mod explain;
mod generated;
mod history;
mod iam_policy;
mod migrate;
mod policy;
mod rehearse;
mod report;
mod schema;
mod sweep;
mod trace;
mod version;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};

use crate::environment::{self, Process, RunnerEnvironment};
use crate::failure::{Failure, Report, guard};
use crate::output;
use crate::settings::{Flags, LogSettings, Settings};
use crate::stages::{self, Context, Stage, Termination};

/// Runs GitLab CI jobs where WebAssembly policies say: a custom executor driver for GitLab Runner
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, long_version = version::text(), propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Reads a command line, the program's name first.
    fn read<A: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments).map_err(|mut error| {
            // Nobody means the hidden names of a letter or two, which everything is like.
            let kind = ContextKind::SuggestedSubcommand;
            let names = match error.get(kind) {
                Some(ContextValue::String(name)) => vec![name.clone()],
                Some(ContextValue::Strings(names)) => names.clone(),
                _ => return error,
            };
            let names: Vec<String> = names.into_iter().filter(|name| name.len() > 2).collect();
            if names.is_empty() {
                error.remove(kind);
            } else {
                error.insert(kind, ContextValue::Strings(names));
            }
            error
        })
    }
}

#[derive(Debug, Args)]
struct Global {
    /// The settings file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/pointsman/pointsman.toml"
    )]
    config: PathBuf,
    /// The profile that decides; may be left out when the file has one
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// Keeps state here instead of in the file's `[state] directory`
    #[arg(long, global = true, value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,
    /// A job's own tags, as JSON, in place of asking GitLab: a rehearsal has no GitLab
    #[arg(long, global = true, hide = true, value_name = "JSON", value_parser = rehearsed_tags)]
    rehearsed_tags: Option<BTreeSet<String>>,
    /// With a file of GitLab's Fargate driver: starts this task definition instead of the file's
    #[arg(long, global = true, value_name = "NAME")]
    task_def: Option<String>,
    /// With a file of GitLab's Fargate driver: this platform version of Fargate instead of the file's
    #[arg(long, global = true, value_name = "VERSION")]
    platform_version: Option<String>,
    #[command(flatten)]
    log: trace::LogArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Stage(StageCommand),
    /// The stages, as GitLab's Fargate driver spells them
    #[command(subcommand)]
    Custom(StageCommand),
    /// Plays a .gitlab-ci.yml through the driver as GitLab Runner would
    Rehearse(rehearse::Arguments),
    /// Installs policies, and what else their authors need
    Policy(policy::Arguments),
    /// Shows where the jobs of a pipeline would go, and why, policy by policy
    Explain(explain::Arguments),
    /// Writes the pointsman.toml that does what files of GitLab's Fargate driver did
    Migrate(migrate::Arguments),
    /// Verifies everything that jobs need of the cloud, and says what to do about what is wrong
    Doctor(doctor::Arguments),
    /// Looks for mistakes in the settings file, its policies and GitLab Runner's file, without the cloud
    Check(check::Arguments),
    /// Prints the IAM policy that the driver's credentials need, told from the settings file
    IamPolicy(iam_policy::Arguments),
    /// Prints the JSON Schema of the settings file, for editors
    Schema(schema::Arguments),
    /// Stops tasks of this manager that are overdue or whose job has ended
    Sweep(sweep::SweepArguments),
    /// Lists the tasks of this manager that run
    Tasks(sweep::TasksArguments),
    /// Lists attempts at jobs: where each ran, who decided, how it ended
    History(history::Arguments),
    /// Sums up what jobs cost, how long they took and what went wrong
    Report(report::Arguments),
    /// Tells the version and how it was built
    Version(version::Arguments),
    /// Writes the completions of a shell to stdout
    Completions(generated::Completions),
    /// Writes the manual pages
    Man(generated::Man),
}

/// The hidden names are those that GitLab's Fargate driver takes as well.
#[derive(Debug, Subcommand)]
enum StageCommand {
    /// Decides where the job runs (called by GitLab Runner)
    #[command(aliases = ["c", "co"])]
    Config,
    /// Launches the task (called by GitLab Runner)
    #[command(alias = "p")]
    Prepare,
    /// Runs one script in the task (called by GitLab Runner)
    #[command(alias = "r")]
    Run {
        /// The script's file
        script: PathBuf,
        /// GitLab Runner's name of it
        sub_stage: String,
    },
    /// Stops the task (called by GitLab Runner)
    #[command(alias = "cl")]
    Cleanup,
}

impl From<StageCommand> for Stage {
    fn from(command: StageCommand) -> Self {
        match command {
            StageCommand::Config => Self::Config,
            StageCommand::Prepare => Self::Prepare,
            StageCommand::Run { script, sub_stage } => Self::Run { script, sub_stage },
            StageCommand::Cleanup => Self::Cleanup,
        }
    }
}

/// Runs the command line `arguments`, the program's name first, and answers its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let environment = RunnerEnvironment::read(&Process);
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &environment),
    };
    if !matches!(cli.command, Command::Stage(_) | Command::Custom(_)) {
        // Stages know what their settings file says of it.
        trace::start(&cli.global.log, &LogSettings::default());
    }
    let (stage, global) = match cli.command {
        Command::Stage(command) | Command::Custom(command) => (Stage::from(command), cli.global),
        Command::Rehearse(arguments) => return rehearse::run(&cli.global, arguments),
        Command::Policy(arguments) => return policy::run(&cli.global, arguments),
        Command::Explain(arguments) => return explain::run(&cli.global, &arguments),
        Command::Migrate(arguments) => {
            return end(guard(|| migrate::run(&arguments)), &environment);
        }
        Command::Doctor(arguments) => {
            let mut code = ExitCode::SUCCESS;
            let ended = guard(|| {
                code = doctor::run(&cli.global, &arguments, &environment)?;
                Ok(())
            });
            return if ended.is_ok() { code } else { end(ended, &environment) };
        }
        Command::IamPolicy(arguments) => return iam_policy::run(&cli.global, arguments),
        Command::Schema(arguments) => return schema::run(&arguments),
        Command::Check(arguments) => return check::run(&cli.global, &arguments),
        Command::Sweep(arguments) => {
            return end(guard(|| sweep::sweep(&cli.global, &arguments)), &environment);
        }
        Command::Tasks(arguments) => {
            return end(guard(|| sweep::tasks(&cli.global, &arguments)), &environment);
        }
        Command::Version(arguments) => {
            return end(guard(|| version::run(&arguments)), &environment);
        }
        Command::Completions(arguments) => {
            return end(guard(|| generated::completions(&arguments)), &environment);
        }
        Command::Man(arguments) => return end(guard(|| generated::man(&arguments)), &environment),
        Command::History(arguments) => {
            return end(guard(|| history::run(&cli.global, &arguments)), &environment);
        }
        Command::Report(arguments) => {
            return end(guard(|| report::run(&cli.global, &arguments)), &environment);
        }
    };
    let termination = Termination::install(&environment);
    let ended = guard(|| {
        if matches!(stage, Stage::Config) {
            // First of all: from here on there may be other threads.
            environment::drop_cloud_credentials();
        }
        let settings = load(&global)?;
        trace::start(&global.log, &settings.log);
        if matches!(stage, Stage::Config | Stage::Prepare) {
            tell_flags(&flags(&global));
        }
        let context = Context {
            settings,
            profile: global.profile.clone(),
            rehearsed_tags: global.rehearsed_tags.clone(),
            environment: environment.clone(),
        };
        stages::run_stage(&stage, &context, &termination)
    });
    end(ended, &environment)
}

fn rehearsed_tags(json: &str) -> Result<BTreeSet<String>, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn end(ended: Result<(), Failure>, environment: &RunnerEnvironment) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.end(environment),
    }
}

/// An empty value says nothing, as for GitLab's Fargate driver.
fn flags(global: &Global) -> Flags {
    let said = |flag: &Option<String>| flag.clone().filter(|value| !value.is_empty());
    Flags {
        task_definition: said(&global.task_def),
        platform_version: said(&global.platform_version),
    }
}

/// The job log shall not leave the file's own names uncontradicted.
fn tell_flags(flags: &Flags) {
    for (flag, value, what) in [
        ("--task-def", &flags.task_definition, "the task starts from the ECS task definition"),
        ("--platform-version", &flags.platform_version, "the task starts on Fargate's version"),
    ] {
        if let Some(value) = value {
            output::note(&format!("By {flag} of this runner's config.toml, {what} `{value}`"));
        }
    }
}

fn load(global: &Global) -> Result<Settings, Failure> {
    let mut settings = Settings::load_with(&global.config, &flags(global))?;
    if let Some(directory) = &global.state_directory {
        settings.state_directory =
            std::path::absolute(directory).map_err(|error| Failure::System(Report::of(&error)))?;
    }
    Ok(settings)
}

/// Help and version are answers; anything else is a mistake in GitLab Runner's config.toml, whose code must
/// not read as the job's own failure.
fn usage(error: &clap::Error, environment: &RunnerEnvironment) -> ExitCode {
    let text = error.render();
    if error.use_stderr() {
        for line in text.to_string().lines() {
            output::note(line);
        }
        return ExitCode::from(environment.system_failure_exit_code);
    }
    output::result(&text.to_string());
    ExitCode::SUCCESS
}
