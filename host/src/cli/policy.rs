//! `pointsman policy …`: for whoever writes policies, and for whoever installs them.

mod bench;
mod build;
mod inspect;
mod new;
mod push;
mod replay;
mod sync;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(super) use self::inspect::{Format, pretty};
use super::Global;
use crate::authoring::AuthoringError;
use crate::environment::{self, Process};
use crate::failure::{Failure, Report, guard};
use crate::policy::Store;

/// Where a command did not do what it was asked for.
const FAILED: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a project for a policy, with fixtures and a test
    New(new::Arguments),
    /// Builds a project's component
    Build(build::Arguments),
    /// Plays fixtures on a component
    Test(test::Arguments),
    /// Tells what a component is, imports and exports
    Inspect(inspect::Arguments),
    /// Measures a decision in a process of its own
    Bench(bench::Arguments),
    /// Installs the policies that the settings file names: fetched, checked, compiled
    Sync(sync::Arguments),
    /// Decides recorded jobs again, with another policy or other settings
    Replay(replay::Arguments),
    /// Puts a component into a registry and prints what to pin
    Push(push::Arguments),
}

/// Runs the command, and answers 0 when it did what it was asked for.
pub(super) fn run(global: &Global, arguments: Arguments) -> ExitCode {
    let mut succeeded = false;
    let ended = guard(|| {
        succeeded = match arguments.command {
            Command::New(arguments) => new::run(&arguments)?,
            Command::Build(arguments) => build::run(&arguments)?,
            Command::Test(arguments) => test::run(&arguments)?,
            Command::Inspect(arguments) => inspect::run(&arguments)?,
            Command::Bench(arguments) => bench::run(&arguments)?,
            Command::Sync(arguments) => sync::run(global, &arguments)?,
            Command::Replay(arguments) => replay::run(global, &arguments)?,
            Command::Push(arguments) => push::run(&arguments)?,
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

/// Where the tools keep what they can make again.
#[derive(Debug, Args)]
pub(super) struct Cache {
    /// Keeps compiled policies and tools here [default: ~/.cache/pointsman]
    #[arg(long = "cache", value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl Cache {
    pub(super) fn directory(&self) -> Result<PathBuf, Failure> {
        let directory = match &self.directory {
            Some(directory) => Some(directory.clone()),
            None => environment::cache_directory(&Process),
        };
        let directory = directory.ok_or_else(|| {
            Failure::system("there is no home directory to keep compiled policies in")
                .hint("name a directory with --cache DIRECTORY")
        })?;
        std::path::absolute(&directory).map_err(|error| Failure::System(Report::of(&error)))
    }

    pub(super) fn store_at(&self) -> Result<PathBuf, Failure> {
        Ok(self.directory()?.join("policies"))
    }

    pub(super) fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.store_at()?)?)
    }
}

impl From<AuthoringError> for Failure {
    fn from(error: AuthoringError) -> Self {
        match error {
            AuthoringError::Policy(error) => error.into(),
            AuthoringError::Store(error) => error.into(),
            error => {
                // A compiler's words are lines, and each shall stay one.
                let mut report = Report::of(&error);
                let text = report.error.clone();
                let mut lines = text.lines().map(str::to_owned);
                report.error = lines.next().unwrap_or_default();
                report.causes.splice(0..0, lines);
                Self::System(report)
            }
        }
    }
}

/// Columns as wide as they need to be, two spaces between them.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["lang".to_owned(), "ü".to_owned()]];
        assert_eq!(table(&rows), "a     b\nlang  ü\n");
        assert_eq!(table(&[]), "");
    }
}
