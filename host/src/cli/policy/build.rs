//! `pointsman policy build` on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Cache;
use crate::authoring::build::{Build, Engine, Toolchain, build};
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
    /// What JavaScript runs on [default: `pointsman.engine` of package.json, or else quickjs]
    #[arg(long, value_enum)]
    engine: Option<JsEngine>,
    /// What compiles Rust [default: the first that this machine has]
    #[arg(long, value_enum)]
    toolchain: Option<RustToolchain>,
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RustToolchain {
    /// The one that `rustc` is, with the target wasm32-unknown-unknown
    Current,
    /// Debian's packages, which build the standard library as well
    Debian,
}

pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let cache = arguments.cache.directory()?;
    let built = build(&Build {
        project: &arguments.project,
        output: arguments.output.as_deref(),
        cache: &cache,
        target: arguments.target_dir.as_deref(),
        engine: arguments.engine.map(|engine| match engine {
            JsEngine::Quickjs => Engine::QuickJs,
            JsEngine::Starlingmonkey => Engine::StarlingMonkey,
        }),
        toolchain: arguments.toolchain.map(|toolchain| match toolchain {
            RustToolchain::Current => Toolchain::Current,
            RustToolchain::Debian => Toolchain::Debian,
        }),
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
