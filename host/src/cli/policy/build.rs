//! `pointsman policy build` on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Cache;
use crate::authoring::build::{Build, Engine, build};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The project
    #[arg(default_value = ".")]
    project: PathBuf,
    /// Writes the component here [default: NAME.wasm in the project]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Cargo's target directory, for projects that share one
    #[arg(long, value_name = "DIRECTORY")]
    target_dir: Option<PathBuf>,
    /// What JavaScript runs on
    #[arg(long, value_enum, default_value_t = JsEngine::Quickjs)]
    engine: JsEngine,
    #[command(flatten)]
    cache: Cache,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum JsEngine {
    /// Small: about 2 MB, compiled in seconds
    Quickjs,
    /// SpiderMonkey: about 12 MB
    Starlingmonkey,
}

pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let cache = arguments.cache.directory()?;
    let built = build(&Build {
        project: &arguments.project,
        output: arguments.output.as_deref(),
        cache: &cache,
        target: arguments.target_dir.as_deref(),
        engine: match arguments.engine {
            JsEngine::Quickjs => Engine::QuickJs,
            JsEngine::Starlingmonkey => Engine::StarlingMonkey,
        },
        progress: &output::note,
    })?;
    output::result(&format!(
        "{}\n  world   {}\n  size    {} KiB\n  sha256  {}\n",
        built.path.display(),
        built.world,
        built.bytes.div_ceil(1024),
        built.sha256
    ));
    Ok(true)
}
