//! `pointsman policy new` on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::authoring::project::{self, Language};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The policy's name: lower-case letters, digits and dashes
    name: String,
    /// What it is written in
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,
    /// Makes the project here [default: a directory of the policy's name]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Lang {
    /// Small and fast; needs a Rust toolchain
    Rust,
    /// On QuickJS; needs Node.js
    Js,
    /// On CPython, 18 MB; needs Python
    Python,
}

pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let language = match arguments.lang {
        Lang::Rust => Language::Rust,
        Lang::Js => Language::JavaScript,
        Lang::Python => Language::Python,
    };
    let directory = arguments.directory.clone().unwrap_or_else(|| PathBuf::from(&arguments.name));
    project::create(&directory, &arguments.name, language)?;
    output::result(&format!(
        "{} is ready; its README.md says what to do next.\n",
        directory.display()
    ));
    Ok(true)
}
