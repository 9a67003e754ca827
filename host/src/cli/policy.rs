//! `pointsman policy …`: for whoever writes policies, and for whoever installs them.

mod sync;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Global;
use crate::failure::{Failure, guard};

/// Where a command did not do what it was asked for.
const FAILED: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs the policies that the settings file names: fetched, checked, compiled
    Sync(sync::Arguments),
}

/// Runs the command, and answers 0 when it did what it was asked for.
pub(super) fn run(global: &Global, arguments: Arguments) -> ExitCode {
    let mut succeeded = false;
    let ended = guard(|| {
        succeeded = match arguments.command {
            Command::Sync(arguments) => sync::run(global, &arguments)?,
        };
        Ok(())
    });
    match ended {
        Ok(()) if succeeded => ExitCode::SUCCESS,
        Ok(()) | Err(Failure::Script(_)) => ExitCode::from(FAILED),
        Err(Failure::System(report) | Failure::Build(report)) => {
            report.print();
            ExitCode::from(FAILED)
        }
    }
}
