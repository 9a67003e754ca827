//! What is generated from the command line's definition, and so cannot differ from it: the completions of
//! shells, and the manual pages.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::failure::{Failure, Report};
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Where the pages are written to; made when it is not there
    directory: PathBuf,
}

/// Prints the completions of a shell.
pub(super) fn completions(arguments: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "pointsman", &mut script);
    output::result(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Writes one page for each command.
pub(super) fn man(arguments: &Man) -> Result<(), Failure> {
    let directory = &arguments.directory;
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(definition(), directory))
        .map_err(|error| {
            let mut report = Report::of(&error);
            report.error = format!("cannot write manual pages to {}: {error}", directory.display());
            Failure::System(report)
        })
}

/// Without the facts of this build, which have no place in either.
fn definition() -> Command {
    Cli::command().long_version(None::<&str>)
}
