//! `pointsman rehearse` on the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Global, load};
use crate::environment;
use crate::failure::{Failure, Report, guard};
use crate::output;
use crate::rehearse::pipeline::PipelineError;
use crate::rehearse::{
    Backend, Interrupt, Options, Patience, ProjectVariable, RehearseError, rehearse,
};
use crate::secret::Secret;

/// Where the pipeline did not succeed.
const PIPELINE_FAILED: u8 = 1;

/// Where there was no rehearsal.
const NOT_REHEARSED: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The pipeline
    #[arg(default_value = ".gitlab-ci.yml")]
    pipeline: PathBuf,
    /// Plays only this job; may be given several times
    #[arg(long = "job", value_name = "NAME")]
    jobs: Vec<String>,
    /// How many jobs run side by side
    #[arg(long, value_name = "N", default_value_t = 4)]
    concurrent: usize,
    /// The sources that jobs check out [default: the pipeline's directory]
    #[arg(long, value_name = "DIRECTORY")]
    repository: Option<PathBuf>,
    /// A variable as if set in the project's settings; may be given several times
    #[arg(long = "variable", value_name = "KEY=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Starts tasks on the clusters of the settings instead of simulated ones; they cost money
    #[arg(long)]
    as_configured: bool,
    /// How the run goes on the simulated ECS (TOML): faults and capacity over time, latencies, speed of time
    #[arg(long, value_name = "FILE", conflicts_with = "as_configured")]
    scenario: Option<PathBuf>,
    /// How the report is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people
    Text,
    /// One JSON object on stdout; the jobs' logs go to stderr
    Json,
}

fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

/// Rehearses, and answers 0 when the pipeline succeeded.
pub(super) fn run(global: &Global, arguments: Arguments) -> ExitCode {
    let mut succeeded = false;
    let ended = guard(|| {
        succeeded = play(global, arguments)?;
        Ok(())
    });
    match ended {
        Ok(()) if succeeded => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(PIPELINE_FAILED),
        Err(Failure::System(report) | Failure::Build(report)) => {
            report.print();
            ExitCode::from(NOT_REHEARSED)
        }
        Err(Failure::Script(_)) => ExitCode::from(NOT_REHEARSED),
    }
}

fn play(global: &Global, arguments: Arguments) -> Result<bool, Failure> {
    let system = |error: std::io::Error| Failure::System(Report::of(&error));
    let settings = load(global)?;
    // Without a directory of its own a rehearsal would mix its records with a runner manager's.
    let own = tempfile::Builder::new().prefix("pointsman-state").tempdir().map_err(system)?;
    let state_directory = match &global.state_directory {
        Some(directory) => directory.clone(),
        None if arguments.as_configured => settings.state_directory.clone(),
        None => own.path().to_owned(),
    };
    let interrupt = Interrupt::on_signals().map_err(system)?;
    let json = arguments.format == Format::Json;
    let options = Options {
        pipeline: arguments.pipeline,
        settings_path: global.config.clone(),
        settings: &settings,
        driver: std::env::current_exe().map_err(system)?,
        state_directory,
        concurrent: arguments.concurrent,
        backend: if arguments.as_configured { Backend::AsConfigured } else { Backend::Simulator },
        scenario: arguments.scenario,
        only: arguments.jobs,
        repository: arguments.repository,
        variables: arguments
            .variables
            .into_iter()
            .map(|(key, value)| ProjectVariable {
                key,
                value: Secret::new(value),
                masked: false,
                file: false,
            })
            .collect(),
        environment: environment::all(),
        colour: !json && output::takes_colour(),
        patience: Patience::default(),
        interrupt,
    };
    let mut log = output::stream(json);
    let report = rehearse(&options, &mut log).map_err(|error| {
        let mut report = Report::of(&error);
        if let RehearseError::Pipeline(PipelineError::Mistakes { problems, .. }) = &error {
            report.causes = problems.iter().map(ToString::to_string).collect();
        }
        Failure::System(report)
    })?;
    if json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::System(Report::of(&error)))?;
        output::result(&format!("{text}\n"));
    } else {
        output::result(&format!("\n{report}"));
    }
    Ok(report.success)
}
