//! `pointsman schema` on the command line.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::policy::pretty;
use crate::failure::{Failure, guard};
use crate::output;
use crate::settings::description::{reference, schema};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON Schema
    Json,
    /// The reference for people, docs/configuration.md
    Markdown,
}

/// Prints the description of the settings file.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let ended = guard(|| {
        output::result(&match arguments.format {
            Format::Json => format!("{}\n", pretty(&schema::schema())?),
            Format::Markdown => reference::markdown(),
        });
        Ok(())
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::System(report) | Failure::Build(report)) => {
            report.print();
            ExitCode::FAILURE
        }
        Err(Failure::Script(_)) => ExitCode::FAILURE,
    }
}
